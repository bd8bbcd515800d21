"""Loops over pixels that numba compiles, and whose types it finds.

They are in one file, because numba's cache notices changes of the file of the function that is
called, and of no other file.
"""

import os
import platform
from functools import lru_cache

import numpy as np
from llvmlite import ir
from llvmlite.binding import get_host_cpu_features
from numba import config, njit, types
from numba.core.compiler_lock import global_compiler_lock
from numba.extending import intrinsic, overload

if config.DISABLE_JIT:
    raise ImportError("NUMBA_DISABLE_JIT is set")

RUN = 512
"""Pixels that are mixed before they are normalised and written in another order."""

FLOAT16 = np.dtype([("float16", np.uint16)])
"""numba has no float16 on a CPU: its bits travel under this name."""

# A child whose parent compiles in another thread would wait for this lock for ever.
os.register_at_fork(
    before=global_compiler_lock.acquire,
    after_in_parent=global_compiler_lock.release,
    after_in_child=global_compiler_lock.release,
)

_OPTIONS = {"nogil": True, "error_model": "numpy"}


@lru_cache
def converts_float16() -> bool:
    """Whether the processor that numba compiles for has instructions for it."""
    if config.CPU_NAME is not None or config.CPU_FEATURES is not None:
        return False
    return platform.machine() == "aarch64" or bool(get_host_cpu_features().get("f16c"))


def _cached(function):
    """Compile when first called; keep the result where numba finds a folder for its cache."""
    try:
        return njit(cache=True, **_OPTIONS)(function)
    except RuntimeError:
        return njit(**_OPTIONS)(function)


@intrinsic
def _bits(_, value):
    """The bits of a float32."""

    def cast(context, builder, signature, arguments):
        return builder.bitcast(arguments[0], ir.IntType(32))

    return types.uint32(types.float32), cast


@intrinsic
def _float(_, bits):
    """The float32 of these bits."""

    def cast(context, builder, signature, arguments):
        return builder.bitcast(arguments[0], ir.FloatType())

    return types.float32(types.uint32), cast


@intrinsic
def _half_bits(_, value):
    """The bits of the float16 that is nearest to a float32, to even between two."""

    def cast(context, builder, signature, arguments):
        return builder.bitcast(builder.fptrunc(arguments[0], ir.HalfType()), ir.IntType(16))

    return types.uint16(types.float32), cast


@intrinsic
def _half(_, bits):
    """The float32 of the bits of a float16."""

    def cast(context, builder, signature, arguments):
        return builder.fpext(builder.bitcast(arguments[0], ir.HalfType()), ir.FloatType())

    return types.float32(types.uint16), cast


def _load(pixels, j):
    """A value as float32, exactly."""


def _store(to, j, value):
    """Write a float32, rounded once, to nearest even."""


@overload(_load)
def _load_of(pixels, j):
    fields = getattr(pixels.dtype, "fields", ())
    if "float16" in fields:
        return lambda pixels, j: _half(pixels[j].float16)
    if "bfloat16" in fields:
        return lambda pixels, j: _float(np.uint32(pixels[j].bfloat16) << np.uint32(16))
    return lambda pixels, j: np.float32(pixels[j])


@overload(_store)
def _store_of(to, j, value):
    def store_float16(to, j, value):
        to[j].float16 = _half_bits(value)

    def store_bfloat16(to, j, value):
        bits = _bits(value)
        nearest = np.uint32(bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1)))
        to[j].bfloat16 = np.uint16(0x7FFF if np.isnan(value) else nearest >> np.uint32(16))

    def store_bytes(to, j, value):
        to[j] = np.uint8(np.rint(value))

    def store_float32(to, j, value):
        to[j] = value

    fields = getattr(to.dtype, "fields", ())
    if fields:
        return store_float16 if "float16" in fields else store_bfloat16
    return store_bytes if to.dtype == types.uint8 else store_float32


@njit(**_OPTIONS)
def _weigh(to, own, partner, lam, mean, inverse_std):
    """Mix values of one channel; a share of 1 or 0 selects."""
    if lam == 1 or lam == 0:
        selected = own if lam == 1 else partner
        for j in range(len(to)):
            _store(to, j, (_load(selected, j) - mean) * inverse_std)
    else:
        rest = np.float32(1) - lam
        for j in range(len(to)):
            mixed = lam * _load(own, j) + rest * _load(partner, j)
            _store(to, j, (mixed - mean) * inverse_std)


@njit(**_OPTIONS)
def _split(to, step, mixed, mean, inverse_std):
    """Normalise pixels, and write their channels, `step` values apart from each other."""
    channels = len(mean)
    count = len(mixed) // channels
    if channels == 3:
        red, green, blue = to[:count], to[step : step + count], to[2 * step : 2 * step + count]
        mean_r, mean_g, mean_b = mean[0], mean[1], mean[2]
        inverse_r, inverse_g, inverse_b = inverse_std[0], inverse_std[1], inverse_std[2]
        for p in range(count):
            _store(red, p, (mixed[3 * p] - mean_r) * inverse_r)
            _store(green, p, (mixed[3 * p + 1] - mean_g) * inverse_g)
            _store(blue, p, (mixed[3 * p + 2] - mean_b) * inverse_b)
    else:
        for c in range(channels):
            plane, values = to[c * step : c * step + count], mixed[c::channels]
            for p in range(count):
                _store(plane, p, (values[p] - mean[c]) * inverse_std[c])


@njit(**_OPTIONS)
def _join(to, mixed, mean, inverse_std):
    """Normalise channels, which are RUN values apart from each other, and write them as pixels."""
    channels = len(mean)
    count = len(to) // channels
    if channels == 3:
        red, green, blue = mixed[:count], mixed[RUN : RUN + count], mixed[2 * RUN : 2 * RUN + count]
        mean_r, mean_g, mean_b = mean[0], mean[1], mean[2]
        inverse_r, inverse_g, inverse_b = inverse_std[0], inverse_std[1], inverse_std[2]
        for p in range(count):
            _store(to, 3 * p, (red[p] - mean_r) * inverse_r)
            _store(to, 3 * p + 1, (green[p] - mean_g) * inverse_g)
            _store(to, 3 * p + 2, (blue[p] - mean_b) * inverse_b)
    else:
        for c in range(channels):
            values, plane = to[c::channels], mixed[c * RUN : c * RUN + count]
            for p in range(count):
                _store(values, p, (plane[p] - mean[c]) * inverse_std[c])


@njit(**_OPTIONS)
def _keep_order(to, mixed, channels, mean, inverse_std):
    """Normalise pixels, and write them as they are."""
    for p in range(len(to) // channels):
        for c in range(channels):
            value = (mixed[channels * p + c] - mean[c]) * inverse_std[c]
            _store(to, channels * p + c, value)


@njit(**_OPTIONS)
def _mix_rows(
    out, to, pixels, own, partner, lam, first, count, rows,
    scratch, geometry, normalized, mean, inverse_std,
):  # fmt: skip
    """Mix `count` pixels in each of `rows` rows, the first at pixel `first`, of all channels.

    `to`, `own` and `partner` say where the samples begin.
    """
    frames, channels, width = geometry[0], geometry[1], geometry[3]
    from_frame, from_channel, from_pixel = geometry[4], geometry[5], geometry[6]
    to_frame, to_channel, to_pixel = geometry[7], geometry[8], geometry[9]
    planes = channels if from_pixel == 1 else 1
    if from_pixel == to_pixel and (from_pixel == 1 or not normalized):
        n = count * from_pixel
        for frame in range(frames):
            for c in range(planes):
                for row in range(rows):
                    start = first + row * width
                    at = frame * from_frame + c * from_channel + start * from_pixel
                    a, b = own + at, partner + at
                    t = to + frame * to_frame + c * to_channel + start * to_pixel
                    _weigh(
                        out[t : t + n], pixels[a : a + n], pixels[b : b + n],
                        lam, mean[c], inverse_std[c],
                    )  # fmt: skip
        return
    for frame in range(frames):
        for row in range(rows):
            begin = first + row * width
            for start in range(begin, begin + count, RUN):
                run = min(RUN, begin + count - start)
                n = run * from_pixel
                for c in range(planes):
                    at = frame * from_frame + c * from_channel + start * from_pixel
                    a, b, s = own + at, partner + at, c * RUN
                    _weigh(
                        scratch[s : s + n], pixels[a : a + n], pixels[b : b + n],
                        lam, np.float32(0), np.float32(1),
                    )  # fmt: skip
                t, n = to + frame * to_frame + start * to_pixel, run * channels
                if to_pixel == 1:
                    _split(out[t:], to_channel, scratch[:n], mean, inverse_std)
                elif from_pixel == 1:
                    _join(out[t : t + n], scratch, mean, inverse_std)
                elif channels == 3:  # a constant, for which the compiler unrolls the loop
                    _keep_order(out[t : t + n], scratch, 3, mean, inverse_std)
                else:
                    _keep_order(out[t : t + n], scratch, channels, mean, inverse_std)


@_cached
def mix_samples(first, last, pixels, out, partners, lam, boxes, form):
    """Mix the samples from `first` to `last`."""
    channels, height, width = form[0][1], form[0][2], form[0][3]
    size = len(out) // len(partners)
    scratch = np.empty(RUN * channels, np.float32)
    for i in range(first, last):
        to, partner, share = i * size, partners[i] * size, lam[i]
        if size == height * width and not len(boxes):  # a single row, the frequent case
            _weigh(
                out[to : to + size], pixels[to : to + size], pixels[partner : partner + size],
                share, form[2][0], form[3][0],
            )  # fmt: skip
            continue
        if len(boxes):
            y0, y1, x0, x1 = boxes[i, 0], boxes[i, 1], boxes[i, 2], boxes[i, 3]
            if y0 < y1 and x0 < x1:
                _mix_rows(
                    out, to, pixels, to, partner, np.float32(1), 0, height * width, 1,
                    scratch, *form,
                )  # fmt: skip
                _mix_rows(
                    out, to, pixels, to, partner, np.float32(0), y0 * width + x0, x1 - x0, y1 - y0,
                    scratch, *form,
                )  # fmt: skip
                continue
        _mix_rows(out, to, pixels, to, partner, share, 0, height * width, 1, scratch, *form)


@_cached
def mix_class_ids(out, ids, partners, lam, keep, off):
    """Write soft labels; return the row of the first class id that is out of range, or -1."""
    num_classes = out.shape[1]
    for i in range(len(ids)):
        if ids[i] < 0 or ids[i] >= num_classes:
            return i
    on = keep + off
    for i in range(len(ids)):
        own, partner = ids[i], ids[partners[i]]
        rest = np.float32(1) - lam[i]
        out[i] = lam[i] * off + rest * off
        if own == partner:
            out[i, own] = lam[i] * on + rest * on
        else:
            out[i, own] = lam[i] * on + rest * off
            out[i, partner] = lam[i] * off + rest * on
    return -1
