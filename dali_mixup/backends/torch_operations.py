"""Operations on numpy's arrays by torch: faster conversions, and several threads."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from dali_mixup.backends.arrays import AT_ONCE, LOADS, NUMPY, STORES, Operations
from dali_mixup.backends.cores import in_a_loader
from dali_mixup.output import BFLOAT16, IN_DTYPES

SERIAL = 1 << 15
"""Values that torch converts in the thread that asks for it, and not in threads of its own."""

WORTH_THREADS = 1 << 21
"""Values of a batch that several threads mix faster than one."""


def as_tensor(array: NDArray[Any]) -> torch.Tensor:
    """A tensor over the memory of an array."""
    if array.dtype == BFLOAT16:
        return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(array)


def operations_for(images: torch.Tensor) -> Operations:
    """In one thread numpy's with torch's conversions; in several, which torch has, torch's."""
    several = torch.get_num_threads() > 1 and not (_forked or in_a_loader.get())
    worth_it = images.numel() >= WORTH_THREADS
    # torch copies no uint16 that are not contiguous
    if not (several and worth_it) or images.dtype == torch.uint16:
        return ONE_THREAD
    return THREADED if images.dtype == torch.float32 else THREADED_CONVERTING


def _convert(to: NDArray[Any], values: NDArray[Any]) -> None:
    """Convert by the processor's own instructions, which numpy does not use."""
    target, source = to.reshape(-1), values.reshape(-1)
    for start in range(0, target.size, SERIAL):
        part = slice(start, start + SERIAL)
        as_tensor(target[part]).copy_(as_tensor(source[part]))


def _multiply(first: torch.Tensor, second: torch.Tensor, to: torch.Tensor) -> None:
    torch.mul(first, second, out=to)


def _add(first: torch.Tensor, second: torch.Tensor, to: torch.Tensor) -> None:
    torch.add(first, second, out=to)


def _subtract(first: torch.Tensor, second: torch.Tensor, to: torch.Tensor) -> None:
    torch.sub(first, second, out=to)


def _take(images: torch.Tensor, index: torch.Tensor, to: torch.Tensor) -> None:
    torch.index_select(images, 0, index, out=to)


def _store_bytes(to: Any, mixed: Any) -> None:
    to.copy_(mixed.round_())


def _copy(to: Any, values: Any) -> None:
    to.copy_(values)


ONE_THREAD = replace(
    NUMPY,
    loads=LOADS | {"float16": _convert},
    stores=STORES | {"float16": _convert, "bfloat16": _convert},
)

THREADED = Operations(
    as_tensor, _multiply, _add, _subtract, _take, _copy,
    loads=dict.fromkeys(IN_DTYPES, _copy),
    stores=dict.fromkeys(STORES, _copy) | {"uint8": _store_bytes},
)  # fmt: skip

THREADED_CONVERTING = replace(THREADED, at_once=4 * AT_ONCE)
"""An image takes more operations, which all wait for the slowest thread: fewer, larger ones."""

_forked = False


def _after_fork() -> None:
    """torch's threads do not survive a fork, and it would wait for them for ever."""
    global _forked
    _forked = True


os.register_at_fork(after_in_child=_after_fork)
