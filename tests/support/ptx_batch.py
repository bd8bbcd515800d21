"""One batch through the kernel's PTX in simulated memory, compared with the reference."""

from __future__ import annotations

from typing import Any

import numpy as np
from support import ptx
from support.kernel_batch import Batch, Shift, as_bytes, start_of
from support.ptx.memory import Allocation
from support.ptx_cache import PtxKernels

from dali_mixup.backends.cuda.launch import BLOCK, plan_parameters


def run(
    kernels: PtxKernels,
    batch: Batch,
    *,
    counters: ptx.Counters | None = None,
    blocks: Any = None,
    lanes: int = BLOCK * 512,
    block: int = BLOCK,
) -> list[int]:
    """Execute the kernel and compare all that it writes. Return the words of its report.

    Raises
    ------
    PtxError
        The kernel does what it must not.
    AssertionError
        A value differs from the reference, or a byte was not written.
    """
    memory, launch = ptx.Memory(), batch.launch()
    want, targets = batch.expected_images(), batch.expected_targets()
    images = out = soft = ids = labels = None
    if batch.images is not None and want is not None:
        images = place(memory, "images", as_bytes(batch.images), batch.shifts[0])
        out = place(memory, "out", want.nbytes, batch.shifts[1])
    if batch.labels is not None:
        labels = place(memory, "labels", as_bytes(batch.labels), None)
        soft = place(memory, "soft", targets[-1].nbytes, None)
        ids = place(memory, "ids", 16 * len(batch.plan), None) if len(targets) == 3 else None
    per_channel = batch.per_channel()
    table = None if per_channel is None else place(memory, "table", as_bytes(per_channel), None)
    report = memory.allocate("report", np.zeros(16, np.uint8), writable=True, shared=True)
    samples = as_bytes(plan_parameters(batch.plan))
    if batch.by_pointer:
        samples = np.array([memory.allocate("plan", samples).address]).view(np.uint8)
    packed = batch.parameters(*map(address_of, (images, out, labels, soft, ids, report, table)))
    ptx.execute(
        kernels[launch.kernel],
        ptx.Launch(launch.grid, block, (packed, samples.tobytes())),
        memory,
        counters=counters,
        blocks=blocks,
        lanes=lanes,
    )
    for name, written in (("images", out), ("targets", soft), ("pairs", ids)):
        missing = written.unwritten if written else 0
        assert not missing, f"{missing} bytes of the {name} were never written"
    for found in batch.differences(*(written and written.bytes for written in (out, soft, ids))):
        raise AssertionError(found)
    words: list[int] = report.bytes.view(np.int32).tolist()
    return words


def place(memory: ptx.Memory, name: str, content: Any, shift: Shift) -> Allocation:
    size = content if isinstance(content, int) else content.size
    return memory.allocate(
        name, content, offset=start_of(size, shift), writable=isinstance(content, int)
    )


def address_of(allocation: Allocation | None) -> int:
    return 0 if allocation is None else allocation.address
