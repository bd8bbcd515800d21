"""Which libraries the tests need: where one is missing they are skipped, or fail if it is named."""

from __future__ import annotations

import os
from importlib import import_module
from types import ModuleType
from typing import NoReturn

import pytest

BACKENDS = ("numpy", "numba", "host", "ptx", "torch", "dali", "dynamic", "cupy")
VARIABLE = "DALI_MIXUP_TEST_BACKENDS"


def wanted() -> list[str]:
    return [name for name in os.environ.get(VARIABLE, "").split(",") if name]


def require(module: str, backend: str | None = None) -> ModuleType:
    """Import what the tests that follow cannot do without: of a file, or of one test.

    Where it is not installed they are skipped, with the reason; but they fail if the variable
    DALI_MIXUP_TEST_BACKENDS ("numpy,torch,dali") names `backend`, by default the module's own
    name ("dali" of "nvidia.dali"). What is installed and broken is an error.
    """
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        if not f"{module}.".startswith(f"{error.name}."):
            raise
    skip_or_fail(backend or module.rpartition(".")[2], f"{module} is not installed")


def skip_or_fail(backend: str, why: str) -> NoReturn:
    """Skip what follows, with the reason; fail where `backend` was asked for by name."""
    if backend in wanted():
        pytest.fail(f"{why}, and {VARIABLE} names {backend!r}", pytrace=False)
    pytest.skip(why, allow_module_level=True)
