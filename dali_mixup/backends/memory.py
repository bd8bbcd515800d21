"""Reuse of the outputs' memory.

A new array of a batch's size causes page faults, which cost several times what it costs to fill it.
A block is reused when the array over it, with every tensor and view made of that array, is gone.
"""

from __future__ import annotations

import math
import weakref
from collections import deque
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

FEW = 1 << 17
"""Bytes that malloc, as it is set by default, takes from memory that the process has already."""


class Recycler:
    """Allocates arrays, reusing the last `keep` blocks that were released."""

    def __init__(self, keep: int = 4) -> None:
        self._free: deque[NDArray[np.uint8]] = deque(maxlen=keep)
        self._lent: dict[int, tuple[object, NDArray[np.uint8]]] = {}

    def empty(self, shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
        """An uninitialised array whose memory is in use nowhere else."""
        dtype = np.dtype(dtype)
        nbytes = math.prod(shape) * dtype.itemsize
        if nbytes < FEW:
            return np.empty(shape, dtype)
        block = self._take(nbytes)
        # Views of views keep alive the first array that is not made of another array: through a
        # memoryview that is `owner`, not `block`, so `owner` is gone only when all of them are.
        owner = np.frombuffer(block.data, dtype)
        reference = weakref.ref(owner, self._come_back)
        self._lent[id(reference)] = reference, block
        return owner.reshape(shape)

    def _come_back(self, reference: object) -> None:
        _, block = self._lent.pop(id(reference))
        self._free.append(block)

    def _take(self, nbytes: int) -> NDArray[np.uint8]:
        for _ in range(len(self._free)):
            try:
                block = self._free.pop()
            except IndexError:  # another thread took it
                break
            if block.nbytes == nbytes:
                return block
            self._free.appendleft(block)
        return np.empty(nbytes, np.uint8)
