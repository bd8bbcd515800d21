"""An error in the user's module, told with the file and the line in that module."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from traceback import walk_tb
from types import FrameType


class UsersCodeError(Exception):
    """The user's own code raised; the message says what and where."""


@contextmanager
def users_code(module: str) -> Iterator[None]:
    """Turn what is raised in `module`, or in another module of its package, into UsersCodeError."""
    try:
        yield
    except SyntaxError as error:  # its text has file and line
        raise UsersCodeError(f"{type(error).__name__}: {error}") from error
    except Exception as error:
        package = module.partition(".")[0]
        places = [
            (frame, line)
            for frame, line in walk_tb(error.__traceback__)
            if _name(frame).partition(".")[0] == package
        ]
        if not places:
            raise
        raise UsersCodeError(f"{_place(*places[-1])}{type(error).__name__}: {error}") from error


def _name(frame: FrameType) -> str:
    return str(frame.f_globals.get("__name__"))


def _place(frame: FrameType, line: int) -> str:
    file = frame.f_code.co_filename
    # With enable_conditionals DALI runs generated code; its message has the user's file and line.
    return f"{file}, line {line}: " if file == frame.f_globals.get("__file__") else ""
