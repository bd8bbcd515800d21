"""kernels/mixup.cu compiled for GPUs, on machines that have none."""

from __future__ import annotations

import re
from functools import partial

import pytest
from support.processes import in_processes
from support.requirements import require
from support.specializations import DTYPES, specializations

require("cupy")
nvrtc = require("dali_mixup.backends.cuda.compiler", "cupy")

from support.machine_code import (  # noqa: E402
    ALIGNED,
    BY_VALUE,
    disassembler,
    machine_code_problems,
)

from dali_mixup.backends.cuda.source import read_kernel  # noqa: E402


def resources(log: str) -> list[tuple[int, ...]]:
    """Bytes of stack, spill stores and spill loads of each kernel, from ptxas."""
    pattern = r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads"
    return [tuple(map(int, found)) for found in re.findall(pattern, log)]


def assert_compiles_without_local_memory(kernels: tuple[str, ...], architecture: str) -> None:
    compile_part = partial(
        nvrtc.compile_kernels, architecture=architecture, options=("--ptxas-options=-v",)
    )
    compiled = (
        in_processes(compile_part, kernels) if len(kernels) > 100 else [compile_part(kernels)]
    )

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


@pytest.mark.parametrize(("kernel", "accesses"), ALIGNED)
def test_the_machine_code_reads_and_writes_widely_and_fuses_nothing(kernel, accesses):
    if disassembler() is None:
        pytest.skip("nvdisasm is not installed")

    assert machine_code_problems(kernel.format(BY_VALUE), accesses) == []
