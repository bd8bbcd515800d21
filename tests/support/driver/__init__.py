"""A GPU's place taken down to the driver: CuPy and this package run as they are.

What a launch passes to ``cuLaunchKernel`` is written down, and the kernel's PTX is executed on the
memory of CPU tensors. Of torch, only what asks for a GPU is replaced. For a process of its own,
whose LD_LIBRARY_PATH leads to the library that libcuda.c makes.
"""

from __future__ import annotations

import ctypes
import re
import sys
from dataclasses import dataclass, field
from functools import cache
from importlib import import_module
from threading import Lock
from typing import Any, NamedTuple

import torch

SUCCESS, INVALID_VALUE, INVALID_HANDLE, ILLEGAL_ADDRESS = 0, 1, 400, 700
CUDA_12_1, OLD_PARAMETERS = 12010, 4096
ELF, ELF_HEADER = b"\x7fELF", 64
DTYPES = ("UINT8", "UINT16", "UINT32", "FLOAT16", "BFLOAT16", "FLOAT32")
LAYOUTS, FRAMES, NUMBERS = ("CHW", "HWC"), ("STILLS", "CLIPS", "PLANES"), range(1 << 16)
ARGUMENTS: dict[str, tuple[Any, ...]] = {
    "mix": (DTYPES, LAYOUTS, DTYPES, LAYOUTS, *[NUMBERS] * 4, FRAMES),
    "transpose": (DTYPES, DTYPES, LAYOUTS, NUMBERS),
    "select": (DTYPES, NUMBERS, NUMBERS),
}
"""Of each template of the kernel, before the plan: the names of its numbers."""


class Launched(NamedTuple):
    """What the driver was given."""

    kernel: str
    device: int
    grid: tuple[int, ...]
    block: tuple[int, ...]
    shared_bytes: int
    stream: int
    parameters: tuple[bytes, ...]
    code: Any


@dataclass
class Driver:
    """The state of the driver, and of torch's side of the GPU."""

    version: int = 12090
    capabilities: tuple[tuple[int, int], ...] = ((9, 0), (9, 0))
    device: int = 0
    tensors_on: int | None = None  # where CPU tensors lie; None: on the current device
    stream: int = 0x7777
    capturing: bool = False
    fail_launch: int = SUCCESS
    fail_load: int = SUCCESS
    launched: list[Launched] = field(default_factory=list)
    images: dict[int, tuple[int, bytes]] = field(default_factory=dict)  # a module's device, code
    functions: dict[int, tuple[int, str]] = field(default_factory=dict)  # its module and name
    unloaded: int = 0
    faults: list[BaseException] = field(default_factory=list)

    def load(self, image: bytes) -> int:
        self.images[len(self.images) + 1] = (self.device, image)
        return len(self.images)

    def function(self, module: int, name: str) -> int:
        self.functions[len(self.functions) + 1] = (module, name)
        return len(self.functions)

    def launch(self, function: int, sizes: Any, stream: int, parameters: Any) -> int:
        module, lowered = self.functions[function]
        device, image = self.images[module]
        if device != self.device:
            return INVALID_HANDLE
        kernel = _kernel(lowered, image)
        given = tuple(
            ctypes.string_at(parameters[number], parameter.size)
            for number, parameter in enumerate(kernel.parameters)
        )
        if self.version < CUDA_12_1 and sum(map(len, given)) > OLD_PARAMETERS:
            return INVALID_VALUE
        grid, block, shared_bytes = tuple(sizes[:3]), tuple(sizes[3:6]), sizes[6]
        launched = Launched(
            cpp_name(lowered), device, grid, block, shared_bytes, stream, given, kernel
        )
        self.launched.append(launched)
        return self.fail_launch or self.execute(launched)

    def execute(self, launched: Launched) -> int:
        """Run it, once more where a graph replays it."""
        from support import ptx
        from support.ptx_kernels import execute_in_place

        launch = ptx.Launch(launched.grid, launched.block[0], launched.parameters)
        try:
            execute_in_place(launched.code, launch, "PlanByPointer" in launched.kernel)
        except BaseException as fault:
            self.faults.append(fault)
            return ILLEGAL_ADDRESS
        return SUCCESS


DRIVER = Driver()


def cpp_name(lowered: str) -> str:
    """The specialisation as C++ writes it, from its name in the machine code."""
    template = next(name for name in ARGUMENTS if f"{len(name)}{name}I" in lowered)
    found = [int(number) for number in re.findall(r"Li(\d+)E", lowered)]
    names = ARGUMENTS[template]
    if "PlanByPointer" in lowered:
        plan = "PlanByPointer"
    else:
        plan = f"PlanByValue<{found[len(names)]}>"
    arguments = (str(known[number]) for known, number in zip(names, found, strict=False))
    return f"{template}<{', '.join((*arguments, plan))}>"


@cache
def _kernel(lowered: str, image: bytes) -> Any:
    """The PTX that was loaded; beside machine code, that of the same source."""
    from support import ptx
    from support.ptx_cache import kernels_for

    if image.startswith(ELF):
        return kernels_for("compute_90")[cpp_name(lowered)]
    return ptx.parse(image.rstrip(b"\0").decode())[lowered]


# ---- the library ---------------------------------------------------------------------------------

_lock, _kept = Lock(), []


def _load(module: Any, image: int) -> int:
    if DRIVER.fail_load:
        return DRIVER.fail_load
    is_elf = ctypes.string_at(image, len(ELF)) == ELF
    with _lock:
        module[0] = DRIVER.load(ctypes.string_at(image, *((ELF_HEADER,) if is_elf else ())))
    return SUCCESS


def _function(function: Any, module: int, name: bytes) -> int:
    with _lock:
        function[0] = DRIVER.function(module, name.decode())
    return SUCCESS


def _launch(function: int, sizes: Any, stream: int | None, parameters: Any) -> int:
    with _lock:
        return DRIVER.launch(function, sizes, stream or 0, parameters)


def _unload(module: int) -> int:
    DRIVER.unloaded += 1
    return SUCCESS


def _set_up_library() -> None:
    handle, result = ctypes.POINTER(ctypes.c_void_p), ctypes.c_int
    kinds = (
        (ctypes.CFUNCTYPE(result, handle, ctypes.c_void_p), _load),
        (ctypes.CFUNCTYPE(result, handle, ctypes.c_void_p, ctypes.c_char_p), _function),
        (
            ctypes.CFUNCTYPE(
                result, ctypes.c_void_p, ctypes.POINTER(ctypes.c_uint), ctypes.c_void_p, handle
            ),
            _launch,
        ),
        (ctypes.CFUNCTYPE(result, ctypes.c_void_p), _unload),
    )
    _kept.extend(kind(function) for kind, function in kinds)
    ctypes.CDLL("libcuda.so.1").stand_in(*_kept)


# ---- CuPy ----------------------------------------------------------------------------------------


def _set_up_cupy() -> None:
    """CuPy's CUDA runtime wants a real driver; a launch asks it for the device and a context."""
    import cupy_backends.cuda.api.runtime as runtime

    python = ctypes.pythonapi
    python.PyCapsule_New.restype = ctypes.py_object
    python.PyCapsule_New.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]
    python.PyCapsule_GetName.restype = ctypes.c_char_p
    python.PyCapsule_GetName.argtypes = [ctypes.py_object]
    for name, kind, function in (
        ("_ensure_context", ctypes.PYFUNCTYPE(ctypes.py_object), lambda: None),
        ("getDevice", ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.c_int), lambda skip: DRIVER.device),
    ):
        label = python.PyCapsule_GetName(runtime.__pyx_capi__[name])
        callback = kind(function)
        _kept.extend((label, callback))
        address = ctypes.cast(callback, ctypes.c_void_p).value
        runtime.__pyx_capi__[name] = python.PyCapsule_New(address, label, None)
    runtime.driverGetVersion = lambda: DRIVER.version


# ---- torch ---------------------------------------------------------------------------------------


class _Device:
    """``torch.cuda.device``."""

    def __init__(self, device: Any) -> None:
        index = device if isinstance(device, int) else torch.device(device).index
        known = (index, DRIVER.tensors_on, DRIVER.device)
        self._index = next(number for number in known if number is not None)

    def __enter__(self) -> None:
        self._before, DRIVER.device = DRIVER.device, self._index

    def __exit__(self, *error: Any) -> None:
        DRIVER.device = self._before


class _Stream(NamedTuple):
    cuda_stream: int


def _set_up_torch() -> None:
    cuda: Any = torch.cuda
    cuda.device = _Device
    cuda.current_device = lambda: DRIVER.device
    cuda.get_device_capability = lambda index=None: DRIVER.capabilities[index or 0]
    cuda.current_stream = lambda device=None: _Stream(DRIVER.stream)
    cuda.is_current_stream_capturing = lambda: DRIVER.capturing
    cuda.synchronize = lambda device=None: None


def _set_up_package() -> None:
    """CPU tensors go where tensors on a GPU go; pinned memory is ordinary memory."""
    from support import ptx_kernels

    from dali_mixup.backends.cuda import device

    device.DEVICE_TYPE = "cpu"
    device.pinned = torch.clone
    sys.modules["dali_mixup.backends.torch_cpu"] = import_module("dali_mixup.backends.cuda.backend")
    ptx_kernels.note_addresses()


def set_up() -> None:
    _set_up_library()
    _set_up_cupy()
    _set_up_torch()
    _set_up_package()
