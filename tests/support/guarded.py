"""Memory that faults when an access misses it."""

from __future__ import annotations

import ctypes
import mmap

import numpy as np

PAGE = mmap.PAGESIZE
_libc = ctypes.CDLL(None, use_errno=True)
_libc.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]


class GuardedBuffer:
    """Memory between two pages that fault when touched, at its end or, moved by `shift`, its start.

    What is left of its own pages is filled, and has to be found as it was.
    """

    def __init__(self, nbytes: int, shift: int | None) -> None:
        pages = -(-(nbytes + (shift or 0)) // PAGE) + 2
        self._map = mmap.mmap(-1, pages * PAGE)
        self._base = ctypes.addressof(ctypes.c_char.from_buffer(self._map))
        self._fences = (self._base, self._base + (pages - 1) * PAGE)
        self._start = PAGE + shift if shift is not None else (pages - 1) * PAGE - nbytes
        self._all = np.frombuffer(self._map, np.uint8)
        self._all[:] = 0xA5
        self.bytes = self._all[self._start : self._start + nbytes]
        self.address = self._base + self._start
        self._protect(0)

    def open(self) -> None:
        """Take the guards away; nothing beside the buffer was written."""
        self._protect(mmap.PROT_READ | mmap.PROT_WRITE)
        own = slice(self._start, self._start + len(self.bytes))
        around = np.delete(self._all[PAGE:-PAGE], np.arange(own.start - PAGE, own.stop - PAGE))
        assert (around == 0xA5).all(), "written beside the buffer"

    def _protect(self, flags: int) -> None:
        for fence in self._fences:
            assert _libc.mprotect(fence, PAGE, flags) == 0
