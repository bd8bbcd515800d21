"""Batches of images as numpy arrays: their dtypes, and the array that the mixed ones go into."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dali_mixup.output import BFLOAT16, IN_DTYPES, Conversion, OutputFormat
from dali_mixup.plan import MixPlan

Array = NDArray[Any]
Float32Array = NDArray[np.float32]

Convert = Callable[[Array, Array], None]
"""Writes to its first argument what the second holds, in another dtype; both are contiguous."""

FEW_CHANNELS = 16

AT_ONCE = 3 << 16
"""Values whose intermediate results, 768 KiB of float32, stay in the cache of one core."""


def in_order(batch: Array, layout: str, order: str) -> Array:
    """A view of a batch in `layout` with the axes of a sample in another order."""
    return batch if layout == order else batch.transpose(_axes(layout, order))


def copy(to: Array, pixels: Array) -> None:
    """Copy pixels of the same dtype, which have another order in memory.

    numpy copies along the last axis of `to`. Where that is an axis of few channels, which are far
    apart in `pixels`, copying channel by channel is several times as fast.
    """
    if to.shape[-1] <= FEW_CHANNELS and pixels.strides[-1] > pixels.strides[-2]:
        for channel in range(to.shape[-1]):
            np.copyto(to[..., channel], pixels[..., channel])
    else:
        np.copyto(to, pixels)


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
    return images, form, out


def load(to: Float32Array, pixels: Array) -> None:
    """Write pixels to `to` as float32, exactly."""
    convert: Convert = LOADS.get(name_of(pixels.dtype), np.copyto)
    convert(to, pixels)


def store(to: Array, mixed: Float32Array) -> None:
    """Write float32 to `to` in its dtype, rounded once, to nearest even; overwrites `mixed`."""
    STORES[name_of(to.dtype)](to, mixed)


def _load_bfloat16(to: Float32Array, pixels: Array) -> None:
    bits = to.view(np.uint32)
    np.copyto(bits, pixels["bfloat16"])
    np.left_shift(bits, 16, out=bits)


def _store_bfloat16(to: Array, mixed: Float32Array) -> None:
    bits = mixed.view(np.uint32)
    nan = np.isnan(mixed)
    bits += np.uint32(0x7FFF) + ((bits >> 16) & 1)
    bits >>= 16
    bits[nan] = 0x7FFF
    np.copyto(to["bfloat16"], bits, casting="unsafe")


def _store_bytes(to: Array, mixed: Float32Array) -> None:
    np.rint(mixed, out=mixed)
    np.copyto(to, mixed, casting="unsafe")


def _store_float16(to: Array, mixed: Float32Array) -> None:
    np.copyto(to, mixed, casting="same_kind")


def _take(images: Array, index: NDArray[np.integer[Any]], to: Array) -> None:
    # Without a mode numpy would gather into memory of its own and copy that.
    np.take(images, index, 0, to, mode="clip")


LOADS: dict[str, Convert] = dict.fromkeys(IN_DTYPES, np.copyto) | {"bfloat16": _load_bfloat16}
"""Functions that write pixels as float32, by the dtype of the pixels."""

STORES: dict[str, Convert] = {
    "float32": np.copyto,
    "float16": _store_float16,
    "bfloat16": _store_bfloat16,
    "uint8": _store_bytes,
}
"""Functions that write float32 in a dtype, rounded once, to nearest even; they overwrite it."""


@dataclass(frozen=True)
class Operations:
    """What images are mixed by: functions of numpy, or of another library on the same memory."""

    wrap: Callable[[Array], Any]
    """The array as the other functions take it."""
    multiply: Callable[[Any, Any, Any], object]
    add: Callable[[Any, Any, Any], object]
    subtract: Callable[[Any, Any, Any], object]
    """These three write to the third argument."""
    take: Callable[[Any, Any, Any], object]
    """Writes the images of an index to the third argument."""
    copy: Callable[[Any, Any], object]
    """Writes to the first argument what the second holds, in another order of memory."""
    loads: Mapping[str, Convert]
    stores: Mapping[str, Convert]
    at_once: int = AT_ONCE
    """The most values that are computed at once."""


def _itself(array: Array) -> Array:
    return array


NUMPY = Operations(_itself, np.multiply, np.add, np.subtract, _take, copy, LOADS, STORES)
