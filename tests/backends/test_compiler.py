"""kernels/mixup.cu compiled for GPUs, on machines that have none."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sysconfig
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import pytest
from support.requirements import require
from support.specializations import DTYPES, specializations

require("cupy")
nvrtc = require("dali_mixup.backends.cuda.compiler", "cupy")

from dali_mixup.backends.cuda.source import read_kernel  # noqa: E402

BY_VALUE = "PlanByValue<256>"
ALIGNED = [
    ("mix<UINT8, HWC, FLOAT16, CHW, 3, 1, 8, 1, {}>", {"LDG.E.64": 6, "STG.E.EF.128": 3}),
    ("mix<UINT8, HWC, FLOAT32, CHW, 3, 1, 4, 1, {}>", {"LDG.E": 6, "STG.E.EF.128": 3}),
    ("mix<FLOAT32, CHW, FLOAT32, CHW, 3, 1, 4, 1, {}>", {"LDG.E.128": 6, "STG.E.EF.128": 3}),
    ("mix<FLOAT16, CHW, FLOAT16, CHW, 3, 1, 8, 1, {}>", {"LDG.E.128": 6, "STG.E.EF.128": 3}),
    ("mix<UINT8, CHW, FLOAT16, CHW, 1, 3, 8, 4, {}>", {"LDG.E.64": 8, "STG.E.EF.128": 4}),
]


def resources(log: str) -> list[tuple[int, ...]]:
    """Bytes of stack, spill stores and spill loads of each kernel, from ptxas."""
    pattern = r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads"
    return [tuple(map(int, found)) for found in re.findall(pattern, log)]


def assert_compiles_without_local_memory(kernels: tuple[str, ...], architecture: str) -> None:
    cores = len(os.sched_getaffinity(0)) if len(kernels) > 100 else 1
    parts = [kernels[k::cores] for k in range(cores)]
    compile_part = partial(
        nvrtc.compile_kernels, architecture=architecture, options=("--ptxas-options=-v",)
    )
    if cores == 1:
        compiled = [compile_part(kernels)]
    else:  # NVRTC compiles in one thread of a process at a time
        with ProcessPoolExecutor(cores, mp_context=get_context("spawn")) as pool:
            compiled = list(pool.map(compile_part, parts))

    assert len({name for part in compiled for name in part.names}) == len(kernels)
    found = [each for part in compiled for each in resources(part.log)]
    assert found == [(0, 0, 0)] * len(kernels)


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_specialisation_compiles_without_spills_or_local_memory(dtype):
    assert_compiles_without_local_memory(tuple(specializations(BY_VALUE, (dtype,))), "sm_90")


@pytest.mark.parametrize("architecture", ["sm_75", "sm_80", "sm_100", "sm_120"])
def test_what_aligned_batches_use_compiles_everywhere(architecture):
    kernels = tuple(kernel.format(BY_VALUE) for kernel, _ in ALIGNED)

    assert_compiles_without_local_memory(kernels, architecture)


@pytest.mark.nightly
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("architecture", ["sm_75", "sm_80", "sm_100", "sm_120"])
def test_every_specialisation_compiles_everywhere(architecture, dtype):
    assert_compiles_without_local_memory(tuple(specializations(BY_VALUE, (dtype,))), architecture)


@pytest.mark.parametrize("plan", ["PlanByPointer", "PlanByValue<2041>"])
def test_every_form_of_a_plan_compiles(plan):
    assert_compiles_without_local_memory((ALIGNED[0][0].format(plan),), "sm_90")


def test_a_planted_syntax_error_shows_file_and_line():
    lines = read_kernel("mixup.cu").splitlines()
    line = next(i for i, text in enumerate(lines) if "const int i = blockIdx.x;" in text)
    lines[line] = "const int i = blockIdx.;"

    with pytest.raises(RuntimeError, match=rf"(?s)NVRTC \d.*sm_90.*mixup\.cu\({line + 1}\): error"):
        nvrtc.compile_kernels((ALIGNED[0][0].format(BY_VALUE),), "sm_90", source="\n".join(lines))


def test_parameters_of_another_size_do_not_compile():
    source = read_kernel("mixup.cu").replace("int height, width;", "int height, width, depth;")

    with pytest.raises(RuntimeError, match="launch parameters"):
        nvrtc.compile_kernels((ALIGNED[0][0].format(BY_VALUE),), "sm_90", source=source)


def test_the_check_of_local_memory_notices_it():
    source = read_kernel("mixup.cu").replace(
        "  const bool boxed =",
        "  volatile float there[64]; there[blockIdx.y % 64] = 1;\n  const bool boxed =",
    )
    kernel = ALIGNED[0][0].format(BY_VALUE)

    compiled = nvrtc.compile_kernels(
        (kernel,), "sm_90", options=("--ptxas-options=-v",), source=source
    )

    assert resources(compiled.log)[0][0] > 0


def disassemble(kernel: str, folder: Path) -> str:
    """The machine code for sm_90, as nvdisasm shows it."""
    found = sorted(Path(sysconfig.get_path("purelib"), "nvidia").glob("*/bin/nvdisasm"))
    nvdisasm = shutil.which("nvdisasm") or (str(found[0]) if found else None)
    if nvdisasm is None:
        pytest.skip("nvdisasm is not installed")
    cubin = folder / "mixup.cubin"
    cubin.write_bytes(nvrtc.compile_kernels((kernel,), "sm_90").code)
    return subprocess.run(
        [nvdisasm, "-c", str(cubin)], check=True, capture_output=True, text=True
    ).stdout


@pytest.mark.parametrize(("kernel", "accesses"), ALIGNED)
def test_the_machine_code_reads_and_writes_widely_and_fuses_nothing(kernel, accesses, tmp_path):
    code = disassemble(kernel.format(BY_VALUE), tmp_path)

    opcodes = re.findall(r"^\s+/\*\w+\*/\s+(?:@!?\w+\s+)?([A-Z][A-Z0-9_.]+)", code, re.M)
    images = [op.removesuffix(".CONSTANT") for op in opcodes if "CONSTANT" in op or ".EF" in op]
    for access, count in accesses.items():
        assert images.count(access) >= count
    assert not [op for op in opcodes if op.startswith(("FFMA", "LDL", "STL"))]
