"""What a launch costs, as far as PTX tells: warps' instructions, requests and 32-byte sectors."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

SECTOR, LINE = 32, 128
CLASSES = {
    "ld.global": "global load", "st.global": "global store", "ld.param": "parameter load",
    "setp": "compare, select", "selp": "compare, select", "bra": "branch", "ret": "branch",
    "mov": "move", "cvta": "move", "prmt": "byte permute", "cvt": "convert",
    "div": "integer divide", "rem": "integer divide",
}  # fmt: skip


def class_of(opcode: str) -> str:
    """The kind of an instruction."""
    for prefix, name in CLASSES.items():
        if opcode == prefix or opcode.startswith(f"{prefix}."):
            return name
    if opcode.endswith((".f32", ".f32x2")):
        return "float32 arithmetic"
    if opcode.endswith(".pred"):
        return "compare, select"
    return "64-bit integer" if opcode.endswith("64") or ".wide" in opcode else "32-bit integer"


@dataclass
class Traffic:
    """All requests of one direction; a request is one instruction of one warp."""

    requests: int = 0
    sectors: int = 0  # of each request, summed
    lines: int = 0  # the same of 128 bytes
    bytes: int = 0  # that threads asked for
    by_width: Counter[int] = field(default_factory=Counter)  # requests by bytes a thread
    _of_blocks: list[NDArray[np.int64]] = field(default_factory=list)

    @property
    def efficiency(self) -> float:
        """The share of the requested sectors' bytes that threads asked for."""
        return self.bytes / (SECTOR * self.sectors) if self.sectors else 1.0

    @property
    def sectors_of_blocks(self) -> int:
        """Of each block, summed: what leaves an L1 cache that holds all that a block uses."""
        every = np.concatenate([np.empty((0, 2), np.int64), *self._of_blocks])
        return len(np.unique(every, axis=0))

    def add(
        self,
        address: NDArray[np.uint64],
        width: int,
        warp: NDArray[np.int64],
        block: NDArray[np.int64],
    ) -> None:
        """One instruction: the addresses of the threads, their warps and blocks."""
        at = address.astype(np.int64)
        requests = len(np.unique(warp))
        self.requests += requests
        self.sectors += _different(warp, at // SECTOR)
        self.lines += _different(warp, at // LINE)
        self.bytes += width * len(address)
        self.by_width[width] += requests
        self._of_blocks.append(np.unique(np.stack((block, at // SECTOR), axis=1), axis=0))


def _different(*columns: NDArray[np.int64]) -> int:
    return len(np.unique(np.stack(columns, axis=1), axis=0))


@dataclass
class Counters:
    """Of one or several launches."""

    warp_instructions: Counter[str] = field(default_factory=Counter)  # by opcode
    loads: Traffic = field(default_factory=Traffic)
    stores: Traffic = field(default_factory=Traffic)

    def by_class(self) -> Counter[str]:
        """Warps' instructions by their kind."""
        total: Counter[str] = Counter()
        for opcode, count in self.warp_instructions.items():
            total[class_of(opcode)] += count
        return total
