"""Other libraries' signatures, beside their real code where it is installed."""

import sys
import types
from unittest import mock

import numpy as np
import pytest
from support.requirements import require

torch = require("torch")

from dali_mixup import MixPlan  # noqa: E402
from dali_mixup.advice import UnderfittingWarning  # noqa: E402
from dali_mixup.compat import (  # noqa: E402
    MixUpWrapper,
    TimmMixup,
    TorchvisionCutMix,
    TorchvisionMixUp,
)

ROUNDING = {"rtol": 2**-22, "atol": 2**-22}


def batch(size=8):
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(size, 3, 16, 24, generator=generator)
    return images, torch.arange(size) % 5


@pytest.fixture
def v2():
    """torchvision, which beside a CPU build of torch has to load without compiled operators."""
    if torch.version.cuda is None:
        name = "torchvision._meta_registrations"
        sys.modules.setdefault(name, types.ModuleType(name))
    return require("torchvision.transforms.v2", "torchvision")


@pytest.fixture
def timm(v2):
    return require("timm.data.mixup", "timm")


def test_timm_has_its_own_defaults_and_what_they_are_known_for_is_said():
    with pytest.warns(UnderfittingWarning, match=r"alpha=1\.0 beside label_smoothing=0\.1"):
        mixup = TimmMixup().mixup

    assert (mixup.alpha, mixup.label_smoothing, mixup.num_classes) == (1.0, 0.1, 1000)
    assert (mixup.pairing, mixup.mode) == ("flip", "batch")


@pytest.mark.filterwarnings("ignore::dali_mixup.advice.UnderfittingWarning")
@pytest.mark.parametrize("mode", ["batch", "elem", "pair"])
def test_timms_own_mixup_gives_the_same_for_the_same_draw(timm, mode):
    images, labels = batch()
    ours = TimmMixup(num_classes=5, mode=mode)
    plan = ours.mixup.plan(8)
    theirs = timm.Mixup(mixup_alpha=1.0, num_classes=5, mode=mode)
    drawn = plan.lam.astype(np.float32)
    with (
        mock.patch.object(theirs, "_params_per_batch", return_value=(float(drawn[0]), False)),
        mock.patch.object(
            theirs,
            "_params_per_elem",
            side_effect=lambda count: (drawn[:count].copy(), np.zeros(count, bool)),
        ),
    ):
        want_images, want_targets = theirs(images.clone(), labels)

    mixed, targets = ours(images, labels)

    torch.testing.assert_close(mixed, want_images, **ROUNDING)
    torch.testing.assert_close(targets, want_targets.to(targets.dtype), **ROUNDING)


def test_timms_own_cutmix_gives_the_same_for_the_same_draw(timm):
    images, labels = batch()
    ours = TimmMixup(mixup_alpha=0.0, cutmix_alpha=1.0, num_classes=5)
    plan = ours.mixup.plan(8, (16, 24))
    box, lam = tuple(plan.box[0].tolist()), float(plan.lam[0])
    theirs = timm.Mixup(mixup_alpha=0.0, cutmix_alpha=1.0, num_classes=5)
    with mock.patch.object(timm, "cutmix_bbox_and_lam", return_value=(box, lam)):
        want_images, want_targets = theirs(images.clone(), labels)

    mixed, targets = ours(images, labels)

    assert torch.equal(mixed, want_images)
    torch.testing.assert_close(targets, want_targets, **ROUNDING)


def test_torchvisions_own_mixup_gives_the_same_for_the_same_draw(v2):
    images, labels = batch()
    ours = TorchvisionMixUp(alpha=1.0, num_classes=5)
    lam = float(ours.mixup.plan(8).lam[0])
    theirs = v2.MixUp(alpha=1.0, num_classes=5)
    with mock.patch.object(
        theirs, "make_params", return_value={"labels": labels, "batch_size": 8, "lam": lam}
    ):
        want_images, want_targets = theirs(images, labels)

    mixed, targets = ours(images, labels)

    torch.testing.assert_close(mixed, want_images, **ROUNDING)
    torch.testing.assert_close(targets, want_targets, **ROUNDING)


def test_torchvisions_own_cutmix_gives_the_same_for_the_same_draw(v2):
    images, labels = batch()
    ours = TorchvisionCutMix(alpha=1.0, num_classes=5)
    plan = ours.mixup.plan(8, (16, 24))
    y0, y1, x0, x1 = plan.box[0].tolist()
    params = {
        "labels": labels,
        "batch_size": 8,
        "box": (x0, y0, x1, y1),
        "lam_adjusted": float(plan.lam[0]),
    }
    theirs = v2.CutMix(alpha=1.0, num_classes=5)
    with mock.patch.object(theirs, "make_params", return_value=params):
        want_images, want_targets = theirs(images, labels)

    mixed, targets = ours(images, labels)

    assert torch.equal(mixed, want_images)
    torch.testing.assert_close(targets, want_targets, **ROUNDING)


def test_nvidias_wrapper_mixes_one_hot_labels():
    images, labels = batch()
    one_hot = torch.nn.functional.one_hot(labels, 5).float()
    loader = MixUpWrapper(0.2, [(images, one_hot)], num_classes=5)
    plan: MixPlan = loader.mixer.mixup.plan(8)

    ((mixed, targets),) = list(loader)

    lam = torch.from_numpy(plan.lam.copy())[:, None]
    partner = torch.from_numpy(plan.partner.astype(np.int64))
    want = lam * one_hot + (1 - lam) * one_hot[partner]
    torch.testing.assert_close(targets, want, **ROUNDING)
    assert mixed.shape == images.shape


def test_timms_switch_is_ours():
    mixup = TimmMixup(mixup_alpha=0.2, num_classes=5)

    mixup.mixup_enabled = False

    images, labels = batch()
    assert not mixup.mixup_enabled
    assert torch.equal(mixup(images, labels)[0], images)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: TimmMixup(cutmix_minmax=(0.2, 0.8)), r"cutmix_minmax: expected None, got \(0.2"),
        (lambda: TimmMixup(correct_lam=False), "correct_lam: expected True, got False"),
        (lambda: TorchvisionMixUp(), "num_classes: expected an int, got None"),
        (
            lambda: TorchvisionCutMix(num_classes=5, labels_getter=None),
            "labels_getter: expected 'default', got None",
        ),
    ],
)
def test_what_cannot_be_honoured_raises(make, message):
    with pytest.raises(ValueError, match=message):
        make()
