"""What can go wrong in a kernel. A GPU raises some of these, and is silent about others."""

from __future__ import annotations


class PtxError(Exception):
    """The base class. The message names the kernel, block, thread and line, as far as known."""

    def __init__(self, message: str, lane: int = 0) -> None:
        super().__init__(message)
        self.lane = lane  # among the threads that executed the instruction


class ParseError(PtxError):
    """Text that the parser does not know, or operands that do not fit their instruction."""


class UnknownInstruction(PtxError):
    """An instruction that the engine does not execute."""


class LaunchError(PtxError):
    """A grid, block or parameter that the kernel does not take."""


class OutOfBounds(PtxError):
    """An access outside of every allocation, or past the end of one."""


class Misaligned(PtxError):
    """An access at an address that is no multiple of its size."""


class Uninitialised(PtxError):
    """A register or memory that is read and was never written."""


class ReadOnly(PtxError):
    """A store to memory that the kernel may only read."""


class Race(PtxError):
    """Two threads write one byte, or one reads what another wrote."""


class DivisionByZero(PtxError):
    """An integer division by 0, whose result is not defined."""


class Endless(PtxError):
    """The kernel does not end."""
