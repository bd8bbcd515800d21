"""Other libraries' names and arguments, so that a program changes one import line.

    from dali_mixup.compat import TimmMixup as Mixup  # was: from timm.data import Mixup

For the same draw the results equal the originals' to one rounding of float32. Inputs are not
written to, an odd batch size is accepted, and draws are keyed instead of taken from global
generators. What cannot be honoured raises an error.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from dali_mixup.loaders.wrapper import MixupLoader
from dali_mixup.mixup import Mixup


class TimmMixup:
    """``timm.data.Mixup``, with timm's defaults: label smoothing of 0.1, partner ``B - 1 - i``.

    Parameters
    ----------
    mixup_alpha, cutmix_alpha, prob, switch_prob, mode, label_smoothing, num_classes
        As in timm, with timm's defaults.
    cutmix_minmax : None
        Not supported: timm's boxes of a given range of sizes never reach the bottom and right edge
        (timm issue 2739).
    correct_lam : True
        ``False`` is not supported: the label is always the share of pixels that stayed.
    **settings
        Other settings of :class:`dali_mixup.Mixup`: ``output``, ``seed``, ...

    Raises
    ------
    ValueError
        `cutmix_minmax` is set, or ``correct_lam=False``.
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
        """timm's name for ``Mixup.enabled``."""
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
    """``torchvision.transforms.v2.MixUp``: the partner of a sample is the one before it.

    Call it with ``(images, labels)``.

    Parameters
    ----------
    alpha : float
    num_classes : int
        Required, for dense labels too.
    labels_getter : "default"
        Other values are not supported.
    **settings
        Other settings of :class:`dali_mixup.Mixup`.
    """

    _alpha = "alpha"


class TorchvisionCutMix(_Torchvision):
    """``torchvision.transforms.v2.CutMix``: the partner of a sample is the one before it.

    Call it with ``(images, labels)``.

    Parameters
    ----------
    alpha, num_classes, labels_getter, **settings
        As for :class:`TorchvisionMixUp`.
    """

    _alpha = "cutmix_alpha"


class MixUpWrapper(MixupLoader):
    """``MixUpWrapper`` of NVIDIA's DeepLearningExamples.

    Parameters
    ----------
    alpha : float
    dataloader : iterable of (images, labels), or any loader of :class:`dali_mixup.MixupLoader`
        Labels are class ids or one-hot rows.
    num_classes : int
    **settings
        Other settings of :class:`dali_mixup.Mixup`.
    """

    def __init__(
        self, alpha: float, dataloader: Iterable[Any], *, num_classes: int, **settings: Any
    ) -> None:
        super().__init__(dataloader, Mixup(num_classes=num_classes, alpha=alpha, **settings))


def _refuse(name: str, value: Any, only: Any, instead: str) -> None:
    if value != only:
        raise ValueError(f"{name}: expected {only!r}, got {value!r}; {instead}")
