"""``MixUpWrapper`` of NVIDIA's DeepLearningExamples."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from dali_mixup.loaders.wrapper import MixupLoader
from dali_mixup.mixup import Mixup


class MixUpWrapper(MixupLoader):
    """``MixUpWrapper`` of NVIDIA's DeepLearningExamples.

    Parameters
    ----------
    alpha : float
    dataloader : iterable of (images, labels), or any loader of :class:`dali_mixup.MixupLoader`
        Labels are one-hot rows, as in these examples, or class ids.
    num_classes : int, optional
        Required for class ids. None: one-hot rows, with any number of columns.
    **settings
        Other settings of :class:`dali_mixup.Mixup`.

    Attributes
    ----------
    alpha : float
    dataloader : iterable
    """

    def __init__(
        self,
        alpha: float,
        dataloader: Iterable[Any],
        num_classes: int | None = None,
        **settings: Any,
    ) -> None:
        mixup = Mixup(num_classes=num_classes, alpha=alpha, **settings)
        super().__init__(dataloader, mixup)

    @property
    def alpha(self) -> float:
        return self.mixer.mixup.alpha

    @property
    def dataloader(self) -> Iterable[Any]:
        return self.loader
