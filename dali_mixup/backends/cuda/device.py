"""Everything that touches a GPU, through CuPy and torch; the kernel is launched here."""

from __future__ import annotations

from functools import cache
from threading import Lock
from typing import Any, NamedTuple

import numpy as np
import torch
from cupy.cuda import driver, runtime
from cupy.cuda.function import CNumpyArray, Function, Module

from dali_mixup.backends.cuda.compiler import compile_kernels, target_for
from dali_mixup.backends.cuda.launch import BLOCK, OLD_PLAN_CAPACITY, PLAN_CAPACITY, Launch

DEVICE_TYPE = "cuda"
CUDA_12_1 = 12010  # of driver 530

_functions: dict[tuple[str, int], Function] = {}
_loading = Lock()


class _Stream(NamedTuple):
    ptr: int


def run(launch: Launch, parameters: tuple[Any, ...], device: torch.device) -> None:
    """Launch a kernel on torch's current stream of a device.

    `parameters` are buffers, one per parameter of the kernel; the launch copies their bytes.

    Raises
    ------
    RuntimeError
        The driver refuses the launch, or reports the error of an earlier kernel.
    """
    with torch.cuda.device(device):
        function = _function(launch.kernel, torch.cuda.current_device())
        try:
            function(
                launch.grid,
                (BLOCK,),
                tuple(CNumpyArray(np.frombuffer(buffer, np.uint8)) for buffer in parameters),
                0,
                _Stream(torch.cuda.current_stream(device).cuda_stream),
            )
        except driver.CUDADriverError as error:
            raise RuntimeError(
                f"{launch.kernel}, grid {launch.grid}, {BLOCK} threads a block: the launch failed "
                f"with {error}; it may be the error of an earlier kernel, which "
                "CUDA_LAUNCH_BLOCKING=1 shows where it happens"
            ) from error


def _function(kernel: str, device_index: int) -> Function:
    """The kernel, compiled for a device and loaded there when it is first used."""
    with _loading:
        if (kernel, device_index) not in _functions:
            _functions[kernel, device_index] = _loaded(kernel, device_index)
        return _functions[kernel, device_index]


def _loaded(kernel: str, device_index: int) -> Function:
    target = target_for(torch.cuda.get_device_capability(device_index))
    compiled = compile_kernels((kernel,), target)
    module = Module()
    try:
        module.load(compiled.code)
        return module.get_function(compiled.names[0])
    except driver.CUDADriverError as error:
        version = runtime.driverGetVersion()
        raise RuntimeError(
            f"{kernel}, compiled for {target}: the driver, of CUDA {version // 1000}."
            f"{version % 1000 // 10}, does not load it: {error}; update the driver, or install an "
            "extra with an older CUDA"
        ) from error


@cache
def plan_capacity() -> int:
    """Samples whose plan can be a parameter of a launch: drivers before 530 take 4,096 bytes."""
    return PLAN_CAPACITY if runtime.driverGetVersion() >= CUDA_12_1 else OLD_PLAN_CAPACITY


def pinned(tensor: torch.Tensor) -> torch.Tensor:
    """A copy in pinned memory, which a GPU can read and write."""
    return torch.empty_like(tensor, pin_memory=True).copy_(tensor)


def is_capturing(device: torch.device) -> bool:
    """Whether torch's current stream of a device is being captured into a CUDA graph."""
    with torch.cuda.device(device):
        return torch.cuda.is_current_stream_capturing()


def index_of(device: torch.device | str | int | None) -> int:
    """The GPU's number; None is the current one."""
    if isinstance(device, int):
        return device
    index = None if device is None else torch.device(device).index
    return torch.cuda.current_device() if index is None else index


def synchronize(device: torch.device | str | int | None) -> None:
    """Wait for all work of a GPU."""
    torch.cuda.synchronize(device)
