"""The kernel's own source, compiled for the CPU and run in the GPU's place."""

from __future__ import annotations

import ctypes
import hashlib
import os
import re
import subprocess
import tempfile
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support import gpus_place
from support.specializations import (
    DTYPES,
    of_any_channels,
    of_masks,
    some_of_clips,
    specializations,
)

from dali_mixup.backends.cuda.launch import COMPILE_OPTIONS, PLAN_CAPACITY, Launch
from dali_mixup.backends.cuda.source import read_kernel

HERE = Path(__file__).parent / "host"
COMPILER = (
    "g++",
    "-std=c++17",
    "-O1",
    "-ffp-contract=off",
    "-fPIC",
    "-Wall",
    "-Wno-unused-function",
    "-Wno-unknown-pragmas",
)


class HostKernels:
    """A compiled kernel source; `parts` are lists of specialisations, compiled side by side."""

    def __init__(self, source: str, parts: dict[str, list[str]]) -> None:
        self._library = ctypes.CDLL(str(_build(source, parts)))
        self._library.accesses.restype = ctypes.c_longlong

    def run(self, kernel: str, grid: tuple[int, int, int], batch: bytes, plan: Any) -> None:
        missing = self._library.run_kernel(
            kernel.encode(), *grid, batch, ctypes.c_void_p(plan.ctypes.data)
        )
        assert not missing, f"not compiled for the CPU: {kernel}"

    def accesses(self, *, stores: bool, width: int) -> int:
        """Accesses of this many bytes so far."""
        return self._library.accesses(int(stores), width)


@lru_cache
def all_kernels() -> HostKernels:
    parts = {
        f"from_{dtype}": [
            *specializations("PlanByPointer", (dtype,)),
            *some_of_clips("PlanByPointer", (dtype,)),
            *of_any_channels("PlanByPointer", (dtype,)),
        ]
        for dtype in DTYPES
    }
    parts["masks"] = list(of_masks("PlanByPointer"))
    return HostKernels(read_kernel("mixup.cu"), parts)


def _build(source: str, parts: dict[str, list[str]]) -> Path:
    """The shared library, from the last build of the same text where there is one."""
    files = [source, *(file.read_text() for file in sorted(HERE.iterdir())), repr(parts)]
    key = hashlib.sha256("\0".join((*files, *COMPILER)).encode()).hexdigest()[:16]
    folder = Path(tempfile.gettempdir()) / f"dali_mixup_host_{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    library = folder / f"{key}.so"
    if library.exists():
        return library
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        Path(scratch, "mixup.cu").write_text(source)
        for name, kernels in parts.items():
            Path(scratch, f"{name}.inc").write_text("".join(f"KERNEL({k})\n" for k in kernels))
        jobs = [("kernels.cpp", f"-DPART={name}", f'-DKERNELS="{name}.inc"') for name in parts]
        jobs.append(("main.cpp", "-DPARTS=" + " ".join(f"PART({name})" for name in parts)))

        def compile_job(number: int) -> str:
            name, *defines = jobs[number]
            out = str(Path(scratch, f"{number}.o"))
            command = [*COMPILER, *COMPILE_OPTIONS, *defines, "-I", scratch, "-c", "-o", out]
            subprocess.run([*command, str(HERE / name)], check=True)
            return out

        with ThreadPoolExecutor(os.cpu_count()) as pool:
            objects = list(pool.map(compile_job, range(len(jobs))))
        made = str(Path(scratch, "made.so"))
        subprocess.run(["g++", "-shared", "-o", made, *objects], check=True)
        os.replace(made, library)
    return library


def run(launch: Launch, parameters: tuple[Any, ...], device: torch.device) -> None:
    """`device.run` on the CPU; every plan goes by pointer, to compile half the kernels."""
    batch, plan = parameters
    by_value = re.search(r"PlanByValue<(\d+)>", launch.kernel)
    kernel = launch.kernel
    if by_value:
        assert int(by_value[1]) <= PLAN_CAPACITY, "a launch does not take as many parameters"
        kernel = kernel.replace(by_value[0], "PlanByPointer")
        plan = np.array([plan.ctypes.data], np.uint64)
    all_kernels().run(kernel, launch.grid, bytes(batch), plan)


def take_the_gpus_place(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the CUDA backend run on CPU tensors."""
    gpus_place.take_the_gpus_place(monkeypatch, run)
