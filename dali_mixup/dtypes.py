"""The dtypes of numpy arrays and torch tensors, by name."""

from __future__ import annotations

from functools import lru_cache
from typing import Any


def dtype_name(array: Any) -> str:
    """ "uint8", "float32", ...; of numpy arrays in any order of bytes."""
    return _name(array.dtype)


def is_integer(array: Any) -> bool:
    """Whether the dtype is one of signed or unsigned integers; bool is none."""
    return dtype_name(array).lstrip("u").startswith("int")


def is_float(array: Any) -> bool:
    return "float" in dtype_name(array)


@lru_cache
def _name(dtype: Any) -> str:
    return str(getattr(dtype, "name", dtype)).removeprefix("torch.")
