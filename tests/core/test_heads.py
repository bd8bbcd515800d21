"""Labels of several heads, and the values of a regression."""

import dataclasses
from collections import namedtuple
from importlib import import_module

import numpy as np
import pytest

from dali_mixup import Mixup, OutputFormat

IMAGES = np.random.default_rng(0).integers(0, 256, (6, 8, 10, 3), np.uint8)
MAKE, COLOR = np.arange(6), np.array([2, 0, 1, 1, 2, 0])
HEADS = {"make": 6, "color": 3}
VALUES = np.array([0.5, -3.0, 1e6, 0.0, 7.25, 2.0], np.float32)


def alone(labels, num_classes, plan, **settings):
    """The targets of one head by itself."""
    return Mixup(num_classes=num_classes, **settings)(IMAGES, labels, plan=plan)[1]


@pytest.fixture
def plan():
    return Mixup(num_classes=2, mode="elem", seed=4).plan(6, (8, 10))


@pytest.mark.parametrize("settings", [{}, {"label_smoothing": 0.1}])
def test_each_head_has_the_targets_it_has_alone(plan, settings):
    mixup = Mixup(num_classes=HEADS, **settings)

    images, targets = mixup(IMAGES, {"color": COLOR, "make": MAKE}, plan=plan)

    assert targets.keys() == HEADS.keys()
    np.testing.assert_array_equal(targets["make"], alone(MAKE, 6, plan, **settings))
    np.testing.assert_array_equal(targets["color"], alone(COLOR, 3, plan, **settings))
    np.testing.assert_array_equal(images, Mixup(num_classes=6)(IMAGES, MAKE, plan=plan)[0])


@pytest.mark.parametrize("form", [tuple, list])
def test_labels_in_the_order_of_the_heads_give_targets_in_that_order(plan, form):
    _, targets = Mixup(num_classes=HEADS)(IMAGES, form([MAKE, COLOR]), plan=plan)

    assert isinstance(targets, tuple)
    np.testing.assert_array_equal(targets[0], alone(MAKE, 6, plan))
    np.testing.assert_array_equal(targets[1], alone(COLOR, 3, plan))


def test_labels_of_a_namedtuple_go_by_name(plan):
    labels = namedtuple("Labels", ["color", "make"])(COLOR, MAKE)

    _, targets = Mixup(num_classes=HEADS)(IMAGES, labels, plan=plan)

    assert type(targets) is type(labels)
    np.testing.assert_array_equal(targets.make, alone(MAKE, 6, plan))
    np.testing.assert_array_equal(targets.color, alone(COLOR, 3, plan))


def test_pairs_are_handed_out_for_each_head(plan):
    mixup = Mixup(num_classes=HEADS, targets="pairs")

    _, targets = mixup(IMAGES, {"make": MAKE, "color": COLOR}, plan=plan)

    own, partner, lam = targets["color"]
    assert own.tolist() == COLOR.tolist()
    assert partner.tolist() == COLOR[plan.partner].tolist()
    assert lam.tobytes() == plan.lam.tobytes()


def test_a_head_of_values_is_mixed_as_it_is_beside_one_that_is_smoothed(plan):
    mixup = Mixup(num_classes={"make": 6, "age": None}, label_smoothing=0.1)

    _, targets = mixup(IMAGES, {"make": MAKE, "age": VALUES}, plan=plan)

    np.testing.assert_array_equal(targets["make"], alone(MAKE, 6, plan, label_smoothing=0.1))
    np.testing.assert_array_equal(targets["age"], alone(VALUES, None, plan))


def test_heads_on_tensors_are_those_on_arrays(plan, torch):
    labels = {"make": MAKE, "color": COLOR}
    _, arrays = Mixup(num_classes=HEADS)(IMAGES, labels, plan=plan)
    tensors = {name: torch.from_numpy(ids) for name, ids in labels.items()}

    _, targets = Mixup(num_classes=HEADS)(torch.from_numpy(IMAGES), tensors, plan=plan)

    for name in HEADS:
        np.testing.assert_array_equal(targets[name].numpy(), arrays[name], strict=True)


@pytest.mark.parametrize(
    ("labels", "error", "message"),
    [
        ({"make": MAKE}, ValueError, r"expected the heads \['make', 'color'\] .* got \['make'\]"),
        ({"make": MAKE, "color": COLOR, "age": VALUES}, ValueError, "expected the heads .*'age'"),
        ((MAKE, COLOR, COLOR), ValueError, r"expected 2, one for each of .*, got 3"),
        (MAKE, TypeError, "expected a dict or a tuple of the heads .*, got ndarray"),
        ({"make": MAKE, "color": COLOR + 1}, ValueError, r"in \[0, 3\), got 3 at row 0"),
    ],
)
def test_labels_of_other_heads_are_refused(labels, error, message):
    with pytest.raises(error, match=message):
        Mixup(num_classes=HEADS)(IMAGES, labels)


def test_several_labels_without_heads_are_refused():
    with pytest.raises(TypeError, match=r"got a tuple; several heads have num_classes=\{name"):
        Mixup(num_classes=6)(IMAGES, (MAKE, COLOR))


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"num_classes": {}}, TypeError, "names of heads to their numbers of classes, .* got {}"),
        ({"num_classes": {1: 2}}, TypeError, "names of heads"),
        ({"num_classes": {"a": 0}}, ValueError, r"num_classes\['a'\]: expected at least 1, got 0"),
        (
            {"num_classes": {"a": 3, "b": None}, "targets": "pairs"},
            ValueError, "expected an int beside targets='pairs'",
        ),
        ({"num_classes": HEADS, "ignore_index": -1}, ValueError, "class ids of a single head"),
        (
            {"num_classes": None, "label_smoothing": 0.1},
            ValueError, "labels without a number of classes are mixed as they are",
        ),
        ({"num_classes": {"a": None}, "label_smoothing": 0.1}, ValueError, "label_smoothing=0.1"),
    ],
)  # fmt: skip
def test_heads_that_do_not_go_together_are_refused(settings, error, message):
    with pytest.raises(error, match=message):
        Mixup(**settings)


@pytest.mark.parametrize("shape", [(6,), (6, 1), (6, 2)])
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_values_are_mixed_as_they_are(plan, shape, dtype):
    values = np.random.default_rng(0).normal(0, 10, shape).astype(dtype)

    _, targets = Mixup(num_classes=None)(IMAGES, values, plan=plan)

    rows = values.astype(np.float32).reshape(6, -1)
    lam, rest = plan.lam[:, None], np.float32(1) - plan.lam[:, None]
    mixed = lam * rows + rest * rows[plan.partner]
    want = np.where(lam == 1, rows, np.where(lam == 0, rows[plan.partner], mixed)).reshape(shape)
    np.testing.assert_array_equal(targets, want, strict=True)


def test_values_may_be_bfloat16(torch):
    values = torch.ones(6, dtype=torch.bfloat16)

    _, targets = Mixup(num_classes=None)(torch.from_numpy(IMAGES), values)

    assert targets.tolist() == [1.0] * 6


def test_values_of_an_unmixed_batch_are_handed_out_as_floats():
    _, targets = Mixup(num_classes=None).for_validation()(IMAGES, VALUES)

    np.testing.assert_array_equal(targets, VALUES, strict=True)


@pytest.mark.parametrize("labels", [MAKE, MAKE[:, None], MAKE > 2])
def test_class_ids_are_no_values(labels):
    with pytest.raises(
        ValueError, match=r"num_classes: expected an int beside class ids, got None"
    ):
        Mixup(num_classes=None)(IMAGES, labels)


def test_values_beside_a_number_of_classes_are_refused():
    with pytest.raises(TypeError, match="values need num_classes=None"):
        Mixup(num_classes=6)(IMAGES, VALUES)


def test_settings_of_heads_are_replaced_and_compared():
    mixup = Mixup(num_classes=HEADS, output=OutputFormat("float32"))

    assert dataclasses.replace(mixup, alpha=0.2) == mixup
    assert mixup.for_validation().num_classes == HEADS


def test_a_state_holds_the_heads():
    mixup = Mixup(num_classes=HEADS)
    state = mixup.state_dict()

    Mixup(num_classes=dict(HEADS)).load_state_dict(state)

    for other in ({"make": 6, "color": 4}, {"color": 3, "make": 6}):
        with pytest.raises(ValueError, match=r"num_classes: expected .*'color', 3"):
            Mixup(num_classes=other).load_state_dict(state)


def test_the_caller_may_change_its_dict_of_classes():
    heads = dict(HEADS)
    mixup = Mixup(num_classes=heads)

    heads["make"] = 1

    assert mixup.num_classes == HEADS


def test_masks_are_not_taken_for_values():
    with pytest.raises(ValueError, match=r"got \(6, 8, 10\); name masks by mask_key"):
        Mixup(num_classes=None)(IMAGES, np.zeros((6, 8, 10), np.float32))
    with pytest.raises(ValueError, match=r"got \(6, 8, 10\); name masks by mask_key"):
        Mixup(num_classes=6)(IMAGES, np.zeros((6, 8, 10), int))


def test_the_losses_for_classes_name_one_for_values(torch):
    losses = import_module("dali_mixup.losses")

    with pytest.raises(ValueError, match=r"expected dense rows \(6, 3\) .* torch's mse_loss"):
        losses.mixup_cross_entropy(torch.zeros(6, 3), torch.from_numpy(VALUES))
