"""What every backend does to labels."""

import numpy as np
import pytest
from support.formula import one_hot, soft_label_formula

from dali_mixup import MixPlan, Mixup, OutputFormat
from dali_mixup.plan import unmixed

F = np.float32


def plan_of(size, seed=0):
    rng = np.random.default_rng(seed)
    lam = rng.random(size).astype(F)
    lam[: size // 4] = rng.integers(0, 2, size // 4)
    return MixPlan(rng.permutation(size), lam)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("num_classes", [1, 2, 7, 1000])
@pytest.mark.parametrize("dtype", ["int32", "int64"])
@pytest.mark.parametrize("shape", [(-1,), (-1, 1)])
def test_rows_equal_the_formula_in_every_bit(backend, num_classes, smoothing, dtype, shape):
    labels = np.random.default_rng(1).integers(0, num_classes, 33).astype(dtype).reshape(shape)
    plan = plan_of(33)

    got = backend.soft_labels(labels, plan, num_classes, smoothing)

    assert got.dtype == F
    assert got.tobytes() == soft_label_formula(labels, plan, num_classes, smoothing).tobytes()


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("dtype", ["float32", "float16", "float64", "bool", "uint8", "int64"])
def test_dense_rows_equal_the_formula_in_every_bit(backend, smoothing, dtype):
    labels = np.random.default_rng(1).random((9, 5)) * (2 if dtype[0] in "ui" else 1)
    labels = labels.astype(dtype)
    plan = plan_of(9)

    got = backend.soft_labels(labels, plan, 5, smoothing)

    assert got.tobytes() == soft_label_formula(labels, plan, 5, smoothing).tobytes()


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_one_hot_rows_and_class_ids_give_the_same_bits(backend, smoothing):
    labels = np.random.default_rng(1).integers(0, 5, 16)
    plan = plan_of(16)

    dense = backend.soft_labels(one_hot(labels, 5), plan, 5, smoothing)

    assert dense.tobytes() == backend.soft_labels(labels, plan, 5, smoothing).tobytes()


def test_labels_by_hand(backend):
    got = backend.soft_labels(np.array([0, 1, 1]), MixPlan([1, 2, 0], [0.75, 0.5, 0.0]), 3)

    assert got.tolist() == [[0.75, 0.25, 0.0], [0.0, 1.0, 0.0], [1.0, 0.0, 0.0]]


def test_smoothing_by_hand(backend):
    got = backend.soft_labels(np.array([0, 1]), MixPlan([1, 0], [0.75, 1.0]), 2, 0.5)

    assert got.tolist() == [[0.625, 0.375], [0.25, 0.75]]


def test_a_pair_of_one_class_is_that_class_and_not_an_overwritten_cell(backend):
    got = backend.soft_labels(np.array([3, 3]), MixPlan([1, 0], [0.7, 0.3]), 5)

    assert got.tolist() == [[0, 0, 0, 1, 0]] * 2


def test_rows_sum_to_one(backend):
    labels = np.random.default_rng(1).integers(0, 1000, 64)

    got = backend.soft_labels(labels, plan_of(64), 1000, 0.1)

    np.testing.assert_allclose(got.astype(float).sum(1), 1.0, atol=1e-5)


def test_multi_hot_rows_keep_their_sum(backend):
    labels = np.array([[1, 1, 0], [0, 1, 1]])

    got = backend.soft_labels(labels, MixPlan([1, 0], [0.5, 1.0]), 3)

    assert got.tolist() == [[0.5, 1.0, 0.5], [0.0, 1.0, 1.0]]


def test_class_ids_never_pass_through_a_float(backend, request):
    if request.node.callspec.params["backend"] == "ptx":
        pytest.skip("executing 16 million classes takes 13 seconds")
    labels = np.array([16_777_217, 3], np.int64)

    got = backend.soft_labels(labels, unmixed(2), 16_777_218)

    assert got[0].argmax() == 16_777_217
    assert got[0].sum() == 1


def test_dense_rows_select_where_lam_is_one_or_zero(backend):
    labels = np.array([[1, 0], [np.inf, 0]], F)

    got = backend.soft_labels(labels, MixPlan([1, 0], [1.0, 0.0]), 2)

    assert got.tolist() == [[1, 0], [1, 0]]


def test_no_labels_give_no_rows(backend):
    assert backend.soft_labels(np.zeros(0, np.int64), unmixed(0), 7).shape == (0, 7)


def test_labels_are_never_written_to(backend):
    labels = np.eye(4, dtype=F)
    labels.flags.writeable = False

    backend.soft_labels(labels, plan_of(4), 4)

    assert (labels == np.eye(4)).all()


def test_rows_are_written_into_out(backend):
    out = np.full((2, 3), 7, F)

    got = backend.soft_labels(np.array([0, 2]), unmixed(2), 3, out=out)

    assert got is out
    assert out.tolist() == [[1, 0, 0], [0, 0, 1]]


def test_pixels_and_labels_tell_the_same_story(backend):
    """Images whose every pixel is their class id: its mean is the labels' mean class."""
    labels = np.arange(16)
    images = np.broadcast_to(labels.astype(F)[:, None, None, None], (16, 1, 32, 32)).copy()
    for step, mode in enumerate(["batch", "elem", "pair"] * 10):
        settings = {"cutmix_alpha": 1.0, "mode": mode, "pairing": "permutation"}
        plan = Mixup(num_classes=16, **settings).plan(16, (32, 32), step=step)

        pixels = backend.blend(images, plan, OutputFormat(), layout="CHW")
        soft = backend.soft_labels(labels, plan, 16)

        np.testing.assert_allclose(pixels.mean((1, 2, 3)), soft @ labels.astype(F), atol=1e-4)


def test_cutmix_labels_equal_the_counted_share_of_pixels(backend):
    images = np.zeros((8, 17, 31, 1), np.uint8)
    images[4:] = 1
    plan = Mixup(num_classes=2, alpha=0, cutmix_alpha=1.0, mode="elem", pairing="flip").plan(
        8, (17, 31)
    )

    shown = backend.blend(images, plan, layout="HWC").reshape(8, -1).sum(1)
    soft = backend.soft_labels(np.arange(8) // 4, plan, 2)

    assert soft[:4, 0].tolist() == (1 - shown[:4] / (17 * 31)).astype(F).tolist()
    assert soft[4:, 1].tolist() == (1 - (17 * 31 - shown[4:]) / (17 * 31)).astype(F).tolist()


@pytest.mark.parametrize(
    ("labels", "num_classes", "error", "message"),
    [
        (np.array([0, 1, 2]), 3, ValueError, r"expected 2 rows, one an image, got shape \(3,\)"),
        (np.array(1), 3, ValueError, r"expected 2 rows, one an image, got shape \(\)"),
        (np.array([0.0, 1.0]), 3, TypeError, r"integers as class ids \(2,\), got kind 'f'"),
        (np.array([[0.0], [1.0]]), 3, ValueError, r"dense rows of 3 classes, .*kind 'f'"),
        (np.zeros((2, 4)), 3, ValueError, r"dense rows of 3 classes, .*got shape \(2, 4\)"),
        (np.zeros((2, 3, 1)), 3, ValueError, r"class ids \(B,\) or \(B, 1\), or dense"),
        (np.array([0, 1]), None, ValueError, "num_classes: expected an int beside class ids"),
    ],
)
def test_bad_labels_are_refused(backend, labels, num_classes, error, message):
    with pytest.raises(error, match=message):
        backend.soft_labels(labels, unmixed(2), num_classes)


@pytest.mark.parametrize(("bad", "row"), [(3, 1), (-1, 0), (2**40, 1)])
def test_a_class_id_out_of_range_is_named_with_its_row(backend, bad, row):
    labels = np.zeros(2, np.int64)
    labels[row] = bad

    message = rf"\[0, 3\), got {bad} at row {row}( of an earlier batch, .*)?; num_classes is 3"
    with pytest.raises(ValueError, match=message):
        backend.soft_labels(labels, unmixed(2), 3)


def test_a_bad_out_is_refused(backend):
    with pytest.raises(ValueError, match=r"out: expected .*float32 \(2, 3\).*got float64"):
        backend.soft_labels(np.array([0, 2]), unmixed(2), 3, out=np.zeros((2, 3)))
