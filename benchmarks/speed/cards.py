"""GPUs as data sheets describe them, and the shortest time of a launch at these rates.

Bandwidth and float32 rates are those of NVIDIA's data sheets: A100 80GB SXM, H100 SXM, H200 SXM,
and HGX B200 for one of its eight GPUs. The clock follows from the float32 rate: two operations a
lane and cycle. Rates of instructions are those of the CUDA C++ Programming Guide, "Arithmetic
Instructions". A card under load may run at a lower clock.
"""

from __future__ import annotations

from typing import NamedTuple

SCHEDULERS = 4  # of a multiprocessor; each issues one warp's instruction a cycle
WARP = 32
INTEGER_LANES = 64  # bytes permuted, compared, added as integers, packed into 16 bits

FLOAT = ("FADD", "FMUL", "FFMA", "IMAD")  # IMAD runs beside them
INTEGER = ("PRMT", "IADD", "VIADD", "LOP", "LEA", "SHF", "SEL", "ISETP", "FSETP", "F2FP", "HADD")


class Card(NamedTuple):
    """Bytes a second; operations of float32 a second; lanes of float32 a multiprocessor."""

    name: str
    architecture: str
    bandwidth: float
    float32: float
    multiprocessors: int
    lanes: int

    @property
    def clock(self) -> float:
        """Cycles a second."""
        return self.float32 / (2 * self.lanes * self.multiprocessors)

    def memory_us(self, count: float) -> float:
        """Microseconds to move this many bytes."""
        return count / self.bandwidth * 1e6

    def instructions_us(self, opcodes: list[str], warps: float) -> float:
        """Microseconds to issue and execute the opcodes in this many warps, on all lanes."""
        floats = sum(2 if op[4:5] == "2" else 1 for op in opcodes if op.startswith(FLOAT))
        integers = sum(op.startswith(INTEGER) for op in opcodes)
        cycles = max(
            len(opcodes) / SCHEDULERS,
            floats * WARP / self.lanes,
            integers * WARP / INTEGER_LANES,
        )
        return cycles * warps / self.multiprocessors / self.clock * 1e6


CARDS = (
    Card("A100", "sm_80", 2.039e12, 19.5e12, 108, 64),
    Card("H100", "sm_90", 3.35e12, 67e12, 132, 128),
    Card("H200", "sm_90", 4.8e12, 67e12, 132, 128),
    Card("B200", "sm_100", 8e12, 75e12, 148, 128),
)


def card_of(device_name: str) -> Card | None:
    """The card of a name such as "NVIDIA H100 80GB HBM3"; None for others."""
    return next((card for card in CARDS if card.name in device_name), None)
