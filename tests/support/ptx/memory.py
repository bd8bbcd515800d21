"""A GPU's address space: allocations that know what was written, by whom, and what may be."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from support.ptx.errors import Misaligned, OutOfBounds, Race, ReadOnly, Uninitialised

Bytes = NDArray[np.uint8]
Lanes = NDArray[np.intp]

NOBODY = -1
ALIGNMENT = 512  # of what torch and the driver allocate
GAP = 4096  # between allocations, so that a stray access hits none


@dataclass
class Allocation:
    """`size` bytes at `address`. The arrays begin at `floor`, a multiple of 512 below it."""

    name: str
    address: int
    size: int
    writable: bool
    shared: bool  # several threads may write one byte, as to a report
    floor: int
    store: Bytes
    known: NDArray[np.bool_]  # bytes that hold a value
    writer: NDArray[np.int64]  # the thread that wrote a byte

    @property
    def bytes(self) -> Bytes:
        return self.store[self._own]

    @property
    def unwritten(self) -> int:
        """Bytes that no thread wrote."""
        return int((self.writer[self._own] == NOBODY).sum())

    @property
    def _own(self) -> slice:
        return slice(self.address - self.floor, self.address - self.floor + self.size)


class Memory:
    """Allocations of one launch."""

    def __init__(self, first: int = 0x7F0000000000) -> None:
        self._free = first
        self.allocations: list[Allocation] = []
        self._starts = np.empty(0, np.uint64)

    def allocate(
        self, name: str, content: Bytes | int, *, offset: int = 0, writable: bool = False,
        shared: bool = False,
    ) -> Allocation:  # fmt: skip
        """A new allocation, `offset` bytes behind a multiple of 512.

        `content` are its bytes; a number of bytes leaves it without values.
        """
        size = content if isinstance(content, int) else content.size
        address = self._free + offset
        self._free += -(-(offset + size + GAP) // ALIGNMENT) * ALIGNMENT
        values = None if isinstance(content, int) else content
        return self._add(name, address, size, values, writable=writable, shared=shared)

    def attach(
        self, name: str, address: int, content: Bytes, *, writable: bool = False,
        shared: bool = False,
    ) -> Allocation:  # fmt: skip
        """A copy of memory that lies at an address of its own.

        What is writable holds no values, unless it is `shared`.
        """
        values = None if writable and not shared else content
        return self._add(name, address, content.size, values, writable=writable, shared=shared)

    def _add(
        self, name: str, address: int, size: int, values: Bytes | None, *, writable: bool,
        shared: bool,
    ) -> Allocation:  # fmt: skip
        floor = address - address % ALIGNMENT
        room = -(-(address - floor + size) // ALIGNMENT) * ALIGNMENT
        made = Allocation(
            name, address, size, writable, shared, floor,
            np.full(room, 0xA5, np.uint8), np.zeros(room, np.bool_),
            np.full(room, NOBODY, np.int64),
        )  # fmt: skip
        if values is not None:
            made.bytes[:] = values
            made.known[made._own] = True
        self.allocations.append(made)
        self.allocations.sort(key=lambda allocation: allocation.address)
        self._starts = np.array([a.address for a in self.allocations], np.uint64)
        return made

    def load(
        self, address: NDArray[np.uint64], width: int, thread: NDArray[np.int64], *, constant: bool
    ) -> Bytes:
        """The bytes (threads, width) at these addresses.

        A `constant` load (``ld.global.nc``) must not meet what any thread of the launch wrote.
        """
        result = np.empty((len(address), width), np.uint8)
        for allocation, lanes, rows in self._hits(address, width, "load"):
            known = allocation.known.reshape(-1, width)[rows]
            if not known.all():
                raise Uninitialised(
                    f"load of bytes of {allocation.name!r} that were never written",
                    _first(lanes, ~known.all(1)),
                )
            if allocation.writable:
                writer = allocation.writer.reshape(-1, width)[rows]
                foreign = (writer != NOBODY) & (constant | (writer != thread[lanes, None]))
                if foreign.any():
                    raise Race(
                        f"load of what another thread wrote to {allocation.name!r}",
                        _first(lanes, foreign.any(1)),
                    )
            result[lanes] = allocation.store.reshape(-1, width)[rows]
        return result

    def write(self, address: NDArray[np.uint64], data: Bytes, thread: NDArray[np.int64]) -> None:
        """Store `data` (threads, width)."""
        width = data.shape[1]
        for allocation, lanes, rows in self._hits(address, width, "store"):
            if not allocation.writable:
                raise ReadOnly(f"store to {allocation.name!r}", int(lanes[0]))
            own = thread[lanes, None]
            writer = allocation.writer.reshape(-1, width)
            before = writer[rows]
            writer[rows] = own
            twice = ((before != NOBODY) & (before != own)) | (writer[rows] != own)
            if twice.any() and not allocation.shared:
                raise Race(
                    f"two threads store to one byte of {allocation.name!r}",
                    _first(lanes, twice.any(1)),
                )
            allocation.known.reshape(-1, width)[rows] = True
            allocation.store.reshape(-1, width)[rows] = data[lanes]

    def _hits(
        self, address: NDArray[np.uint64], width: int, what: str
    ) -> list[tuple[Allocation, Lanes, NDArray[np.intp]]]:
        """Which threads hit which allocation, and where, in multiples of `width` from its floor."""
        if (address % np.uint64(width)).any():
            lane = int((address % np.uint64(width)).argmax())
            raise Misaligned(f"{what} of {width} bytes at {int(address[lane]):#x}", lane)
        numbers = np.searchsorted(self._starts, address, "right") - 1
        same = (numbers == numbers[0]).all()
        hits = []
        for number in numbers[:1] if same else np.unique(numbers):
            lanes = np.flatnonzero(numbers == number)
            if number < 0:
                raise OutOfBounds(f"{what} at {int(address[lanes[0]]):#x}", int(lanes[0]))
            allocation = self.allocations[number]
            start = (address[lanes] - np.uint64(allocation.address)).astype(np.int64)
            rows = (start + allocation.address - allocation.floor) // width
            beyond = start + width > allocation.size
            if beyond.any():
                raise OutOfBounds(
                    f"{what} of {width} bytes at byte {int(start[beyond][0])} of "
                    f"{allocation.name!r}, which has {allocation.size}",
                    _first(lanes, beyond),
                )
            hits.append((allocation, lanes, rows))
        return hits


def _first(lanes: Lanes, where: NDArray[np.bool_]) -> int:
    return int(lanes[np.flatnonzero(where)[0]])
