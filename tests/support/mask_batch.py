"""Masks for the kernel: its launch and parameters, and what the reference makes of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from support import ptx
from support.kernel_batch import Shift, as_bytes, start_of
from support.kernel_cases import any_plan
from support.ptx_cache import PtxKernels

from dali_mixup import MixPlan
from dali_mixup.backends import reference
from dali_mixup.backends.cuda.launch import (
    BLOCK,
    Launch,
    mask_launch,
    mask_parameters,
    plan_parameters,
)


@dataclass
class MaskBatch:
    """Masks (B, H, W) and where they lie: `shift` bytes behind a multiple of 512, or at its end."""

    plan: MixPlan
    masks: NDArray[Any]
    shift: Shift = None
    by_pointer: bool = False

    def launch(self) -> Launch:
        start = start_of(self.masks.nbytes, self.shift) % 16
        batch, height, width = self.masks.shape
        return mask_launch(
            (batch, height, width), self.masks.itemsize, start, start, by_pointer=self.by_pointer
        )

    def parameters(self, masks: int, out: int) -> bytes:
        batch, height, width = self.masks.shape
        return bytes(mask_parameters((batch, height, width), masks, out))

    def require_equal(self, out: NDArray[np.uint8]) -> None:
        want = as_bytes(reference.mix_masks(self.masks, self.plan))
        assert np.array_equal(out, want), "the masks differ from the reference"


def cases() -> Iterator[MaskBatch]:
    """Masks of every size of an integer that lead to every specialisation."""
    rng = np.random.default_rng(0)
    for dtype in ("uint8", "uint16", "int32", "int64"):
        for size in ((3, 16, 16), (4, 6, 10), (2, 5, 7), (2, 3, 4), (3, 2, 2), (1, 1, 2)):
            for shift in (None, 0, np.dtype(dtype).itemsize, 8):
                values = rng.integers(0, 2**63 - 1, size).astype(dtype)
                plan = any_plan(*size, rng)
                whole = MixPlan(plan.partner, np.round(plan.lam), plan.box)
                yield MaskBatch(whole, values, shift, by_pointer=bool(size[0] % 2))


def run(kernels: PtxKernels, batch: MaskBatch) -> None:
    """Execute the kernel in simulated memory; PtxError or AssertionError where it is wrong."""
    memory, launch = ptx.Memory(), batch.launch()
    start = start_of(batch.masks.nbytes, batch.shift)
    masks = memory.allocate("masks", as_bytes(batch.masks), offset=start)
    out = memory.allocate("out", batch.masks.nbytes, offset=start, writable=True)
    samples = as_bytes(plan_parameters(batch.plan))
    if batch.by_pointer:
        samples = np.array([memory.allocate("plan", samples).address]).view(np.uint8)
    parameters = batch.parameters(masks.address, out.address), samples.tobytes()
    ptx.execute(kernels[launch.kernel], ptx.Launch(launch.grid, BLOCK, parameters), memory)
    assert not out.unwritten, f"{out.unwritten} bytes of the masks were never written"
    batch.require_equal(out.bytes)
