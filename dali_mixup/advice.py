"""Warnings about settings that work but often disappoint. Each says what to do instead.

Silence all of them with ``warnings.simplefilter("ignore", MixupWarning)``.
"""

from __future__ import annotations

import math
import os
import sys
import warnings
from typing import Any

LARGE_ALPHA = 0.5
_SURELY = 20.0  # e**-20 is the chance that labels of all classes look like the ones seen


class MixupWarning(UserWarning):
    """The base class of all warnings of this package."""


class UnderfittingWarning(MixupWarning):
    """Mixup's alpha is above 0.5 together with label smoothing or strong colour augmentation.

    Zhang et al., "mixup", ICLR 2018, section 3.1: on ImageNet alpha in [0.1, 0.4] helps and a large
    alpha underfits. He et al., "Bag of Tricks", CVPR 2019, section 5: with alpha 0.2 and smoothed
    labels, networks needed 200 epochs instead of 120.
    """


class NothingMixedWarning(MixupWarning):
    """The settings leave every batch as it is."""


class NumClassesWarning(MixupWarning):
    """The class ids of a whole epoch stay far below `num_classes`.

    Classes that never occur still get their share of label smoothing, and of the loss.
    """


class DoubleSmoothingWarning(MixupWarning):
    """Labels are smoothed twice, in `Mixup` and in the loss.

    Smoothing twice by s equals smoothing once by ``2s - s**2``. Szegedy et al., "Rethinking the
    Inception Architecture", CVPR 2016, section 7, smooths once, by 0.1.
    """


def advise_settings(
    alpha: float, cutmix_alpha: float, prob: float, label_smoothing: float, *, stacklevel: int
) -> None:
    """Warn about a Mixup's settings."""
    if not (prob and (alpha or cutmix_alpha)):
        warnings.warn(
            f"alpha={alpha}, cutmix_alpha={cutmix_alpha}, prob={prob}: nothing will be mixed; set "
            "one of the alphas (0.2 is usual), or take mixup.for_validation() where that is meant",
            NothingMixedWarning,
            stacklevel=stacklevel + 1,
        )
    if alpha > LARGE_ALPHA and label_smoothing:
        _warn_of_underfitting(alpha, f"label_smoothing={label_smoothing}", stacklevel + 1)


def advise_augmentation(alpha: float, pipelines: Any, *, stacklevel: int) -> None:
    """Warn about a large alpha behind pipelines of ours with RandAugment."""
    if alpha > LARGE_ALPHA and any(getattr(pipe, "randaugment", None) for pipe in pipelines):
        _warn_of_underfitting(alpha, "RandAugment", stacklevel + 1)


def _warn_of_underfitting(alpha: float, beside: str, stacklevel: int) -> None:
    warnings.warn(
        f"alpha={alpha} beside {beside}: models tend to underfit above {LARGE_ALPHA}; take alpha "
        "0.2 to 0.4 or one regulariser less, or train longer, and watch training and validation "
        "accuracy side by side",
        UnderfittingWarning,
        stacklevel=stacklevel + 1,
    )


def _processes() -> int:
    distributed = sys.modules.get("torch.distributed")
    if distributed is not None and distributed.is_available() and distributed.is_initialized():
        return int(distributed.get_world_size())
    return int(os.environ.get("WORLD_SIZE", "1"))


class LabelsSeen:
    """The class ids of one epoch, as far as they are in the host's memory."""

    def __init__(self) -> None:
        self.count = 0
        self.largest = 0

    def add(self, labels: Any) -> None:
        """Take a batch's labels, an array or a tensor; dense ones and a GPU's tell nothing."""
        dense = labels.ndim == 2 and labels.shape[1] > 1
        if dense or getattr(labels, "is_cuda", False) or not len(labels):
            return
        self.count += len(labels)
        self.largest = max(self.largest, int(labels.max()))

    def advise(self, num_classes: int, *, stacklevel: int) -> None:
        """Warn if labels of `num_classes` equally frequent classes would not look like this.

        Not where several processes share the data: one may see a part of the classes.
        """
        if _processes() == 1 and self.count * math.log(num_classes / (self.largest + 1)) > _SURELY:
            warnings.warn(
                f"num_classes={num_classes}, and the largest of {self.count} class ids in an "
                f"epoch was {self.largest}: expected num_classes={self.largest + 1}",
                NumClassesWarning,
                stacklevel=stacklevel + 1,
            )
