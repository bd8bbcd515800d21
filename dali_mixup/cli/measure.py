"""Interleaved measurements, and the record of a run with machine, versions and command."""

from __future__ import annotations

import gc
import json
import os
import platform
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Iterable
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

Row = dict[str, Any]


def interleaved(
    methods: dict[str, Callable[[], float] | None],
    *,
    rounds: int,
    warm_up: int,
    unit: str,
    bases: dict[str, str],
    track: Callable[[Iterable[int]], Iterable[int]] = iter,
) -> list[Row]:
    """Measure each method once per round, so that a disturbance of the machine meets all of them.

    Each round begins with another method, and Python's garbage collector runs between the rounds
    only: a collection takes as long as mixing a batch.

    Parameters
    ----------
    methods
        Each returns one measurement in `unit`; None is one that cannot be measured here.
    rounds, warm_up
        The number of rounds that count, and of rounds before them that do not.
    unit
        The end of the columns' names: ``median_<unit>``, ``iqr_<unit>``.
    bases
        Short names of methods to compare with. ``ratio_to_<name>`` is the median over the rounds of
        a measurement divided by that of the base in the same round.
    track
        Passes the rounds on, to show the progress.

    Returns
    -------
    list of dict
        One per method, in their order. A method that is None has None in every column.
    """
    there = {name: method for name, method in methods.items() if method is not None}
    rows_of_rounds = [_one_round(there, number) for number in track(range(warm_up + rounds))]
    samples = dict(zip(there, np.array(rows_of_rounds[warm_up:]).T, strict=True))

    columns = [f"median_{unit}", f"iqr_{unit}", *(f"ratio_to_{name}" for name in bases)]
    rows = []
    for name in methods:
        values: list[float | None] = [None] * len(columns)
        if name in there:
            low, middle, high = np.percentile(samples[name], (25, 50, 75))
            ratios = [np.median(samples[name] / samples[base]) for base in bases.values()]
            values = [round(float(value), 4) for value in (middle, high - low, *ratios)]
        rows.append({"method": name} | dict(zip(columns, values, strict=True)))
    return rows


def _one_round(methods: dict[str, Callable[[], float]], number: int) -> list[float]:
    """A measurement of each method, in the methods' order, beginning with method `number`."""
    names = deque(methods)
    names.rotate(-number)
    gc.collect()
    gc.disable()
    try:
        measured = {name: methods[name]() for name in names}
    finally:
        gc.enable()
    return [measured[name] for name in methods]


def show(title: str, rows: list[Row]) -> None:
    columns = list(rows[0])[1:]
    lines = [f"\n{title}", " " * 24 + "".join(f"{column:>20}" for column in columns)]
    for row in rows:
        method, *values = row.values()
        cells = [f"{value:20.3f}" for value in values if value is not None]
        lines.append(f"{method:24}" + ("".join(cells) or "not measured".rjust(20)))
    print("\n".join(lines), flush=True)


def record(
    path: Path, *, cores: int, packages: tuple[str, ...], rows: list[Row], **hardware: str
) -> None:
    """Write the rows, a line each, with the machine, the versions, the commit and the command."""
    run = {
        "machine": _cpu_model(),
        "cores": cores,
        **hardware,
        "versions": {"python": platform.python_version()} | {p: installed(p) for p in packages},
        "commit": _commit(),
        "command": _command(),
        "rows": [],
    }
    lines = ",\n    ".join(map(json.dumps, rows))
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(run, indent=2).replace('"rows": []', f'"rows": [\n    {lines}\n  ]')
    path.write_text(f"{text}\n")


def _command() -> str:
    """The command as it is given in a checkout, wherever this one lies."""
    module = getattr(sys.modules["__main__"].__spec__, "name", "")
    script = f"python -m {module}" if module.startswith("benchmarks.") else "dali-mixup"
    return " ".join([script, *sys.argv[1:]])


def _cpu_model() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    models = (line.partition(": ")[2] for line in lines if line.startswith("model name"))
    return next(models, platform.machine())


def installed(package: str) -> str:
    """A package's version."""
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def card() -> dict[str, str]:
    """The GPU and its driver, for :func:`record`."""
    query = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader", "--id=0"]
    answer = subprocess.run(query, check=True, capture_output=True, text=True).stdout
    return dict(zip(("card", "driver"), answer.strip().split(", "), strict=True))


def _commit() -> str:
    """What is checked out; COMMIT says it where the files came without their history."""
    if "COMMIT" in os.environ:
        return os.environ["COMMIT"]
    checkout = Path(__file__).resolve().parents[2]
    if not (checkout / ".git").exists():
        return f"dali-mixup {installed('dali-mixup')}"
    git = partial(subprocess.run, cwd=checkout, capture_output=True, text=True)
    commit = git(["git", "rev-parse", "HEAD"]).stdout.strip() or "not committed"
    changed = git(["git", "diff", "--quiet", "HEAD", "--", ".", ":!benchmarks/results"]).returncode
    return f"{commit}-dirty" if changed else commit
