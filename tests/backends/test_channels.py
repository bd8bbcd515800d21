"""Images of any number of channels, and of 16 bits, for every backend."""

import itertools

import numpy as np
import pytest
from support.batches import mixed_plan, pixels
from support.formula import assert_same_bits, formula, soft_label_formula

from dali_mixup import MixPlan, OutputFormat
from dali_mixup.output import CLIPS

BANDS = 13  # of Sentinel-2
MEAN, STD = tuple(range(100, 100 + BANDS)), tuple(30 + 2 * band for band in range(BANDS))
PAIRS = list(itertools.product(("HWC", "CHW"), repeat=2))
SETTINGS = {"num_classes": 7, "label_smoothing": 0.1, "targets": "soft"}


def in_layout(images, layout):
    """From HWC."""
    return images if layout == "HWC" else np.ascontiguousarray(images.transpose(0, 3, 1, 2))


@pytest.mark.parametrize(("layout", "out_layout"), PAIRS)
@pytest.mark.parametrize("channels", [2, 5, BANDS, 64, 200])
def test_any_number_of_channels_is_mixed(backend, channels, layout, out_layout):
    images = in_layout(pixels("uint8", (9, 6, 8, channels)), layout)
    plan, labels = mixed_plan(9, 6, 8), np.arange(9) % 7
    output = OutputFormat("float16", out_layout, mean=np.arange(channels), std=120.0)

    mixed, soft = backend.mix(images, labels, plan, output, layout=layout, **SETTINGS)

    assert_same_bits(mixed, formula(images, plan, output, layout))
    assert soft.tobytes() == soft_label_formula(labels, plan, 7, 0.1).tobytes()


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float16", "bfloat16", "float32"])
@pytest.mark.parametrize("scale", [{}, {"mean": 3.0, "std": 2.0}, {"mean": MEAN, "std": STD}])
def test_bands_are_normalised_each_by_its_own_mean_and_std(backend, dtype, scale):
    images = pixels(dtype, (5, BANDS, 7, 9))
    plan, output = mixed_plan(5, 7, 9), OutputFormat("float32", **scale)

    mixed = backend.blend(images, plan, output, layout="CHW")

    assert_same_bits(mixed, formula(images, plan, output, "CHW"))


@pytest.mark.parametrize("channels_last", [False, True])
def test_bands_become_channels_last(backend, channels_last):
    images = pixels("uint8", (5, 8, 8, BANDS))
    plan = mixed_plan(5, 8, 8)
    output = OutputFormat("float16", "CHW", channels_last=channels_last, mean=MEAN, std=STD)

    mixed = backend.blend(images, plan, output, layout="HWC")

    assert_same_bits(mixed, formula(images, plan, output, "HWC"))


@pytest.mark.parametrize(("layout", "out_layout"), list(itertools.product(CLIPS, CLIPS)))
def test_each_frame_of_many_channels_is_mixed_by_the_plan_of_its_clip(backend, layout, out_layout):
    clips = pixels("uint16", (4, 3, 6, 8, BANDS))
    plan, scale = mixed_plan(4, 6, 8), {"mean": MEAN, "std": STD}
    axes = [0, *(1 + "FHWC".index(axis) for axis in layout)]
    output = OutputFormat("bfloat16", out_layout, **scale)

    mixed = backend.blend(np.ascontiguousarray(clips.transpose(axes)), plan, output, layout=layout)

    still = OutputFormat("bfloat16", out_layout.replace("F", ""), **scale)
    for number in range(3):
        want = formula(np.ascontiguousarray(clips[:, number]), plan, still, "HWC")
        assert_same_bits(mixed.take(number, 1 + out_layout.index("F")), want)


@pytest.mark.parametrize(("layout", "out_layout"), PAIRS)
def test_every_value_comes_from_its_own_place(backend, layout, out_layout):
    """Images whose values are the numbers of their sample, row, column and channel."""
    sample, y, x, channel = np.indices((3, 5, 6, 7))
    images = (((sample * 8 + y) * 8 + x) * 8 + channel).astype(np.float32)
    plan = MixPlan([2, 0, 1], [0.5, 1.0, 0.0], [[1, 3, 2, 5], [0, 0, 0, 0], [0, 0, 0, 0]])

    mixed = backend.blend(
        in_layout(images, layout), plan, OutputFormat(layout=out_layout), layout=layout
    )

    want = images.copy()
    want[0, 1:3, 2:5] = images[2, 1:3, 2:5]
    want[2] = images[1]
    assert_same_bits(mixed, in_layout(want, out_layout))


@pytest.mark.parametrize("channels", [1, 3, 4, 5])
@pytest.mark.parametrize("out", ["float32", "float16", "bfloat16"])
def test_all_16_bits_count(backend, channels, out):
    images = np.arange(2 * 64 * 64 * channels, dtype=np.uint16).reshape(2, 64, 64, channels)
    plan = MixPlan([1, 0], [np.float32(0.3), 1.0])
    output = OutputFormat(out, "CHW", mean=1000.0, std=4000.0)

    mixed = backend.blend(images * np.uint16(7), plan, output, layout="HWC")

    assert_same_bits(mixed, formula(images * np.uint16(7), plan, output, "HWC"))


def test_images_of_16_bits_become_floats(backend):
    with pytest.raises(ValueError, match=r"expected a float dtype for uint16 .*dtype='float32'"):
        backend.blend(np.zeros((2, 4, 4, 3), np.uint16), mixed_plan(2, 4, 4), layout="HWC")


def test_means_in_other_units_than_16_bits_are_refused(backend):
    output = OutputFormat("float32", mean=0.4, std=0.2)

    with pytest.raises(ValueError, match=r"std: expected the units of the pixels, 0 to 65535"):
        backend.blend(np.zeros((2, 4, 4, 3), np.uint16), mixed_plan(2, 4, 4), output, layout="HWC")


def test_strided_images_of_16_bits_are_mixed_as_their_copy(backend):
    whole = pixels("uint16", (4, 8, 20, BANDS))
    plan, view, output = mixed_plan(4, 8, 10), whole[:, :, ::2], OutputFormat("float32")

    mixed = backend.blend(view, plan, output, layout="HWC")

    assert_same_bits(mixed, formula(np.ascontiguousarray(view), plan, output, "HWC"))
