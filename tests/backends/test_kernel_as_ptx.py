"""What NVRTC compiles of kernels/mixup.cu, executed: every specialisation against the reference."""

from __future__ import annotations

import re

import numpy as np
import pytest
from support.requirements import require

require("torch", "ptx")
require("cupy", "ptx")

from support import mask_batch, ptx  # noqa: E402
from support.kernel_batch import Batch  # noqa: E402
from support.kernel_cases import (  # noqa: E402
    NUMPY,
    any_plan,
    cases,
    cases_of_any_channels,
    cases_of_clips,
    pixels,
    shape_of,
)
from support.ptx_batch import run  # noqa: E402
from support.ptx_cache import PtxKernels, kernels_for  # noqa: E402
from support.specializations import (  # noqa: E402
    of_any_channels,
    of_masks,
    some_of_clips,
    specializations,
)

from dali_mixup import MixPlan, OutputFormat  # noqa: E402

HALF = OutputFormat(dtype="float16", layout="CHW", mean=(123.0, 116.0, 103.0), std=58.0)


def batches(dtype, chosen=cases):
    """The cases of a dtype, with labels of each form in turn, plans by value and by pointer."""
    rng = np.random.default_rng(0)
    for k, (size, channels, layout, output, shifts) in enumerate(chosen(dtype)):
        images, plan = pixels(dtype, shape_of(size, channels, layout), rng), any_plan(*size, rng)
        ids = rng.integers(0, 7, size[0])
        rows = rng.random((size[0], 7)).astype(np.float32)
        labels = (None, ids.astype(np.int32), ids, rows)[k % 4]
        targets = "pairs" if k % 4 in (1, 2) and k % 8 > 3 else "soft"
        yield Batch(
            plan,
            images,
            output,
            layout,
            shifts,
            labels,
            targets=targets,
            by_pointer=bool(k // 4 % 2),
        )


def without_plan(kernel):
    return re.sub(r"PlanBy\w+(<\d+>)?", "Plan", kernel)


@pytest.mark.parametrize("dtype", NUMPY)
def test_every_specialisation_equals_the_reference_in_every_bit(dtype):
    chosen = {}
    for batch in batches(dtype):
        chosen.setdefault(without_plan(batch.launch().kernel), batch)
    kernels = PtxKernels("compute_90")
    kernels.prepare(batch.launch().kernel for batch in chosen.values())

    for batch in chosen.values():
        assert not any(run(kernels, batch))

    assert set(chosen) == {without_plan(k) for k in specializations("PlanByPointer", (dtype,))}


@pytest.mark.parametrize("dtype", NUMPY)
def test_clips_equal_the_reference_in_every_bit(dtype):
    chosen = {}
    for batch in batches(dtype, cases_of_clips):
        chosen.setdefault(without_plan(batch.launch().kernel), batch)
    some = {without_plan(k) for k in some_of_clips("PlanByPointer", (dtype,))}
    kernels = PtxKernels("compute_90")
    kernels.prepare(chosen[kernel].launch().kernel for kernel in some)

    for kernel in some:
        assert not any(run(kernels, chosen[kernel]))


@pytest.mark.parametrize("dtype", NUMPY)
def test_any_number_of_channels_equals_the_reference_in_every_bit(dtype):
    chosen = {}
    for batch in batches(dtype, cases_of_any_channels):
        chosen.setdefault((without_plan(batch.launch().kernel), batch.images.shape[-1] > 9), batch)
    kernels = PtxKernels("compute_90")
    kernels.prepare(batch.launch().kernel for batch in chosen.values())

    for batch in chosen.values():
        assert not any(run(kernels, batch))

    met = {kernel for kernel, _ in chosen}
    assert met == {without_plan(k) for k in of_any_channels("PlanByPointer", (dtype,))}


@pytest.mark.parametrize(
    "architecture", [pytest.param("compute_75", marks=pytest.mark.nightly), "compute_90"]
)
def test_masks_equal_the_reference_in_every_bit(architecture):
    kernels, every = PtxKernels(architecture), list(mask_batch.cases())
    kernels.prepare(batch.launch().kernel for batch in every)

    for batch in every:
        mask_batch.run(kernels, batch)

    met = {without_plan(batch.launch().kernel) for batch in every}
    assert met == {without_plan(kernel) for kernel in of_masks("PlanByPointer")}


@pytest.mark.nightly
@pytest.mark.parametrize("dtype", NUMPY)
@pytest.mark.parametrize("architecture", ["compute_75", "compute_90", "compute_100"])
def test_every_case_of_any_channels_equals_the_reference(architecture, dtype):
    kernels, every = PtxKernels(architecture), list(batches(dtype, cases_of_any_channels))
    kernels.prepare(batch.launch().kernel for batch in every)

    for batch in every:
        assert not any(run(kernels, batch))


@pytest.mark.nightly
@pytest.mark.parametrize("dtype", NUMPY)
@pytest.mark.parametrize("architecture", ["compute_90", "compute_100"])
def test_every_case_of_clips_equals_the_reference(architecture, dtype):
    kernels, every = PtxKernels(architecture), list(batches(dtype, cases_of_clips))
    kernels.prepare(batch.launch().kernel for batch in every)

    for batch in every:
        assert not any(run(kernels, batch))

    assert {without_plan(batch.launch().kernel) for batch in every} == {
        without_plan(kernel) for kernel in specializations("PlanByPointer", (dtype,), "CLIPS")
    }


@pytest.mark.nightly
@pytest.mark.parametrize("dtype", NUMPY)
@pytest.mark.parametrize("architecture", ["compute_75", "compute_90", "compute_100"])
def test_every_case_equals_the_reference_on_every_architecture(architecture, dtype):
    kernels, met = PtxKernels(architecture), set()
    every = [batch for batch in batches(dtype)]
    every += [Batch(**{**vars(b), "by_pointer": not b.by_pointer}) for b in every]
    kernels.prepare(batch.launch().kernel for batch in every)

    for batch in every:
        assert not any(run(kernels, batch))
        met.add(batch.launch().kernel)

    assert met == {
        kernel for plan in ("PlanByPointer", "PlanByValue<64>")
        for kernel in specializations(plan, (dtype,))
    }  # fmt: skip


def batch_of(size, *, sides=(16, 16), labels=None, **settings):
    rng = np.random.default_rng(1)
    images = pixels("uint8", (size, *sides, 3), rng)
    return Batch(any_plan(size, *sides, rng), images, HALF, labels=labels, **settings)


@pytest.mark.parametrize("seed", range(3))
def test_the_order_of_the_blocks_does_not_matter(seed):
    batch = batch_of(6, sides=(32, 48), labels=np.arange(6), num_classes=9)
    grid = batch.launch().grid
    order = np.random.default_rng(seed).permutation(np.prod(grid))

    assert not any(run(kernels_for("compute_90"), batch, blocks=order, lanes=192 * 3))


@pytest.mark.parametrize("num_classes", [1, 3, 192, 193, 1000])
@pytest.mark.parametrize("dtype", ["int32", "int64", "float32"])
def test_labels_alone_equal_the_reference(num_classes, dtype):
    rng = np.random.default_rng(0)
    ids = rng.integers(0, num_classes, 5).astype(dtype)
    labels = rng.random((5, num_classes)).astype(dtype) if dtype == "float32" else ids
    batch = Batch(any_plan(5, 4, 4, rng), labels=labels, num_classes=num_classes)

    assert not any(run(kernels_for("compute_90"), batch))


@pytest.mark.parametrize("bad", [-1, 7, 2**40, -(2**40)])
@pytest.mark.parametrize("targets", ["soft", "pairs"])
def test_a_bad_class_id_makes_nan_and_is_reported_with_its_row(bad, targets):
    plan = MixPlan([1, 2, 0, 3], [0.5, 0.5, 0.0, 1.0])
    batch = Batch(plan, labels=np.array([1, bad, 2, 3]), targets=targets)

    row_and_one, num_classes, low, high = run(kernels_for("compute_90"), batch)

    assert (row_and_one, num_classes) == (2, 7)
    assert (high << 32) + low % 2**32 == bad


def test_fewer_threads_than_the_kernel_is_written_for_leave_pixels_out():
    batch = batch_of(2, sides=(32, 32))

    with pytest.raises(AssertionError, match="bytes of the images were never written"):
        run(kernels_for("compute_90"), batch, block=96)


def test_more_threads_than_the_kernel_is_compiled_for_are_refused():
    with pytest.raises(ptx.LaunchError, match=r"384 threads a block, .* compiled for 192"):
        run(kernels_for("compute_90"), batch_of(2), block=384)
