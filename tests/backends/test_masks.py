"""Masks, for every backend: each pixel comes from where its image's pixel comes from."""

import numpy as np
import pytest
from support.batches import mixed_plan

from dali_mixup import MixPlan, Mixup
from dali_mixup.backends.masks import DTYPES

FORMS = {"BHW": (), "B1HW": (1,), "BHW1": (3,)}


def cut_plan(size, height, width):
    """Samples of a box, of none, and of their partner alone."""
    plan = mixed_plan(size, height, width)
    return MixPlan(plan.partner, np.round(plan.lam), plan.box)


def by_hand(masks, plan):
    want = masks.copy()
    for i, (partner, lam) in enumerate(zip(plan.partner, plan.lam, strict=True)):
        y0, y1, x0, x1 = plan.box[i]
        if y0 < y1 and x0 < x1:
            want[i, y0:y1, x0:x1] = masks[partner, y0:y1, x0:x1]
        elif lam == 0:
            want[i] = masks[partner]
    return want


def any_masks(dtype, shape):
    rng = np.random.default_rng(0)
    if dtype == "bool":
        return rng.random(shape) < 0.5
    limits = np.iinfo(dtype)
    return rng.integers(limits.min, limits.max, shape, dtype=dtype, endpoint=True)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("sides", [(16, 16), (6, 10), (5, 7), (1, 2), (40, 33)])
def test_a_box_takes_the_partners_classes_as_they_are(backend, dtype, sides):
    masks, plan = any_masks(dtype, (9, *sides)), cut_plan(9, *sides)

    mixed = backend.mix_masks(masks, plan)

    np.testing.assert_array_equal(mixed, by_hand(masks, plan), strict=True)


@pytest.mark.parametrize("dtype", ["uint8", "int64"])
@pytest.mark.parametrize("form", FORMS)
def test_an_axis_for_the_channel_stays(backend, dtype, form):
    masks, plan = any_masks(dtype, (9, 6, 8)), cut_plan(9, 6, 8)

    mixed = backend.mix_masks(np.expand_dims(masks, FORMS[form]), plan)

    want = np.expand_dims(by_hand(masks, plan), FORMS[form])
    np.testing.assert_array_equal(mixed, want, strict=True)


def test_integers_that_no_float_holds_are_kept(backend):
    masks = np.array([[[2**63 - 1, 2**53 + 1]], [[-(2**63), -(2**53) - 1]]])
    plan = MixPlan([1, 0], [0.5, 0.5], [[0, 1, 0, 1], [0, 1, 1, 2]])

    mixed = backend.mix_masks(masks, plan)

    assert mixed.tolist() == [[[-(2**63), 2**53 + 1]], [[-(2**63), 2**53 + 1]]]


@pytest.mark.parametrize("dtype", ["uint8", "int32"])
def test_a_masks_pixel_comes_from_where_the_images_pixel_comes_from(backend, dtype):
    """Both carry the number of their sample, row and column."""
    sample, y, x = np.indices((6, 8, 10))
    places = ((sample * 8 + y) * 10 + x) % (256 if dtype == "uint8" else 2**20)
    plan = Mixup(num_classes=2, alpha=0, cutmix_alpha=1.0, mode="elem").plan(6, (8, 10))

    masks = backend.mix_masks(places.astype(dtype), plan)
    images = backend.blend(places[..., None].astype(np.float32), plan, layout="HWC")

    np.testing.assert_array_equal(masks, images[..., 0].astype(dtype))


def test_masks_that_are_views_are_mixed_as_their_copies(backend):
    masks, plan = any_masks("uint16", (9, 8, 20))[:, :, ::2], cut_plan(9, 8, 10)

    mixed = backend.mix_masks(masks, plan)

    np.testing.assert_array_equal(mixed, by_hand(masks, plan), strict=True)


def test_no_masks_are_no_work(backend):
    assert backend.mix_masks(np.zeros((0, 4, 6), np.int64), cut_plan(0, 4, 6)).shape == (0, 4, 6)


def test_inputs_stay_as_they_are(backend):
    masks, plan = any_masks("uint8", (9, 6, 8)), cut_plan(9, 6, 8)
    before = masks.copy()

    mixed = backend.mix_masks(masks, plan)

    np.testing.assert_array_equal(masks, before)
    assert not np.may_share_memory(mixed, masks)


@pytest.mark.parametrize(
    ("masks", "plan", "error", "message"),
    [
        (np.zeros((2, 4, 4)), cut_plan(2, 4, 4), TypeError, "8 to 64 bits or bools, got float64"),
        (np.zeros((2, 3, 4, 4), int), cut_plan(2, 4, 4), ValueError, r"got \(2, 3, 4, 4\)"),
        (np.zeros((2, 4), int), cut_plan(2, 4, 4), ValueError, r"got \(2, 4\)"),
        (np.zeros((3, 4, 4), int), cut_plan(2, 4, 4), ValueError, "expected one of 3 samples, got"),
        (
            np.zeros((2, 4, 4), int),
            MixPlan([1, 0], [1.0, 0.25]),
            ValueError,
            r"lam 0.25 at row 1; set Mixup\(alpha=0, cutmix_alpha=1.0\)",
        ),
        (np.zeros((2, 8, 1, 4), int), cut_plan(2, 8, 4), ValueError, "masks: expected shape"),
        (
            np.zeros((2, 4, 4), int),
            MixPlan([1, 0], [0.005, 1.0], [[0, 0, 2, 4], [0, 4, 0, 4]]),
            ValueError,
            r"lam 0.005\d* at row 0",
        ),
        (
            np.zeros((2, 4, 4), int),
            MixPlan([1, 0], [0.5, 0.5], [[0, 2, 0, 2], [0, 0, 0, 0]]),
            ValueError,
            "lam 0.5 at row 1",
        ),
        (
            np.zeros((2, 2, 2), int),
            MixPlan([1, 0], [0.5, 0.5], [[0, 4, 0, 4]] * 2),
            ValueError,
            "expected boxes inside images of 2 x 2 pixels",
        ),
    ],
)
def test_other_masks_and_plans_are_refused(backend, masks, plan, error, message):
    with pytest.raises(error, match=message):
        backend.mix_masks(masks, plan)
