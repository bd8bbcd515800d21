"""A launch of kernels/mixup.cu: the specialisation, the grid and the bytes of its parameters.

Pure computation. The tests use it to run the kernel on a CPU.
"""

from __future__ import annotations

import math
import struct
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from dali_mixup.backends.labels import smoothing
from dali_mixup.output import CHANNELS, Conversion, OutputFormat
from dali_mixup.plan import MixPlan

BLOCK = 192
PLAN_CAPACITY = 2038
"""Samples whose plan goes by value: 16 bytes each beside the batch's 144, of 32,764 in all."""

OLD_PLAN_CAPACITY = 64
"""The same for drivers that take 4,096 bytes of parameters."""

ANY = 0
"""The period of interleaved channels that are not 1, 3 or 4."""

NO_LABELS, INT32_IDS, INT64_IDS, DENSE_ROWS = range(4)

REPORT = np.dtype([("row_and_one", "<i4"), ("num_classes", "<i4"), ("label", "<i8")])
SAMPLE = np.dtype([("partner", "<i4"), ("lam", "<f4"), ("box", "<u2", 4)])
_BATCH = struct.Struct("<6Q7I2i2I2f4f4f4xQ")
COMPILE_OPTIONS = (f"-DMIXUP_BATCH_BYTES={_BATCH.size}",)

_ZEROS, _ONES = (0.0,) * 4, (1.0,) * 4
_SIZE = {"uint8": 1, "uint16": 2, "float16": 2, "bfloat16": 2, "float32": 4}
_MAX_GRID_YZ = 65535
_MAX_VALUES = 2**31 - 2**22  # the last tile's indices stay below 2^31


class Launch(NamedTuple):
    """A kernel, named as in C++, and its grid; a block has ``BLOCK`` threads."""

    kernel: str
    grid: tuple[int, int, int]


class LabelArguments(NamedTuple):
    """Addresses and form of what the kernel reads and writes for labels."""

    form: int = NO_LABELS
    labels: int = 0
    soft: int = 0
    ids: int = 0
    report: int = 0
    num_classes: int = 1
    label_smoothing: float = 0.0


def kernel_name(
    in_dtype: str, in_layout: str, out_dtype: str, out_layout: str,
    channels: int, period: int, pixels: int, unroll: int, frames: str, plan: str,
) -> str:  # fmt: skip
    """The specialisation as C++ writes it."""
    return (
        f"mix<{in_dtype.upper()}, {in_layout}, {out_dtype.upper()}, {out_layout}, "
        f"{channels}, {period}, {pixels}, {unroll}, {frames}, {plan}>"
    )


def transpose_name(in_dtype: str, out_dtype: str, out_layout: str, count: int, plan: str) -> str:
    """The specialisation for other numbers of channels, from or to HWC, as C++ writes it."""
    return f"transpose<{in_dtype.upper()}, {out_dtype.upper()}, {out_layout}, {count}, {plan}>"


def mask_kernel_name(dtype: str, period: int, pixels: int, plan: str) -> str:
    """The specialisation for masks, as C++ writes it."""
    return f"select<{dtype.upper()}, {period}, {pixels}, {plan}>"


@lru_cache(maxsize=1024)
def image_launch(
    form: Conversion, in_alignment: int, out_alignment: int, *, with_labels: bool, by_pointer: bool
) -> Launch:
    """The launch that makes these images, and their targets where there are labels.

    Parameters
    ----------
    form : Conversion
    in_alignment, out_alignment : int
        Of the images' and the output's addresses, modulo 16 bytes.
    with_labels, by_pointer : bool

    Raises
    ------
    ValueError
        A sample of nearly 2^31 values or more, or one in more tiles or frames than a grid has.
    """
    values = form.frames * form.height * form.width * form.channels
    if values > _MAX_VALUES:
        raise ValueError(f"images: expected at most {_MAX_VALUES} values each, got {values}")
    in_layout, out_layout = _of_frame(form.in_layout), _of_frame(form.memory_layout)
    frames, deep = "CLIPS" if "F" in form.in_layout else "STILLS", form.frames
    channels, period = form.channels, 1
    flat = in_layout == out_layout == "HWC"
    if channels not in CHANNELS and in_layout != out_layout:
        return _transposed(form, out_alignment, with_labels=with_labels, by_pointer=by_pointer)
    if flat:
        in_layout = out_layout = "CHW"
        channels, period = 1, channels
    elif channels not in CHANNELS:
        frames, deep, channels = "PLANES", form.frames * channels, 1
    _require_depth(deep)
    in_size, out_size = _SIZE[form.in_dtype], _SIZE[form.out_dtype]

    plane = form.height * form.width * period
    pixels = 16 // out_size
    while pixels > 1 and (
        plane % pixels
        or in_alignment % _access(pixels * in_size * (channels if in_layout == "HWC" else 1))
        or out_alignment % _access(pixels * out_size * (channels if out_layout == "HWC" else 1))
    ):
        pixels //= 2
    unroll = flat_unroll(in_size, period) if flat else 1
    tiles = _tiles(plane, unroll * BLOCK * pixels, with_labels=with_labels)
    kernel = kernel_name(
        form.in_dtype, in_layout, form.out_dtype, out_layout,
        channels, period if period in CHANNELS else ANY, pixels, unroll, frames,
        _plan_type(form.batch, by_pointer),
    )  # fmt: skip
    return Launch(kernel, (form.batch, tiles, deep))


def _require_depth(deep: int) -> None:
    if deep > _MAX_GRID_YZ:
        raise ValueError(
            f"images: expected at most {_MAX_GRID_YZ} frames, or planes of all frames, got {deep}"
        )


def _transposed(
    form: Conversion, out_alignment: int, *, with_labels: bool, by_pointer: bool
) -> Launch:
    """Of any number of channels, from HWC to planes or from planes to HWC."""
    _require_depth(form.frames)
    out_layout = _of_frame(form.memory_layout)
    size, plane = _SIZE[form.out_dtype], form.height * form.width
    count, run = 8 // size, form.channels if out_layout == "HWC" else plane
    if run % count or out_alignment % 8:
        count = 1
    plan = _plan_type(form.batch, by_pointer)
    kernel = transpose_name(form.in_dtype, form.out_dtype, out_layout, count, plan)
    tiles = _tiles(plane, _tile(form), with_labels=with_labels)
    return Launch(kernel, (form.batch, tiles, form.frames))


def _tile(form: Conversion) -> int:
    """Pixels of any number of channels that a block takes: whole sectors, and some 4 steps of its
    threads, each of which makes up to 32 bytes at a time."""
    values = 4 * BLOCK * 32 // _SIZE[form.out_dtype]
    return 64 * math.ceil(values / (64 * form.channels))


def _tiles(plane: int, tile: int, *, with_labels: bool) -> int:
    """Rows of the grid: the tiles of an image, and one for the target where there are labels."""
    tiles = -(-plane // tile) + with_labels
    if tiles > _MAX_GRID_YZ:
        raise ValueError(
            f"images: expected at most {_MAX_GRID_YZ} tiles of {tile} pixels, got {tiles}; "
            "give images whose height * width is a multiple of 16"
        )
    return tiles


@lru_cache(maxsize=256)
def mask_launch(
    shape: tuple[int, int, int], itemsize: int, in_alignment: int, out_alignment: int,
    *, by_pointer: bool,
) -> Launch:  # fmt: skip
    """The launch that mixes masks of this shape (B, H, W) and size of an element in bytes."""
    batch, height, width = shape
    period = max(1, itemsize // 4)
    size = itemsize // period
    plane, pixels = height * width * period, 16 // size
    while pixels > 1 and (
        plane % pixels or in_alignment % (pixels * size) or out_alignment % (pixels * size)
    ):
        pixels //= 2
    kernel = mask_kernel_name(f"uint{8 * size}", period, pixels, _plan_type(batch, by_pointer))
    return Launch(kernel, (batch, _tiles(plane, BLOCK * pixels, with_labels=False), 1))


def flat_unroll(in_size: int, period: int) -> int:
    """Chunks a thread of HWC to HWC: as many as the compiler holds without spilling."""
    return 1 if period not in CHANNELS else 4 if in_size < 4 and period < 4 else 2


@lru_cache(maxsize=64)
def label_launch(batch_size: int, *, by_pointer: bool) -> Launch:
    """The launch that makes targets alone."""
    plan = _plan_type(batch_size, by_pointer)
    kernel = kernel_name("uint8", "CHW", "uint8", "CHW", 1, 1, 1, 1, "STILLS", plan)
    return Launch(kernel, (batch_size, 1, 1))


def batch_parameters(
    form: Conversion | None, images: int, out: int, labels: LabelArguments, normalisation: int = 0
) -> bytearray:
    """The bytes of the kernel's ``Batch``.

    `images` and `out` are addresses, and so is `normalisation`, of what
    :func:`values_per_channel` returns.
    """
    plane = width = clip = channels = tile = 0
    in_strides = out_strides = (0, 0)
    mean: tuple[float, ...] = _ZEROS
    inverse_std: tuple[float, ...] = _ONES
    if form is not None:
        plane, width, channels = form.height * form.width, form.width, form.channels
        clip = form.frames * channels * plane
        in_strides, out_strides = _strides(form, form.in_layout), _strides(form, form.memory_layout)
        tile = 0 if channels in CHANNELS else _tile(form)
        if form.mean is not None and form.inverse_std is not None:
            mean = (*form.mean, *_ZEROS)[:4]
            inverse_std = (*form.inverse_std, *_ONES)[:4]
    keep, off = smoothing(labels.label_smoothing, labels.num_classes)
    parameters = bytearray(_BATCH.size)
    _BATCH.pack_into(
        parameters, 0,
        images, out, labels.labels, labels.soft, labels.ids, labels.report,
        plane, width, clip, *in_strides, *out_strides, labels.num_classes, labels.form,
        channels, tile, keep, off, *mean, *inverse_std, normalisation,
    )  # fmt: skip
    return parameters


def mask_parameters(shape: tuple[int, int, int], masks: int, out: int) -> bytearray:
    """The bytes of the kernel's ``Batch`` for masks of this shape (B, H, W)."""
    batch, height, width = shape
    form = OutputFormat().resolve((batch, 1, height, width), "uint8", "CHW")
    return batch_parameters(form, masks, out, LabelArguments())


def values_per_channel(form: Conversion) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
    """All means and all 1 / std, where the kernel reads them from a GPU's memory: for other numbers
    of channels than 1, 3 and 4, unless all channels have the same."""
    if form.channels in CHANNELS or form.mean is None or form.inverse_std is None:
        return None
    same = len(set(form.mean)) == len(set(form.inverse_std)) == 1
    return None if same else (form.mean, form.inverse_std)


def _of_frame(layout: str) -> str:
    """ "CHW" or "HWC", the order of one frame."""
    return layout.replace("F", "")


def _strides(form: Conversion, layout: str) -> tuple[int, int]:
    """Elements from one frame to the next, and from one plane of a frame to the next."""
    plane = form.height * form.width
    if layout == "CFHW":
        return plane, form.frames * plane
    return form.channels * plane, plane


def plan_parameters(plan: MixPlan) -> NDArray[np.void]:
    """The plan as the kernel's samples, as many as its specialisation has room for."""
    samples = np.zeros(_capacity(len(plan)), SAMPLE)
    samples["partner"][: len(plan)] = plan.partner
    samples["lam"][: len(plan)] = plan.lam
    if plan.box is not None:
        samples["box"][: len(plan)] = plan.box
    return samples


def _plan_type(batch_size: int, by_pointer: bool) -> str:
    return "PlanByPointer" if by_pointer else f"PlanByValue<{_capacity(batch_size)}>"


def _capacity(batch_size: int) -> int:
    """Room for a few sizes of batches, so that few kernels are compiled."""
    for capacity in (64, 256, 1024, PLAN_CAPACITY):
        if batch_size <= capacity:
            return capacity
    return batch_size


def _access(run_bytes: int) -> int:
    """The kernel's widest access in runs of this many bytes: the power of two in it, up to 16."""
    return min(16, run_bytes & -run_bytes)
