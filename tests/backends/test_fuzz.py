"""Settings, shapes, dtypes, layouts and labels at random, against the formula written plainly."""

import json

import numpy as np
import pytest
from support.formula import assert_same_bits, formula, soft_label_formula, to_bfloat16
from support.requirements import require

from dali_mixup import MixPlan, Mixup, OutputFormat
from dali_mixup.plan import unmixed
from dali_mixup.state import LATER_KEYS

hypothesis = require("hypothesis")
st = require("hypothesis.strategies", backend="hypothesis")

pytestmark = pytest.mark.filterwarnings("ignore::dali_mixup.advice.MixupWarning")

ORDINARY, NIGHTLY = 300, 10_000
F = np.float32
SHARES = st.sampled_from([0.0, 0.1, 0.5, 1.0])
ALPHAS = st.sampled_from([0.0, 0.05, 0.2, 1.0, 8.0])
MEANS = st.floats(-300, 300, width=32)
STDS = st.floats(1, 300, width=32)


def examples(count):
    return hypothesis.settings(
        max_examples=count,
        deadline=None,
        derandomize=count == ORDINARY,
        database=None,
        suppress_health_check=list(hypothesis.HealthCheck),
    )


@st.composite
def outputs(draw, dtype, channels):
    """Any format that goes with images of this dtype."""
    per_channel = draw(st.booleans())

    def values(numbers):
        several = st.tuples(*[numbers] * channels)
        return draw(st.none() | (several if per_channel else numbers))

    mean, std = values(MEANS), values(STDS)
    floats = ["float32", "float16", "bfloat16"]
    stays = [None, "uint8"] if dtype == "uint8" else [None]
    normalised = mean is not None or std is not None
    choices = floats if normalised and dtype == "uint8" else floats + stays
    layout = draw(st.sampled_from([None, "CHW", "HWC"]))
    channels_last = layout != "HWC" and draw(st.booleans())
    return OutputFormat(draw(st.sampled_from(choices)), layout, mean, std, channels_last)


@st.composite
def settings_of_mixup(draw, dtype, channels, layout):
    mode = draw(st.sampled_from(["batch", "elem", "pair"]))
    pairings = ["permutation", "derangement", "flip", "roll"]
    return {
        "alpha": draw(ALPHAS),
        "cutmix_alpha": draw(ALPHAS),
        "switch_prob": draw(SHARES),
        "prob": draw(SHARES),
        "mode": mode,
        "pairing": draw(st.sampled_from(pairings[: 3 if mode == "pair" else 4])),
        "label_smoothing": draw(st.sampled_from([0.0, 0.1, 0.9])),
        "output": draw(st.none() | outputs(dtype, channels)),
        "layout": layout,
        "seed": draw(st.integers(0, 2**64)),
        "rank": draw(st.integers(0, 2**31)),
    }


def images_of(dtype, shape, rng):
    if dtype == "uint8":
        return rng.integers(0, 256, shape, dtype=np.uint8)
    values = (rng.standard_normal(shape) * 10.0 ** rng.integers(-6, 5, shape)).astype(F)
    values[rng.random(shape) < 0.05] = rng.choice([np.inf, -np.inf, np.nan, -0.0])
    return to_bfloat16(values) if dtype == "bfloat16" else values.astype(dtype)


def labels_of(form, size, num_classes, rng):
    ids = rng.integers(0, num_classes, size)
    return {
        "ids": ids.astype(rng.choice(["uint8", "int32", "int64", "uint64"])),
        "column": ids.astype(np.int32)[:, None],
        "one-hot": np.eye(num_classes, dtype=F)[ids],
        "multi-hot": rng.integers(0, 2, (size, num_classes)).astype(bool),
        "probabilities": rng.dirichlet(np.ones(num_classes), size).astype(F),
        "halves": rng.random((size, num_classes)).astype(np.float16),
    }[form]


@st.composite
def cases(draw):
    """A Mixup with images and labels that go with it, and a position."""
    dtype = draw(st.sampled_from(["uint8", "float16", "bfloat16", "float32"]))
    layout = draw(st.sampled_from(["HWC", "CHW"]))
    channels = draw(st.sampled_from([1, 3, 4]))
    size, height, width = draw(st.integers(0, 9)), draw(st.integers(1, 20)), draw(st.integers(1, 9))
    num_classes = draw(st.integers(2, 12))
    form = draw(
        st.sampled_from(["ids", "column", "one-hot", "multi-hot", "probabilities", "halves"])
    )
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    shape = (height, width, channels) if layout == "HWC" else (channels, height, width)
    mixup = Mixup(num_classes=num_classes, **draw(settings_of_mixup(dtype, channels, layout)))
    mixup.set_epoch(draw(st.integers(0, 2**31)))
    images = images_of(dtype, (size, *shape), rng)
    return mixup, images, labels_of(form, size, num_classes, rng), (height, width)


def the_call_equals_the_formula(case):
    mixup, images, labels, image_size = case
    plan = mixup.plan(len(images), image_size, epoch=mixup.state_dict()["epoch"], step=0)
    classes, s = mixup.num_classes, mixup.label_smoothing

    mixed, soft = mixup(images, labels)

    output = mixup.output or OutputFormat()
    assert_same_bits(mixed, formula(images, plan, output, mixup.layout))
    assert_same_bits(soft, soft_label_formula(labels, plan, classes, s))
    own = soft_label_formula(labels, unmixed(len(images)), classes).sum(1, dtype=float)
    lam = plan.lam.astype(float)
    sums = lam * own + (1 - lam) * own[plan.partner]
    np.testing.assert_allclose(soft.sum(1, dtype=float), (1 - s) * sums + s, rtol=1e-4, atol=1e-4)
    assert mixup.state_dict()["step"] == 1


def a_given_plan_equals_the_formula(case):
    mixup, images, labels, (height, width) = case
    rng, size = np.random.default_rng(len(images) + height + width), len(images)
    y, x = (np.sort(rng.integers(0, side + 1, (2, size)), 0) for side in (height, width))
    boxes = np.stack([*y, *x], 1) * rng.integers(0, 2, (size, 1))
    plan = MixPlan(rng.integers(0, size, size), rng.choice([0, 1, 0.3, 1e-7], size), boxes)

    mixed, soft = mixup(images, labels, plan=plan)

    assert_same_bits(mixed, formula(images, plan, mixup.output or OutputFormat(), mixup.layout))
    want = soft_label_formula(labels, plan, mixup.num_classes, mixup.label_smoothing)
    assert_same_bits(soft, want)


def the_plan_keeps_its_promises(case):
    mixup, images, _, (height, width) = case
    size, own = len(images), np.arange(len(images))

    plan = mixup.plan(size, (height, width), epoch=5, step=7)

    assert sorted(plan.partner) == own.tolist()
    if mixup.pairing == "derangement" and mixup.mode != "pair" and size > 1:
        assert (plan.partner != own).all()
    if mixup.pairing == "flip":
        assert (plan.partner == own[::-1]).all()
    if mixup.pairing == "roll":
        assert (plan.partner == np.roll(own, 1)).all()
    if mixup.mode == "pair":
        assert (plan.partner[plan.partner] == own).all()
        assert (plan.lam[plan.partner] == plan.lam).all()
    if mixup.mode == "batch":
        assert len(set(plan.lam.tolist())) <= 1
    if mixup.prob == 0 or mixup.alpha == mixup.cutmix_alpha == 0:
        assert (plan.lam == 1).all()
        assert plan.box is None or not plan.box.any()
    if plan.box is not None:
        y0, y1, x0, x1 = plan.box.T
        area = (y1 - y0) * (x1 - x0)
        boxed = area > 0
        assert (plan.lam[boxed] == (1 - area[boxed] / (height * width)).astype(F)).all()
        assert (y1 <= height).all()
        assert (x1 <= width).all()


SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
JSON_VALUES = (
    SCALARS | st.lists(SCALARS, max_size=3) | st.dictionaries(st.text(max_size=8), SCALARS)
)


@st.composite
def spoilt_states(draw):
    """A state with one value replaced, one key gone, or one key too many."""
    state = Mixup(num_classes=6).state_dict()
    spoil = draw(st.sampled_from(["replace", "position", "remove", "add", "setting"]))
    if spoil == "replace":
        state[draw(st.sampled_from(sorted(state)))] = draw(JSON_VALUES)
    elif spoil == "position":
        numbers = st.booleans() | st.integers() | st.floats(0, 9)
        state[draw(st.sampled_from(["epoch", "step"]))] = draw(numbers)
    elif spoil == "remove":
        del state[draw(st.sampled_from(sorted(state)))]
    elif spoil == "add":
        state[draw(st.text(min_size=9, max_size=12))] = draw(JSON_VALUES)
    else:
        state["mixup"][draw(st.sampled_from(sorted(state["mixup"])))] = draw(JSON_VALUES)
    return state


def noise_is_refused_or_counts_in_full(state):
    mixup = Mixup(num_classes=6)
    before = mixup.state_dict()

    try:
        mixup.load_state_dict(state)
    except (TypeError, ValueError):
        assert mixup.state_dict() == before
    else:
        assert set(state) | LATER_KEYS == set(before)
        assert state["mixup"] == before["mixup"]
        after = mixup.state_dict()
        assert (after["epoch"], after["step"]) == (state["epoch"], state["step"])
        assert all(type(state[name]) is int and state[name] >= 0 for name in ("epoch", "step"))
        json.dumps(after)


@hypothesis.given(cases())
@examples(ORDINARY)
def test_every_call_equals_the_formula(case):
    the_call_equals_the_formula(case)


@pytest.mark.nightly
@hypothesis.given(cases())
@examples(NIGHTLY)
def test_ten_thousand_calls_equal_the_formula(case):
    the_call_equals_the_formula(case)


@hypothesis.given(cases())
@examples(ORDINARY)
def test_every_call_with_a_given_plan_equals_the_formula(case):
    a_given_plan_equals_the_formula(case)


@pytest.mark.nightly
@hypothesis.given(cases())
@examples(NIGHTLY)
def test_ten_thousand_calls_with_a_given_plan_equal_the_formula(case):
    a_given_plan_equals_the_formula(case)


@hypothesis.given(cases())
@examples(ORDINARY)
def test_every_plan_keeps_the_promises_of_its_settings(case):
    the_plan_keeps_its_promises(case)


@pytest.mark.nightly
@hypothesis.given(cases())
@examples(NIGHTLY)
def test_ten_thousand_plans_keep_the_promises_of_their_settings(case):
    the_plan_keeps_its_promises(case)


@hypothesis.given(spoilt_states() | JSON_VALUES)
@examples(ORDINARY)
def test_noise_for_a_state_is_refused_or_counts_in_full(state):
    noise_is_refused_or_counts_in_full(state)


@pytest.mark.nightly
@hypothesis.given(spoilt_states() | JSON_VALUES)
@examples(NIGHTLY)
def test_much_noise_for_a_state_is_refused_or_counts_in_full(state):
    noise_is_refused_or_counts_in_full(state)
