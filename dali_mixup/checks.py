"""Checks of what users pass: typed errors that say what was expected and got."""

from __future__ import annotations

from collections.abc import Callable
from numbers import Integral, Real
from typing import Any

KEY_LIMIT = 2**32
"""Ranks, streams, epochs and steps are below it; larger ones would share keys with smaller ones."""


def require_choice(
    name: str, value: Any, choices: tuple[str, ...], *, optional: bool = True
) -> None:
    """Raise ValueError unless `value` is one of `choices` (or None where that is allowed)."""
    if (isinstance(value, str) and value in choices) or (optional and value is None):
        return
    wanted = ", ".join(map(repr, choices)) + (" or None" if optional else "")
    raise ValueError(f"{name}: expected one of {wanted}, got {value!r}")


def require_int(
    name: str, value: Any, *, least: int | None = None, below: int | None = None
) -> int:
    """Return `value` as an int; TypeError or ValueError unless it is one in [least, below)."""
    if type(value) is not int and (isinstance(value, bool) or not isinstance(value, Integral)):
        raise TypeError(f"{name}: expected an int, got {value!r}")
    number = int(value)
    if least is not None and number < least:
        raise ValueError(f"{name}: expected at least {least}, got {number}")
    if below is not None and number >= below:
        got = number if number < 2**64 else f"an int of {number.bit_length()} bits"
        raise ValueError(f"{name}: expected less than {below}, got {got}")
    return number


def require_real(name: str, value: Any, expected: str, good: Callable[[float], bool]) -> float:
    """Return `value` as a float; TypeError or ValueError unless it is a number that is `good`."""
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{name}: expected a number, got {value!r}")
    if not good(float(value)):
        raise ValueError(f"{name}: expected a value in {expected}, got {value}")
    return float(value)


def require_pair(name: str, value: Any, expected: str) -> tuple[Any, Any]:
    """Return the two elements of `value`, or raise TypeError."""
    if not isinstance(value, (tuple, list)) or len(value) != 2:
        raise TypeError(f"{name}: expected {expected}, got {value!r}")
    return value[0], value[1]


def require_range(name: str, value: Any, expected: str, good: Callable[[float], bool]) -> None:
    """Raise TypeError or ValueError unless `value` is a rising pair of numbers that are `good`."""
    low, high = require_pair(name, value, "a pair of numbers")
    require_real(name, low, expected, good)
    require_real(name, high, expected, good)
    if low > high:
        raise ValueError(f"{name}: expected the smaller number first, got {value}")
