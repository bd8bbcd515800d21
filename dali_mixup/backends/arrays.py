"""Batches of images as numpy arrays: their dtypes, and the array that the mixed ones go into."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dali_mixup.backends.labels import label_form
from dali_mixup.output import BFLOAT16, Conversion, OutputFormat
from dali_mixup.plan import MixPlan

Array = NDArray[Any]
Float32Array = NDArray[np.float32]


def in_order(batch: Array, layout: str, order: str) -> Array:
    """A view of a batch in `layout` with the axes of a sample in another order."""
    return batch if layout == order else batch.transpose(_axes(layout, order))


@lru_cache
def _axes(layout: str, order: str) -> tuple[int, ...]:
    return 0, *(1 + layout.index(axis) for axis in order)


def as_array(values: Any) -> Array:
    """A numpy array, of ``BFLOAT16`` where it holds ``ml_dtypes``'s bfloat16."""
    array: Array = np.asarray(values)
    if array.dtype != BFLOAT16 and name_of(array.dtype) == "bfloat16":
        return array.view(BFLOAT16)
    return array


@lru_cache
def name_of(dtype: np.dtype[Any]) -> str:
    return "bfloat16" if dtype == BFLOAT16 else dtype.name


def kind_of(array: Array) -> str:
    """numpy's letter for the kind of dtype; "f" of bfloat16 too."""
    return "f" if array.dtype == BFLOAT16 else array.dtype.kind


@lru_cache
def numpy_dtype(name: str) -> np.dtype[Any]:
    return BFLOAT16 if name == "bfloat16" else np.dtype(name)


def prepare(
    images: Any,
    plan: MixPlan,
    output: OutputFormat | None,
    layout: str,
    out: Any,
    empty: Callable[..., Array] = np.empty,
) -> tuple[Array, Conversion, Array]:
    """The images, their conversion, and the array for the mixed ones: `out`, or what `empty` makes.

    Raises
    ------
    TypeError, ValueError
        `images`, `output` or `out` do not go together, or the plan does not fit.
    """
    images = as_array(images)
    form = (output or OutputFormat()).resolve(images.shape, name_of(images.dtype), layout)
    plan.require_fit(form.batch, form.height, form.width)
    if out is None:
        memory: Array = empty(form.memory_shape, numpy_dtype(form.out_dtype))
        return images, form, memory.transpose(0, 3, 1, 2) if form.channels_last else memory
    out = as_array(out)
    if out.shape != form.out_shape or name_of(out.dtype) != form.out_dtype:
        raise ValueError(
            f"out: expected {form.out_dtype} {form.out_shape}, got {name_of(out.dtype)} {out.shape}"
        )
    if np.may_share_memory(out, images):
        raise ValueError("out: expected memory of its own, got memory that the images share")
    _require_writable(out)
    return images, form, out


def prepare_labels(
    labels: Any,
    plan: MixPlan,
    num_classes: int | None,
    out: Any,
    empty: Callable[..., Array] = np.empty,
) -> tuple[Array, bool, Float32Array]:
    """The labels, whether they are class ids, and the array for the mixed ones, as `prepare`.

    Raises
    ------
    TypeError, ValueError
        `labels`, `num_classes` or `out` do not go together, or the plan does not fit.
    """
    labels = as_array(labels)
    form = label_form(labels.shape, kind_of(labels), len(plan), num_classes)
    if form.num_classes is None:
        raise ValueError("num_classes: expected an int beside class ids, got None")
    shape = len(plan), form.num_classes
    if out is None:
        out = empty(shape, np.float32)
    elif out.shape != shape or out.dtype != np.float32:
        raise ValueError(f"out: expected float32 {shape}, got {out.dtype} {out.shape}")
    elif np.may_share_memory(out, labels):
        raise ValueError("out: expected memory of its own, got memory that the labels share")
    _require_writable(out)
    return labels, form.ids, out


def _require_writable(out: Array) -> None:
    if not out.flags.writeable:
        raise ValueError("out: expected an array that can be written to, got a read-only one")


def as_float32(pixels: Array) -> Float32Array:
    """Pixels as float32, exactly."""
    if pixels.dtype == BFLOAT16:
        return (pixels["bfloat16"].astype(np.uint32) << 16).view(np.float32)
    return pixels.astype(np.float32)


def store(to: Array, mixed: Float32Array) -> None:
    """Write float32 to `to` in its dtype, rounded once, to nearest even."""
    if to.dtype == BFLOAT16:
        bits = np.ascontiguousarray(mixed).view(np.uint32)
        nearest = (bits + np.uint32(0x7FFF) + ((bits >> 16) & 1)) >> 16
        to["bfloat16"] = np.where(np.isnan(mixed), np.uint32(0x7FFF), nearest)
    else:
        np.copyto(to, np.rint(mixed) if to.dtype == np.uint8 else mixed, casting="unsafe")
