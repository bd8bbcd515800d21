"""Compiles the kernel with NVRTC; needs no GPU and no driver."""

from __future__ import annotations

from typing import NamedTuple

from cupy.cuda import nvrtc

from dali_mixup.backends.cuda.launch import COMPILE_OPTIONS
from dali_mixup.backends.cuda.source import read_kernel

KERNEL_FILE = "mixup.cu"


class Compiled(NamedTuple):
    """Machine code, the kernels' names in it, and the compiler's log."""

    cubin: bytes
    names: tuple[str, ...]
    log: str


def compile_kernels(
    kernels: tuple[str, ...],
    architecture: str,
    *,
    options: tuple[str, ...] = (),
    source: str | None = None,
) -> Compiled:
    """Compile specialisations, named as in C++, for an architecture such as "sm_90".

    CuPy's own compilation adds ``-ftz=true``, which would flush subnormal numbers to zero and with
    them the equality with the reference; and it asks for a device.

    Raises
    ------
    RuntimeError
        With NVRTC's version and its messages, which name file and line.
    """
    program = nvrtc.createProgram(
        read_kernel(KERNEL_FILE) if source is None else source, KERNEL_FILE, (), ()
    )
    try:
        for kernel in kernels:
            nvrtc.addNameExpression(program, kernel)
        target = (f"--gpu-architecture={architecture}", "--std=c++17", *COMPILE_OPTIONS)
        try:
            nvrtc.compileProgram(program, (*target, *options))
        except nvrtc.NVRTCError as error:
            version = ".".join(map(str, nvrtc.getVersion()))
            raise RuntimeError(
                f"NVRTC {version} could not compile {KERNEL_FILE} for {architecture}: {error}\n"
                f"{nvrtc.getProgramLog(program)}"
            ) from error
        names = tuple(nvrtc.getLoweredName(program, kernel) for kernel in kernels)
        # CuPy hands the code out one byte short; that byte is padding.
        return Compiled(nvrtc.getCUBIN(program) + b"\0", names, nvrtc.getProgramLog(program))
    finally:
        nvrtc.destroyProgram(program)
