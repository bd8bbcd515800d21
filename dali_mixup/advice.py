"""Warnings about settings that work but often disappoint. Each says what to do instead.

Silence all of them with ``warnings.simplefilter("ignore", MixupWarning)``.
"""

from __future__ import annotations

import math
import os
import sys
import warnings
from typing import Any

import numpy as np

from dali_mixup.dtypes import is_float, is_integer

LARGE_ALPHA = 0.5
LARGE_BATCH = 1 << 20  # values, seven images of 224 x 224 x 3
SPREAD = (0.3, 15)  # of pixels, in standard deviations; 0 to 255 in ImageNet's is 4.4
_SURELY = 20.0  # e**-20 is the chance that labels of all classes look like the ones seen


class MixupWarning(UserWarning):
    """The base class of all warnings of this package."""


class UnderfittingWarning(MixupWarning):
    """Mixup alone, with alpha above 0.5, label smoothing and strong augmentation in the pipeline.

    Zhang et al., "mixup", ICLR 2018, section 3.1: on ImageNet alpha in [0.1, 0.4] helps and a large
    alpha underfits. He et al., "Bag of Tricks", CVPR 2019, section 5: with alpha 0.2 and smoothed
    labels, networks needed 200 epochs instead of 120. Not issued with CutMix beside mixup, as DeiT
    and Swin train, and only where the pipeline is one of ``image_pipeline``.
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


class NormalizationWarning(MixupWarning):
    """``OutputFormat(mean, std)`` does not fit the images: normalised already, or other units."""


class UnshardedLoaderWarning(MixupWarning):
    """Each of several processes reads all of the data: a DataLoader has no distributed sampler."""


class CopiedMixupWarning(MixupWarning):
    """A Mixup was copied to another process, where it draws what it draws in all others."""


class BypassedMixingWarning(MixupWarning):
    """A subclass of an iterator takes batches from DALI's iterator, past the mixing."""


class UncompiledWarning(MixupWarning):
    """Large images on the CPU are mixed by plain numpy, which takes many times as long as numba."""


def advise_settings(alpha: float, cutmix_alpha: float, prob: float, *, stacklevel: int) -> None:
    """Warn about a Mixup's settings."""
    if not (prob and (alpha or cutmix_alpha)):
        warnings.warn(
            f"alpha={alpha}, cutmix_alpha={cutmix_alpha}, prob={prob}: nothing will be mixed; set "
            "one of the alphas (0.2 is usual), or take mixup.for_validation() where that is meant",
            NothingMixedWarning,
            stacklevel=stacklevel + 1,
        )


def advise_augmentation(mixup: Any, pipelines: Any, *, stacklevel: int) -> None:
    """Warn about a large alpha beside label smoothing, behind pipelines that augment strongly."""
    with_cutmix = mixup.cutmix_alpha and mixup.switch_prob
    if mixup.alpha <= LARGE_ALPHA or with_cutmix or not mixup.label_smoothing:
        return
    strong = filter(None, (getattr(pipe, "strong_augmentation", None) for pipe in pipelines))
    if found := next(strong, None):
        warnings.warn(
            f"alpha={mixup.alpha} beside label_smoothing={mixup.label_smoothing} and "
            f"{found}: mixup alone tends to underfit above {LARGE_ALPHA}; "
            "take alpha 0.2 to 0.4, or cutmix_alpha=1.0 beside it, or one regulariser less, and "
            "watch training and validation accuracy side by side",
            UnderfittingWarning,
            stacklevel=stacklevel + 1,
        )


def advise_normalization(images: Any, output: Any, *, stacklevel: int) -> None:
    """Warn if float images cannot be pixels in the units of `output`'s mean and std.

    They would spread far less or far more than one standard deviation: they are normalised already,
    or in 0 to 1 where mean and std are in 0 to 255, or the other way round.
    """
    if output is None or not output.normalizes or not len(images) or _is_capturing(images):
        return
    if not is_float(images):
        return
    low, high = float(images.min()), float(images.max())
    std = min(output.std) if isinstance(output.std, tuple) else output.std or 1.0
    if low < high and not SPREAD[0] < (high - low) / std < SPREAD[1]:
        warnings.warn(
            f"mean={output.mean}, std={output.std}: the images are floats from {low:.3g} to "
            f"{high:.3g}, which are normalised already or in other units; normalise them once, in "
            "OutputFormat or in the pipeline, with mean and std in the units of the images",
            NormalizationWarning,
            stacklevel=stacklevel + 1,
        )


def _is_capturing(images: Any) -> bool:
    """Whether a CUDA graph is captured, in which no value can be asked for."""
    return getattr(images, "is_cuda", False) and bool(
        sys.modules["torch"].cuda.is_current_stream_capturing()
    )


def advise_sharding(loader: Any, *, stacklevel: int) -> None:
    """Warn if several processes iterate over a torch DataLoader that does not shard its data."""
    data = sys.modules.get("torch.utils.data")
    if data is None or type(loader) is not data.DataLoader or _processes() == 1:
        return
    if type(loader.sampler) in (data.SequentialSampler, data.RandomSampler):
        warnings.warn(
            f"the DataLoader has no distributed sampler, so that each of {_processes()} processes "
            "reads all of the data; give it a DistributedSampler, or wrap what "
            "accelerator.prepare(dataloader) returns",
            UnshardedLoaderWarning,
            stacklevel=stacklevel + 1,
        )


def advise_compiling(obstacle: str, values: int, *, stacklevel: int) -> None:
    """Warn about a batch of so many values that numpy mixes, because of this obstacle."""
    if values >= LARGE_BATCH:
        warnings.warn(
            f"{obstacle}: images on the CPU are mixed by plain numpy, which gives the same bits "
            "and takes many times as long; pip install --upgrade numba",
            UncompiledWarning,
            stacklevel=stacklevel + 1,
        )


def advise_process(*, stacklevel: int) -> None:
    """Warn where a Mixup draws in a process to which it was copied."""
    warnings.warn(
        "the Mixup was made in another process, and all processes that have a copy draw the same "
        "plans; mix in the main process or in the workers of a torch DataLoader, or make a Mixup "
        "with another seed or rank in each process",
        CopiedMixupWarning,
        stacklevel=stacklevel + 1,
    )


def advise_subclass(iterator: type, *, stacklevel: int) -> None:
    """Warn if a method of a subclass names what gives batches that are not mixed."""
    for name, member in vars(iterator).items():
        used = set(getattr(getattr(member, "__code__", None), "co_names", ()))
        past = used & {"DALIGenericIterator", "DALIClassificationIterator"} and "__next__" in used
        if past or "_first_batch" in used:
            warnings.warn(
                f"{iterator.__name__}.{name} takes a batch from DALI's iterator, which does not "
                "mix it; call super().__next__()",
                BypassedMixingWarning,
                stacklevel=stacklevel + 1,
            )


def _processes() -> int:
    distributed = sys.modules.get("torch.distributed")
    if distributed is not None and distributed.is_available() and distributed.is_initialized():
        return int(distributed.get_world_size())
    text = os.environ.get("WORLD_SIZE") or "1"
    if not text.isdecimal():
        raise ValueError(f"WORLD_SIZE: expected an integer >= 1 in the environment, got {text!r}")
    return int(text)


class LabelsSeen:
    """The class ids of one epoch, as far as they are in the host's memory."""

    def __init__(self) -> None:
        _processes()  # a variable that is no number is named here, where no batch is lost
        self.count = 0
        self.largest = 0

    def add(self, labels: Any) -> None:
        """Take a batch's labels; those that are no class ids, or on a GPU, tell nothing."""
        if getattr(labels, "is_cuda", False) or not hasattr(labels, "dtype"):
            return
        if not is_integer(labels):
            return
        ids = np.asarray(labels)
        if ids.size != len(ids) or not len(ids):
            return
        self.count += len(ids)
        self.largest = max(self.largest, int(ids.max()))

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
