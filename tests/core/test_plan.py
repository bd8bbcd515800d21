"""Plans: what they refuse, what is drawn, and from what."""

import pickle
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from dali_mixup import MixPlan, Mixup
from dali_mixup.plan import _one_box, cutmix_box, keyed_generator, unmixed

pytestmark = pytest.mark.filterwarnings("ignore::dali_mixup.advice.MixupWarning")

BOTH = {"alpha": 0.5, "cutmix_alpha": 0.5, "prob": 0.7}


def draws(count, size=1, **settings):
    mixup = Mixup(num_classes=10, **settings)
    return [mixup.plan(size, (32, 32), step=step) for step in range(count)]


def test_a_plan_keeps_its_arrays_read_only_and_of_fixed_dtypes():
    partner = np.array([1, 0])

    plan = MixPlan(partner, [0.25, 1.0], [[0, 2, 0, 2], [0, 0, 0, 0]])
    partner[:] = 7

    assert plan.partner.tolist() == [1, 0]
    assert [plan.partner.dtype, plan.lam.dtype, plan.box.dtype] == [np.int32, np.float32, np.int32]
    with pytest.raises(ValueError, match="read-only"):
        plan.partner[0] = 5


def test_a_pickled_plan_is_checked_and_read_only_again():
    plan = pickle.loads(pickle.dumps(MixPlan([1, 0], [0.5, 0.5])))

    assert plan.partner.tolist() == [1, 0]
    assert not plan.lam.flags.writeable


@pytest.mark.parametrize(
    ("partner", "lam", "box", "error", "message"),
    [
        ([0.0, 1.0], [1, 1], None, TypeError, "partner: expected integers, got float64"),
        ([[0]], [1], None, ValueError, r"partner: expected shape \(B,\), got \(1, 1\)"),
        ([0, 2], [1, 1], None, ValueError, r"indices in \[0, 2\), got 2 at row 1"),
        ([0, -1], [1, 1], None, ValueError, r"indices in \[0, 2\), got -1 at row 1"),
        ([0, 1], [1], None, ValueError, r"lam: expected shape \(2,\) as partner has, got \(1,\)"),
        ([0], [1.5], None, ValueError, r"values in \[0, 1\], got 1.5 at row 0"),
        ([0], [np.nan], None, ValueError, r"values in \[0, 1\], got nan at row 0"),
        ([0], [1], [[0, 1, 0, 1.5]], TypeError, "box: expected integers, got float64"),
        ([0], [1], [[0, 1, 0]], ValueError, r"box: expected shape \(1, 4\), got \(1, 3\)"),
        ([0], [1], [[2, 1, 0, 1]], ValueError, r"got y0, y1, x0, x1 = \[2, 1, 0, 1\] at row 0"),
        ([0], [1], [[0, 1, -1, 1]], ValueError, r"got y0, y1, x0, x1 = \[0, 1, -1, 1\] at row 0"),
        ([0], [1], [[0, 65536, 0, 1]], ValueError, "<= 65535"),
    ],
)
def test_a_plan_refuses_what_a_kernel_could_trip_over(partner, lam, box, error, message):
    with pytest.raises(error, match=message):
        MixPlan(partner, lam, box)


def test_a_pickled_plan_keeps_its_box():
    plan = MixPlan([1, 0], [0.5, 1.0], [[0, 2, 1, 3], [0, 0, 0, 0]])

    again = pickle.loads(pickle.dumps(plan))

    assert again.box.tolist() == plan.box.tolist()


def test_a_plan_does_not_change_with_the_arrays_it_was_made_of():
    partner, lam = np.array([1, 0], np.int32), np.array([0.5, 1.0], np.float32)
    box = np.array([[0, 2, 1, 3], [0, 0, 0, 0]], np.int32)
    plan = MixPlan(partner, lam, box)

    partner[:], lam[:], box[:] = 0, 0, 9

    assert plan.partner.tolist() == [1, 0]
    assert plan.lam.tolist() == [0.5, 1.0]
    assert plan.box.tolist() == [[0, 2, 1, 3], [0, 0, 0, 0]]
    assert partner.flags.writeable


def test_a_drawn_box_without_area_leaves_the_sample_as_it_is():
    mixup = Mixup(num_classes=2, alpha=0, cutmix_alpha=0.2, mode="elem")

    plans = [mixup.plan(256, (3, 3), step=step) for step in range(8)]

    lam, box = (np.concatenate([getattr(plan, name) for plan in plans]) for name in ("lam", "box"))
    empty = (box[:, 0] == box[:, 1]) | (box[:, 2] == box[:, 3])
    assert empty.any()
    assert (lam[empty] == 1).all()
    assert (lam[~empty] < 1).all()


def test_an_empty_plan_is_a_plan():
    assert len(MixPlan([], [])) == 0
    assert len(unmixed(0)) == 0


@pytest.mark.parametrize(
    ("size", "image", "message"),
    [
        (3, (8, 8), "expected one of 3 samples, got 2"),
        (2, (4, 8), "expected boxes inside images of 4 x 8 pixels, got one that ends at 5 x 6"),
        (2, (8, 5), "expected boxes inside images of 8 x 5 pixels, got one that ends at 5 x 6"),
    ],
)
def test_a_plan_for_other_images_is_refused(size, image, message):
    plan = MixPlan([1, 0], [0.5, 0.5], [[0, 5, 0, 6], [0, 0, 0, 0]])

    with pytest.raises(ValueError, match=message):
        plan.require_fit(size, *image)


@pytest.mark.parametrize(
    ("pairing", "size", "partner"),
    [
        ("flip", 5, [4, 3, 2, 1, 0]),
        ("flip", 4, [3, 2, 1, 0]),
        ("roll", 4, [3, 0, 1, 2]),
        ("roll", 1, [0]),
        ("flip", 0, []),
    ],
)
def test_flip_and_roll_are_timms_and_torchvisions(pairing, size, partner):
    plan = Mixup(num_classes=2, pairing=pairing).plan(size)

    assert plan.partner.tolist() == partner


@pytest.mark.parametrize("size", [0, 1, 2, 3, 8, 33])
@pytest.mark.parametrize("pairing", ["permutation", "derangement", "flip", "roll"])
@pytest.mark.parametrize("mode", ["batch", "elem"])
def test_every_image_is_somebodys_partner_once(pairing, mode, size):
    for step in range(20):
        plan = Mixup(num_classes=2, pairing=pairing, mode=mode).plan(size, step=step)

        assert sorted(plan.partner) == list(range(size))


@pytest.mark.parametrize("size", [2, 3, 8, 33])
def test_in_a_derangement_nobody_meets_itself(size):
    for step in range(50):
        plan = Mixup(num_classes=2, pairing="derangement").plan(size, step=step)

        assert (plan.partner != np.arange(size)).all()


def test_a_permutation_meets_every_partner():
    seen = {
        (i, p)
        for step in range(200)
        for i, p in enumerate(Mixup(num_classes=2).plan(4, step=step).partner.tolist())
    }

    assert len(seen) == 16


@pytest.mark.parametrize("size", [0, 1, 2, 3, 8, 33])
@pytest.mark.parametrize("pairing", ["permutation", "derangement", "flip"])
@pytest.mark.parametrize("cutmix_alpha", [0.0, 1.0])
def test_a_pair_is_mixed_with_each_other_by_one_lam_and_box(pairing, size, cutmix_alpha):
    mixup = Mixup(num_classes=2, mode="pair", pairing=pairing, cutmix_alpha=cutmix_alpha)

    plan = mixup.plan(size, (32, 48))

    alone = plan.partner == np.arange(size)
    assert alone.sum() == size % 2
    assert plan.partner[plan.partner].tolist() == list(range(size))
    assert plan.lam[plan.partner].tolist() == plan.lam.tolist()
    if cutmix_alpha:
        assert plan.box[plan.partner].tolist() == plan.box.tolist()


def test_random_pairs_change_from_step_to_step():
    mixup = Mixup(num_classes=2, mode="pair")

    assert len({tuple(mixup.plan(8, step=s).partner) for s in range(20)}) > 10


def test_mode_batch_draws_one_lam_and_elem_one_for_each():
    batch = Mixup(num_classes=2, alpha=1.0).plan(64)
    elem = Mixup(num_classes=2, alpha=1.0, mode="elem").plan(64)

    assert len(set(batch.lam.tolist())) == 1
    assert len(set(elem.lam.tolist())) == 64


def test_mode_elem_draws_a_box_for_each_sample_independently():
    plan = Mixup(num_classes=2, alpha=0, cutmix_alpha=1.0, mode="elem").plan(4000, (64, 64))
    inside = (plan.box[:, 0] > 0) & (plan.box[:, 1] < 64) & (plan.box[:, 1] > plan.box[:, 0])
    centre = plan.box[inside][:, [0, 2]].astype(float)

    neighbours = np.corrcoef(centre[:-1, 0], centre[1:, 0])[0, 1]

    assert inside.sum() > 500
    assert abs(neighbours) < 0.1


@pytest.mark.parametrize("alpha", [0.2, 0.4, 1.0])
def test_lam_has_betas_mean_and_variance(alpha):
    lam = Mixup(num_classes=2, alpha=alpha, mode="elem").plan(100_000).lam.astype(float)

    assert lam.mean() == pytest.approx(0.5, abs=0.006)
    assert lam.var() == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.02)


@pytest.mark.parametrize("alpha", [0.2, 0.4, 1.0])
def test_lam_of_mode_batch_has_betas_mean_and_variance_over_steps(alpha):
    lam = np.array([plan.lam[0] for plan in draws(4000, alpha=alpha)], float)

    assert lam.mean() == pytest.approx(0.5, abs=0.03)
    assert lam.var() == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.06)


@pytest.mark.parametrize("prob", [0.0, 0.25, 0.9])
@pytest.mark.parametrize("kind", [{}, {"alpha": 0, "cutmix_alpha": 1.0}, {"cutmix_alpha": 1.0}])
def test_prob_is_the_share_of_batches_that_are_mixed(prob, kind):
    mixed = [plan.lam[0] < 1 for plan in draws(3000, prob=prob, **{"alpha": 1.0, **kind})]

    assert np.mean(mixed) == pytest.approx(prob, abs=0.03)


def test_prob_is_the_share_of_samples_in_mode_elem_and_of_pairs_in_mode_pair():
    elem = Mixup(num_classes=2, alpha=1.0, prob=0.3, mode="elem").plan(20_000)
    pair = Mixup(num_classes=2, alpha=1.0, prob=0.3, mode="pair").plan(20_000)

    assert np.mean(elem.lam < 1) == pytest.approx(0.3, abs=0.015)
    assert np.mean(pair.lam < 1) == pytest.approx(0.3, abs=0.02)


@pytest.mark.parametrize("switch_prob", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("mode", ["batch", "elem", "pair"])
def test_switch_prob_is_the_share_that_is_cut(switch_prob, mode):
    size = 1 if mode == "batch" else 4
    settings = {"alpha": 1.0, "cutmix_alpha": 1.0, "switch_prob": switch_prob, "mode": mode}
    boxes = np.concatenate([plan.box for plan in draws(3000, size, **settings)])

    cut = (boxes[:, 1] > boxes[:, 0]).mean()

    assert cut == pytest.approx(switch_prob, abs=0.035)


def test_alpha_of_zero_everywhere_leaves_all_as_it_is():
    plan = Mixup(num_classes=2, alpha=0).plan(8)

    assert plan.lam.tolist() == [1.0] * 8
    assert plan.box is None


def test_cutmix_lam_is_the_share_of_pixels_that_stay():
    plan = Mixup(num_classes=2, alpha=0, cutmix_alpha=1.0, mode="elem").plan(2000, (17, 31))
    area = (plan.box[:, 1] - plan.box[:, 0]) * (plan.box[:, 3] - plan.box[:, 2])

    assert plan.lam.tolist() == (1 - area / (17 * 31)).astype(np.float32).tolist()
    assert (area == 0).any()
    assert (plan.lam[area == 0] == 1).all()


@pytest.mark.parametrize(
    ("lam", "cy", "cx", "box"),
    [
        (0.75, 16, 24, [8, 24, 12, 36]),
        (0.75, 0, 47, [0, 8, 35, 48]),
        (0.0, 16, 24, [0, 32, 0, 48]),
        (0.0, 0, 0, [0, 16, 0, 24]),
        (1.0, 16, 24, [16, 16, 24, 24]),
        (0.9, 31, 0, [26, 32, 0, 7]),
    ],
)
def test_the_box_rule_by_hand(lam, cy, cx, box):
    assert cutmix_box(lam, cy, cx, 32, 48).tolist() == box


def test_the_box_rule_is_timms_and_torchvisions():
    rng = np.random.default_rng(0)
    for _ in range(2000):
        height, width = rng.integers(1, 300, 2)
        lam, cy, cx = rng.random(), rng.integers(height), rng.integers(width)
        ratio = np.sqrt(1 - lam)
        timm_h, timm_w = int(height * ratio), int(width * ratio)

        y0, y1, x0, x1 = cutmix_box(lam, cy, cx, height, width)

        assert [y0, y1] == [max(cy - timm_h // 2, 0), min(cy + timm_h // 2, height)]
        assert [x0, x1] == [max(cx - timm_w // 2, 0), min(cx + timm_w // 2, width)]
        assert abs((y1 - y0) - 2 * int(0.5 * ratio * height)) <= height


def test_boxes_touch_every_edge_and_every_origin_occurs():
    plan = Mixup(num_classes=2, alpha=0, cutmix_alpha=1.0, mode="elem").plan(20_000, (8, 8))
    box = plan.box[plan.box[:, 1] > plan.box[:, 0]]

    assert set(box[:, 0]) == set(range(7))
    assert set(box[:, 1]) == set(range(1, 9))
    assert set(box[:, 3]) == set(range(1, 9))


def test_cutmix_without_image_size_says_so():
    with pytest.raises(ValueError, match=r"image_size: expected \(height, width\)"):
        Mixup(num_classes=2, cutmix_alpha=1.0).plan(4)


def test_equal_keys_draw_equal_plans_and_any_other_key_another():
    key = {"seed": 1, "rank": 2, "stream": 3, "epoch": 4, "step": 5}
    first = keyed_generator(**key).random(4).tolist()

    others = [keyed_generator(**{**key, name: key[name] + 1}).random(4).tolist() for name in key]
    swapped = keyed_generator(**{**key, "epoch": 5, "step": 4}).random(4).tolist()

    assert keyed_generator(**key).random(4).tolist() == first
    assert first not in [*others, swapped]


def test_a_draw_is_that_of_a_new_philox():
    key = np.random.SeedSequence(7, spawn_key=(1, 2, 9)).generate_state(2, np.uint64)
    new = np.random.Generator(np.random.Philox(key=key, counter=[0, 0, 5, 4]))

    kept = keyed_generator(7, rank=1, stream=2, epoch=4, step=5, worker=(9,))
    kept.random(3)  # what is left in its buffer is not used by the next draw
    kept = keyed_generator(7, rank=1, stream=2, epoch=4, step=5, worker=(9,))

    assert kept.random(100).tolist() == new.random(100).tolist()


def test_threads_draw_at_the_same_time_what_each_would_draw_alone():
    mixup = Mixup(num_classes=2, alpha=0.4, cutmix_alpha=1.0, mode="elem")

    def lams(step):
        return mixup.plan(256, (32, 32), step=step).lam.tolist()

    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lams, range(200)))

    assert together == [lams(step) for step in range(200)]


def test_a_box_of_numbers_is_that_of_arrays():
    rng = np.random.default_rng(0)
    height, width = 37, 224
    lams = [0.0, 1.0, 0.25, *rng.random(500)]
    centres = [(rng.integers(height), rng.integers(width)) for _ in lams]

    for lam, (cy, cx) in zip(lams, centres, strict=True):
        box = _one_box(float(lam), int(cy), int(cx), height, width)
        assert list(box) == cutmix_box(lam, cy, cx, height, width).tolist()


@pytest.mark.parametrize("mode", ["batch", "elem"])
@pytest.mark.parametrize("fold", [False, True])
def test_one_box_for_a_batch_is_cut_as_many_boxes_are(mode, fold):
    """The share and the box of a batch, by the same rule as those of samples."""
    mixup = Mixup(num_classes=2, alpha=0, cutmix_alpha=0.7, mode=mode, fold=fold)
    plans = [mixup.plan(3, (9, 31), step=step) for step in range(400)]
    boxes = np.concatenate([plan.box for plan in plans if plan.box is not None])
    lams = np.concatenate([plan.lam for plan in plans])

    sides = boxes[:, 1::2] - boxes[:, 0::2]
    inside = (boxes >= 0).all() and (boxes[:, 1] <= 9).all() and (boxes[:, 3] <= 31).all()
    assert inside
    assert {0, 9} <= {*boxes[:, :2].ravel()}
    assert {0, 31} <= {*boxes[:, 2:].ravel()}
    assert set(np.unique(lams)) <= {np.float32(1 - a / 279) for a in {0, *sides.prod(1)}}
    assert lams.min() >= 0.5 or not fold


@pytest.mark.parametrize("other", [{"epoch": 1}, {"step": 1}, {"stream": 1}])
def test_a_plan_follows_from_its_position(other):
    mixup = Mixup(num_classes=2, alpha=1.0)

    here, there = mixup.plan(8), mixup.plan(8, **other)

    assert mixup.plan(8).lam.tolist() == here.lam.tolist()
    assert here.lam.tolist() != there.lam.tolist()


@pytest.mark.parametrize("other", [{"seed": 1}, {"rank": 1}])
def test_a_plan_follows_from_seed_and_rank(other):
    here = Mixup(num_classes=2, alpha=1.0, rank=0).plan(8)
    there = Mixup(num_classes=2, alpha=1.0, **{"rank": 0, **other}).plan(8)

    assert here.lam.tolist() != there.lam.tolist()


def test_what_is_drawn_does_not_change_between_releases():
    plan = Mixup(num_classes=2, alpha=0.2, cutmix_alpha=1.0, mode="elem", rank=0).plan(4, (32, 32))

    assert plan.partner.tolist() == PINNED["partner"]
    assert plan.lam.tolist() == PINNED["lam"]
    assert plan.box.tolist() == PINNED["box"]


def test_numpys_global_generator_is_left_alone():
    before = np.random.get_state()[1].tolist()  # noqa: NPY002

    Mixup(num_classes=2, cutmix_alpha=1.0).plan(8, (8, 8))

    assert np.random.get_state()[1].tolist() == before  # noqa: NPY002


PINNED = {
    "partner": [0, 1, 2, 3],
    "lam": [0.78515625, 0.47265625, 0.8484130501747131, 0.022882884368300438],
    "box": [[2, 22, 21, 32], [0, 18, 2, 32], [0, 0, 0, 0], [0, 0, 0, 0]],
}


@pytest.mark.parametrize("mode", ["batch", "elem", "pair"])
@pytest.mark.parametrize("size", [0, 1, 2, 7, 64])
@pytest.mark.parametrize("kind", [{}, {"alpha": 0}, {"alpha": 0, "cutmix_alpha": 0.5}, BOTH])
def test_what_is_drawn_would_pass_every_check(mode, size, kind):
    for step in range(20):
        plan = Mixup(num_classes=2, mode=mode, **kind).plan(size, (7, 9), step=step)

        checked = MixPlan(plan.partner, plan.lam, plan.box)

        checked.require_fit(size, 7, 9)
        assert not plan.partner.flags.writeable
        assert [plan.partner.dtype, plan.lam.dtype] == [np.int32, np.float32]
