"""kernels/mixup.cu itself, compiled for the CPU: every specialisation against the reference."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
from support.requirements import require, skip_or_fail

require("torch", "host")
require("cupy", "host")
if shutil.which("g++") is None:
    skip_or_fail("host", "g++ is not installed")

from support import host_batch, mask_batch  # noqa: E402
from support.guarded import GuardedBuffer  # noqa: E402
from support.host_shim import HostKernels, all_kernels  # noqa: E402
from support.kernel_batch import Batch  # noqa: E402
from support.kernel_cases import (  # noqa: E402
    NUMPY,
    any_plan,
    cases,
    cases_of_any_channels,
    cases_of_clips,
    pixels,
    same_bits,
    shape_of,
)
from support.specializations import (  # noqa: E402
    of_any_channels,
    of_masks,
    some_of_clips,
    specializations,
)

from dali_mixup import MixPlan, OutputFormat  # noqa: E402
from dali_mixup.backends import reference  # noqa: E402
from dali_mixup.backends.cuda.launch import (  # noqa: E402
    DENSE_ROWS,
    INT32_IDS,
    INT64_IDS,
    REPORT,
    SAMPLE,
    LabelArguments,
    batch_parameters,
    image_launch,
    label_launch,
    plan_parameters,
)
from dali_mixup.backends.cuda.source import read_kernel  # noqa: E402


def run_images(
    kernels: HostKernels,
    images: np.ndarray,
    plan: MixPlan,
    output: OutputFormat,
    layout: str,
    shifts: tuple[int | None, int | None] = (None, None),
) -> tuple[str, bool]:
    """Run the kernel between guard pages: which one, and whether it equals the reference."""
    batch = Batch(plan, images, output, layout, shifts, by_pointer=True)
    found, _ = host_batch.run(kernels, batch)
    return batch.launch().kernel, not found


@pytest.mark.parametrize("dtype", NUMPY)
@pytest.mark.parametrize(
    ("cases", "specializations"),
    [(cases, specializations), (cases_of_any_channels, of_any_channels)],
    ids=["1, 3 and 4 channels", "any channels"],
)
def test_every_specialisation_equals_the_reference_in_every_bit(cases, specializations, dtype):
    kernels, rng = all_kernels(), np.random.default_rng(0)
    met = set()
    for size, channels, layout, output, shifts in cases(dtype):
        images = pixels(dtype, shape_of(size, channels, layout), rng)
        plan = any_plan(*size, rng)

        kernel, equal = run_images(kernels, images, plan, output, layout, shifts)

        assert equal, (kernel, images.shape, shifts)
        met.add(kernel)

    assert met == set(specializations("PlanByPointer", (dtype,)))


@pytest.mark.parametrize("dtype", NUMPY)
def test_clips_equal_the_reference_in_every_bit(dtype):
    kernels, rng = all_kernels(), np.random.default_rng(0)
    compiled, met = set(some_of_clips("PlanByPointer", (dtype,))), set()
    for size, channels, layout, output, shifts in cases_of_clips(dtype):
        images = pixels(dtype, shape_of(size, channels, layout), rng)
        plan = any_plan(*size, rng)
        batch = Batch(plan, images, output, layout, shifts, by_pointer=True)
        if batch.launch().kernel in compiled:
            assert not host_batch.run(kernels, batch)[0], (batch.launch(), images.shape, shifts)
            met.add(batch.launch().kernel)

    assert met == compiled


def test_masks_equal_the_reference_in_every_bit():
    met = set()
    for batch in mask_batch.cases():
        batch.by_pointer = True
        host_batch.run_masks(all_kernels(), batch)
        met.add(batch.launch().kernel)

    assert met == set(of_masks("PlanByPointer"))


def run_labels(plan: MixPlan, arguments: LabelArguments) -> None:
    samples = plan_parameters(plan)
    launch = label_launch(len(plan), by_pointer=True)
    all_kernels().run(
        launch.kernel,
        launch.grid,
        bytes(batch_parameters(None, 0, 0, arguments)),
        np.array([samples.ctypes.data], np.uint64),
    )


@pytest.mark.parametrize(
    ("kind", "dtype"), [(INT32_IDS, "i4"), (INT64_IDS, "i8"), (DENSE_ROWS, "f4")]
)
@pytest.mark.parametrize("num_classes", [1, 3, 192, 1000])
def test_labels_stay_inside_their_memory(kind, dtype, num_classes):
    rng = np.random.default_rng(0)
    plan = any_plan(5, 4, 4, rng)
    labels = rng.integers(0, num_classes, 5) if kind != DENSE_ROWS else rng.random((5, num_classes))
    labels = np.ascontiguousarray(labels.astype(dtype))
    source, target = GuardedBuffer(labels.nbytes, None), GuardedBuffer(5 * num_classes * 4, None)
    source.bytes[:] = labels.view(np.uint8).reshape(-1)
    arguments = LabelArguments(
        kind, source.address, target.address, 0, 0, num_classes, label_smoothing=0.1
    )

    run_labels(plan, arguments)

    source.open()
    target.open()
    want = reference.soft_labels(labels, plan, num_classes, 0.1)
    assert target.bytes.tobytes() == want.tobytes()


@pytest.mark.parametrize("bad", [-1, 7, 2**40, -(2**40)])
def test_a_bad_class_id_makes_nan_rows_and_a_report_and_writes_nowhere_else(bad):
    plan = MixPlan([1, 2, 0, 3], [0.5, 0.5, 0.0, 1.0])
    labels = np.array([1, bad, 2, 3])
    target, report = GuardedBuffer(4 * 7 * 4, None), GuardedBuffer(16, None)
    report.bytes[:] = 0
    arguments = LabelArguments(
        INT64_IDS, labels.ctypes.data, target.address, 0, report.address, num_classes=7
    )

    run_labels(plan, arguments)

    target.open()
    report.open()
    rows = target.bytes.copy().view(np.float32).reshape(4, 7)
    assert np.isnan(rows).all(axis=1).tolist() == [True, True, False, False]
    assert rows[2].tolist() == [0, 1, 0, 0, 0, 0, 0]
    assert report.bytes.copy().view(REPORT).tolist() == [(2, 7, bad)]


def test_aligned_batches_are_read_and_written_in_wide_accesses():
    kernels, rng = all_kernels(), np.random.default_rng(0)
    images = pixels("uint8", (2, 16, 16, 3), rng)
    output = OutputFormat(dtype="float16", layout="CHW", mean=1.0, std=2.0)
    plan = MixPlan([1, 0], [0.5, 0.5])
    before = kernels.accesses(stores=True, width=16), kernels.accesses(stores=False, width=8)

    run_images(kernels, images, plan, output, "HWC", (0, 0))

    assert kernels.accesses(stores=True, width=16) - before[0] == images.size * 2 // 16
    assert kernels.accesses(stores=False, width=8) - before[1] == 2 * images.size // 8


def test_a_sample_whose_pixels_are_all_its_own_does_not_read_its_partner():
    kernels, rng = all_kernels(), np.random.default_rng(0)
    images = pixels("uint8", (2, 16, 16, 3), rng)
    output = OutputFormat(dtype="float16", layout="CHW")
    before = kernels.accesses(stores=False, width=8)

    run_images(kernels, images, MixPlan([1, 0], [1.0, 0.0]), output, "HWC", (0, 0))

    assert kernels.accesses(stores=False, width=8) - before == images.size // 8


PLAIN = "mix<{0}, {1}, {2}, {3}, {4}, 1, {5}, 1, STILLS, PlanByPointer>"
TO_FLOAT = [PLAIN.format("UINT8", "CHW", "FLOAT32", "CHW", 3, pixels) for pixels in (4, 2, 1)]
U8_TO_HALF = [PLAIN.format("UINT8", "HWC", "FLOAT16", "CHW", 3, pixels) for pixels in (8, 4, 2, 1)]
FLAT = [
    f"mix<UINT8, CHW, FLOAT16, CHW, 1, 3, {pixels}, 4, STILLS, PlanByPointer>"
    for pixels in (8, 4, 2, 1)
]
TO_BFLOAT16 = [
    PLAIN.format("FLOAT32", "CHW", "BFLOAT16", "CHW", 3, pixels) for pixels in (8, 4, 2, 1)
]
TO_BYTES = [PLAIN.format("UINT8", "CHW", "UINT8", "CHW", 3, p) for p in (16, 8, 4, 2, 1)]


def parity(kernels: HostKernels, dtype: str, layouts: tuple[str, str], out: str) -> bool:
    rng = np.random.default_rng(0)
    normalise = {"mean": (3.0, 0.5, -1.0), "std": (0.3, 2.0, 1.1)} if dtype != out else {}
    if out == "bfloat16":
        normalise = {}
    output = OutputFormat(dtype=out, layout=layouts[1], **normalise)
    for size, height, width in [(6, 16, 16), (17, 24, 12), (9, 5, 7), (8, 8, 33), (3, 32, 48)]:
        sides = (height, width, 3) if layouts[0] == "HWC" else (3, height, width)
        images = pixels(dtype, (size, *sides), rng)
        plan = any_plan(size, height, width, rng)
        if not run_images(kernels, images, plan, output, layouts[0], (0, 0))[1]:
            return False
    return True


HALF = (U8_TO_HALF, "uint8", ("HWC", "CHW"), "float16")
FLOAT = (TO_FLOAT, "uint8", ("CHW", "CHW"), "float32")
INTERLEAVED = (FLAT, "uint8", ("HWC", "HWC"), "float16")
BRAIN = (TO_BFLOAT16, "float32", ("CHW", "CHW"), "bfloat16")
BYTES = (TO_BYTES, "uint8", ("CHW", "CHW"), "uint8")


@pytest.mark.parametrize("work", [HALF, FLOAT, INTERLEAVED, BRAIN, BYTES])
def test_the_kernels_that_bugs_are_planted_in_are_right(work):
    names, *what = work

    assert parity(HostKernels(read_kernel("mixup.cu"), {"part": names}), *what)


@pytest.mark.parametrize(
    ("work", "text", "bug"),
    [
        (HALF, "Word64(Word(sample.partner)) * elements", "Word64(i) * elements"),
        (FLOAT, "c, lam),", "c, rest),"),
        (FLOAT, "__fmaf_rn(x.a, y.a, z.a)", "__fadd_rn(__fmul_rn(x.a, y.a), z.a)"),
        (FLOAT, "scales[next].inverse_std}", "scales[v].inverse_std + 1.0f}"),
        (HALF, "sample.x1 * period - x", "sample.x1 * period - x + 1"),
        (HALF, "if (y >= sample.y0", "if (y > sample.y0"),
        (HALF, "p += width - x, x = 0", "p += width - x + 1, x = 0"),
        (HALF, "0x3004 | e % 4", "0x3005 | e % 4"),
        (HALF, "pixel * CHANNELS + channel", "channel * PIXELS + pixel"),
        (HALF, "pixels == ALL ? partner : own, start", "own, start"),
        (HALF, "return sample.lam == 1.0f ? 0", "return sample.lam == 0.0f ? 0"),
        (HALF, "take(other, pixels);", "take(other, ~pixels);"),
        (INTERLEAVED, "(first + c) % PERIOD", "c % PERIOD"),
        (INTERLEAVED, "sample.x0 * period", "sample.x0"),
        (INTERLEAVED, "if (start >= plane) return;", "if (start > plane) return;"),
        (INTERLEAVED, "first + u * BLOCK * PIXELS", "first + u * PIXELS"),
        (BRAIN, "bits >> 16 & 1)", "bits >> 16 & 0)"),
        (BRAIN, "if (value != value) return 0x7fff;", ""),
        (BRAIN, "from += Word64(plane) * size_of(DTYPE)", "from += plane"),
        (BRAIN, "is_boxed(sample) || sample.lam == 1.0f || sample.lam == 0.0f", "is_boxed(sample)"),
        (BYTES, "__fadd_rn(values[e + k], ", "__fadd_rn(values[e + k] - 0.5f, "),
        (BYTES, "& 0xff) << 8 * k", "& 0x7f) << 8 * k"),
    ],
)
def test_a_planted_bug_is_noticed(work, text, bug):
    names, *what = work
    source = read_kernel("mixup.cu")
    assert source.count(text) >= 1

    broken = HostKernels(source.replace(text, bug), {"part": names})

    assert not parity_holds(broken, what)


def parity_holds(kernels: HostKernels, what: list) -> bool:
    try:
        return parity(kernels, *what)
    except AssertionError:  # written beside the buffer
        return False


def test_a_plan_by_value_is_read_as_one_by_pointer_is():
    names = [U8_TO_HALF[0].replace("PlanByPointer", "PlanByValue<64>")]
    kernels = HostKernels(read_kernel("mixup.cu"), {"part": names})
    rng = np.random.default_rng(0)
    images, plan = pixels("uint8", (5, 16, 16, 3), rng), any_plan(5, 16, 16, rng)
    output = OutputFormat(dtype="float16", layout="CHW")
    form = output.resolve(images.shape, "uint8", "HWC")
    out = np.zeros(form.memory_shape, np.float16)
    launch = image_launch(
        form, images.ctypes.data % 16, out.ctypes.data % 16, with_labels=False, by_pointer=False
    )

    kernels.run(
        launch.kernel,
        launch.grid,
        bytes(batch_parameters(form, images.ctypes.data, out.ctypes.data, LabelArguments())),
        plan_parameters(plan),
    )

    assert same_bits(out, reference.blend(images, plan, output, layout="HWC"))


def test_the_parameters_of_the_largest_plan_by_value_fit_into_a_launch():
    plan = MixPlan(np.arange(2038), np.ones(2038))

    samples = plan_parameters(plan)

    assert SAMPLE.itemsize == 16
    assert samples.nbytes + len(batch_parameters(None, 0, 0, LabelArguments())) <= 32_764
