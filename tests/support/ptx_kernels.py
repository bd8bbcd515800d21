"""The kernel as NVRTC compiles it for a GPU, executed from its PTX on CPU tensors."""

from __future__ import annotations

import ctypes
from typing import Any
from weakref import WeakValueDictionary

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from support import gpus_place, ptx
from support.ptx_cache import kernels_for

from dali_mixup.backends.cuda.launch import BLOCK, Launch

ADDRESSES = ("images", "out", "labels", "soft", "ids", "report")  # the first fields of a Batch
WRITTEN = {"out", "soft", "ids", "report"}

_addressed: WeakValueDictionary[int, torch.Tensor] = WeakValueDictionary()


def run(launch: Launch, parameters: tuple[Any, ...], device: torch.device) -> None:
    """``device.run`` on CPU tensors, whose memory the kernel reads and writes."""
    kernel = kernels_for("compute_90")[launch.kernel]
    given = tuple(bytes(memoryview(buffer).cast("B")) for buffer in parameters)
    by_pointer = "PlanByPointer" in launch.kernel
    execute_in_place(kernel, ptx.Launch(launch.grid, BLOCK, given), by_pointer)


def execute_in_place(kernel: ptx.Kernel, launch: ptx.Launch, by_pointer: bool) -> None:
    """Execute a launch on the tensors whose addresses are in its parameters."""
    batch, plan = launch.parameters
    addresses = np.frombuffer(batch, "<u8").tolist()
    roles = dict(zip(ADDRESSES, addresses, strict=False)) | {"normalisation": addresses[-1]}
    if by_pointer:
        roles["plan"] = int(np.frombuffer(plan, "<u8")[0])
    memory = ptx.Memory()
    written = []
    for name, address in roles.items():
        if address:
            real = memory_at(address)
            allocation = memory.attach(
                name, address, real, writable=name in WRITTEN, shared=name == "report"
            )
            written += [(allocation, real)] if name in WRITTEN else []
    ptx.execute(kernel, launch, memory)
    for allocation, real in written:
        assert allocation.shared or not allocation.unwritten, (
            f"not all of {allocation.name} is written"
        )
        real[:] = allocation.bytes


def memory_at(address: int) -> NDArray[np.uint8]:
    """The memory of the tensor that was last asked for this address, and still lives."""
    tensor = _addressed.get(address)
    assert tensor is not None, f"no tensor at {address:#x}; was it freed before the launch?"
    size = tensor.numel() * tensor.element_size()
    return np.ctypeslib.as_array((ctypes.c_uint8 * size).from_address(address))


def note_addresses() -> None:
    """From now on, remember each tensor that is asked for its address."""
    data_ptr = torch.Tensor.data_ptr

    def noted(tensor: torch.Tensor) -> int:
        address = data_ptr(tensor)
        _addressed[address] = tensor
        return address

    torch.Tensor.data_ptr = noted  # type: ignore[method-assign]


def take_the_gpus_place(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the CUDA backend run on CPU tensors, and note which tensors it passes to a kernel."""
    gpus_place.take_the_gpus_place(monkeypatch, run)
    monkeypatch.setattr(torch.Tensor, "data_ptr", torch.Tensor.data_ptr)  # back again afterwards
    note_addresses()
