"""Executes the PTX that NVRTC makes, on numpy: no GPU and no driver.

Not covered: what ptxas makes of the PTX, tearing, time, streams.
"""

from support.ptx.counters import Counters
from support.ptx.errors import (
    DivisionByZero,
    Endless,
    LaunchError,
    Misaligned,
    OutOfBounds,
    ParseError,
    PtxError,
    Race,
    ReadOnly,
    Uninitialised,
    UnknownInstruction,
)
from support.ptx.execution import Launch, execute
from support.ptx.memory import Memory
from support.ptx.parser import Kernel, parse

__all__ = [
    "Counters",
    "DivisionByZero",
    "Endless",
    "Kernel",
    "Launch",
    "LaunchError",
    "Memory",
    "Misaligned",
    "OutOfBounds",
    "ParseError",
    "PtxError",
    "Race",
    "ReadOnly",
    "Uninitialised",
    "UnknownInstruction",
    "execute",
    "parse",
]
