"""One batch through the kernel's source, compiled for the CPU, between guard pages."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
from support.guarded import GuardedBuffer
from support.host_shim import HostKernels
from support.kernel_batch import Batch, Shift, as_bytes
from support.mask_batch import MaskBatch

from dali_mixup.backends.cuda.launch import plan_parameters


def run(kernels: HostKernels, batch: Batch) -> tuple[list[str], list[int]]:
    """What differs from the reference, and the words of the report. The plan goes by pointer.

    Raises
    ------
    AssertionError
        Something beside a buffer was written; what lies further away ends the process.
    """
    want, targets, launch = batch.expected_images(), batch.expected_targets(), batch.launch()
    images = out = labels = soft = ids = None
    if batch.images is not None and want is not None:
        images = guarded(as_bytes(batch.images), batch.shifts[0])
        out = guarded(want.nbytes, batch.shifts[1])
    if batch.labels is not None:
        labels = guarded(as_bytes(batch.labels), None)
        soft = guarded(targets[-1].nbytes, None)
        ids = guarded(16 * len(batch.plan), None) if len(targets) == 3 else None
    per_channel = batch.per_channel()
    table = None if per_channel is None else guarded(as_bytes(per_channel), None)
    report = guarded(np.zeros(16, np.uint8), None)
    buffers = images, out, labels, soft, ids, report, table
    samples = plan_parameters(batch.plan)
    kernels.run(
        launch.kernel,
        launch.grid,
        batch.parameters(*(buffer.address if buffer else 0 for buffer in buffers)),
        np.array([samples.ctypes.data], np.uint64),
    )
    for buffer in filter(None, buffers):
        buffer.open()
    found = batch.differences(*(buffer and buffer.bytes for buffer in (out, soft, ids)))
    return found, report.bytes.copy().view(np.int32).tolist()


def run_masks(kernels: HostKernels, batch: MaskBatch) -> None:
    """Masks through the kernel's source; AssertionError where they differ from the reference."""
    launch, samples = batch.launch(), plan_parameters(batch.plan)
    masks = guarded(as_bytes(batch.masks), batch.shift)
    out = guarded(batch.masks.nbytes, batch.shift)
    kernels.run(
        re.sub(r"PlanByValue<\d+>", "PlanByPointer", launch.kernel),
        launch.grid,
        batch.parameters(masks.address, out.address),
        np.array([samples.ctypes.data], np.uint64),
    )
    for buffer in (masks, out):
        buffer.open()
    batch.require_equal(out.bytes)


def guarded(content: Any, shift: Shift) -> GuardedBuffer:
    size = content if isinstance(content, int) else content.size
    buffer = GuardedBuffer(size, shift)
    if not isinstance(content, int):
        buffer.bytes[:] = content
    return buffer
