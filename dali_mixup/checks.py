"""Checks of what users pass: typed errors that say what was expected and got."""

from __future__ import annotations

from collections.abc import Callable
from numbers import Integral, Real
from typing import Any


def require_choice(
    name: str, value: Any, choices: tuple[str, ...], *, optional: bool = True
) -> None:
    """Raise ValueError unless `value` is one of `choices` (or None where that is allowed)."""
    if value in choices or (optional and value is None):
        return
    wanted = ", ".join(map(repr, choices)) + (" or None" if optional else "")
    raise ValueError(f"{name}: expected one of {wanted}, got {value!r}")


def require_int(name: str, value: Any, *, least: int) -> None:
    """Raise TypeError or ValueError unless `value` is an int of at least `least`."""
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise TypeError(f"{name}: expected an int, got {value!r}")
    if value < least:  # type: ignore[operator]
        raise ValueError(f"{name}: expected at least {least}, got {value}")


def require_real(name: str, value: Any, expected: str, good: Callable[[float], bool]) -> None:
    """Raise TypeError or ValueError unless `value` is a number that is `good`."""
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{name}: expected a number, got {value!r}")
    if not good(float(value)):
        raise ValueError(f"{name}: expected a value in {expected}, got {value}")
