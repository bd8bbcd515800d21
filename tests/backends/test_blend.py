"""What every backend does to pixels: the formula, bit for bit, on every kind of input."""

import itertools

import numpy as np
import pytest
from support.batches import mixed_plan, pixels
from support.formula import assert_same_bits, formula, to_bfloat16, to_float32

from dali_mixup import MixPlan, OutputFormat
from dali_mixup.plan import unmixed

DTYPES = ["uint8", "float16", "bfloat16", "float32"]
MEAN, STD = (123.675, 116.28, 103.53, 99.0), (58.395, 57.12, 57.375, 61.0)


def formats(dtype):
    yield OutputFormat()
    for out, kind in itertools.product(
        ["float32", "float16", "bfloat16"],
        [{"layout": "CHW"}, {"layout": "HWC"}, {"channels_last": True}],
    ):
        yield OutputFormat(dtype=out, mean=MEAN[:3], std=STD[:3], **kind)
    if dtype == "uint8":
        yield OutputFormat(layout="CHW")
        yield OutputFormat(channels_last=True)


@pytest.mark.parametrize("layout", ["HWC", "CHW"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_pixels_equal_the_formula_in_every_bit(backend, dtype, layout):
    shape = (9, 6, 10, 3) if layout == "HWC" else (9, 3, 6, 10)
    images, plan = pixels(dtype, shape), mixed_plan(9, 6, 10)
    for output in formats(dtype):
        want = formula(images, plan, output, layout)

        got = backend.blend(images, plan, output, layout=layout)

        assert_same_bits(got, want)


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("size", [0, 1, 2, 5])
@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 7), (5, 1), (16, 16), (33, 31)])
def test_every_batch_size_and_image_size_goes(backend, size, height, width, channels):
    images = pixels("uint8", (size, height, width, channels))
    plan = mixed_plan(size, height, width)
    output = OutputFormat(dtype="float16", layout="CHW", mean=MEAN[:channels], std=STD[:channels])

    got = backend.blend(images, plan, output, layout="HWC")

    assert_same_bits(got, formula(images, plan, output, "HWC"))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_infinity_and_nan_go_through_as_the_formula_has_them(backend, dtype):
    special = [np.inf, -np.inf, np.nan, 0.0, -0.0, 65504.0, 1.0, 6e-8]
    values = np.array(list(itertools.product(special, special)), np.float32).reshape(8, 8, 2)
    images = np.stack([values[..., 0], values[..., 1]])[..., None]
    images = to_bfloat16(images) if dtype == "bfloat16" else images.astype(dtype)
    for lam in (0.0, 0.25, 1.0):
        plan = MixPlan([1, 0], [lam, lam], [[0, 0, 0, 0], [2, 5, 1, 6]])
        for output in (OutputFormat(), OutputFormat(dtype="float32", mean=1.0, std=2.0)):
            got = backend.blend(images, plan, output, layout="HWC")

            assert_same_bits(got, formula(images, plan, output, "HWC"))


def test_a_lam_of_one_or_zero_selects_and_does_not_multiply(backend):
    images = np.array([1.0, np.inf], np.float32).reshape(2, 1, 1, 1)

    got = backend.blend(images, MixPlan([1, 0], [1.0, 0.0]), layout="CHW")

    assert got.reshape(-1).tolist() == [1.0, 1.0]


def test_float32_by_hand(backend):
    images = np.array([0.0, 100.0, 200.0], np.float32).reshape(3, 1, 1, 1)

    got = backend.blend(images, MixPlan([1, 2, 0], [0.75, 0.5, 0.25]), layout="CHW")

    assert got.reshape(-1).tolist() == [25.0, 150.0, 50.0]


def test_uint8_is_rounded_to_nearest_even(backend):
    images = np.array([0, 1, 2, 3, 254, 255], np.uint8).reshape(6, 1, 1, 1)

    got = backend.blend(images, MixPlan([1, 2, 3, 4, 5, 0], [0.5] * 6), layout="CHW")

    assert got.reshape(-1).tolist() == [0, 2, 2, 128, 254, 128]


def test_a_box_takes_the_partners_pixels_whole(backend):
    images = np.stack([np.full((4, 6, 1), 10, np.uint8), np.full((4, 6, 1), 20, np.uint8)])
    plan = MixPlan([1, 0], [0.5, 1.0], [[1, 3, 2, 6], [0, 0, 0, 0]])

    first, second = backend.blend(images, plan, layout="HWC")[..., 0]

    assert first.tolist() == [[10] * 6, [10, 10] + [20] * 4, [10, 10] + [20] * 4, [10] * 6]
    assert (second == 20).all()


def test_normalising_is_in_the_units_of_the_incoming_pixels(backend):
    images = np.array([0, 255], np.uint8).reshape(2, 1, 1, 1)
    output = OutputFormat(dtype="float32", mean=127.5, std=127.5)

    got = backend.blend(images, unmixed(2), output, layout="CHW")

    assert got.reshape(-1) == pytest.approx([-1.0, 1.0])


def test_mixing_before_normalising_equals_mixing_after_it(backend):
    images = pixels("uint8", (6, 8, 8, 3))
    plan = MixPlan(np.arange(6)[::-1], [0.1, 0.3, 0.5, 0.7, 0.9, 1.0])
    output = OutputFormat(dtype="float32", mean=MEAN[:3], std=STD[:3])

    before = backend.blend(images, plan, output, layout="HWC")
    normalised = backend.blend(images, unmixed(6), output, layout="HWC")
    after = backend.blend(normalised, plan, layout="HWC")

    np.testing.assert_allclose(before, after, atol=1e-6)


@pytest.mark.parametrize("dtype", DTYPES)
def test_an_unmixed_plan_hands_the_pixels_through(backend, dtype):
    images = pixels(dtype, (3, 3, 4, 5))

    assert_same_bits(backend.blend(images, unmixed(3), layout="CHW"), images)


def test_images_are_never_written_to(backend):
    images = pixels("float32", (4, 3, 8, 8))
    before = images.copy()
    images.flags.writeable = False

    backend.blend(images, mixed_plan(4, 8, 8), layout="CHW")

    assert_same_bits(images, before)


@pytest.mark.parametrize("layout", ["HWC", "CHW"])
def test_channels_last_has_the_shape_of_chw_and_the_bytes_of_hwc(backend, layout):
    images = pixels("uint8", (2, 4, 5, 3) if layout == "HWC" else (2, 3, 4, 5))

    got = backend.blend(images, unmixed(2), OutputFormat(channels_last=True), layout=layout)

    assert got.shape == (2, 3, 4, 5)
    assert got.transpose(0, 2, 3, 1).flags.c_contiguous


def test_out_is_written_and_handed_back(backend):
    images = pixels("uint8", (2, 4, 4, 3))
    out = np.zeros((2, 3, 4, 4), np.float32)
    output = OutputFormat(dtype="float32", layout="CHW")

    got = backend.blend(images, unmixed(2), output, layout="HWC", out=out)

    assert got is out
    assert_same_bits(out, images.transpose(0, 3, 1, 2).astype(np.float32))


@pytest.mark.parametrize("shape", [(5, 3, 40, 56), (3, 1, 7, 9)])
def test_a_strided_view_is_read_as_what_it_shows(backend, shape):
    images = pixels("float32", (*shape[:3], 2 * shape[3]))[..., ::2]
    plan = mixed_plan(shape[0], *shape[2:])

    got = backend.blend(images, plan, layout="CHW")

    assert_same_bits(got, formula(images, plan, OutputFormat(), "CHW"))


@pytest.mark.parametrize(
    ("images", "plan", "output", "layout", "error", "message"),
    [
        (np.zeros((2, 3, 4, 4)), 2, None, "CHW", TypeError, "images: expected uint8, .*float64"),
        (np.zeros((2, 3, 4, 4), np.uint16), 2, None, "CHW", ValueError, "for uint16 images"),
        (np.zeros((2, 3, 4, 4), np.int16), 2, None, "CHW", TypeError, "got int16"),
        (np.zeros((3, 4, 4), np.uint8), 3, None, "CHW", ValueError, r"images: .*\(3, 4, 4\)"),
        (np.zeros((2, 3, 4, 4), np.uint8), 3, None, "CHW", ValueError, "one of 2 samples, got 3"),
        (np.zeros((2, 4, 4, 3), np.uint8), 2, None, "XYZ", ValueError, "layout: .*got 'XYZ'"),
        (np.zeros((2, 32, 24, 3), np.uint8), 2, None, "CHW", ValueError, "looks like HWC"),
        (
            np.zeros((2, 3, 4, 4), np.float32), 2, OutputFormat(dtype="uint8"), "CHW",
            ValueError, "output: expected a float dtype for float32 images, got uint8",
        ),
        (
            np.zeros((2, 3, 4, 4), np.uint8), 2, OutputFormat(mean=1.0), "CHW",
            ValueError, "float dtype for uint8 images with mean or std",
        ),
        (
            np.zeros((2, 3, 4, 4), np.uint8), 2, OutputFormat(dtype="float32", std=(1.0, 2.0)),
            "CHW", ValueError, "std: expected 3 values for 3 channels",
        ),
    ],
)  # fmt: skip
def test_bad_images_are_refused(backend, images, plan, output, layout, error, message):
    with pytest.raises(error, match=message):
        backend.blend(images, unmixed(plan), output, layout=layout)


@pytest.mark.parametrize(
    ("out", "message"),
    [
        (np.zeros((2, 4, 4, 3), np.float32), r"out: expected uint8 \(2, 4, 4, 3\), .*got float32"),
        (np.zeros((2, 4, 4, 1), np.uint8), r"out: expected .* got uint8 \(2, 4, 4, 1\)"),
    ],
)
def test_a_bad_out_is_refused(backend, out, message):
    with pytest.raises(ValueError, match=message):
        backend.blend(np.zeros((2, 4, 4, 3), np.uint8), unmixed(2), layout="HWC", out=out)


def test_an_out_that_shares_the_images_memory_is_refused(backend):
    images = np.zeros((2, 3, 4, 4), np.float32)

    with pytest.raises(ValueError, match="out: expected memory of its own"):
        backend.blend(images, unmixed(2), layout="CHW", out=images)


def test_an_out_that_overlaps_the_images_in_part_is_refused(backend):
    memory = np.zeros(3 * 48, np.uint8)
    images, out = memory[:96].reshape(2, 3, 4, 4), memory[48:].reshape(2, 3, 4, 4)

    with pytest.raises(ValueError, match="out: expected memory of its own"):
        backend.blend(images, unmixed(2), layout="CHW", out=out)


@pytest.mark.parametrize("payload", [0x7FC00000, 0x7F800001, 0x7FFFFFFF, 0xFFFFFFFF])
def test_every_nan_is_a_nan_in_bfloat16(backend, payload):
    images = np.full((1, 1, 2, 2), payload, np.uint32).view(np.float32)

    mixed = backend.blend(images, unmixed(1), OutputFormat(dtype="bfloat16"), layout="CHW")

    assert np.isnan(to_float32(mixed)).all()


def test_a_box_outside_the_images_is_refused(backend):
    plan = MixPlan([0], [0.5], [[0, 5, 0, 4]])

    with pytest.raises(ValueError, match="boxes inside images of 4 x 4 pixels"):
        backend.blend(np.zeros((1, 3, 4, 4), np.uint8), plan, layout="CHW")
