"""Other libraries' names and arguments over our core: a swap is one import line.

    from dali_mixup.compat import TimmMixup as Mixup  # was: from timm.data import Mixup

In float32 the results equal the originals' for the same draw, to one rounding. What differs: inputs
are not written to, an odd batch is taken, and draws come from a key and not from global generators.
What cannot be honoured raises.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from dali_mixup.loaders.wrapper import MixupLoader
from dali_mixup.mixup import Mixup


class TimmMixup:
    """``timm.data.Mixup``: label smoothing of 0.1, partners from the other end of the batch.

    Parameters
    ----------
    mixup_alpha, cutmix_alpha, prob, switch_prob, mode, label_smoothing, num_classes
        timm's, with timm's defaults.
    cutmix_minmax : None
        Boxes of a given range of sizes are not offered: timm's leave out the image's bottom and
        right edge (timm issue 2739).
    correct_lam : True
        The label always has the share of pixels that stayed.
    **settings
        More for :class:`Mixup`: ``output``, ``seed``, ...

    Raises
    ------
    ValueError
        `cutmix_minmax` or ``correct_lam=False``, which are not offered.
    """

    def __init__(
        self,
        mixup_alpha: float = 1.0,
        cutmix_alpha: float = 0.0,
        cutmix_minmax: tuple[float, float] | None = None,
        prob: float = 1.0,
        switch_prob: float = 0.5,
        mode: str = "batch",
        correct_lam: bool = True,
        label_smoothing: float = 0.1,
        num_classes: int = 1000,
        **settings: Any,
    ) -> None:
        _refuse("cutmix_minmax", cutmix_minmax, None, "use cutmix_alpha")
        _refuse("correct_lam", correct_lam, True, "labels always say what the pixels show")
        self.mixup = Mixup(
            num_classes=num_classes,
            alpha=mixup_alpha,
            cutmix_alpha=cutmix_alpha,
            prob=prob,
            switch_prob=switch_prob,
            mode=mode,
            pairing="flip",
            label_smoothing=label_smoothing,
            **settings,
        )

    @property
    def mixup_enabled(self) -> bool:
        """timm's name for ``enabled``."""
        return self.mixup.enabled

    @mixup_enabled.setter
    def mixup_enabled(self, enabled: bool) -> None:
        self.mixup.enabled = enabled

    def __call__(self, x: Any, target: Any) -> tuple[Any, Any]:
        return self.mixup(x, target)


class _Torchvision:
    _alpha: str

    def __init__(
        self,
        *,
        alpha: float = 1.0,
        num_classes: int | None = None,
        labels_getter: str = "default",
        **settings: Any,
    ) -> None:
        _refuse("labels_getter", labels_getter, "default", "give (images, labels)")
        if num_classes is None:
            raise ValueError(
                "num_classes: expected an int, got None; dense labels have as many columns"
            )
        alphas: dict[str, Any] = {"alpha": 0.0, self._alpha: alpha}
        self.mixup = Mixup(num_classes=num_classes, pairing="roll", **alphas, **settings)

    def __call__(self, images: Any, labels: Any) -> tuple[Any, Any]:
        return self.mixup(images, labels)


class TorchvisionMixUp(_Torchvision):
    """``torchvision.transforms.v2.MixUp``: the partner is the sample before.

    Parameters
    ----------
    alpha : float
    num_classes : int
        Needed, for dense labels too.
    labels_getter : "default"
        Calls take (images, labels).
    **settings
        More for :class:`Mixup`.
    """

    _alpha = "alpha"


class TorchvisionCutMix(_Torchvision):
    """``torchvision.transforms.v2.CutMix``; parameters as :class:`TorchvisionMixUp`."""

    _alpha = "cutmix_alpha"


class MixUpWrapper(MixupLoader):
    """``MixUpWrapper`` of NVIDIA's DeepLearningExamples: (alpha, dataloader).

    Parameters
    ----------
    alpha : float
    dataloader : iterable of (images, labels), or of what else :class:`MixupLoader` takes
        Labels are class ids, or one-hot already.
    num_classes : int
    **settings
        More for :class:`Mixup`.
    """

    def __init__(
        self, alpha: float, dataloader: Iterable[Any], *, num_classes: int, **settings: Any
    ) -> None:
        super().__init__(dataloader, Mixup(num_classes=num_classes, alpha=alpha, **settings))


def _refuse(name: str, value: Any, only: Any, instead: str) -> None:
    if value != only:
        raise ValueError(f"{name}: expected {only!r}, got {value!r}; {instead}")
