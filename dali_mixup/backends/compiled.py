"""Mixup of numpy arrays by compiled loops: the bits of the reference in one pass."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import numpy as np

from dali_mixup.backends import loops, threads
from dali_mixup.backends.arrays import Array, Float32Array, in_order
from dali_mixup.backends.labels import bad_label, smoothing
from dali_mixup.backends.memory import Recycler
from dali_mixup.output import Conversion
from dali_mixup.plan import MixPlan

_NO_BOXES = np.empty((0, 4), np.int32)
_memory = Recycler(keep=2)


def obstacle(form: Conversion) -> str:
    """Why these images cannot be mixed by compiled loops; empty where they can."""
    if "float16" in (form.in_dtype, form.out_dtype) and not loops.converts_float16():
        return "numba compiles for a processor without instructions for float16"
    return ""


def mix_into(out: Array, images: Array, plan: MixPlan, form: Conversion, workers: int) -> None:
    """Mix images of ``form.in_layout`` into an array of ``form.memory_shape``.

    Parameters
    ----------
    out : array
        Contiguous, in the processor's order of bytes.
    images : array
    plan : MixPlan
    form : Conversion
    workers : int
        The number of threads.
    """
    if not out.size:
        return
    pixels, order = _contiguous(images, form.in_layout)
    arguments = (
        _flat(pixels, writable=False),
        _flat(out, writable=True),
        plan.partner,
        plan.lam,
        _NO_BOXES if plan.box is None else plan.box,
        _for_loops(form, order, plan.box is not None),
    )
    threads.share(lambda first, last: loops.mix_samples(first, last, *arguments), len(out), workers)


def mix_ids_into(out: Float32Array, labels: Array, plan: MixPlan, label_smoothing: float) -> None:
    """Mix class ids into a contiguous array of shape (B, num_classes).

    Raises
    ------
    ValueError
        A class id is out of range. It is named with its row.
    """
    num_classes = out.shape[1]
    smoothed = smoothing(label_smoothing, num_classes)
    ids = labels.reshape(-1).astype(np.int64)
    bad = loops.mix_class_ids(out, ids, plan.partner, plan.lam, *smoothed)
    if bad >= 0:
        raise bad_label(bad, int(labels.reshape(-1)[bad]), num_classes)


def _contiguous(images: Array, layout: str) -> tuple[Array, str]:
    """Contiguous images in the processor's order of bytes, and the order of their axes.

    That is `layout`, or channels last.
    """
    for order in (layout, layout.replace("C", "") + "C"):
        pixels = in_order(images, layout, order)
        if pixels.flags.c_contiguous and pixels.dtype.isnative:
            return pixels, order
    copied = _memory.empty(images.shape, images.dtype.newbyteorder("="))
    np.copyto(copied, images)
    return copied, layout


def _flat(batch: Array, *, writable: bool) -> Array:
    """A batch as values; what can be written to is another type to numba."""
    flat = batch.reshape(-1)
    flat = flat.view(loops.FLOAT16 if flat.dtype == np.float16 else flat.dtype)
    flat.setflags(write=writable)
    return flat


@lru_cache(maxsize=16)
def _for_loops(form: Conversion, order: str, boxed: bool) -> tuple[Any, ...]:
    """What the loops know of a conversion of images whose axes have this `order`.

    Without boxes, normalisation and another order, a sample is a single row of pixels.

    Returns
    -------
    geometry : int64 array
        Frames, channels, height, width; then how many values are from one frame, channel and pixel
        to the next, in the images and in the output.
    normalized : bool
    mean, inverse_std : float32 array, shape (channels,)
        0 and 1 without normalisation, which change no bit.
    """
    sides = {"F": form.frames, "C": form.channels, "H": form.height, "W": form.width}
    if not boxed and form.mean is None and order == form.memory_layout:
        sides = {"F": 1, "C": 1, "H": 1, "W": math.prod(sides.values())}
    geometry = [*sides.values()]
    for axes in (order, form.memory_layout):
        step, steps = 1, dict.fromkeys(sides, 0)
        for axis in reversed(axes):
            steps[axis] = step
            step *= sides[axis]
        geometry += [steps["F"], steps["C"], steps["W"]]
    mean = form.mean or (0,) * sides["C"]
    inverse_std = form.inverse_std or (1,) * sides["C"]
    return (
        np.array(geometry),
        form.mean is not None,
        np.array(mean, np.float32),
        np.array(inverse_std, np.float32),
    )
