"""Who notices a bug that is planted in the CUDA kernel.

    python -m benchmarks.kernel.planted_bugs --json benchmarks/results/planted-bugs.json

"executed PTX" is the engine of tests/support/ptx. "source on a CPU" is the same source compiled by
g++, with the same batches, between guard pages. "machine code" is the test of the accesses and of
fused operations in what NVRTC makes for sm_90 or sm_100. "compiler" is NVRTC itself. Nothing is
timed.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from rich.progress import track

ROOT = Path(__file__).resolve().parents[2]
TESTS = ROOT / "tests"
sys.path.insert(0, str(TESTS))

from support.machine_code import ALIGNED, machine_code_problems  # noqa: E402
from support.planted_bugs import BUGS, Bug, noticed  # noqa: E402

from dali_mixup.backends.cuda.compiler import compile_kernels  # noqa: E402
from dali_mixup.cli.measure import record  # noqa: E402


def on_a_cpu(number: int) -> bool:
    """A process of its own: an access beside its memory ends it."""
    if BUGS[number].family == "device":
        return False  # the C++ compiler does not see this code
    environment = os.environ | {"PYTHONPATH": f"{TESTS}:{ROOT}"}
    command = [sys.executable, "-m", "support.planted_on_cpu", str(number)]
    done = subprocess.run(command, env=environment, capture_output=True, cwd=ROOT)
    return done.returncode != 0


def in_the_machine_code(bug: Bug) -> bool:
    """The accesses and instructions that the test of the machine code asks for."""
    architecture = "sm_100" if bug.architecture == "compute_100" else "sm_90"
    try:
        return any(machine_code_problems(aligned, architecture, bug.source) for aligned in ALIGNED)
    except RuntimeError:
        return False  # it does not compile, which is NVRTC's column


def compiles(bug: Bug) -> bool:
    try:
        compile_kernels((ALIGNED[0].name,), bug.architecture, source=bug.source)
    except RuntimeError:
        return False
    return True


def in_words(said: str | None) -> str:
    """The error's name, or what a failed comparison found."""
    kind, _, message = (said or "no").partition(": ")
    if kind != "AssertionError":
        return kind
    return "values differ" if "differ" in message else "not all written"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path)
    flags = parser.parse_args()
    rows: list[dict[str, Any]] = []
    for number, bug in enumerate(track(BUGS, "bugs")):
        said = noticed(bug)
        rows.append(
            {
                "bug": bug.name,
                "family": bug.family,
                "compiler": "no" if compiles(bug) else "yes",
                "machine code": "yes" if in_the_machine_code(bug) else "no",
                "source on a CPU": "yes" if on_a_cpu(number) else "no",
                "executed PTX": in_words(said),
            }
        )
    for row in rows:
        print("  ".join(str(value) for value in row.values()))
    for column in ("compiler", "machine code", "source on a CPU", "executed PTX"):
        print(f"{column}: {sum(row[column] != 'no' for row in rows)} of {len(rows)}")
    if flags.json:
        packages = ("numpy", "cupy-cuda12x", "nvidia-cuda-nvrtc-cu12")
        record(flags.json, cores=len(os.sched_getaffinity(0)), packages=packages, rows=rows)


if __name__ == "__main__":
    main()
