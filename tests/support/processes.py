"""Processes that belong to one test, alone or as torchrun's group."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

TESTS = Path(__file__).resolve().parents[1]


def start(command: list[Any], **variables: str) -> subprocess.Popen[str]:
    """Python with these arguments; it can import what the tests import."""
    paths = filter(None, [str(TESTS), os.environ.get("PYTHONPATH")])
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(paths)}
    return subprocess.Popen(
        [sys.executable, *map(str, command)],
        env={**environment, **variables},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )


def finish(process: subprocess.Popen[str]) -> str:
    """What it printed; it has to end well, and not to outlive the test."""
    try:
        printed, _ = process.communicate(timeout=240)
    finally:
        process.terminate()
    assert process.returncode == 0, printed
    return printed


def torchrun(world: int, script: Path, *arguments: Any, max_restarts: int = 0) -> str:
    """What the group printed."""
    command = [
        "-m", "torch.distributed.run", "--nproc-per-node", world, "--max-restarts", max_restarts,
        "--rdzv-backend", "c10d", "--rdzv-endpoint", "127.0.0.1:0", "--local-addr", "127.0.0.1",
    ]  # fmt: skip
    # gloo cannot meet anew through a store that still has the addresses of the attempt before.
    return finish(start([*command, script, *arguments], TORCH_DISABLE_SHARE_RDZV_TCP_STORE="1"))


def in_processes(function: Callable[[tuple[str, ...]], Any], names: Sequence[str]) -> list[Any]:
    """What the function makes of each part of the names, in a process a core.

    NVRTC compiles in one thread of a process at a time.
    """
    parts = split(names)
    with ProcessPoolExecutor(len(parts), mp_context=get_context("spawn")) as pool:
        return list(pool.map(function, parts))


def split(names: Sequence[str]) -> list[tuple[str, ...]]:
    """The names in as many parts as there are cores."""
    cores = len(os.sched_getaffinity(0))
    return [tuple(part) for k in range(cores) if (part := names[k::cores])]
