"""Other libraries' names and arguments, so that a program changes one import line.

    from dali_mixup.compat import TimmMixup as Mixup  # was: from timm.data import Mixup

For the same draw the results equal the originals' to one rounding of float32. Inputs are not
written to, and an odd batch size is accepted. What cannot be honoured raises an error.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils._pytree import tree_flatten, tree_unflatten
from torch.utils.data import default_collate, get_worker_info

from dali_mixup.checks import require_real
from dali_mixup.loaders.wrapper import MixupLoader
from dali_mixup.mixup import Mixup, _global_rank
from dali_mixup.plan import MixPlan, cutmix_box, keyed_generator


@dataclass(kw_only=True)
class _TimmDraws(Mixup):
    """A Mixup that also draws timm's other boxes, and other plans in every DataLoader worker."""

    cutmix_minmax: Sequence[float] | None = None
    correct_lam: bool = True

    def __post_init__(self) -> None:
        _require_minmax(self.cutmix_minmax)
        super().__post_init__()

    def plan(
        self,
        batch_size: int,
        image_size: tuple[int, int] | None = None,
        *,
        epoch: int = 0,
        step: int = 0,
        stream: int = 0,
    ) -> MixPlan:
        worker = get_worker_info()
        if worker is not None:
            # A worker is a copy that starts at step 0, and without persistent_workers there is a
            # new one in every epoch. Its seed changes then.
            stream, epoch = worker.id, worker.seed + epoch
        standard_boxes = self.cutmix_minmax is None and self.correct_lam
        if image_size is None or not self.cutmix_alpha or standard_boxes:
            return super().plan(batch_size, image_size, epoch=epoch, step=step, stream=stream)
        rank = _global_rank() if self.rank is None else self.rank
        rng = keyed_generator(self.seed, rank=rank, stream=stream, epoch=epoch, step=step)
        return self._draw(rng, batch_size, image_size)

    def _draw(self, rng: np.random.Generator, size: int, image_size: tuple[int, int]) -> MixPlan:
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


def _require_minmax(minmax: Any) -> None:
    if minmax is None:
        return
    if not isinstance(minmax, (tuple, list)) or len(minmax) != 2:
        raise TypeError(f"cutmix_minmax: expected None or two numbers (min, max), got {minmax!r}")
    for share in minmax:
        require_real("cutmix_minmax", share, "[0, 1]", lambda v: 0 <= v <= 1)
    if minmax[0] > minmax[1]:
        raise ValueError(f"cutmix_minmax: expected (min, max) with min <= max, got {minmax!r}")


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
        owner.mixup.load_state_dict(before.state_dict(), strict=False)  # no draw comes twice


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
        False hands out unmixed batches with smoothed labels.
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


class _Torchvision(torch.nn.Module):
    _alpha: str

    def __init__(
        self,
        *,
        alpha: float = 1.0,
        num_classes: int | None = None,
        labels_getter: str | Callable[[Any], Any] | None = "default",
        **settings: Any,
    ) -> None:
        super().__init__()
        require_real("alpha", alpha, "(0, inf)", lambda v: 0 < v < np.inf)
        if not (labels_getter is None or labels_getter == "default" or callable(labels_getter)):
            raise ValueError(
                f"labels_getter: expected 'default', a callable or None, got {labels_getter!r}"
            )
        self.alpha = float(alpha)
        self.num_classes = num_classes
        self.labels_getter = labels_getter
        alphas: dict[str, Any] = {"alpha": 0.0, self._alpha: alpha}
        self.mixup = Mixup(
            num_classes=num_classes,  # type: ignore[arg-type]
            pairing="roll",
            layout="CHW",
            **alphas,
            **settings,
        )

    def extra_repr(self) -> str:
        return f"alpha={self.alpha}, num_classes={self.num_classes}"

    def forward(self, *inputs: Any) -> Any:
        sample = inputs if len(inputs) > 1 else inputs[0]
        parts, structure = tree_flatten(sample)
        self._refuse_unsupported(parts)
        labels = self._find_labels(sample)
        self._require_labels(labels)
        first, *others = images = _images_among(parts, labels)
        _require_images(images, len(labels))

        # torch.manual_seed, and the seed of a DataLoader's worker, decide the draw.
        step = int(torch.randint(2**63 - 1, ()))
        plan = self.mixup.plan_for(first, epoch=0, step=step)
        if plan.box is not None:
            _require_one_size(images)
        mixed, targets = self.mixup(first, labels, plan=plan)
        results = {id(labels): targets, id(first): _as_type_of(first, mixed)}
        for image in others:
            results[id(image)] = _as_type_of(image, self.mixup(image, None, plan=plan)[0])
        return tree_unflatten([results.get(id(part), part) for part in parts], structure)

    def _refuse_unsupported(self, parts: list[Any]) -> None:
        unsupported = (
            *_classes("PIL.Image", "Image"),
            *_tv_tensors("BoundingBoxes", "KeyPoints", "Mask", "Video"),
        )
        for part in parts:
            if isinstance(part, unsupported):
                raise ValueError(
                    f"{type(self).__name__}() does not support PIL images, bounding boxes, "
                    "keypoints, masks and videos: expected a batch of images as a tensor "
                    f"(B, C, H, W), got {type(part).__name__}; call it after the collate function"
                )

    def _find_labels(self, sample: Any) -> Any:
        if callable(self.labels_getter):
            return self.labels_getter(sample)
        return _labels_in(sample) if self.labels_getter == "default" else None

    def _require_labels(self, labels: Any) -> None:
        if not isinstance(labels, torch.Tensor):
            raise ValueError(
                "The labels must be a tensor: expected one from labels_getter="
                f"{self.labels_getter!r}, got {type(labels).__name__}"
            )
        if labels.ndim not in (1, 2):
            raise ValueError(
                "labels should be index based (B,) or probability based (B, num_classes), "
                f"but got a tensor of shape {tuple(labels.shape)}"
            )
        if labels.ndim == 1 and self.num_classes is None:
            raise ValueError(
                "num_classes must be passed beside class ids: expected an int, got None; "
                "dense labels need none"
            )
        if labels.ndim == 2 and labels.shape[1] != (self.num_classes or labels.shape[1]):
            raise ValueError(
                f"When passing 2D labels, expected {self.num_classes} columns, as many as "
                f"num_classes, got {labels.shape[1]}; num_classes=None accepts any number"
            )


def _labels_in(sample: Any) -> Any:
    """The second item, or in it, or in a dict, the value under "labels" or "...label..."."""
    if isinstance(sample, (tuple, list)):
        sample = sample[1] if len(sample) > 1 else None
    if _is_plain_tensor(sample):
        return sample
    if not isinstance(sample, Mapping):
        raise ValueError(
            "When using the default labels_getter, expected a dict or a pair whose second item is "
            f"a tensor or a dict, got {type(sample).__name__}; give a callable as labels_getter"
        )
    keys = [key for key in sample if "label" in str(key).lower()]
    if not keys:
        raise ValueError(
            "Could not infer where the labels are: expected a key with 'label' in it, got "
            f"{list(sample)}; give a callable as labels_getter"
        )
    return sample[next((key for key in keys if str(key).lower() == "labels"), keys[0])]


def _images_among(parts: list[Any], labels: torch.Tensor) -> list[torch.Tensor]:
    """All of torchvision's images, or else the first tensor that is not the labels."""
    if not any(part is labels for part in parts):
        raise ValueError("labels_getter: expected a tensor of the sample, got another one")
    images: list[Any] = [part for part in parts if isinstance(part, _tv_tensors("Image"))]
    tensors = [part for part in parts if _is_plain_tensor(part) and part is not labels]
    if not (images or tensors):
        raise ValueError(
            "images: expected a tensor (B, C, H, W) beside the labels, got "
            f"{[type(part).__name__ for part in parts]}"
        )
    return images or tensors[:1]


def _require_images(images: list[torch.Tensor], batch_size: int) -> None:
    for image in images:
        if image.ndim != 4:
            raise ValueError(
                "Expected a batched input with 4 dims, (B, C, H, W), "
                f"got {image.ndim} in shape {tuple(image.shape)}"
            )
        if len(image) != batch_size:
            raise ValueError(
                "The batch size of the images does not match the batch size of the labels: "
                f"expected {batch_size}, got {len(image)}"
            )


def _require_one_size(images: list[torch.Tensor]) -> None:
    sizes = [tuple(image.shape[2:]) for image in images]
    if len(set(sizes)) > 1:
        raise ValueError(
            f"images: expected one height and width for CutMix, got {sizes}; "
            "resize them, or cut them in separate calls"
        )


def _tv_tensors(*names: str) -> tuple[type, ...]:
    return _classes("torchvision.tv_tensors", *names)


def _classes(module: str, *names: str) -> tuple[type, ...]:
    """Classes of a module; none before it is imported, when nothing can be an instance."""
    loaded = sys.modules.get(module)
    return tuple(getattr(loaded, name) for name in names if hasattr(loaded, name))


def _is_plain_tensor(part: Any) -> bool:
    return isinstance(part, torch.Tensor) and not isinstance(part, _tv_tensors("TVTensor"))


def _as_type_of(image: torch.Tensor, mixed: torch.Tensor) -> Any:
    if _is_plain_tensor(image):
        return mixed
    return sys.modules["torchvision.tv_tensors"].wrap(mixed, like=image)


class TorchvisionMixUp(_Torchvision):
    """``torchvision.transforms.v2.MixUp``: the partner of a sample is the one before it.

    Call it with ``(images, labels)``, with one tuple, list or dict, or as a ``collate_fn`` behind
    ``default_collate``. The same containers come back. Mixed are torchvision's ``Image`` tensors,
    or else the first tensor that is not the labels; everything else is passed through.

    Images have the shape (B, C, H, W), and uint8, float16, bfloat16 or float32; videos are not
    supported. Labels are class ids (B,) or dense rows (B, num_classes), and come back as float32
    (B, num_classes).

    Each call takes a seed from torch's default generator, as torchvision takes its draw:
    ``torch.manual_seed`` makes it reproducible. The seed and the rank then key the draw, so that
    equal seeds on different ranks draw different plans.

    Parameters
    ----------
    alpha : float > 0
        ``lam ~ Beta(alpha, alpha)``.
    num_classes : int, optional
        Required for class ids. None: dense labels, with any number of columns.
    labels_getter : "default", callable or None
        "default" takes the second item, or in it, or in a dict, the value under the key "labels" or
        a key that contains "label", in any case. A callable takes the sample and returns its
        labels. None finds no labels, and each call raises, as in torchvision.
    **settings
        Other settings of :class:`dali_mixup.Mixup`, except `pairing` and `layout`.

    Raises
    ------
    TypeError, ValueError
        A setting or an input is outside the above. Where torchvision raises ValueError, so does
        this class, with torchvision's key words in the message.
    """

    _alpha = "alpha"


class TorchvisionCutMix(_Torchvision):
    """``torchvision.transforms.v2.CutMix``: the partner of a sample is the one before it.

    Inputs, results and errors are those of :class:`TorchvisionMixUp`.

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
        mixup = Mixup(num_classes=num_classes, alpha=alpha, **settings)  # type: ignore[arg-type]
        super().__init__(dataloader, mixup)

    @property
    def alpha(self) -> float:
        return self.mixer.mixup.alpha

    @property
    def dataloader(self) -> Iterable[Any]:
        return self.loader
