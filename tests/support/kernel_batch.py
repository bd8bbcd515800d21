"""A batch for the kernel: its launch and parameters, and what the reference makes of it."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from support.kernel_cases import same_bits
from support.ptx.memory import ALIGNMENT
from support.specializations import SIZE

from dali_mixup import MixPlan, OutputFormat
from dali_mixup.backends import reference
from dali_mixup.backends.cuda.launch import (
    DENSE_ROWS,
    INT32_IDS,
    INT64_IDS,
    LabelArguments,
    Launch,
    batch_parameters,
    image_launch,
    label_launch,
    values_per_channel,
)
from dali_mixup.output import BFLOAT16, Conversion

LABEL_FORMS = {"int32": INT32_IDS, "int64": INT64_IDS, "float32": DENSE_ROWS}
Bytes = NDArray[np.uint8]
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
        form = self.form()
        if self.images is None or form is None:
            return label_launch(len(self.plan), by_pointer=self.by_pointer)
        sizes = self.images.nbytes, math.prod(form.memory_shape) * SIZE[form.out_dtype]
        starts = (start_of(size, shift) for size, shift in zip(sizes, self.shifts, strict=True))
        return image_launch(
            form,
            *(start % 16 for start in starts),
            with_labels=self.labels is not None,
            by_pointer=self.by_pointer,
        )

    def per_channel(self) -> NDArray[np.float32] | None:
        """What the kernel reads for other numbers of channels than 1, 3 and 4."""
        form = self.form()
        values = None if form is None else values_per_channel(form)
        return None if values is None else np.array(values, np.float32)

    def parameters(
        self, images: int, out: int, labels: int, soft: int, ids: int, report: int, table: int
    ) -> bytes:
        """The kernel's ``Batch`` with these addresses; 0 where there is none."""
        arguments = LabelArguments()
        if self.labels is not None:
            arguments = LabelArguments(
                LABEL_FORMS[self.labels.dtype.name], labels, soft, ids, report,
                self.num_classes, self.label_smoothing,
            )  # fmt: skip
        return bytes(batch_parameters(self.form(), images, out, arguments, table))

    def differences(self, out: Bytes | None, soft: Bytes | None, ids: Bytes | None) -> list[str]:
        """What differs from the reference in the memory that the kernel wrote."""
        found = []
        want, targets = self.expected_images(), self.expected_targets()
        if out is not None and want is not None:
            got = out.copy().view(want.dtype).reshape(want.shape)
            found += [] if same_bits(got, want) else ["the images differ from the reference"]
        if soft is not None:
            got = soft.copy().view(np.float32).reshape(targets[-1].shape)
            same = same_bits(got, targets[-1])
            found += [] if same else ["the targets differ from the reference"]
        if ids is not None:
            want_ids = b"".join(part.astype(np.int64).tobytes() for part in targets[:2])
            same = ids.tobytes() == want_ids
            found += [] if same else ["the pairs differ from the reference"]
        return found


def start_of(size: int, shift: Shift) -> int:
    """Bytes behind a multiple of 512."""
    return -size % ALIGNMENT if shift is None else shift


def as_bytes(array: NDArray[Any]) -> Bytes:
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8)
