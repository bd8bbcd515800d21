"""kernels/mixup.cu compiled for GPUs, on machines that have none."""

from __future__ import annotations

import re
from functools import partial

import pytest
from support.processes import in_processes, split
from support.requirements import require
from support.specializations import DTYPES, of_any_channels, of_masks, specializations

require("cupy")
nvrtc = require("dali_mixup.backends.cuda.compiler", "cupy")

from support.machine_code import (  # noqa: E402
    ALIGNED,
    BY_VALUE,
    disassembled,
    disassembler,
    fused_operations,
    machine_code_problems,
    main_path,
    weights_of_integers,
)

from dali_mixup.backends.cuda.source import read_kernel  # noqa: E402

ARCHITECTURES = ["sm_80", "sm_90", "sm_100", "sm_120"]


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


def test_every_specialisation_of_bytes_compiles_without_spills_or_local_memory():
    assert_compiles_without_local_memory(tuple(specializations(BY_VALUE, ("uint8",))), "sm_90")


@pytest.mark.parametrize(
    "architecture", [pytest.param("sm_75", marks=pytest.mark.nightly), "sm_90"]
)
def test_masks_and_any_channels_of_bytes_compile_without_spills_or_local_memory(architecture):
    kernels = *of_masks(BY_VALUE), *of_any_channels(BY_VALUE, ("uint8",))

    assert_compiles_without_local_memory(kernels, architecture)


@pytest.mark.parametrize("architecture", ["sm_75", "sm_80", "sm_100", "sm_120"])
def test_what_aligned_batches_use_compiles_everywhere(architecture):
    kernels = tuple(each.name for each in ALIGNED)

    assert_compiles_without_local_memory(kernels, architecture)


@pytest.mark.nightly
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("frames", ["STILLS", "CLIPS"])
@pytest.mark.parametrize("architecture", ["sm_75", *ARCHITECTURES])
def test_every_specialisation_compiles_everywhere(architecture, frames, dtype):
    kernels = tuple(specializations(BY_VALUE, (dtype,), frames))

    assert_compiles_without_local_memory(kernels, architecture)


@pytest.mark.nightly
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("architecture", ["sm_75", *ARCHITECTURES])
def test_any_channels_compile_everywhere(architecture, dtype):
    assert_compiles_without_local_memory(tuple(of_any_channels(BY_VALUE, (dtype,))), architecture)


@pytest.mark.parametrize("plan", ["PlanByPointer", "PlanByValue<2038>"])
def test_every_form_of_a_plan_compiles(plan):
    assert_compiles_without_local_memory((ALIGNED[0].kernel.format(plan),), "sm_90")


def test_a_planted_syntax_error_shows_file_and_line():
    lines = read_kernel("mixup.cu").splitlines()
    line = next(i for i, text in enumerate(lines) if "const Word i = blockIdx.x;" in text)
    lines[line] = "const Word i = blockIdx.;"

    with pytest.raises(RuntimeError, match=rf"(?s)NVRTC \d.*sm_90.*mixup\.cu\({line + 1}\): error"):
        nvrtc.compile_kernels((ALIGNED[0].name,), "sm_90", source="\n".join(lines))


def test_parameters_of_another_size_do_not_compile():
    source = read_kernel("mixup.cu").replace(
        "Word plane, width;", "Word plane, width; Int64 depth;"
    )

    with pytest.raises(RuntimeError, match="launch parameters"):
        nvrtc.compile_kernels((ALIGNED[0].name,), "sm_90", source=source)


def test_the_check_of_local_memory_notices_it():
    source = read_kernel("mixup.cu").replace(
        "  const bool selects =",
        "  volatile float there[64]; there[blockIdx.y % 64] = 1;\n  const bool selects =",
    )
    kernel = ALIGNED[0].name

    compiled = nvrtc.compile_kernels(
        (kernel,), "sm_90", options=("--ptxas-options=-v",), source=source
    )

    assert resources(compiled.log)[0][0] > 0


needs_disassembler = pytest.mark.skipif(disassembler() is None, reason="nvdisasm is not installed")


@needs_disassembler
@pytest.mark.parametrize(
    "architecture",
    ["sm_90", "sm_100", *(pytest.param(a, marks=pytest.mark.nightly) for a in ("sm_80", "sm_120"))],
)
@pytest.mark.parametrize("aligned", ALIGNED)
def test_the_machine_code_reads_and_writes_widely_and_fuses_nothing_else(aligned, architecture):
    assert machine_code_problems(aligned, architecture) == []


@needs_disassembler
@pytest.mark.parametrize("architecture", ["sm_100", "sm_120"])
def test_sums_of_pairs_that_ptxas_fuses_are_noticed_in_the_machine_code(architecture):
    if nvrtc.nvrtc.getVersion() > (12, 9):
        pytest.skip("ptxas of CUDA 13 does not fuse them")
    paired = "if constexpr (is_integer(DTYPE))\n    return add"
    source = read_kernel("mixup.cu").replace(paired, paired.replace("is_integer(DTYPE)", "true"))

    assert "fused operations" in machine_code_problems(ALIGNED[-1], architecture, source)[0]


@needs_disassembler
@pytest.mark.parametrize(
    ("aligned", "most"), list(zip(ALIGNED, [30.0, 36.0, 34.2, 31.0, 30.2, 30.3], strict=True))
)
def test_a_thread_executes_few_instructions_a_pixel(aligned, most):
    assert len(main_path(aligned, "sm_90")) / aligned.pixels <= most


@pytest.mark.nightly
@needs_disassembler
@pytest.mark.parametrize("architecture", ["sm_75", *ARCHITECTURES])
def test_no_specialisation_fuses_more_than_the_weights_of_integers(architecture):
    kernels = tuple(specializations(BY_VALUE))
    compile_part = partial(nvrtc.compile_kernels, architecture=architecture)
    found = {}
    for names, part in zip(split(kernels), in_processes(compile_part, kernels), strict=True):
        code = disassembled(part.code)
        for kernel, lowered in zip(names, part.names, strict=True):
            found[kernel] = fused_operations(code[lowered])

    assert found == {kernel: weights_of_integers(kernel, architecture) for kernel in kernels}
