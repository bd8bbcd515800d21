"""The code of tests/driver, over a stand-in for the driver, in a process of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from ctypes.util import find_library
from pathlib import Path

import pytest
from support.requirements import require

require("torch", "ptx")
require("cupy", "ptx")
require("nvidia.dali", "ptx")

TESTS = Path(__file__).resolve().parents[1]


@pytest.mark.skipif(find_library("cuda") is not None, reason="there is a driver")
@pytest.mark.skipif(shutil.which("gcc") is None, reason="gcc is not installed")
def test_everything_above_the_driver_runs_as_it_is(tmp_path):
    library = tmp_path / "libcuda.so.1"
    build = ["gcc", "-shared", "-fPIC", "-Wl,-soname,libcuda.so.1", "-o", library]
    subprocess.run([*build, TESTS / "support" / "driver" / "libcuda.c", "-ldl"], check=True)
    variables = {
        "LD_LIBRARY_PATH": f"{tmp_path}:{os.environ.get('LD_LIBRARY_PATH', '')}",
        "PYTHONPATH": os.pathsep.join([str(TESTS), os.environ.get("PYTHONPATH", "")]),
        "DALI_MIXUP_DRIVER_STAND_IN": "1",
    }
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", TESTS / "driver"]

    done = subprocess.run(command, env=os.environ | variables, capture_output=True, text=True)

    assert done.returncode == 0, done.stdout[-20_000:] + done.stderr
