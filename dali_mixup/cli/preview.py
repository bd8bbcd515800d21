"""What a user's own pipeline returns, mixed by the user's own settings, as a contact sheet."""

from __future__ import annotations

import os
import sys
from dataclasses import fields
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dali_mixup.checks import require_choice
from dali_mixup.cli.contact_sheet import contact_sheet
from dali_mixup.cli.users_code import users_code
from dali_mixup.loaders.pipeline import image_pipeline
from dali_mixup.mixup import Mixup
from dali_mixup.output import guess_layout
from dali_mixup.recipes import RECIPES


def preview(
    source: str,
    *,
    count: int = 16,
    recipe_name: str | None = None,
    image_size: int | None = None,
    device: str = "cpu",
    **settings: Any,
) -> Image.Image:
    """Mix one batch and draw it.

    Parameters
    ----------
    source : str
        A folder with one folder of images a class, or ``module:pipeline``: a DALI pipeline, or what
        returns one when called, whose first output are images and whose last are labels: class ids
        of shape (B,) or (B, 1), or one-hot rows.
    count : int >= 1
        Images to show; a pipeline of one's own shows as many of its batch.
    recipe_name : str, optional
        For a folder: augment and mix as this recipe of :mod:`dali_mixup.recipes`.
    image_size, device
        For a folder, as :func:`dali_mixup.image_pipeline` takes them. By default the recipe's size,
        or 224.
    **settings
        Of :class:`dali_mixup.Mixup`, less ``num_classes``. They replace those of the recipe.

    Raises
    ------
    ValueError, TypeError
        A source that is neither, a recipe that does not exist or is for a pipeline of one's own,
        images of several sizes, or labels of another form.
    UsersCodeError
        The user's module raised.
    """
    size, augmentation = 224, dict[str, Any]()
    if recipe_name is not None:
        require_choice("recipe", recipe_name, tuple(RECIPES), optional=False)
        if ":" in source and not Path(source).is_dir():
            raise ValueError(f"recipe: expected a folder of images beside it, got {source!r}")
        chosen = RECIPES[recipe_name]
        size, augmentation = chosen.image_size, dict(chosen.pipeline)
        settings = {**chosen.mixup, **settings}
    if Path(source).is_dir():
        pipe = image_pipeline(
            source, count, image_size or size, device, num_threads=2, **augmentation
        )
        images, labels, _ = _first_batch(pipe, count)
        names = sorted(folder.name for folder in Path(source).iterdir() if folder.is_dir())
    elif ":" in source:
        with users_code(source.partition(":")[0]):
            images, labels, num_classes = _first_batch(_pipeline_of(source), count)
        names = [f"class {i}" for i in range(num_classes)]
    else:
        raise ValueError(f"source: expected a folder of images or module:pipeline, got {source!r}")
    mixup = Mixup(num_classes=len(names), **settings)
    plan = mixup.plan_for(images, epoch=0, step=0)
    mixed, _ = mixup(images, labels, plan=plan)
    defaults = {field.name: field.default for field in fields(Mixup)}
    shown = {"alpha": mixup.alpha} | {k: v for k, v in settings.items() if v != defaults[k]}
    title = ", ".join(f"{name}={value}" for name, value in shown.items())
    title = f"{recipe_name}: {title}" if recipe_name else title
    photographs = _as_photographs(mixed, mixup.layout)
    return contact_sheet(photographs, labels, plan, names, title=title)


def _pipeline_of(source: str) -> Any:
    module, _, name = source.partition(":")
    sys.path.insert(0, os.getcwd())
    found = getattr(import_module(module), name, None)
    pipe = found() if callable(found) else found
    if not hasattr(pipe, "run"):
        raise TypeError(
            f"source: expected {name!r} of {module!r} to be a DALI pipeline or to return one "
            f"without arguments, got {pipe!r}"
        )
    return pipe


def _first_batch(pipe: Any, count: int) -> tuple[NDArray[Any], NDArray[Any], int]:
    """Images, class ids, and the number of classes as far as the labels tell."""
    pipe.build()
    outputs = pipe.run()
    images, labels = (_as_array(name, outputs[at]) for name, at in (("images", 0), ("labels", -1)))
    ids, num_classes = _class_ids(labels)
    return images[:count], ids[:count], num_classes


def _class_ids(labels: NDArray[Any]) -> tuple[NDArray[Any], int]:
    if labels.size == len(labels) and labels.dtype.kind in "iu":
        return labels.reshape(-1), int(labels.max(initial=0)) + 1
    if labels.ndim == 2 and np.isin(labels, (0, 1)).all() and (labels.sum(1) == 1).all():
        return labels.argmax(1), labels.shape[1]
    raise ValueError(
        "labels: expected class ids or one-hot rows in the pipeline's last output, got "
        f"{labels.dtype} {labels.shape}"
    )


def _as_array(name: str, output: Any) -> NDArray[Any]:
    output = output.as_cpu()
    if not output.is_dense_tensor():
        raise ValueError(f"{name}: expected all of one size, got {output.shape()[:3]} ...; resize")
    return np.array(output.as_array())


def _as_photographs(images: NDArray[Any], layout: str | None) -> NDArray[np.uint8]:
    """uint8 HWC RGB; what a pipeline has normalised is stretched from darkest to brightest."""
    if (layout or guess_layout(images.shape)) == "CHW":
        images = images.transpose(0, 2, 3, 1)
    if images.dtype != np.uint8:
        pixels = images.astype(np.float32)
        low, high = pixels.min(), pixels.max()
        images = np.rint((pixels - low) * (255 / max(high - low, 1e-6))).astype(np.uint8)
    return np.broadcast_to(images[..., :3], (*images.shape[:3], 3))
