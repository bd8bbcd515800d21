"""``timm.data.Mixup`` and ``FastCollateMixup``, with their arguments, defaults and attributes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import default_collate

from dali_mixup.checks import require_range
from dali_mixup.mixup import Mixup, Position
from dali_mixup.plan import MixPlan, cutmix_box, keyed_generator


@dataclass(kw_only=True)
class _TimmDraws(Mixup):
    """A Mixup that also draws timm's other boxes."""

    cutmix_minmax: Sequence[float] | None = None
    correct_lam: bool = True

    def __post_init__(self) -> None:
        if self.cutmix_minmax is not None:
            require_range("cutmix_minmax", self.cutmix_minmax, "[0, 1]", lambda v: 0 <= v <= 1)
        super().__post_init__()

    def _draw(
        self, batch_size: int, image_size: tuple[int, int] | None, position: Position
    ) -> MixPlan:
        standard_boxes = self.cutmix_minmax is None and self.correct_lam
        if image_size is None or not self.cutmix_alpha or standard_boxes:
            return super()._draw(batch_size, image_size, position)
        rng = keyed_generator(self.seed, rank=self.global_rank, **position._asdict())
        return self._draw_boxes(rng, batch_size, image_size)

    def _draw_boxes(
        self, rng: np.random.Generator, size: int, image_size: tuple[int, int]
    ) -> MixPlan:
        own = np.arange(size)
        partner = own[::-1]
        draw = {"batch": own * 0, "elem": own, "pair": np.minimum(own, partner)}[self.mode]

        applied = rng.random(size) < self.prob
        cut = applied & (rng.random(size) < (self.switch_prob if self.alpha else 1))
        lam = rng.beta(self.alpha, self.alpha, size) if self.alpha else np.ones(size)
        box, box_lam = self._boxes(rng, size, image_size)
        lam = np.where(cut, box_lam, np.where(applied, lam, 1))
        box[~cut] = 0
        return MixPlan(partner, lam[draw], box[draw])

    def _boxes(
        self, rng: np.random.Generator, size: int, image_size: tuple[int, int]
    ) -> tuple[NDArray[Any], NDArray[Any]]:
        height, width = image_size
        if self.cutmix_minmax is None:
            lam = rng.beta(self.cutmix_alpha, self.cutmix_alpha, size)
            centre = rng.integers(height, size=size), rng.integers(width, size=size)
            box: NDArray[Any] = cutmix_box(lam, *centre, height, width)
            empty = (box[:, 0] == box[:, 1]) | (box[:, 2] == box[:, 3])
            return box, np.where(empty, 1, lam)  # a lam without a box would weigh the pixels
        y0, y1 = _interval(rng, size, height, self.cutmix_minmax)
        x0, x1 = _interval(rng, size, width, self.cutmix_minmax)
        return np.stack([y0, y1, x0, x1], axis=1), 1 - (y1 - y0) * (x1 - x0) / (height * width)


def _interval(
    rng: np.random.Generator, size: int, length: int, minmax: Sequence[float]
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Start and end of `size` intervals in [0, length], at any place where they fit."""
    low, high = (int(length * share) for share in minmax)
    side = rng.integers(low, high, size=size, endpoint=True)
    start = rng.integers(0, length - side, endpoint=True)
    return start, start + side


class _Setting:
    """A setting under timm's name. It can be assigned, and holds from the next call on."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __get__(self, owner: TimmMixup | None, kind: type) -> Any:
        return self if owner is None else getattr(owner.mixup, self.name)

    def __set__(self, owner: TimmMixup, value: Any) -> None:
        before = owner.mixup
        owner.mixup = replace(before, **{self.name: value})
        owner.mixup.enabled = before.enabled


class TimmMixup:
    """``timm.data.Mixup``, with timm's defaults: label smoothing of 0.1, partner ``B - 1 - i``.

    Call it with ``(images, labels)``, as :class:`dali_mixup.Mixup`. Draws are keyed by seed, rank
    and the number of the call, and in a worker of a DataLoader by the worker's id and seed as well.

    Parameters
    ----------
    mixup_alpha, cutmix_alpha, prob, switch_prob, mode, label_smoothing, num_classes
        As in timm, with timm's defaults.
    cutmix_minmax : two floats in [0, 1], optional
        The least and the greatest side of a CutMix box, as shares of the side of the image. Sides
        and places are uniform. timm never draws the greatest side, and before its pull request 2739
        no box at the bottom or the right edge. Sets `cutmix_alpha` to 1.
    correct_lam : bool
        False keeps the drawn ``lam`` in the label where the image's edge clips a CutMix box. True,
        and `cutmix_minmax`, count the pixels. A box without pixels leaves image and label as they
        are.
    **settings
        Other settings of :class:`dali_mixup.Mixup`: ``output``, ``seed``, ...

    Attributes
    ----------
    mixup_enabled : bool
        False returns unmixed batches with smoothed labels.
    mixup_alpha, cutmix_alpha, cutmix_minmax, mix_prob, switch_prob, mode, correct_lam, \
label_smoothing, num_classes
        The settings; `mix_prob` is `prob`. Each can be assigned and holds from the next call on.
    mixup : Mixup
        The settings as a :class:`dali_mixup.Mixup`, for loaders. Assigning an attribute replaces
        it; a loader keeps the one that it was given.

    Raises
    ------
    TypeError, ValueError
        A setting is outside its range.
    """

    mixup_alpha = _Setting("alpha")
    cutmix_alpha = _Setting("cutmix_alpha")
    cutmix_minmax = _Setting("cutmix_minmax")
    mix_prob = _Setting("prob")
    switch_prob = _Setting("switch_prob")
    mode = _Setting("mode")
    correct_lam = _Setting("correct_lam")
    label_smoothing = _Setting("label_smoothing")
    num_classes = _Setting("num_classes")

    def __init__(
        self,
        mixup_alpha: float = 1.0,
        cutmix_alpha: float = 0.0,
        cutmix_minmax: Sequence[float] | None = None,
        prob: float = 1.0,
        switch_prob: float = 0.5,
        mode: str = "batch",
        correct_lam: bool = True,
        label_smoothing: float = 0.1,
        num_classes: int = 1000,
        **settings: Any,
    ) -> None:
        self.mixup: Mixup = _TimmDraws(
            num_classes=num_classes,
            alpha=mixup_alpha,
            cutmix_alpha=cutmix_alpha if cutmix_minmax is None else 1.0,
            cutmix_minmax=cutmix_minmax,
            prob=prob,
            switch_prob=switch_prob,
            mode=mode,
            pairing="flip",
            correct_lam=correct_lam,
            label_smoothing=label_smoothing,
            **settings,
        )

    @property
    def mixup_enabled(self) -> bool:
        return self.mixup.enabled

    @mixup_enabled.setter
    def mixup_enabled(self, enabled: bool) -> None:
        self.mixup.enabled = enabled

    def __call__(self, x: Any, target: Any) -> tuple[Any, Any]:
        return self.mixup(x, target)


class FastCollateMixup(TimmMixup):
    """``timm.data.FastCollateMixup``: the ``collate_fn`` of a DataLoader, in uint8.

    Takes a list of ``(image, label)``: numpy arrays or tensors of shape (C, H, W), uint8, and class
    ids. Returns images, uint8 (B, C, H, W), and targets, float32 (B, num_classes).

    Mixed pixels are computed in float32 and rounded to nearest even, as in timm. In mode "batch"
    timm computes ``1 - lam`` in float64 and this class in float32, so that a value beside .5 can
    differ by 1. CutMix gives the same bytes. timm writes to the samples in mode "pair", and this
    class does not. timm's mode "half" raises ValueError.

    Parameters
    ----------
    mixup_alpha, cutmix_alpha, cutmix_minmax, prob, switch_prob, mode, correct_lam, \
label_smoothing, num_classes, **settings
        As for :class:`TimmMixup`, whose attributes it has.
    """

    def __call__(self, batch: Sequence[Any]) -> tuple[Any, Any]:  # type: ignore[override]
        images, labels = default_collate([sample[:2] for sample in batch])
        return self.mixup(images, labels)
