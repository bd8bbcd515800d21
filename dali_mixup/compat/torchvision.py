"""``torchvision.transforms.v2.MixUp`` and ``CutMix``, as modules that take any container."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch.utils._pytree import tree_flatten, tree_unflatten

from dali_mixup.checks import KEY_LIMIT, require_real
from dali_mixup.mixup import Mixup


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
        self.labels_getter = labels_getter
        alphas: dict[str, Any] = {"alpha": 0.0, self._alpha: alpha}
        self.mixup = Mixup(
            num_classes=num_classes,
            pairing="roll",
            layout="CHW",
            **alphas,
            **settings,
        )

    @property
    def num_classes(self) -> int | None:
        classes: Any = self.mixup.num_classes
        return classes  # type: ignore[no-any-return]

    @num_classes.setter
    def num_classes(self, num_classes: int | None) -> None:
        self.mixup = replace(self.mixup, num_classes=num_classes)

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
        epoch, step = divmod(int(torch.randint(2**63 - 1, ())), KEY_LIMIT)
        plan = self.mixup.plan_for(first, epoch=epoch, step=step)
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
