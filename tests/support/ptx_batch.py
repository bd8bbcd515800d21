"""One batch through the kernel's PTX in simulated memory, compared with the reference."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from support import ptx
from support.kernel_cases import same_bits
from support.ptx.memory import ALIGNMENT, Allocation
from support.ptx_cache import PtxKernels

from dali_mixup import MixPlan, OutputFormat
from dali_mixup.backends import reference
from dali_mixup.backends.cuda.launch import (
    BLOCK,
    DENSE_ROWS,
    INT32_IDS,
    INT64_IDS,
    LabelArguments,
    Launch,
    batch_parameters,
    image_launch,
    label_launch,
    plan_parameters,
)
from dali_mixup.output import BFLOAT16, Conversion

LABEL_FORMS = {"int32": INT32_IDS, "int64": INT64_IDS, "float32": DENSE_ROWS}
Shift = int | None


@dataclass
class Batch:
    """What is mixed, and where it lies: `shifts` bytes behind a multiple of 512, or at its end."""

    plan: MixPlan
    images: NDArray[Any] | None = None
    output: OutputFormat = field(default_factory=OutputFormat)
    layout: str = "HWC"
    shifts: tuple[Shift, Shift] = (None, None)
    labels: NDArray[Any] | None = None
    num_classes: int = 7
    label_smoothing: float = 0.1
    targets: str = "soft"
    by_pointer: bool = False

    def form(self) -> Conversion | None:
        if self.images is None:
            return None
        dtype = "bfloat16" if self.images.dtype == BFLOAT16 else self.images.dtype.name
        return self.output.resolve(self.images.shape, dtype, self.layout)

    def expected_images(self) -> NDArray[Any] | None:
        form = self.form()
        if self.images is None or form is None:
            return None
        want = reference.blend(self.images, self.plan, self.output, layout=self.layout)
        return np.ascontiguousarray(want.transpose(0, 2, 3, 1) if form.channels_last else want)

    def expected_targets(self) -> tuple[NDArray[Any], ...]:
        """Soft rows, or pairs; a bad class id makes its samples' NaN."""
        if self.labels is None:
            return ()
        good = np.ones(len(self.plan), np.bool_)
        labels = self.labels
        if labels.dtype.kind == "i":
            good = (labels >= 0) & (labels < self.num_classes)
            labels = np.where(good, labels, 0)
            good &= good[self.plan.partner]
        if self.targets == "pairs":
            own, partner, lam = reference.label_pairs(labels, self.plan, self.num_classes)
            return own * good, partner * good, np.where(good, lam, np.float32(np.nan))
        rows = reference.soft_labels(labels, self.plan, self.num_classes, self.label_smoothing)
        rows[~good] = np.nan
        return (rows,)

    def launch(self) -> Launch:
        form, want = self.form(), self.expected_images()
        if self.images is None or form is None or want is None:
            return label_launch(len(self.plan), by_pointer=self.by_pointer)
        starts = (
            start_of(size, shift)
            for size, shift in zip((self.images.nbytes, want.nbytes), self.shifts, strict=True)
        )
        return image_launch(
            form,
            *(start % 16 for start in starts),
            with_labels=self.labels is not None,
            by_pointer=self.by_pointer,
        )


def start_of(size: int, shift: Shift) -> int:
    """Bytes behind a multiple of 512."""
    return -size % ALIGNMENT if shift is None else shift


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
    report = memory.allocate("report", np.zeros(16, np.uint8), writable=True, shared=True)
    arguments = LabelArguments()
    if labels is not None and batch.labels is not None:
        arguments = LabelArguments(
            LABEL_FORMS[batch.labels.dtype.name], labels.address, address_of(soft),
            address_of(ids), report.address, batch.num_classes, batch.label_smoothing,
        )  # fmt: skip
    samples = as_bytes(plan_parameters(batch.plan))
    if batch.by_pointer:
        samples = np.array([memory.allocate("plan", samples).address]).view(np.uint8)
    packed = batch_parameters(batch.form(), address_of(images), address_of(out), arguments)
    ptx.execute(
        kernels[launch.kernel],
        ptx.Launch(launch.grid, block, (bytes(packed), samples.tobytes())),
        memory,
        counters=counters,
        blocks=blocks,
        lanes=lanes,
    )
    if out is not None and want is not None:
        assert not out.unwritten, f"{out.unwritten} bytes of the images were never written"
        got = out.bytes.copy().view(want.dtype).reshape(want.shape)
        assert same_bits(got, want), "the images differ from the reference"
    if soft is not None:
        assert not soft.unwritten, f"{soft.unwritten} bytes of the targets were never written"
        got = soft.bytes.copy().view(np.float32).reshape(targets[-1].shape)
        assert same_bits(got, targets[-1]), "the targets differ from the reference"
    if ids is not None:
        want_ids = b"".join(part.astype(np.int64).tobytes() for part in targets[:2])
        assert ids.bytes.tobytes() == want_ids, "the pairs differ from the reference"
    words: list[int] = report.bytes.view(np.int32).tolist()
    return words


def place(memory: ptx.Memory, name: str, content: Any, shift: Shift) -> Allocation:
    size = content if isinstance(content, int) else content.size
    return memory.allocate(
        name, content, offset=start_of(size, shift), writable=isinstance(content, int)
    )


def as_bytes(array: NDArray[Any]) -> NDArray[np.uint8]:
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8)


def address_of(allocation: Allocation | None) -> int:
    return 0 if allocation is None else allocation.address
