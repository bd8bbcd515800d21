"""OutputFormat: what it refuses, and what it means for an input."""

import numpy as np
import pytest

from dali_mixup import OutputFormat
from dali_mixup.output import guess_layout


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"dtype": "float64"}, ValueError, "dtype: expected one of 'float32', .* got 'float64'"),
        ({"dtype": np.float32}, ValueError, "dtype: expected one of 'float32'"),
        ({"layout": "NCHW"}, ValueError, "layout: expected one of 'CHW', .* got 'NCHW'"),
        ({"layout": "HWC", "channels_last": True}, ValueError, "expected layout 'CHW' or None"),
        ({"std": 0.0}, ValueError, "std: expected values above 0, got 0.0"),
        ({"std": (1, 2, -3)}, ValueError, "std: expected values above 0"),
        ({"mean": (0, np.nan, 0)}, ValueError, "mean: expected finite values"),
        ({"mean": "imagenet"}, TypeError, "mean: expected a number or one number per channel"),
        ({"dtype": "uint8", "mean": 1}, ValueError, "dtype: expected a float dtype beside mean"),
    ],
)  # fmt: skip
def test_what_no_output_can_be_is_refused(settings, error, message):
    with pytest.raises(error, match=message):
        OutputFormat(**settings)


def test_nothing_said_keeps_dtype_and_layout():
    form = OutputFormat().resolve((2, 5, 7, 3), "float16", "HWC")

    assert (form.out_dtype, form.out_layout, form.mean) == ("float16", "HWC", None)
    assert (form.batch, form.height, form.width, form.channels) == (2, 5, 7, 3)


def test_channels_last_alone_turns_hwc_into_the_shape_chw():
    form = OutputFormat(channels_last=True).resolve((2, 5, 7, 3), "float32", "HWC")

    assert form.out_shape == (2, 3, 5, 7)
    assert form.memory_shape == (2, 5, 7, 3)


def test_mean_or_std_alone_leaves_zero_or_one_in_the_others_place():
    mean = OutputFormat(dtype="float32", mean=(1, 2, 3)).resolve((1, 3, 2, 2), "uint8", "CHW")
    std = OutputFormat(dtype="float32", std=4).resolve((1, 3, 2, 2), "uint8", "CHW")

    assert (mean.mean, mean.inverse_std) == ((1, 2, 3), (1, 1, 1))
    assert (std.mean, std.inverse_std) == ((0, 0, 0), (0.25, 0.25, 0.25))


def test_mean_and_std_of_pixels_from_0_to_1_are_refused_for_bytes():
    imagenet = OutputFormat(dtype="float32", mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))

    with pytest.raises(ValueError, match="std: expected the units of the pixels, 0 to 255, got"):
        imagenet.resolve((2, 8, 8, 3), "uint8", "HWC")

    assert imagenet.resolve((2, 8, 8, 3), "float32", "HWC").mean[0] == np.float32(0.485)


def test_equal_formats_give_equal_bits():
    positive = OutputFormat(dtype="float32", mean=0.0).resolve((1, 3, 2, 2), "uint8", "CHW")
    negative = OutputFormat(dtype="float32", mean=(-0.0,) * 3).resolve((1, 3, 2, 2), "uint8", "CHW")

    assert np.signbit([*positive.mean, *negative.mean]).tolist() == [False] * 6


@pytest.mark.parametrize(
    ("shape", "layout"),
    [
        ((8, 3, 224, 224), "CHW"),
        ((8, 224, 224, 3), "HWC"),
        ((8, 1, 28, 28), "CHW"),
        ((8, 64, 64, 4), "HWC"),
        ((0, 32, 32, 3), "HWC"),
        ((8, 16, 224, 224, 3), "FHWC"),
        ((8, 16, 3, 224, 224), "FCHW"),
        ((8, 3, 16, 224, 224), "CFHW"),
        ((8, 1, 155, 240, 240), "CFHW"),
    ],
)
def test_the_layout_follows_from_the_shape(shape, layout):
    assert guess_layout(shape) == layout


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((8, 3, 4, 4), "several axes could be .*; give layout='CHW' or layout='HWC'"),
        ((8, 3, 64, 1), "several axes could be .*; give layout='CHW' or layout='HWC'"),
        ((8, 5, 64, 64), "no axis has 1, 3 or 4 channels; give layout='CHW' or layout='HWC'"),
        ((8, 3, 64), r"expected shape \(B, C, H, W\) or .*, got \(8, 3, 64\)"),
        ((8, 3, 4, 64, 64), "several axes could be .*; give layout='FCHW' or layout='CFHW'"),
        ((8, 4, 64, 64, 3), "several axes could be .*; give layout='FHWC' or layout='CFHW'"),
        ((8, 9, 9, 64, 64), "give layout='FHWC' or layout='FCHW' or layout='CFHW'"),
    ],
)
def test_a_layout_that_does_not_follow_is_asked_for(shape, message):
    with pytest.raises(ValueError, match=message):
        guess_layout(shape)


@pytest.mark.parametrize(
    ("output", "shape", "layout", "message"),
    [
        ({"layout": "CHW"}, (2, 5, 8, 8, 3), "FHWC", "FHWC, FCHW, CFHW for images in FHWC, got"),
        (
            {"layout": "CFHW"},
            (2, 8, 8, 3),
            "HWC",
            "expected a layout of CHW, HWC for images in HWC",
        ),
        ({"channels_last": True}, (2, 3, 5, 8, 8), "CFHW", "got channels_last=True, layout=None"),
        ({}, (2, 8, 8, 3), "FHWC", r"expected shape \(B, F, H, W, C\), got \(2, 8, 8, 3\)"),
        ({}, (2, 0, 8, 8, 3), "FHWC", "expected frames and channels, got shape .* read as FHWC"),
    ],
)
def test_clips_have_layouts_of_their_own(output, shape, layout, message):
    with pytest.raises(ValueError, match=message):
        OutputFormat(**output).resolve(shape, "uint8", layout)


def test_channels_last_is_for_stills():
    with pytest.raises(ValueError, match="expected layout 'CHW' or None, got 'FCHW'"):
        OutputFormat(layout="FCHW", channels_last=True)


@pytest.mark.parametrize(
    ("shape", "layout", "other"),
    [
        ((2, 224, 224, 3), "CHW", "HWC"),
        ((2, 3, 224, 224), "HWC", "CHW"),
        ((2, 1, 28, 28), "HWC", "CHW"),
        ((2, 8, 64, 64, 3), "FCHW", "FHWC"),
        ((2, 3, 8, 64, 64), "FHWC", "CFHW"),
    ],
)
def test_images_of_another_layout_are_refused(shape, layout, other):
    with pytest.raises(ValueError, match=f"looks like {other}; give layout='{other}'"):
        OutputFormat().resolve(shape, "uint8", layout)


@pytest.mark.parametrize(
    ("shape", "layout"),
    [
        ((2, 13, 64, 64), "CHW"),
        ((2, 3, 3, 200), "HWC"),
        ((2, 8, 8, 3), "CHW"),
        ((2, 5, 4, 4), "CHW"),
    ],
)
def test_images_of_many_channels_are_read_as_they_are_said_to_be(shape, layout):
    assert OutputFormat().resolve(shape, "uint8", layout).channels == shape[1 + layout.index("C")]
