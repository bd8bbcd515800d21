"""Clips and volumes, for every backend: a plan for a clip, and the same in each of its frames."""

import itertools

import numpy as np
import pytest
from support.batches import mixed_plan, pixels
from support.formula import assert_same_bits, formula, soft_label_formula

from dali_mixup import MixPlan, OutputFormat
from dali_mixup.output import CLIPS

FRAMES, CLASSES = 3, 7
PAIRS = list(itertools.product(CLIPS, CLIPS))
SETTINGS = {"num_classes": CLASSES, "label_smoothing": 0.1, "targets": "soft"}
HALF = {"dtype": "float16", "mean": (120.0, 110.0, 100.0), "std": (60, 55, 50)}


def in_layout(clips, layout):
    """From FHWC."""
    axes = [0, *(1 + "FHWC".index(axis) for axis in layout)]
    return np.ascontiguousarray(clips.transpose(axes))


def frame(clips, layout, number):
    return clips.take(number, 1 + layout.index("F"))


@pytest.mark.parametrize(("layout", "out_layout"), PAIRS)
def test_each_frame_is_mixed_by_the_plan_of_its_clip(backend, layout, out_layout):
    clips = in_layout(pixels("uint8", (9, FRAMES, 8, 10, 3)), layout)
    plan, labels = mixed_plan(9, 8, 10), np.arange(9) % CLASSES
    output = OutputFormat(layout=out_layout, **HALF)

    mixed, soft = backend.mix(clips, labels, plan, output, layout=layout, **SETTINGS)

    still = OutputFormat(layout=out_layout.replace("F", ""), **HALF)
    for number in range(FRAMES):
        own = frame(clips, layout, number)
        want = formula(own, plan, still, layout.replace("F", ""))
        assert_same_bits(frame(mixed, out_layout, number), want)
    assert soft.tobytes() == soft_label_formula(labels, plan, CLASSES, 0.1).tobytes()


@pytest.mark.parametrize("dtype", ["uint8", "float16", "bfloat16", "float32"])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_a_volume_keeps_its_dtype_and_layout(backend, dtype, channels):
    volumes = pixels(dtype, (4, channels, 5, 7, 9))
    plan = mixed_plan(4, 7, 9)

    mixed, none = backend.mix(volumes, None, plan, OutputFormat(), layout="CFHW", **SETTINGS)

    assert none is None
    for number in range(5):
        own = np.ascontiguousarray(volumes[:, :, number])
        assert_same_bits(mixed[:, :, number], formula(own, plan, OutputFormat(), "CHW"))


@pytest.mark.parametrize(("layout", "out_layout"), PAIRS)
def test_every_pixel_comes_from_its_own_place(backend, layout, out_layout):
    """A clip whose pixels are the numbers of their sample, frame, row and column."""
    sample, number, y, x, _ = np.indices((3, FRAMES, 5, 5, 1))
    clips = (((sample * 8 + number) * 8 + y) * 8 + x).astype(np.float32)
    plan = MixPlan([2, 0, 1], [0.5, 1.0, 0.0], [[1, 3, 2, 5], [0, 0, 0, 0], [0, 0, 0, 0]])

    mixed = backend.blend(
        in_layout(clips, layout), plan, OutputFormat(layout=out_layout), layout=layout
    )

    want = clips.copy()
    want[0, :, 1:3, 2:5] = clips[2, :, 1:3, 2:5]
    want[2] = clips[1]
    assert_same_bits(mixed, in_layout(want, out_layout))


def test_a_clip_that_is_a_view_is_mixed_as_its_copy(backend):
    whole = pixels("uint8", (4, 6, 8, 10, 3))
    plan, every_second = mixed_plan(4, 8, 10), whole[:, ::2]

    mixed = backend.blend(every_second, plan, OutputFormat(layout="CFHW"), layout="FHWC")

    copy = np.ascontiguousarray(every_second)
    assert_same_bits(mixed, backend.blend(copy, plan, OutputFormat(layout="CFHW"), layout="FHWC"))


def test_pairs_of_clips_are_one_for_each_clip(backend):
    plan, labels = mixed_plan(5, 8, 8), np.arange(5)
    settings = SETTINGS | {"label_smoothing": 0.0, "targets": "pairs"}

    _, (own, partner, lam) = backend.mix(
        pixels("uint8", (5, FRAMES, 8, 8, 3)), labels, plan, OutputFormat(), layout="FHWC",
        **settings,
    )  # fmt: skip

    assert own.tolist() == labels.tolist()
    assert partner.tolist() == plan.partner.tolist()
    assert lam.tobytes() == plan.lam.tobytes()


def test_no_clips_are_no_work(backend):
    mixed = backend.blend(np.empty((0, 5, 4, 6, 3), np.uint8), mixed_plan(0, 4, 6), layout="FHWC")

    assert mixed.shape == (0, 5, 4, 6, 3)
