"""Compiles the kernel with NVRTC; needs no GPU and no driver."""

from __future__ import annotations

from typing import NamedTuple

from cupy.cuda import nvrtc

from dali_mixup.backends.cuda.launch import COMPILE_OPTIONS
from dali_mixup.backends.cuda.source import read_kernel

KERNEL_FILE = "mixup.cu"


class Compiled(NamedTuple):
    """Machine code or PTX, the kernels' names in it, and the compiler's log."""

    code: bytes
    names: tuple[str, ...]
    log: str


def target_for(capability: tuple[int, int]) -> str:
    """The architecture to compile for, so that a GPU of this compute capability runs it.

    The GPU's own; else the newest older one of the same major version that NVRTC knows, whose
    machine code runs there too ("sm_100" for 10.3); else the newest older one as PTX, which the
    driver compiles for the GPU ("compute_120" for 13.0).

    Raises
    ------
    RuntimeError
        NVRTC knows newer architectures only.
    """
    major, minor = capability
    older = [known for known in nvrtc.getSupportedArchs() if known <= 10 * major + minor]
    if not older:
        version = ".".join(map(str, nvrtc.getVersion()))
        raise RuntimeError(
            f"NVRTC {version}: expected a GPU of compute capability "
            f"{min(nvrtc.getSupportedArchs()) / 10} or newer, got {major}.{minor}; "
            "install an extra with an older CUDA, such as [cuda12]"
        )
    newest = max(older)
    return f"sm_{newest}" if newest // 10 == major else f"compute_{newest}"


def compile_kernels(
    kernels: tuple[str, ...],
    architecture: str,
    *,
    options: tuple[str, ...] = (),
    source: str | None = None,
) -> Compiled:
    """Compile specialisations, named as in C++, for an architecture.

    "sm_90" makes machine code, "compute_90" PTX.

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
        return Compiled(_code(program, architecture), names, nvrtc.getProgramLog(program))
    finally:
        nvrtc.destroyProgram(program)


def _code(program: int, architecture: str) -> bytes:
    """Machine code, which CuPy returns one byte of padding short, or PTX and a zero."""
    if architecture.startswith("sm_"):
        return bytes(nvrtc.getCUBIN(program)) + b"\0"
    ptx = nvrtc.getPTX(program)
    return (ptx.encode() if isinstance(ptx, str) else bytes(ptx)) + b"\0"
