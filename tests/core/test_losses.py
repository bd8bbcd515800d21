"""Losses and accuracy for mixed targets, beside torch's own on dense rows."""

import pytest
from support.requirements import require

torch = require("torch")

from dali_mixup import Mixup  # noqa: E402
from dali_mixup.advice import DoubleSmoothingWarning  # noqa: E402
from dali_mixup.losses import (  # noqa: E402
    mixup_accuracy,
    mixup_binary_cross_entropy,
    mixup_cross_entropy,
)


def example(size=16, num_classes=11, dtype=torch.float32):
    generator = torch.Generator().manual_seed(0)
    logits = (3 * torch.randn(size, num_classes, generator=generator)).to(dtype)
    labels = torch.randint(num_classes, (size,), generator=generator)
    images = torch.zeros(size, 1, 2, 2, dtype=torch.uint8)
    settings = {"num_classes": num_classes, "mode": "elem", "alpha": 1.0, "layout": "CHW"}
    _, pairs = Mixup(**settings, targets="pairs")(images, labels)
    _, soft = Mixup(**settings)(images, labels)
    return logits.requires_grad_(), pairs, soft


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_pairs_cost_what_dense_rows_cost(smoothing, reduction):
    logits, pairs, soft = example()
    want = torch.nn.functional.cross_entropy(
        logits, soft, label_smoothing=smoothing, reduction=reduction
    )

    got = mixup_cross_entropy(logits, pairs, smoothing, reduction)

    torch.testing.assert_close(got, want, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_pairs_have_the_gradient_of_dense_rows(smoothing):
    logits, pairs, soft = example()
    weight = torch.rand(16)
    (want,) = torch.autograd.grad(
        (weight * mixup_cross_entropy(logits, soft, smoothing, "none")).sum(), logits
    )

    (got,) = torch.autograd.grad(
        (weight * mixup_cross_entropy(logits, pairs, smoothing, "none")).sum(), logits
    )

    torch.testing.assert_close(got, want, rtol=1e-6, atol=1e-6)


def test_a_pair_of_one_class_has_its_gradient_once():
    logits = torch.randn(2, 4, dtype=torch.float64, requires_grad=True)
    pairs = torch.tensor([1, 2]), torch.tensor([1, 0]), torch.tensor([0.3, 0.6]).double()

    assert torch.autograd.gradcheck(lambda x: mixup_cross_entropy(x, pairs, 0.1), (logits,))


@pytest.mark.parametrize("logits_dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("lam_dtype", [torch.float32, torch.float64])
def test_lam_and_logits_need_not_be_of_one_dtype(logits_dtype, lam_dtype):
    logits, (own, partner, lam), soft = example(dtype=logits_dtype)
    (want,) = torch.autograd.grad(mixup_cross_entropy(logits, soft.to(logits_dtype)), logits)

    loss = mixup_cross_entropy(logits, (own, partner, lam.to(lam_dtype)))
    (got,) = torch.autograd.grad(loss, logits)

    torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-7)


def test_half_precision_logits_are_computed_in_float32():
    logits, pairs, _ = example(dtype=torch.float16)

    loss = mixup_cross_entropy(logits, pairs)
    loss.backward()

    assert loss.dtype == torch.float32
    assert logits.grad.dtype == torch.float16


def test_smoothing_twice_warns():
    logits, _, soft = example()
    smoothed = 0.9 * soft + 0.1 / 11

    with pytest.warns(DoubleSmoothingWarning, match="give it to Mixup or to the loss, not to both"):
        mixup_cross_entropy(logits, smoothed, 0.1)


def test_the_values_of_targets_elsewhere_than_on_the_cpu_are_not_asked_for():
    logits, _, soft = example()

    loss = mixup_cross_entropy(logits.to("meta"), soft.to("meta"), label_smoothing=0.1)

    assert loss.device.type == "meta"  # whose values cannot be had


def test_two_mixed_classes_are_not_taken_for_smoothed():
    logits, _, soft = example(num_classes=2)

    assert mixup_cross_entropy(logits, soft, 0.1).isfinite()


def test_accuracy_is_the_weight_of_the_predicted_classes():
    logits = torch.eye(3)[[0, 1, 2, 0]]
    pairs = (torch.tensor([0, 0, 1, 1]), torch.tensor([1, 1, 1, 0]), torch.full((4,), 0.75))

    accuracy = mixup_accuracy(logits, pairs)

    assert accuracy.item() == (0.75 + 0.25 + 0 + 0.25) / 4


def test_accuracy_of_dense_rows_and_of_pairs_is_the_same():
    logits, pairs, soft = example()

    torch.testing.assert_close(mixup_accuracy(logits, pairs), mixup_accuracy(logits, soft))


@pytest.mark.parametrize(
    ("targets", "error", "message"),
    [
        (torch.zeros(16, 3), ValueError, r"dense rows \(16, 11\) as logits have, got \(16, 3\)"),
        (torch.zeros(16), ValueError, r"dense rows \(16, 11\)"),
        ((torch.zeros(16),) * 2, TypeError, r"dense rows or \(own, partner, lam\), got tuple"),
        ((torch.zeros(4),) * 3, ValueError, r"own, partner and lam of shape \(16,\)"),
        (None, TypeError, "got NoneType"),
    ],
)
def test_other_targets_are_refused(targets, error, message):
    with pytest.raises(error, match=message):
        mixup_cross_entropy(example()[0], targets)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"label_smoothing": 1.0}, r"label_smoothing: expected a value in \[0, 1\)"),
        ({"reduction": "max"}, "reduction: expected one of 'mean'"),
    ],
)
def test_bad_settings_are_refused(settings, message):
    logits, pairs, _ = example()

    with pytest.raises(ValueError, match=message):
        mixup_cross_entropy(logits, pairs, **settings)


def test_logits_of_another_shape_are_refused():
    _, pairs, _ = example()

    with pytest.raises(ValueError, match=r"logits: expected shape \(B, num_classes\), got \(16,\)"):
        mixup_cross_entropy(torch.zeros(16), pairs)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_ignored_samples_do_not_count(smoothing):
    logits, _, soft = example()
    ignored = torch.tensor([0, 5])
    soft[ignored] = 0
    kept = torch.tensor([row for row in range(16) if row not in (0, 5)])

    for reduction in ("mean", "sum"):
        got = mixup_cross_entropy(logits, soft, smoothing, reduction)
        want = mixup_cross_entropy(logits[kept], soft[kept], smoothing, reduction)
        torch.testing.assert_close(got, want, rtol=1e-6, atol=1e-6)
    rows = mixup_cross_entropy(logits, soft, smoothing, "none")
    assert (rows[ignored] == 0).all()
    torch.testing.assert_close(
        mixup_accuracy(logits, soft), mixup_accuracy(logits[kept], soft[kept])
    )


def test_a_batch_of_ignored_samples_alone_has_no_loss():
    logits = torch.randn(3, 4, requires_grad=True)

    loss = mixup_cross_entropy(logits, torch.zeros(3, 4))
    loss.backward()

    assert loss == 0
    assert (logits.grad == 0).all()


BCE = torch.nn.functional.binary_cross_entropy_with_logits


@pytest.mark.parametrize("threshold", [None, 0.0, 0.2, 0.7])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("as_pairs", [False, True])
def test_binary_cross_entropy_is_torchs_on_dense_rows(threshold, reduction, as_pairs):
    logits, pairs, soft = example(size=64)  # many of one class with themselves
    assert (pairs[0] == pairs[1]).any()
    rows = soft if threshold is None else (soft > threshold).float()
    want = BCE(logits, rows, reduction=reduction)
    weight = torch.rand_like(want)
    (want_slope,) = torch.autograd.grad((weight * want).sum(), logits)

    got = mixup_binary_cross_entropy(
        logits, pairs if as_pairs else soft, threshold=threshold, reduction=reduction
    )
    (slope,) = torch.autograd.grad((weight * got).sum(), logits)

    torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(slope, want_slope, rtol=1e-5, atol=1e-6)


def test_binary_cross_entropy_stays_finite_for_large_logits():
    logits = torch.tensor([[200.0, -200.0], [-200.0, 200.0]], requires_grad=True)
    pairs = torch.tensor([0, 0]), torch.tensor([1, 1]), torch.tensor([1.0, 0.0])

    loss = mixup_binary_cross_entropy(logits, pairs)
    loss.backward()

    assert loss == 0
    assert logits.grad.isfinite().all()


def test_binary_cross_entropy_of_half_precision_logits_is_float32():
    logits, pairs, soft = example(dtype=torch.bfloat16)

    for targets in (pairs, soft):
        loss = mixup_binary_cross_entropy(logits, targets)
        assert loss.dtype == torch.float32
    loss.backward()
    assert logits.grad.dtype == torch.bfloat16


def test_binary_cross_entropy_of_pairs_saves_the_logits_alone():
    logits, pairs, _ = example()
    saved = []
    keep = lambda tensor: saved.append(tensor) or tensor  # noqa: E731

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        mixup_binary_cross_entropy(logits, pairs)

    assert [tensor.data_ptr() for tensor in saved if tensor.ndim == 2] == [logits.data_ptr()]


def test_multi_hot_rows_without_a_class_count_in_binary_cross_entropy():
    logits, _, soft = example()
    soft[3] = 0

    torch.testing.assert_close(mixup_binary_cross_entropy(logits, soft), BCE(logits, soft))


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"threshold": 1.0}, ValueError, r"threshold: expected a value in \[0, 1\) or None, got 1"),
        ({"threshold": "0"}, TypeError, "threshold: expected a number, got '0'"),
        ({"reduction": "max"}, ValueError, "reduction: expected one of 'mean'"),
        ({"targets": torch.zeros(16, 3)}, ValueError, r"expected dense rows \(16, 11\)"),
        ({"targets": None}, TypeError, r"dense rows or \(own, partner, lam\), got NoneType"),
    ],
)
def test_bad_arguments_of_binary_cross_entropy_are_refused(settings, error, message):
    logits, pairs, _ = example()

    with pytest.raises(error, match=message):
        mixup_binary_cross_entropy(logits, **{"targets": pairs, **settings})


def test_a_weight_at_the_threshold_is_not_above_it():
    logits = torch.randn(2, 4)
    pairs = torch.tensor([0, 1]), torch.tensor([2, 3]), torch.tensor([0.25, 0.75])

    got = mixup_binary_cross_entropy(logits, pairs, threshold=0.25)

    want = BCE(logits, torch.tensor([[0, 0, 1.0, 0], [0, 1.0, 0, 0]]))
    torch.testing.assert_close(got, want)


def test_a_threshold_that_smoothed_targets_are_all_above_is_refused():
    logits, _, soft = example()

    with pytest.raises(
        ValueError, match=r"threshold: .* got 0\.0, which makes every class a target"
    ):
        mixup_binary_cross_entropy(logits, 0.9 * soft + 0.1 / 11, threshold=0.0)

    assert mixup_binary_cross_entropy(logits, 0.9 * soft + 0.1 / 11, threshold=0.2).isfinite()


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_a_row_of_nan_shows_in_the_loss(reduction):
    targets = torch.eye(4)
    targets[1] = float("nan")

    loss = mixup_cross_entropy(torch.zeros(4, 4), targets, reduction=reduction)

    assert loss.isnan().any()
    assert mixup_accuracy(torch.zeros(4, 4), targets).isnan()
