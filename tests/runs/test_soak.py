"""The long run in short: that nothing grows, and that it would be noticed."""

import json
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest
from support.requirements import require

require("torch", backend="dali")
require("nvidia.dali")
require("PIL.Image", backend="dali")

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def soak(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT))
    return import_module("benchmarks.speed.soak")


def test_nothing_grows_over_some_thousand_batches(tmp_path):
    record = tmp_path / "soak.json"
    command = [sys.executable, "-m", "benchmarks.speed.soak", "--batches", "4000", "--json", record]

    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)

    assert done.returncode == 0, done.stdout + done.stderr
    run = json.loads(record.read_text())
    assert run["command"].startswith("python -m benchmarks.speed.soak --batches 4000")
    parts = run["rows"]
    assert [part["batches"] for part in parts] == [3600, 400]
    assert [part["problems"] for part in parts] == [[], []]
    assert [part["plans_checked"] for part in parts] == [35, 3]


@pytest.mark.parametrize(
    ("last", "problems"),
    [
        ({}, []),
        ({"memory_mib": 302.9}, []),
        ({"memory_mib": 304.0}, ["memory_mib: expected to stay within 1%, got 300.0 to 304.0"]),
        ({"files": 7}, ["files: expected to stay within 0%, got 6 to 7"]),
        ({"threads": 3}, ["threads: expected to stay within 0%, got 2 to 3"]),
        ({"cuda_mib": 11.0}, ["cuda_mib: expected to stay within 1%, got 10.0 to 11.0"]),
    ],
)
def test_what_grows_is_named(soak, last, problems):
    usage = soak.Usage(0, memory_mib=300.0, files=6, threads=2, cuda_mib=10.0)

    assert soak.growth([usage] * 9 + [usage._replace(**last)]) == problems


def test_what_grows_while_warming_up_is_nothing(soak):
    cold = soak.Usage(0, memory_mib=200.0, files=3, threads=1, cuda_mib=0.0)
    warm = soak.Usage(0, memory_mib=300.0, files=6, threads=2, cuda_mib=10.0)

    assert soak.growth([cold, cold, *[warm] * 8]) == []


def test_a_plan_of_another_place_is_noticed(soak):
    mixup = soak.MIXUPS[0]
    plan = mixup.plan(8, (soak.SIDE, soak.SIDE), epoch=1, step=4)

    assert soak.Delivery(plan, mixup, epoch=1, step=4).is_of_its_place()
    assert not soak.Delivery(plan, mixup, epoch=1, step=5).is_of_its_place()
