"""Batches that lead to every specialisation of the kernel, and what they are compared with."""

from __future__ import annotations

import itertools

import numpy as np

from dali_mixup import MixPlan, OutputFormat
from dali_mixup.output import BFLOAT16, CLIPS

NUMPY = {
    "uint8": np.dtype("u1"),
    "uint16": np.dtype("u2"),
    "float16": np.dtype("f2"),
    "bfloat16": BFLOAT16,
    "float32": np.dtype("f4"),
}
FRAMES = 3
SIZES_OF_ANY = [(4, 8, 6), (2, 5, 8), (2, 6, 6), (2, 5, 7), (5, 1, 1), (2, 12, 44), (1, 1, 2)]
SIZES = [(3, 16, 16), (4, 8, 6), (2, 5, 7), (5, 1, 1), (2, 3, 44), (1, 1, 2)]


def pixels(dtype: str, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    if dtype in ("uint8", "uint16"):
        return rng.integers(0, np.iinfo(dtype).max, shape, dtype=dtype, endpoint=True)
    values = rng.standard_normal(shape) * 10.0 ** rng.integers(-6, 4, shape)
    special = rng.choice([np.inf, -np.inf, np.nan, 0.0, -0.0, 65504.0, 6e-8, 1e-40, 3e38], shape)
    values = np.where(rng.random(shape) < 0.03, special, values).astype(np.float32)
    bits = values.view(np.uint32)
    half_way = rng.random(shape) < 0.03  # between two bfloat16s, or a NaN of ones alone
    bits[half_way] = bits[half_way] & 0xFFFF0000 | 0x8000
    bits[rng.random(shape) < 0.01] = 0x7FFFFFFF
    if dtype == "bfloat16":
        return (values.view(np.uint32) >> 16).astype(np.uint16).view(BFLOAT16)
    with np.errstate(over="ignore"):
        return values.astype(dtype)


def any_plan(size: int, height: int, width: int, rng: np.random.Generator) -> MixPlan:
    lam = rng.beta(0.4, 0.4, size)
    box = np.zeros((size, 4), int)
    for i in range(size):
        kind = rng.integers(8)
        if kind < 2:
            lam[i] = kind
        elif kind == 2:
            box[i] = [0, height, 0, width]
        elif kind == 3:
            box[i] = [height - 1, height, width - 1, width]
        elif kind < 6:
            y, x = np.sort(rng.integers(0, height + 1, 2)), np.sort(rng.integers(0, width + 1, 2))
            box[i] = [*y, *x]
    return MixPlan(rng.integers(0, size, size), lam, box)


def as_float(values: np.ndarray) -> np.ndarray:
    if values.dtype == BFLOAT16:
        return (values["bfloat16"].astype(np.uint32) << 16).view(np.float32)
    return values


def same_bits(got: np.ndarray, want: np.ndarray) -> bool:
    """Equal in every bit, but that a NaN is a NaN."""
    nan = np.isnan(as_float(want))
    bits = f"u{want.dtype.itemsize}"
    return bool(((got.view(bits) == want.view(bits)) | (nan & np.isnan(as_float(got)))).all())


def outputs(dtype: str) -> list[str]:
    """What images of this dtype can become."""
    return ["float16", "bfloat16", "float32", *(["uint8"] if dtype == "uint8" else [])]


def cases(dtype: str):
    """Shapes, formats and starts that lead to every specialisation that reads this dtype."""
    outs = outputs(dtype)
    unit = {"uint8": 1, "float32": 4}
    for out, layouts, channels in itertools.product(
        outs, [("CHW", "CHW"), ("HWC", "CHW"), ("CHW", "HWC"), ("HWC", "HWC")], (1, 3, 4)
    ):
        normalise = {} if out == "uint8" else {"mean": 0.4, "std": 1.3}
        output = OutputFormat(dtype=out, layout=layouts[1], **normalise)
        for size in SIZES:
            starts = itertools.product((None, 0, unit.get(dtype, 2)), (None, 0, unit.get(out, 2)))
            for shifts in starts:
                yield size, channels, layouts[0], output, shifts
        for shift in (2, 4, 8):
            if shift >= unit.get(dtype, 2):
                yield (2, 16, 16), channels, layouts[0], output, (shift, 0)
            if shift >= unit.get(out, 2):
                yield (2, 16, 16), channels, layouts[0], output, (0, shift)


def shape_of(size: tuple[int, int, int], channels: int, layout: str) -> tuple[int, ...]:
    """Of a batch of so many samples, height and width."""
    sides = {"F": FRAMES, "C": channels, "H": size[1], "W": size[2]}
    return size[0], *(sides[axis] for axis in layout)


def cases_of_clips(dtype: str):
    """The same for clips, which lie as stills do in every frame."""
    outs = outputs(dtype)
    unit = {"uint8": 1, "float32": 4}
    starts = [(None, None), (0, 0), *((shift, shift) for shift in (2, 4, 8))]
    starts += [(unit.get(dtype, 2), 0), (8, 0), (0, 8)]
    for out, layout, out_layout, channels in itertools.product(outs, CLIPS, CLIPS, (1, 3, 4)):
        normalise = {} if out == "uint8" else {"mean": 0.4, "std": 1.3}
        output = OutputFormat(dtype=out, layout=out_layout, **normalise)
        fitting = [
            (from_, to)
            for from_, to in starts
            if not ((from_ or 0) % unit.get(dtype, 2) or (to or 0) % unit.get(out, 2))
        ]
        for size, shifts in itertools.product(SIZES, fitting):
            yield size, channels, layout, output, shifts


MANY = {"mean": tuple(range(1, 30)), "std": tuple(1 + k / 7 for k in range(29))}


def cases_of_any_channels(dtype: str):
    """Stills and clips of 2, 8 and 29 channels, more of them than a warp takes at a time."""
    unit = {"uint8": 1, "float32": 4}
    places = [("CHW", "CHW"), ("HWC", "CHW"), ("CHW", "HWC"), ("HWC", "HWC")]
    places += itertools.product(CLIPS, CLIPS)
    for out, (layout, out_layout), channels in itertools.product(
        outputs(dtype), places, (2, 8, 29)
    ):
        scale = {name: values[:channels] for name, values in MANY.items()}
        normalise = {"uint8": {}, "bfloat16": {"mean": 0.4, "std": 1.3}}.get(out, scale)
        output = OutputFormat(dtype=out, layout=out_layout, **normalise)
        for size in SIZES_OF_ANY:
            for shifts in ((None, None), (0, 0), (unit.get(dtype, 2), unit.get(out, 2))):
                yield size, channels, layout, output, shifts
