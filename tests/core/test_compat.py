"""Other libraries' signatures, beside their real code where it is installed."""

import pickle
from collections import Counter, OrderedDict, namedtuple
from contextlib import ExitStack
from unittest import mock

import numpy as np
import pytest
from support.requirements import require

torch = require("torch")

from torch.utils.data import DataLoader, default_collate  # noqa: E402

from dali_mixup import Mixup, MixupLoader  # noqa: E402
from dali_mixup.compat import (  # noqa: E402
    FastCollateMixup,
    MixUpWrapper,
    TimmMixup,
    TorchvisionCutMix,
    TorchvisionMixUp,
)

ROUNDING = {"rtol": 2**-22, "atol": 2**-22}
TORCHVISION = pytest.mark.parametrize("make", [TorchvisionCutMix, TorchvisionMixUp])


def batch(size=8, dtype=torch.float32):
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(size, 3, 16, 24, generator=generator)
    if dtype == torch.uint8:
        images = (images * 256).to(torch.uint8)
    return images, torch.arange(size) % 5


def one_hot(labels, num_classes=5):
    return torch.nn.functional.one_hot(labels, num_classes).float()


def sides(plan):
    y0, y1, x0, x1 = plan.box.T
    return y1 - y0, x1 - x0


def cut_share(plan):
    height, width = sides(plan)
    return height * width / (16 * 24)


@pytest.fixture
def v2():
    require("dali_mixup.cli.peers", "torch")  # torchvision then loads beside a CPU build of torch
    return require("torchvision.transforms.v2", "torchvision")


@pytest.fixture
def tv_tensors(v2):
    return require("torchvision.tv_tensors", "torchvision")


@pytest.fixture
def timm(v2):
    return require("timm.data.mixup", "timm")


@pytest.fixture
def plans(monkeypatch):
    """The plans that calls draw, in order."""
    drawn = []
    draw = Mixup.plan_at

    def keep(*args, **options):
        drawn.append(draw(*args, **options))
        return drawn[-1]

    monkeypatch.setattr(Mixup, "plan_at", keep)
    return drawn


def drawing(timm, theirs, plan):
    """A context in which timm draws this plan."""
    draws = {"batch": 1, "elem": len(plan), "pair": len(plan) // 2}[theirs.mode]
    lam = plan.lam[:draws]
    box = np.zeros((draws, 4), int) if plan.box is None else plan.box[:draws]
    cut = (box[:, 1] > box[:, 0]) & (box[:, 3] > box[:, 2])
    boxes = [(tuple(b), float(share)) for b, share in zip(box[cut], lam[cut], strict=True)]
    context = ExitStack()
    for name, value in {
        "_params_per_batch": lambda: (float(lam[0]), bool(cut[0])),
        "_params_per_elem": lambda count: (lam[:count].copy(), cut[:count]),
    }.items():
        context.enter_context(mock.patch.object(theirs, name, value))
    context.enter_context(mock.patch.object(timm, "cutmix_bbox_and_lam", side_effect=boxes))
    return context


MIXUP = {"mixup_alpha": 1.0}
CUTMIX = {"mixup_alpha": 0.0, "cutmix_alpha": 1.0}
TIMM_DRAWS = pytest.mark.parametrize(
    "draws",
    [
        MIXUP,
        CUTMIX,
        {**MIXUP, **CUTMIX, "mixup_alpha": 1.0, "prob": 0.7},
        {**CUTMIX, "correct_lam": False},
        {"mixup_alpha": 0.4, "cutmix_minmax": (0.2, 0.8)},
    ],
    ids=["mixup", "cutmix", "both", "lam not corrected", "minmax"],
)
MODES = pytest.mark.parametrize("mode", ["batch", "elem", "pair"])


@TIMM_DRAWS
@MODES
def test_timms_own_mixup_gives_the_same_for_the_same_draw(timm, plans, mode, draws):
    images, labels = batch()
    settings = {"num_classes": 5, "mode": mode, **draws}
    mixed, targets = TimmMixup(seed=3, **settings)(images, labels)
    theirs = timm.Mixup(**settings)

    with drawing(timm, theirs, plans[0]):
        want_images, want_targets = theirs(images.clone(), labels)

    torch.testing.assert_close(mixed, want_images, **ROUNDING)
    torch.testing.assert_close(targets, want_targets, **ROUNDING)
    assert not torch.equal(mixed, images)


@TIMM_DRAWS
@MODES
def test_timms_own_collate_function_gives_the_same_for_the_same_draw(timm, plans, mode, draws):
    images, labels = batch(dtype=torch.uint8)
    settings = {"num_classes": 5, "mode": mode, **draws}
    samples = list(zip(images.numpy(), labels.tolist(), strict=True))
    mixed, targets = FastCollateMixup(seed=3, **settings)(samples)
    theirs = timm.FastCollateMixup(**settings)

    with drawing(timm, theirs, plans[0]):
        want_images, want_targets = theirs([(image.copy(), y) for image, y in samples])

    assert mixed.dtype == torch.uint8
    assert torch.equal(mixed, want_images)
    torch.testing.assert_close(targets, want_targets, **ROUNDING)
    assert not torch.equal(mixed, images)


TIMM_SETTINGS = pytest.mark.parametrize(
    ("argument", "attribute", "value"),
    [
        ("mixup_alpha", "mixup_alpha", 0.3),
        ("cutmix_alpha", "cutmix_alpha", 0.7),
        ("cutmix_minmax", "cutmix_minmax", (0.2, 0.8)),
        ("prob", "mix_prob", 0.6),
        ("switch_prob", "switch_prob", 0.2),
        ("mode", "mode", "elem"),
        ("correct_lam", "correct_lam", False),
        ("label_smoothing", "label_smoothing", 0.2),
        ("num_classes", "num_classes", 7),
    ],
)


@TIMM_SETTINGS
def test_a_default_is_timms(timm, argument, attribute, value):
    assert getattr(TimmMixup(), attribute) == getattr(timm.Mixup(), attribute)


@TIMM_SETTINGS
def test_an_argument_is_read_under_timms_name(timm, argument, attribute, value):
    mixup = TimmMixup(**{argument: value})

    assert getattr(mixup, attribute) == value
    assert getattr(timm.Mixup(**{argument: value}), attribute) == value


@TIMM_SETTINGS
def test_an_assigned_setting_equals_one_that_is_passed(argument, attribute, value):
    mixup = TimmMixup(cutmix_alpha=1.0)

    setattr(mixup, attribute, value)

    assert mixup.mixup == TimmMixup(**{"cutmix_alpha": 1.0, argument: value}).mixup


@pytest.mark.parametrize(
    "draws",
    [
        {"mixup_alpha": 0.05},
        {"mixup_alpha": 0.05, "cutmix_minmax": (0.5, 0.5), "switch_prob": 0.0},
        {"cutmix_alpha": 0.05},
        {"cutmix_alpha": 0.05, "correct_lam": False},
    ],
    ids=str,
)
def test_a_small_alpha_leaves_many_samples_almost_as_they_are(draws):
    settings = {"mixup_alpha": 0.0, "mode": "elem", **draws}

    lam = TimmMixup(**settings).mixup.plan(2000, (512, 512)).lam

    assert np.mean(lam > 0.95) > 0.4


@pytest.mark.parametrize(
    "draws", [{}, {"correct_lam": False}, {"cutmix_minmax": (0.2, 0.8)}], ids=str
)
def test_prob_and_switch_prob_decide_what_is_mixed_and_how(draws):
    settings = {"cutmix_alpha": 1.0, "prob": 0.8, "switch_prob": 0.25, "mode": "elem", **draws}

    plan = TimmMixup(**settings).mixup.plan(4000, (512, 512))

    cut = sides(plan)[0] > 0
    assert np.mean(cut) == pytest.approx(0.8 * 0.25, abs=0.02)
    assert np.mean(~cut & (plan.lam < 1)) == pytest.approx(0.8 * 0.75, abs=0.02)


SPECIAL_BOXES = pytest.mark.parametrize(
    "draws", [{"correct_lam": False}, {"cutmix_minmax": (0.2, 0.8)}], ids=str
)


@SPECIAL_BOXES
def test_mode_batch_draws_one_lam_and_box(draws):
    plan = TimmMixup(**CUTMIX, **draws).mixup.plan(9, (16, 24))

    assert len(np.unique(np.column_stack([plan.lam, plan.box]), axis=0)) == 1
    assert plan.partner.tolist() == [8, 7, 6, 5, 4, 3, 2, 1, 0]


@SPECIAL_BOXES
def test_mode_elem_draws_a_lam_and_box_per_sample(draws):
    plan = TimmMixup(mode="elem", **CUTMIX, **draws).mixup.plan(9, (512, 512))

    assert len(np.unique(plan.lam)) == len(np.unique(plan.box, axis=0)) == 9


@SPECIAL_BOXES
def test_mode_pair_draws_a_lam_and_box_per_pair(draws):
    plan = TimmMixup(mode="pair", **CUTMIX, **draws).mixup.plan(9, (512, 512))

    assert len(np.unique(plan.lam)) == len(np.unique(plan.box, axis=0)) == 5
    assert np.array_equal(plan.lam, plan.lam[::-1])
    assert np.array_equal(plan.box, plan.box[::-1])


def test_minmax_draws_every_side_from_the_least_to_the_greatest():
    mixup = TimmMixup(0.0, cutmix_minmax=(0.25, 0.75), mode="elem").mixup

    height, width = sides(mixup.plan(4000, (16, 24)))

    assert set(height.tolist()) == set(range(4, 13))
    assert set(width.tolist()) == set(range(6, 19))
    assert max(Counter(height.tolist()).values()) < 1.3 * 4000 / 9


def test_minmax_draws_every_origin_the_bottom_and_right_edge_included():
    mixup = TimmMixup(0.0, cutmix_minmax=(0.5, 0.5), mode="elem").mixup

    y0, y1, x0, x1 = mixup.plan(4000, (16, 24)).box.T

    assert set(y0.tolist()) == set(range(9))
    assert set(x0.tolist()) == set(range(13))
    assert (y1.max(), x1.max()) == (16, 24)


def test_minmax_counts_the_pixels_even_where_lam_is_not_corrected():
    mixup = TimmMixup(0.0, cutmix_minmax=(0.2, 0.8), correct_lam=False, mode="elem").mixup

    plan = mixup.plan(100, (16, 24))

    np.testing.assert_allclose(plan.lam, 1 - cut_share(plan), rtol=1e-6)


def test_a_lam_that_is_not_corrected_stays_as_drawn_where_the_edge_clips_the_box():
    plan = TimmMixup(**CUTMIX, correct_lam=False, mode="elem").mixup.plan(4000, (512, 512))

    height, width = sides(plan)
    visible = height * width / 512**2
    assert np.all(visible <= 1 - plan.lam + 1e-6)
    assert np.mean(visible < 0.9 * (1 - plan.lam)) > 0.5
    assert np.mean(plan.lam) == pytest.approx(0.5, abs=0.02)


def test_a_box_without_pixels_leaves_image_and_label():
    plan = TimmMixup(**CUTMIX, correct_lam=False, mode="elem").mixup.plan(200, (4, 4))

    empty = cut_share(plan) == 0
    assert empty.any()
    assert np.all(plan.lam[empty] == 1)


def test_timms_switch_is_ours():
    mixup = TimmMixup(num_classes=5)

    mixup.mixup_enabled = False

    images, labels = batch()
    assert not mixup.mixup_enabled
    assert torch.equal(mixup(images, labels)[0], images)


def test_an_assigned_setting_does_not_switch_mixing_on_again():
    mixup = TimmMixup()
    mixup.mixup_enabled = False

    mixup.mixup_alpha = 0.2

    assert not mixup.mixup_enabled


def test_no_draw_comes_twice_where_settings_are_assigned_between_calls(plans):
    mixup = TimmMixup(num_classes=5)
    mixup(*batch())

    mixup.label_smoothing = 0.0
    mixup(*batch())

    assert plans[0].lam[0] != plans[1].lam[0]


def test_a_timm_mixup_continues_from_a_state(plans):
    mixup = TimmMixup(num_classes=5, cutmix_minmax=(0.2, 0.8))
    mixup(*batch())
    resumed = TimmMixup(num_classes=5, cutmix_minmax=[0.2, 0.8])
    resumed.mixup.load_state_dict(mixup.mixup.state_dict())

    mixup(*batch())
    resumed(*batch())

    assert np.array_equal(plans[1].lam, plans[2].lam)
    assert not np.array_equal(plans[0].lam, plans[1].lam)


def test_a_timm_mixup_draws_minmax_boxes_in_a_loader(plans):
    mixup = TimmMixup(0.0, cutmix_minmax=(0.5, 0.5), num_classes=5).mixup

    list(MixupLoader([batch()], mixup))

    assert cut_share(plans[0])[0] == 0.25


@pytest.mark.parametrize("rank", [0, 1])
def test_minmax_boxes_are_keyed_by_the_rank(monkeypatch, rank):
    monkeypatch.setenv("RANK", str(rank))
    settings = {"mixup_alpha": 0.0, "cutmix_minmax": (0.1, 0.9), "mode": "elem"}

    plan = TimmMixup(**settings).mixup.plan(8, (512, 512))

    want = TimmMixup(rank=rank, **settings).mixup.plan(8, (512, 512))
    other = TimmMixup(rank=1 - rank, **settings).mixup.plan(8, (512, 512))
    assert np.array_equal(plan.box, want.box)
    assert not np.array_equal(plan.box, other.box)


class Samples:
    """uint8 images and class ids, as timm's datasets hand them out."""

    def __len__(self):
        return 32

    def __getitem__(self, index):
        return np.full((3, 8, 8), index, np.uint8), index % 2


def first_shares(loader):
    """A number of each batch that differs where lam does."""
    return [float(targets[0, 0]) for _, targets in loader]


def collate_with_timm_mixup(samples):
    return MIXUP_OF_WORKERS(*default_collate(samples))


MIXUP_OF_WORKERS = TimmMixup(num_classes=2, label_smoothing=0.0)


@pytest.mark.parametrize(
    "collate",
    [FastCollateMixup(num_classes=2, label_smoothing=0.0), collate_with_timm_mixup],
    ids=["FastCollateMixup", "TimmMixup"],
)
def test_no_draw_comes_twice_in_workers_and_epochs(collate):
    torch.manual_seed(0)
    loader = DataLoader(Samples(), 4, num_workers=2, collate_fn=collate)

    shares = first_shares(loader) + first_shares(loader)

    assert len(set(shares)) == len(shares) == 16


def test_torchs_seed_repeats_the_draws_of_workers():
    loader = DataLoader(Samples(), 4, num_workers=2, collate_fn=FastCollateMixup(num_classes=2))
    torch.manual_seed(0)
    first = first_shares(loader)
    torch.manual_seed(0)

    again = first_shares(loader)

    assert first == again


def test_fast_collate_takes_an_odd_batch_and_leaves_the_samples():
    samples = [Samples()[index] for index in range(5)]

    mixed, targets = FastCollateMixup(mode="pair", cutmix_alpha=1.0, num_classes=2)(samples)

    assert (mixed.shape, mixed.dtype) == ((5, 3, 8, 8), torch.uint8)
    assert (targets.shape, targets.dtype) == ((5, 2), torch.float32)
    assert torch.equal(mixed[2], torch.full((3, 8, 8), 2, dtype=torch.uint8))
    assert [int(image.max()) for image, _ in samples] == [0, 1, 2, 3, 4]


def test_fast_collate_ignores_what_follows_the_label():
    samples = [(*Samples()[index], "path") for index in range(4)]

    mixed, _ = FastCollateMixup(num_classes=2)(samples)

    assert mixed.shape == (4, 3, 8, 8)


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"cutmix_minmax": 0.5}, TypeError, r"cutmix_minmax: expected a pair of numbers, got 0\.5"),
        ({"cutmix_minmax": (0.2,)}, TypeError, r"expected a pair of numbers, got \(0\.2,\)"),
        ({"cutmix_minmax": (0.2, 2)}, ValueError, r"cutmix_minmax: .* in \[0, 1\], got 2"),
        (
            {"cutmix_minmax": (0.8, 0.2)},
            ValueError,
            r"smaller number first, got \(0\.8, 0\.2\)",
        ),
        ({"mode": "half"}, ValueError, "mode: expected one of 'batch', .* got 'half'"),
    ],
)
def test_what_timm_cannot_mean_raises(settings, error, message):
    with pytest.raises(error, match=message):
        FastCollateMixup(**settings)


def test_torchvisions_own_mixup_gives_the_same_for_the_same_draw(v2, plans):
    images, labels = batch()
    mixed, targets = TorchvisionMixUp(alpha=1.0, num_classes=5)(images, labels)
    params = {"labels": labels, "batch_size": 8, "lam": float(plans[0].lam[0])}
    theirs = v2.MixUp(alpha=1.0, num_classes=5)

    with mock.patch.object(theirs, "make_params", return_value=params):
        want_images, want_targets = theirs(images, labels)

    torch.testing.assert_close(mixed, want_images, **ROUNDING)
    torch.testing.assert_close(targets, want_targets, **ROUNDING)


def test_torchvisions_own_cutmix_gives_the_same_for_the_same_draw(v2, plans):
    images, labels = batch()
    torch.manual_seed(0)
    mixed, targets = TorchvisionCutMix(alpha=1.0, num_classes=5)(images, labels)
    y0, y1, x0, x1 = plans[0].box[0].tolist()
    share = {"box": (x0, y0, x1, y1), "lam_adjusted": float(plans[0].lam[0])}
    theirs = v2.CutMix(alpha=1.0, num_classes=5)

    with mock.patch.object(theirs, "make_params", return_value={"labels": labels, **share}):
        theirs._check_image_or_video = mock.Mock()
        want_images, want_targets = theirs(images, labels)

    assert torch.equal(mixed, want_images)
    torch.testing.assert_close(targets, want_targets, **ROUNDING)


@pytest.mark.parametrize(
    ("make", "setting"), [(TorchvisionMixUp, "alpha"), (TorchvisionCutMix, "cutmix_alpha")]
)
def test_torchvisions_alpha_is_handed_on(make, setting):
    mixup = make(alpha=0.3, num_classes=5).mixup

    assert {"alpha": mixup.alpha, "cutmix_alpha": mixup.cutmix_alpha} == {
        "alpha": 0.0,
        "cutmix_alpha": 0.0,
        setting: 0.3,
    }


@TORCHVISION
def test_torchvisions_default_alpha_is_1(v2, make):
    assert make(num_classes=5).alpha == v2.MixUp(num_classes=5).alpha == 1.0


class Photos:
    """32 images with labels that all differ, so that a mixed label has two classes."""

    def __init__(self, dense):
        self.dense = dense

    def __len__(self):
        return 32

    def __getitem__(self, index):
        label = torch.tensor(index)
        return torch.rand(3, 100, 100), one_hot(label, 100).long() if self.dense else label


DENSE = pytest.mark.parametrize("dense", [False, True], ids=["class ids", "one-hot"])


def require_mixed(images, targets):
    assert images.shape == (32, 3, 100, 100)
    assert targets.shape == (32, 100)
    torch.testing.assert_close(targets.sum(1), torch.ones(32))
    assert torch.equal((targets != 0).sum(1), torch.full((32,), 2))


@TORCHVISION
@DENSE
def test_two_arguments_are_images_and_labels(make, dense):
    torch.manual_seed(1)
    mixup = make(num_classes=None if dense else 100)
    images, labels = next(iter(DataLoader(Photos(dense), 32)))

    mixed, targets = mixup(images, labels)

    require_mixed(mixed, targets)


@TORCHVISION
@DENSE
def test_a_loaders_list_comes_back_as_a_list(make, dense):
    torch.manual_seed(1)
    mixup = make(num_classes=None if dense else 100)

    mixed = mixup(next(iter(DataLoader(Photos(dense), 32))))

    assert isinstance(mixed, list)
    require_mixed(*mixed)


@TORCHVISION
@DENSE
@pytest.mark.parametrize("unpacked", [False, True], ids=["packed", "unpacked"])
def test_it_mixes_behind_the_collate_function(make, dense, unpacked):
    torch.manual_seed(1)
    mixup = make(num_classes=None if dense else 100)

    def collate(samples):
        return mixup(*default_collate(samples)) if unpacked else mixup(default_collate(samples))

    mixed = next(iter(DataLoader(Photos(dense), 32, collate_fn=collate)))

    require_mixed(*mixed)


Pair = namedtuple("Pair", ["images", "labels"])


@TORCHVISION
@pytest.mark.parametrize(
    "pack",
    [
        lambda x, y: (x, y),
        lambda x, y: [x, y],
        Pair,
        lambda x, y: {"image": x, "labels": y},
        lambda x, y: OrderedDict(labels=y, image=x),
        lambda x, y: {"label_names": None, "image": [x], "LABELS": y},
        lambda x, y: (x, {"boxes": 3, "my_Label": y}),
        lambda x, y: [{"x": (x,)}, y, "path"],
    ],
    ids=["tuple", "list", "namedtuple", "dict", "labels first", "nested", "dict second", "three"],
)
def test_a_sample_comes_back_in_its_containers(make, pack):
    images, labels = batch()
    mixup = make(num_classes=5)
    torch.manual_seed(0)
    want_images, want_targets = mixup(images, labels)
    torch.manual_seed(0)

    mixed = mixup(pack(images, labels))

    want = pack(want_images, want_targets)
    assert type(mixed) is type(want)
    assert repr(mixed) == repr(want)


@TORCHVISION
def test_other_items_are_passed_through_untouched(make):
    images, labels = batch()
    other, array, marker = torch.rand(8, 4), np.zeros(3), object()

    _, _, *rest = make(num_classes=5)([images, labels, other, array, marker])

    assert rest[0] is other
    assert rest[1] is array
    assert rest[2] is marker


@TORCHVISION
def test_torchvisions_image_tensors_are_mixed_alike_and_keep_their_type(make, tv_tensors):
    images, labels = batch()
    mixup = make(num_classes=5)
    torch.manual_seed(0)
    want, _ = mixup(images, labels)
    sample = {"a": tv_tensors.Image(images), "b": tv_tensors.Image(images), "labels": labels}
    torch.manual_seed(0)

    first, second, _ = mixup(sample).values()

    assert type(first) is type(second) is tv_tensors.Image
    assert torch.equal(first, want)
    assert torch.equal(second, want)


@TORCHVISION
def test_beside_torchvisions_image_tensors_others_are_passed_through(make, tv_tensors):
    images, labels = batch()
    sample = {"plain": images, "image": tv_tensors.Image(images), "labels": labels}

    mixed = make(num_classes=5, mode="elem")(sample)

    assert mixed["plain"] is images
    assert not torch.equal(mixed["image"], images)


@TORCHVISION
def test_a_labels_getter_finds_the_labels(make):
    images, labels = batch()
    mixup = make(num_classes=5, labels_getter=lambda sample: sample[0]["y"])

    mixed = mixup([{"y": labels}, images])

    assert mixed[0]["y"].shape == (8, 5)
    assert mixed[1].shape == images.shape


@TORCHVISION
def test_torchs_seed_repeats_a_draw(make, plans):
    mixup = make(num_classes=5)
    torch.manual_seed(7)
    mixup(*batch())
    torch.manual_seed(7)

    mixup(*batch())

    assert np.array_equal(plans[0].lam, plans[1].lam)


@TORCHVISION
def test_a_draw_differs_from_the_one_before_and_from_another_seeds(make, plans):
    mixup = make(num_classes=5, mode="elem")
    torch.manual_seed(7)
    mixup(*batch())
    mixup(*batch())
    torch.manual_seed(8)

    mixup(*batch())

    assert len({plan.lam.tobytes() for plan in plans}) == 3


def collate_as_torchvision(samples):
    return MIXUP_OF_TORCHVISION(*default_collate(samples))


MIXUP_OF_TORCHVISION = TorchvisionMixUp(num_classes=2)


def test_no_torchvision_draw_comes_twice_in_workers_and_epochs():
    torch.manual_seed(0)
    loader = DataLoader(Samples(), 4, num_workers=2, collate_fn=collate_as_torchvision)

    shares = first_shares(loader) + first_shares(loader)

    assert len(set(shares)) == len(shares) == 16


@TORCHVISION
def test_it_is_a_module_of_a_sequence_and_can_be_pickled(make):
    module = torch.nn.Sequential(make(num_classes=5))

    copy = pickle.loads(pickle.dumps(module))

    mixed, targets = copy(batch())
    assert mixed.shape == (8, 3, 16, 24)
    assert targets.shape == (8, 5)


@TORCHVISION
def test_its_repr_shows_alpha_and_num_classes(make):
    assert repr(make(alpha=0.5, num_classes=5)) == f"{make.__name__}(alpha=0.5, num_classes=5)"


def unsupported(tv_tensors):
    image = require("PIL.Image", "torchvision").new("RGB", (12, 12))
    return {
        "PIL": image,
        "mask": tv_tensors.Mask(torch.rand(12, 12)),
        "boxes": tv_tensors.BoundingBoxes(torch.rand(2, 4), format="XYXY", canvas_size=(12, 12)),
        "keypoints": tv_tensors.KeyPoints(torch.rand(2, 2), canvas_size=(12, 12)),
        "video": tv_tensors.Video(torch.rand(8, 2, 3, 12, 12)),
    }


@TORCHVISION
@pytest.mark.parametrize("kind", ["PIL", "mask", "boxes", "keypoints", "video"])
def test_what_torchvision_cannot_mix_raises(make, tv_tensors, kind):
    with pytest.raises(ValueError, match=r"does not support PIL images, .* expected .* got \w+;"):
        make(num_classes=5)(unsupported(tv_tensors)[kind], torch.arange(8))


IMAGES, LABELS = batch()


@TORCHVISION
@pytest.mark.parametrize(
    ("settings", "sample", "words", "got"),
    [
        ({}, ({"x": IMAGES, "n": 3},), "Could not infer where the labels are", r"\['x', 'n'\]"),
        ({}, (IMAGES,), "labels should be index based", r"tensor of shape \(8, 3, 16, 24\)"),
        ({}, (IMAGES, torch.zeros(2, 3, 4)), "but got a tensor of shape", r"\(2, 3, 4\)"),
        ({}, (IMAGES, "text"), "When using the default labels_getter", "expected .* got str"),
        ({}, (IMAGES, {"labels": [1]}), "The labels must be a tensor", "'default', got list"),
        ({"labels_getter": None}, (IMAGES, LABELS), "must be a tensor", "=None, got NoneType"),
        ({}, (IMAGES[None, None], LABELS), "Expected a batched input with 4 dims", "got 6 in"),
        (
            {},
            (IMAGES, torch.arange(9) % 5),
            "does not match the batch size of the labels",
            "expected 9, got 8",
        ),
        ({}, (IMAGES, torch.zeros(8, 6)), "When passing 2D labels", "expected 5 .* got 6; "),
        ({"num_classes": None}, (IMAGES, LABELS), "num_classes must be passed", "got None"),
    ],
)
def test_an_input_that_torchvision_refuses_is_refused_in_the_same_words(
    v2, make, settings, sample, words, got
):
    settings = {"num_classes": 5, **settings}
    theirs = {TorchvisionMixUp: v2.MixUp, TorchvisionCutMix: v2.CutMix}[make](**settings)

    with pytest.raises(ValueError, match=words):
        theirs(*sample)

    with pytest.raises(ValueError, match=f"{words}.*{got}"):
        make(**settings)(*sample)


@TORCHVISION
@pytest.mark.parametrize(
    ("settings", "sample", "message"),
    [
        ({}, ([IMAGES],), "When using the default labels_getter, expected .* got NoneType"),
        ({}, ("path", LABELS), r"images: expected a tensor \(B, C, H, W\) .* got \['str', 'Tensor"),
        (
            {"labels_getter": lambda _: LABELS.clone()},
            (IMAGES, LABELS),
            "labels_getter: expected a tensor of the sample, got another one",
        ),
    ],
)
def test_an_input_that_torchvision_stumbles_over_is_refused(make, settings, sample, message):
    with pytest.raises(ValueError, match=message):
        make(num_classes=5, **settings)(*sample)


def test_cutmix_refuses_images_of_different_sizes(tv_tensors):
    images = [tv_tensors.Image(torch.rand(8, 3, 16, side)) for side in (24, 32)]

    with pytest.raises(ValueError, match=r"one height and width .* got \[\(16, 24\), \(16, 32\)\]"):
        TorchvisionCutMix(num_classes=5)(images, LABELS)


@TORCHVISION
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"labels_getter": 12}, "labels_getter: expected 'default', a callable or None, got 12"),
        ({"alpha": 0.0}, r"alpha: expected a value in \(0, inf\), got 0\.0"),
    ],
)
def test_a_setting_that_torchvision_refuses_is_refused(make, settings, message):
    with pytest.raises(ValueError, match=message):
        make(num_classes=5, **settings)


@pytest.mark.parametrize("num_classes", [None, 5])
def test_nvidias_wrapper_mixes_one_hot_labels(plans, num_classes):
    images, labels = batch()
    loader = MixUpWrapper(0.2, [(images, one_hot(labels))], num_classes)

    ((mixed, targets),) = list(loader)

    (plan,) = plans
    lam = torch.from_numpy(plan.lam.copy())[:, None]
    partner = torch.from_numpy(plan.partner.astype(np.int64))
    want = lam * one_hot(labels) + (1 - lam) * one_hot(labels)[partner]
    torch.testing.assert_close(targets, want, **ROUNDING)
    assert mixed.shape == images.shape


@pytest.mark.parametrize("num_classes", [None, 5])
def test_nvidias_attributes_are_those_that_were_passed(num_classes):
    batches = [batch()]

    loader = MixUpWrapper(0.3, batches, num_classes)

    assert loader.alpha == 0.3
    assert loader.dataloader is batches


def test_nvidias_wrapper_takes_class_ids_with_their_number():
    ((_, targets),) = list(MixUpWrapper(0.2, [batch()], 7))

    assert targets.shape == (8, 7)


def test_nvidias_wrapper_refuses_class_ids_without_their_number():
    loader = MixUpWrapper(0.2, [batch()])

    with pytest.raises(ValueError, match="num_classes"):
        next(iter(loader))


def test_torchvisions_number_of_classes_can_be_assigned(v2):
    from dali_mixup.compat import TorchvisionMixUp

    mixup = TorchvisionMixUp(num_classes=10)
    mixup.num_classes = 20

    _, targets = mixup(torch.rand(4, 3, 8, 8), torch.arange(4))

    assert targets.shape == (4, 20)
    assert "num_classes=20" in repr(mixup)
