"""``dali-mixup doctor``: what it finds, what it advises, and its exit code."""

import importlib
import os
import subprocess
import sys

import numpy as np
import pytest
from support.command import run
from support.requirements import require

from dali_mixup.cli import doctor
from dali_mixup.cli.doctor import BAD, GOOD, NOTE, Finding


def test_doctor_finds_nothing_bad_here():
    said = run("doctor")

    assert said.exit_code == 0, said.output
    for line in ("Python", "nvidia.dali", "NVRTC", "mixing on the CPU", "equals its formula"):
        assert line in said.output


def test_doctor_fails_where_what_is_wanted_is_missing(monkeypatch):
    monkeypatch.setattr(doctor, "_torch_sees_a_gpu", lambda: False)

    said = run("doctor", "--backend", "cupy")

    assert said.exit_code == 1
    assert "torch sees none" in said.output


def test_doctor_fails_where_the_reference_is_wrong(monkeypatch):
    monkeypatch.setattr(
        "dali_mixup.backends.cpu.mix",
        lambda images, *args, **kwargs: (np.zeros((9, 3, 33, 40), np.float16), None),
    )

    said = run("doctor")

    assert said.exit_code == 1
    assert "differs from its formula" in said.output


def test_doctor_names_the_command_for_a_library_that_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", None)

    (finding,) = (found for found in doctor.examine("numpy") if found.what == "cupy")

    assert finding.state == NOTE
    assert "pip install 'dali-mixup[cuda12]'" in finding.advice


@pytest.mark.parametrize("there", [False, True])
def test_doctor_says_whether_numba_mixes_on_the_cpu(monkeypatch, there):
    if there:
        require("numba")
    else:
        monkeypatch.setattr(
            "dali_mixup.backends.cpu.compiled_loops", lambda: (None, "numba does not load (no)")
        )

    (finding,) = (found for found in doctor.examine("numpy") if found.what == "numba")

    assert finding.state == (GOOD if there else NOTE)
    assert finding.advice == ("" if there else "pip install --upgrade numba")


def test_a_library_that_does_not_load_is_a_line_of_the_report(monkeypatch):
    def refuse(module):
        if module == "torch":
            raise OSError("libcudnn.so.9: cannot open shared object file")
        return importlib.import_module(module)

    monkeypatch.setattr(doctor, "import_module", refuse)

    findings = {found.what: found for found in doctor.examine()}

    assert findings["torch"].state == NOTE
    assert "libcudnn.so.9" in findings["torch"].detail
    assert findings["mixing on the CPU"].state == GOOD


@pytest.fixture
def doctor_of(tmp_path):
    """Runs ``doctor`` for a user whose home cannot be written."""
    require("cupy")
    (tmp_path / "file").touch()
    home = {"HOME": str(tmp_path / "file" / "home"), "COLUMNS": "200"}
    command = [sys.executable, "-m", "dali_mixup", "doctor", "--backend", "cupy"]

    def call(**variables):
        inherited = {k: v for k, v in os.environ.items() if k != "CUPY_CACHE_DIR"}
        environment = inherited | home | variables
        return subprocess.run(command, capture_output=True, text=True, env=environment)

    return call


def test_a_home_without_room_for_cupys_cache_is_named_and_no_library_is_blamed(doctor_of):
    said = doctor_of()

    mended = "-> CuPy cannot create its cache: set CUPY_CACHE_DIR to a writable folder"
    about_cupy = said.stdout.partition(" cupy ")[2].partition(" driver ")[0]
    assert said.returncode == 1
    assert said.stdout.count(mended) >= 3  # the library, NVRTC, the kernel
    assert "pip install" not in about_cupy


def test_the_folder_in_cupy_cache_dir_is_the_one_that_counts(doctor_of, tmp_path):
    writable = doctor_of(CUPY_CACHE_DIR=str(tmp_path / "cache"))
    unwritable = doctor_of(HOME=str(tmp_path), CUPY_CACHE_DIR=str(tmp_path / "file" / "cache"))

    assert "CuPy cannot create its cache" not in writable.stdout
    assert "CuPy cannot create its cache" in unwritable.stdout


def test_another_file_that_cannot_be_read_is_not_said_to_be_cupys_cache(monkeypatch):
    def refuse(module):
        if module == "cupy":
            raise PermissionError(13, "Permission denied", "/usr/lib/libcupy.so")
        return importlib.import_module(module)

    monkeypatch.setattr(doctor, "import_module", refuse)

    (finding,) = (found for found in doctor.examine("numpy") if found.what == "cupy")

    assert finding.advice == doctor.EXTRAS


@pytest.mark.parametrize(
    ("capability", "state"), [((6, 1), BAD), ((7, 0), GOOD), ((7, 5), GOOD), ((10, 0), GOOD)]
)
def test_a_card_below_compute_capability_7_0_is_bad(monkeypatch, capability, state):
    cuda = require("torch").cuda
    monkeypatch.setattr(cuda, "get_device_capability", lambda: capability)
    monkeypatch.setattr(cuda, "get_device_name", lambda: "a card")
    monkeypatch.setattr(doctor, "_torch_sees_a_gpu", lambda: True)

    found = doctor._card(NOTE)

    assert found.state == state
    assert f"a card, compute capability {capability[0]}.{capability[1]}" in found.detail
    assert found.advice == ("expected 7.0 or newer" if state == BAD else "")


def test_two_builds_of_one_library_are_bad(monkeypatch):
    class Distribution:
        def __init__(self, name):
            self.metadata = {"Name": name}

    there = [Distribution("cupy-cuda12x"), Distribution("cupy-cuda13x"), Distribution("numpy")]
    monkeypatch.setattr(doctor, "distributions", lambda: there)

    (finding,) = doctor._doubles()

    assert finding.state == BAD
    assert "cupy-cuda12x and cupy-cuda13x" in finding.detail


def test_copies_of_nvrtc_are_listed(monkeypatch, tmp_path):
    for place in ("nvidia/cuda_nvrtc/lib/libnvrtc.so.12", "nvidia/cu13/lib/libnvrtc.so.13"):
        (tmp_path / place).parent.mkdir(parents=True)
        (tmp_path / place).touch()
    (tmp_path / "nvidia/cu13/lib/libnvrtc-builtins.so.13.0").touch()
    monkeypatch.setattr(sys, "path", [str(tmp_path)])

    assert sorted(doctor.nvrtc_copies().values()) == ["libnvrtc.so.12", "libnvrtc.so.13"]


@pytest.mark.parametrize(("state", "code"), [(GOOD, 0), (NOTE, 0), (BAD, 1)])
def test_doctors_exit_code_is_for_ci(monkeypatch, state, code):
    monkeypatch.setattr(
        "dali_mixup.cli.app.examine", lambda backend: [Finding("x", state, "[y]", "z")]
    )

    said = run("doctor")

    assert said.exit_code == code
    assert "[y]" in said.output


@pytest.mark.parametrize(
    ("cuda", "extra"), [("13.0.1.012", "container-cuda13"), ("12.9.1", "container-cuda12")]
)
def test_nvidias_container_is_recognised_and_gets_its_own_line(monkeypatch, cuda, extra):
    monkeypatch.setenv("NVIDIA_PYTORCH_VERSION", "25.09")
    monkeypatch.setenv("CUDA_VERSION", cuda)
    monkeypatch.setitem(sys.modules, "cupy", None)

    findings = {finding.what: finding for finding in doctor.examine()}

    line = f"pip install 'dali-mixup[{extra}]', which leaves the container's torch"
    assert "PyTorch 25.09" in findings["container"].detail
    assert line in findings["container"].detail
    assert line in findings["cupy"].advice


def test_outside_of_a_container_nothing_is_said_of_one(monkeypatch):
    monkeypatch.delenv("NVIDIA_PYTORCH_VERSION", raising=False)

    assert "container" not in {finding.what for finding in doctor.examine()}


def test_a_missing_nvrtc_is_not_taken_for_a_missing_cupy():
    error = RuntimeError(
        "CuPy failed to load libnvrtc.so.12: OSError: libnvrtc.so.12: no such file"
    )

    assert doctor._advice(error, "usual").startswith("pip install nvidia-cuda-nvrtc-cu12")
