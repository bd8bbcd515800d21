"""What each arithmetic instruction computes; an opcode that is not in the table does not run.

Values are numpy arrays of the instruction's types. float32 is rounded to nearest even after every
operation, subnormal numbers stay, and a NaN that is computed is the canonical one, as on a GPU.
``add``, ``sub`` and ``mul`` of float32 without ``.rn`` are missing: ptxas may fuse them.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from support.ptx.errors import DivisionByZero

Array = np.ndarray[Any, Any]
Compute = Callable[..., Any]

DTYPE = {"pred": np.dtype(np.bool_), "f32": np.dtype(np.float32)} | {
    f"{sign}{bits}": np.dtype(f"{kind}{bits // 8}")
    for sign, kind in (("u", "u"), ("s", "i"), ("b", "u"))
    for bits in (8, 16, 32, 64)
}
BITS = {name: 1 if name == "pred" else dtype.itemsize * 8 for name, dtype in DTYPE.items()}
UNSIGNED = {1: np.dtype(np.bool_)} | {bits: np.dtype(f"u{bits // 8}") for bits in (8, 16, 32, 64)}

CANONICAL_NAN = np.uint32(0x7FFFFFFF).view(np.float32)
HALF_NAN = 0x7FFF


class Operation(NamedTuple):
    """The types of the result and the arguments, and the function of numpy arrays."""

    result: str
    arguments: tuple[str, ...]
    compute: Compute


# ---- float32 and its conversions -----------------------------------------------------------------


def canonical(function: Compute) -> Compute:
    """The function with every NaN replaced by the canonical one."""

    def compute(*arguments: Array) -> Array:
        result = np.asarray(function(*arguments))
        return np.where(np.isnan(result), CANONICAL_NAN, result)

    return compute


def fused_multiply_add(a: Array, b: Array, c: Array) -> Array:
    """a * b + c, rounded once: exact in float64, with the sum rounded to odd before float32."""
    product, third = np.multiply(a, b, dtype=np.float64), np.asarray(c, np.float64)
    total = product + third
    back = total - product
    error = (product - (total - back)) + (third - back)
    bits = np.asarray(total).view(np.int64)
    inexact = np.isfinite(total) & (error != 0) & (bits & 1 == 0)
    away = np.where((error > 0) == (total > 0), 1, -1)
    return np.where(inexact, bits + away, bits).view(np.float64).astype(np.float32)


def half_bits(value: Array) -> Array:
    """float32 to the bits of float16, to nearest even, in integers.

    numpy's own cast is what the reference uses, and would prove nothing.
    """
    bits = np.asarray(value, np.float32).view(np.uint32).astype(np.int64)
    sign, exponent, fraction = bits >> 16 & 0x8000, bits >> 23 & 0xFF, bits & 0x7FFFFF
    significand = np.where(exponent > 0, fraction | 0x800000, fraction)
    normal = exponent > 112
    drop = np.where(normal, 13, np.minimum(126 - np.maximum(exponent, 1), 40))
    kept, rest, half = significand >> drop, significand & ((1 << drop) - 1), 1 << (drop - 1)
    kept = kept + ((rest > half) | ((rest == half) & (kept & 1 == 1)))
    result = np.minimum(np.where(normal, (exponent - 113) << 10, 0) + kept, 0x7C00)
    result = np.where(exponent == 255, 0x7C00, result) | sign
    return np.where((exponent == 255) & (fraction != 0), HALF_NAN, result).astype(np.uint16)


def bfloat16_bits(value: Array) -> Array:
    """float32 to the bits of bfloat16, to nearest even."""
    bits = np.asarray(value, np.float32).view(np.uint32).astype(np.int64)
    rounded = bits + 0x7FFF + (bits >> 16 & 1) >> 16
    return np.where(np.isnan(value), HALF_NAN, rounded).astype(np.uint16)


def half_to_float(bits: Array) -> Array:
    """The bits of float16 to float32, exactly, in integers."""
    wide = np.asarray(bits, np.uint16).astype(np.uint32)
    sign, exponent, fraction = wide >> 15 << 31, wide >> 10 & 0x1F, wide & 0x3FF
    normal = (sign | (exponent + 112) << 23 | fraction << 13).view(np.float32)
    subnormal = np.ldexp(fraction.astype(np.float32), -24) * np.where(sign, -1, 1)
    special = np.where(fraction, CANONICAL_NAN, (sign | 0x7F800000).view(np.float32))
    value = np.where(exponent == 0, subnormal, np.where(exponent == 31, special, normal))
    return value.astype(np.float32)


def two(convert: Compute) -> Compute:
    """A conversion of two values; the first argument goes to the upper half."""
    return lambda high, low: convert(low).astype(np.uint32) | convert(high).astype(np.uint32) << 16


def of_each_half(function: Compute) -> Compute:
    """``f32x2``: the function of the two float32 that each register of 64 bits holds."""

    def compute(*registers: Array) -> Array:
        halves = (np.reshape(register, -1).view(np.float32) for register in registers)
        return np.asarray(function(*(each.reshape(-1, 2) for each in halves))).view(np.uint64)[:, 0]

    return compute


def truncated(convert: Compute, drop: int) -> Compute:
    """A conversion with rounding ``.rz``, for values in the result's normal range."""
    mask = np.uint32((0xFFFFFFFF << drop) & 0xFFFFFFFF)
    return lambda value: convert((np.asarray(value).view(np.uint32) & mask).view(np.float32))


# ---- integers ------------------------------------------------------------------------------------


def wide_product(a: Array, b: Array) -> Array:
    double = np.dtype(f"{a.dtype.kind}{a.dtype.itemsize * 2}")
    return a.astype(double) * b.astype(double)


def quotient(a: Array, b: Array) -> Array:
    """Integer division, towards 0."""
    if (b == 0).any():
        raise DivisionByZero("an integer is divided by 0", int(np.argmax(np.asarray(b) == 0)))
    size = np.abs(a.astype(np.int64)) // np.abs(b.astype(np.int64))
    return np.where((a < 0) != (b < 0), -size, size).astype(a.dtype)


def saturated(a: Array) -> Array:
    """A float as an unsigned integer, rounded towards 0, and limited to 32 bits."""
    limited = np.clip(np.nan_to_num(a.astype(np.float64), nan=0.0), 0, 2**32 - 1)
    return np.trunc(limited).astype(np.uint32)


def shift_left(a: Array, by: Array) -> Array:
    bits = a.dtype.itemsize * 8
    return np.where(by < bits, a << np.minimum(by, bits - 1).astype(a.dtype), 0).astype(a.dtype)


def shift_right(a: Array, by: Array) -> Array:
    """Arithmetic for signed types, with the shift limited to the register's bits."""
    bits = a.dtype.itemsize * 8
    shifted = a >> np.minimum(by, bits - 1).astype(a.dtype)
    return shifted if a.dtype.kind == "i" else np.where(by < bits, shifted, 0).astype(a.dtype)


def permute_bytes(a: Array, b: Array, selector: Array) -> Array:
    """``prmt``: four bytes of the eight of b and a; bit 3 of a selector replicates the sign."""
    both = a.astype(np.uint64) | b.astype(np.uint64) << np.uint64(32)
    result = np.zeros(np.broadcast(a, b, selector).shape, np.uint32)
    for k in range(4):
        choice = selector >> np.uint32(4 * k) & np.uint32(0xF)
        byte = both >> ((choice & 7).astype(np.uint64) * np.uint64(8)) & np.uint64(0xFF)
        sign = np.where(byte & np.uint64(0x80), np.uint64(0xFF), np.uint64(0))
        chosen = np.where(choice & 8, sign, byte).astype(np.uint32)
        result |= chosen << np.uint32(8 * k)
    return result


def insert_bits(a: Array, b: Array, start: Array, length: Array) -> Array:
    """``bfi``: the low `length` bits of a in the place of b's bits from `start` on."""
    wide = ((np.uint64(1) << length.astype(np.uint64)) - np.uint64(1)) << start.astype(np.uint64)
    mask = (wide & np.uint64(0xFFFFFFFF)).astype(np.uint32)
    return (shift_left(a, start) & mask) | (b & ~mask)


# ---- the table -----------------------------------------------------------------------------------

COMPARE: dict[str, Compute] = {
    "eq": operator.eq, "ne": operator.ne, "lt": operator.lt, "le": operator.le,
    "gt": operator.gt, "ge": operator.ge,
}  # fmt: skip


def select(a: Array, b: Array, chosen: Array) -> Array:
    return np.where(chosen, a, b)


def unordered(a: Array, b: Array) -> Array:
    return np.isnan(a) | np.isnan(b)


def ordered_not_equal(a: Array, b: Array) -> Array:
    return (a < b) | (a > b)


def _integers() -> dict[str, Operation]:
    table = {}
    for t in ("s16", "u16", "s32", "u32", "s64", "u64"):
        for name, compute in (
            ("add", operator.add), ("sub", operator.sub), ("mul.lo", operator.mul),
            ("min", np.minimum), ("max", np.maximum),
        ):  # fmt: skip
            table[f"{name}.{t}"] = Operation(t, (t, t), compute)
        table[f"mad.lo.{t}"] = Operation(t, (t, t, t), lambda a, b, c: a * b + c)
        table[f"neg.{t}"] = Operation(t, (t,), operator.neg)
        table[f"shr.{t}"] = Operation(t, (t, "u32"), shift_right)
        table[f"selp.{t}"] = Operation(t, (t, t, "pred"), select)
        for name, compare in COMPARE.items():
            table[f"setp.{name}.{t}"] = Operation("pred", (t, t), compare)
        for source in ("s8", "u8", "s16", "u16", "s32", "u32", "s64", "u64"):
            table[f"cvt.{t}.{source}"] = Operation(t, (source,), lambda a, t=t: a.astype(DTYPE[t]))
    for t in ("s16", "u16", "s32", "u32"):
        table[f"mul.wide.{t}"] = Operation(f"{t[0]}{int(t[1:]) * 2}", (t, t), wide_product)
    for t in ("s32", "u32"):
        high = np.dtype(DTYPE[t])
        table[f"mul.hi.{t}"] = Operation(
            t, (t, t), lambda a, b, high=high: (wide_product(a, b) >> 32).astype(high)
        )
    for t in ("s16", "u16", "s32", "u32"):
        table[f"div.{t}"] = Operation(t, (t, t), quotient)
        table[f"rem.{t}"] = Operation(t, (t, t), lambda a, b: a - quotient(a, b) * b)
    return table


def _bits() -> dict[str, Operation]:
    table = {}
    for t in ("b16", "b32", "b64", "pred"):
        for name, compute in (
            ("and", operator.and_), ("or", operator.or_), ("xor", operator.xor),
        ):  # fmt: skip
            table[f"{name}.{t}"] = Operation(t, (t, t), compute)
        table[f"not.{t}"] = Operation(t, (t,), np.invert)
    for t in ("b16", "b32", "b64"):
        table[f"shl.{t}"] = Operation(t, (t, "u32"), shift_left)
        table[f"shr.{t}"] = Operation(t, (t, "u32"), shift_right)
        table[f"selp.{t}"] = Operation(t, (t, t, "pred"), select)
        table[f"setp.eq.{t}"] = Operation("pred", (t, t), operator.eq)
        table[f"setp.ne.{t}"] = Operation("pred", (t, t), operator.ne)
    for t in ("pred", "f32", "u16", "b16", "u32", "b32", "s32", "u64", "b64", "s64"):
        table[f"mov.{t}"] = Operation(t, (t,), lambda a: a)
    table["bfi.b32"] = Operation("b32", ("b32", "b32", "u32", "u32"), insert_bits)
    table["prmt.b32"] = Operation("b32", ("b32", "b32", "b32"), permute_bytes)
    table["cvta.to.global.u64"] = Operation("u64", ("u64",), lambda a: a)
    return table


def _floats() -> dict[str, Operation]:
    f = "f32"
    table = {
        "add.rn.f32": Operation(f, (f, f), canonical(operator.add)),
        "sub.rn.f32": Operation(f, (f, f), canonical(operator.sub)),
        "mul.rn.f32": Operation(f, (f, f), canonical(operator.mul)),
        "fma.rn.f32": Operation(f, (f, f, f), canonical(fused_multiply_add)),
        "selp.f32": Operation(f, (f, f, "pred"), select),
        "setp.nan.f32": Operation("pred", (f, f), unordered),
        "setp.num.f32": Operation("pred", (f, f), lambda a, b: ~unordered(a, b)),
        "cvt.f32.f16": Operation(f, ("b16",), half_to_float),
        "cvt.rn.f32.u32": Operation(f, ("u32",), lambda a: a.astype(np.float32)),
        "cvt.rzi.u32.f32": Operation("u32", (f,), saturated),
    }
    for opcode in ("add.rn.f32", "sub.rn.f32", "mul.rn.f32", "fma.rn.f32"):
        each = table[opcode]
        pairs = ("b64",) * len(each.arguments)
        table[f"{opcode}x2"] = Operation("b64", pairs, of_each_half(each.compute))
    for name, compare in COMPARE.items():
        ordered = ordered_not_equal if name == "ne" else compare
        table[f"setp.{name}.f32"] = Operation("pred", (f, f), ordered)
        table[f"setp.{name}u.f32"] = Operation(
            "pred", (f, f), lambda a, b, ordered=ordered: ordered(a, b) | unordered(a, b)
        )
    for kind, convert, drop in (("f16", half_bits, 13), ("bf16", bfloat16_bits, 16)):
        table[f"cvt.rn.{kind}.f32"] = Operation("b16", (f,), convert)
        table[f"cvt.rn.{kind}x2.f32"] = Operation("b32", (f, f), two(convert))
        table[f"cvt.rz.{kind}x2.f32"] = Operation("b32", (f, f), two(truncated(convert, drop)))
    return table


OPERATIONS: dict[str, Operation] = _integers() | _bits() | _floats()
