"""Folded shares: each sample's own share is at least one half."""

import numpy as np
import pytest

from dali_mixup import Mixup


@pytest.mark.parametrize("mode", ["batch", "elem", "pair"])
@pytest.mark.parametrize(
    "alphas", [{"alpha": 1.0}, {"alpha": 0, "cutmix_alpha": 1.0}, {"alpha": 0.4, "cutmix_alpha": 1}]
)
def test_the_own_share_is_at_least_one_half(mode, alphas):
    mixup = Mixup(num_classes=2, mode=mode, fold=True, **alphas)

    plans = [mixup.plan(64, (33, 47), step=step) for step in range(50)]

    assert min(plan.lam.min() for plan in plans) >= 0.5
    assert len({float(lam) for plan in plans for lam in plan.lam}) > 30


@pytest.mark.parametrize("mode", ["batch", "elem", "pair"])
def test_mixup_folds_the_shares_that_it_draws_without(mode):
    settings = {"num_classes": 2, "alpha": 0.3, "mode": mode}

    plain = Mixup(**settings).plan(64)
    folded = Mixup(**settings, fold=True).plan(64)

    np.testing.assert_array_equal(folded.partner, plain.partner)
    np.testing.assert_allclose(folded.lam, np.maximum(plain.lam, 1 - plain.lam), atol=1e-7)
    assert (plain.lam < 0.5).any() or mode == "batch"


def test_the_label_says_what_a_folded_box_shows():
    plan = Mixup(num_classes=2, alpha=0, cutmix_alpha=1.0, mode="elem", fold=True).plan(
        64, (20, 30)
    )

    y0, y1, x0, x1 = plan.box.T
    np.testing.assert_array_equal(plan.lam, (1 - (y1 - y0) * (x1 - x0) / 600).astype(np.float32))


@pytest.mark.parametrize("fold", [1, "yes", None])
def test_fold_is_true_or_false(fold):
    with pytest.raises(TypeError, match="fold: expected True or False"):
        Mixup(num_classes=2, fold=fold)


def test_a_state_from_before_there_was_fold_is_one_without():
    state = Mixup(num_classes=2).state_dict()
    del state["mixup"]["fold"], state["changed"]

    Mixup(num_classes=2).load_state_dict(state)

    with pytest.raises(ValueError, match="fold: expected False as saved, got True"):
        Mixup(num_classes=2, fold=True).load_state_dict(state)
