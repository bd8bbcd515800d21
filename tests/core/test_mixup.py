"""Mixup: its settings, and a batch mixed by calling it."""

import copy
import dataclasses
import importlib
import multiprocessing
import pickle

import numpy as np
import pytest

from dali_mixup import MixPlan, Mixup, OutputFormat
from dali_mixup.backends import reference
from dali_mixup.backends.memory import Recycler
from dali_mixup.plan import unmixed

IMAGES = np.random.default_rng(0).integers(0, 256, (6, 8, 9, 3), dtype=np.uint8)
LABELS = np.arange(6)


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"num_classes": 0}, ValueError, "num_classes: expected at least 1, got 0"),
        ({"num_classes": 10.0}, TypeError, "num_classes: expected an int, got 10.0"),
        ({"alpha": -0.1}, ValueError, r"alpha: expected a value in \[0, inf\), got -0.1"),
        ({"alpha": float("nan")}, ValueError, "alpha: expected a value in"),
        ({"alpha": float("inf")}, ValueError, "alpha: expected a value in"),
        ({"alpha": "0.2"}, TypeError, "alpha: expected a number, got '0.2'"),
        ({"cutmix_alpha": -1}, ValueError, "cutmix_alpha: expected a value in"),
        ({"switch_prob": 1.1}, ValueError, r"switch_prob: expected a value in \[0, 1\], got 1.1"),
        ({"prob": -0.1}, ValueError, r"prob: expected a value in \[0, 1\], got -0.1"),
        ({"prob": True}, TypeError, "prob: expected a number, got True"),
        ({"label_smoothing": 1.0}, ValueError, r"label_smoothing: .*\[0, 1\), got 1.0"),
        ({"mode": "half"}, ValueError, "mode: expected one of 'batch', 'elem', 'pair', got 'half'"),
        ({"pairing": "swap"}, ValueError, "pairing: expected one of 'permutation', .*got 'swap'"),
        ({"targets": "hard"}, ValueError, "targets: expected one of 'soft', 'pairs', got 'hard'"),
        ({"backend": "torch"}, ValueError, "backend: expected one of 'auto', .*got 'torch'"),
        ({"layout": "NHWC"}, ValueError, "layout: expected one of 'HWC', 'CHW', 'HW', "),
        ({"output": "float32"}, TypeError, "output: expected an OutputFormat or None"),
        ({"seed": -1}, ValueError, "seed: expected at least 0, got -1"),
        ({"rank": -1}, ValueError, "rank: expected at least 0, got -1"),
        ({"mode": "pair", "pairing": "roll"}, ValueError, "pairing: expected 'permutation'"),
        (
            {"targets": "pairs", "label_smoothing": 0.1},
            ValueError,
            "label_smoothing: expected 0 beside targets='pairs', got 0.1; give it to the loss",
        ),
        ({"mixup_alpha": 0.2}, TypeError, "unexpected keyword argument 'mixup_alpha'"),
    ],
)
def test_bad_settings_are_refused(settings, error, message):
    with pytest.raises(error, match=message):
        Mixup(**{"num_classes": 10, **settings})


def test_settings_are_keyword_only():
    with pytest.raises(TypeError, match="positional"):
        Mixup(10)


def test_a_setting_is_fixed_but_enabled_is_not():
    mixup = Mixup(num_classes=10)

    mixup.enabled = False

    with pytest.raises(AttributeError, match=r"alpha: a setting is fixed.*replace\(mixup, alpha=1"):
        mixup.alpha = 1


def test_replace_makes_one_with_another_setting():
    assert dataclasses.replace(Mixup(num_classes=10, seed=3), alpha=1.0) == Mixup(
        num_classes=10, alpha=1.0, seed=3
    )


@pytest.mark.parametrize(
    "copied", [copy.copy, copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))]
)
def test_a_copy_goes_on_where_the_original_stands(copied):
    mixup = Mixup(num_classes=6, alpha=1.0)
    mixup(IMAGES, LABELS)

    again = copied(mixup)

    assert again == mixup
    np.testing.assert_equal(again(IMAGES, LABELS)[1], mixup(IMAGES, LABELS)[1])


def test_settings_reach_a_spawned_process():
    mixup = Mixup(num_classes=6, alpha=1.0, output=OutputFormat(dtype="float32"))
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        plan = pool.apply(mixup.plan, (6,))

    assert plan.lam.tolist() == mixup.plan(6).lam.tolist()


def test_a_call_equals_the_reference_with_the_plan_of_its_step():
    mixup = Mixup(num_classes=6, cutmix_alpha=1.0, mode="elem", label_smoothing=0.1)
    for step in range(5):
        plan = mixup.plan(6, (8, 9), step=step)

        images, soft = mixup(IMAGES, LABELS)

        assert (images == reference.blend(IMAGES, plan, layout="HWC")).all()
        assert (soft == reference.soft_labels(LABELS, plan, 6, 0.1)).all()


def test_set_epoch_goes_to_the_start_of_an_epoch():
    mixup = Mixup(num_classes=6, alpha=1.0)
    mixup(IMAGES, LABELS)

    mixup.set_epoch(3)

    _, soft = mixup(IMAGES, LABELS)
    assert (soft == reference.soft_labels(LABELS, mixup.plan(6, epoch=3), 6)).all()


def test_a_given_plan_is_used_and_counts_nothing():
    mixup = Mixup(num_classes=6, alpha=1.0)
    plan = MixPlan(LABELS[::-1], np.linspace(0, 1, 6))

    _, given = mixup(IMAGES, LABELS, plan=plan)
    _, first = mixup(IMAGES, LABELS)

    assert (given == reference.soft_labels(LABELS, plan, 6)).all()
    assert (first == reference.soft_labels(LABELS, mixup.plan(6), 6)).all()


def test_while_off_labels_keep_their_form():
    mixup = Mixup(num_classes=6, label_smoothing=0.3)

    mixup.enabled = False
    images, soft = mixup(IMAGES, LABELS)

    assert (images == IMAGES).all()
    assert not np.may_share_memory(images, IMAGES)
    assert (soft == reference.soft_labels(LABELS, unmixed(6), 6, 0.3)).all()


def test_pairs_are_both_class_ids_and_the_share_of_the_first():
    mixup = Mixup(num_classes=6, targets="pairs", mode="elem")
    plan = mixup.plan(6)

    _, (own, partner, lam) = mixup(IMAGES, LABELS.astype(np.int32).reshape(6, 1))

    assert (own.dtype, partner.dtype, lam.dtype) == (np.int64, np.int64, np.float32)
    assert own.tolist() == LABELS.tolist()
    assert partner.tolist() == LABELS[plan.partner].tolist()
    assert lam.tolist() == plan.lam.tolist()


def test_the_share_that_is_handed_out_is_not_the_plans_own():
    mixup = Mixup(num_classes=6, targets="pairs")
    plan = mixup.plan(6)
    before = plan.lam.copy()

    _, (_, _, lam) = mixup(IMAGES, LABELS, plan=plan)
    lam[:] = 0.25

    assert (plan.lam == before).all()


def test_all_memory_of_tensors_comes_from_the_recycler(torch, monkeypatch):
    torch_cpu = importlib.import_module("dali_mixup.backends.torch_cpu")
    taken = []

    class Counting(Recycler):
        def empty(self, shape, dtype):
            array = super().empty(shape, dtype)
            taken.append(array.ctypes.data)
            return array

    monkeypatch.setattr(torch_cpu, "_memory", Counting())

    tensors = Mixup(num_classes=6)(torch.from_numpy(IMAGES), torch.from_numpy(LABELS))

    assert [tensor.data_ptr() for tensor in tensors] == taken


def test_dense_labels_have_no_pairs():
    with pytest.raises(TypeError, match="expected class ids for targets='pairs', got dense labels"):
        Mixup(num_classes=6, targets="pairs")(IMAGES, np.eye(6, dtype=np.float32))


def test_pairs_name_a_class_id_out_of_range():
    with pytest.raises(ValueError, match=r"class ids in \[0, 5\), got 5 at row 5"):
        Mixup(num_classes=5, targets="pairs")(IMAGES, LABELS)


def test_images_alone_are_mixed_too():
    images, targets = Mixup(num_classes=6)(IMAGES, None)

    assert images.shape == IMAGES.shape
    assert targets is None


@pytest.mark.parametrize(
    ("images", "message"),
    [
        ([[1, 2]], "images: expected a numpy array or a torch tensor, got list"),
        (
            IMAGES.astype(np.int16),
            "images: expected uint8, uint16, float16, bfloat16, float32, got int16",
        ),
    ],
)
def test_images_of_another_kind_are_refused(images, message):
    with pytest.raises(TypeError, match=message):
        Mixup(num_classes=6)(images, LABELS)


def test_a_backend_that_was_asked_for_is_never_another():
    with pytest.raises(TypeError, match="expected on 'cuda' for backend='cupy', got on 'cpu'"):
        Mixup(num_classes=6, backend="cupy")(IMAGES, LABELS)


def test_the_rank_is_the_environments(monkeypatch):
    monkeypatch.setenv("RANK", "3")

    assert Mixup(num_classes=6).plan(8).lam.tolist() == (
        Mixup(num_classes=6, rank=3).plan(8).lam.tolist()
    )


def test_a_rank_that_is_no_number_is_refused(monkeypatch):
    monkeypatch.setenv("RANK", "first")

    with pytest.raises(ValueError, match=r"RANK: expected an integer >= 0 .* got 'first'"):
        Mixup(num_classes=6).plan(8)


@pytest.fixture
def process_group(torch, tmp_path):
    distributed = pytest.importorskip("torch.distributed")
    distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/s", rank=0, world_size=1)
    yield
    distributed.destroy_process_group()


@pytest.mark.usefixtures("process_group")
def test_torch_distributed_knows_the_rank_better_than_the_environment(monkeypatch):
    monkeypatch.setenv("RANK", "3")

    assert Mixup(num_classes=6).plan(8).lam.tolist() == (
        Mixup(num_classes=6, rank=0).plan(8).lam.tolist()
    )


@pytest.mark.parametrize("dtype", ["uint8", "float16", "bfloat16", "float32"])
@pytest.mark.parametrize("out", [None, "float16", "bfloat16", "float32"])
def test_torch_tensors_equal_the_reference_in_every_bit(torch, dtype, out):
    images = torch.from_numpy(IMAGES).to(getattr(torch, dtype))
    mixup = Mixup(num_classes=6, output=OutputFormat(dtype=out, layout="CHW", mean=None))
    plan = mixup.plan(6)
    as_float = reference.blend(
        images.float().numpy(), plan, OutputFormat(layout="CHW"), layout="HWC"
    )

    mixed, soft = mixup(images, torch.from_numpy(LABELS))

    want = torch.from_numpy(as_float)
    want = want.round() if mixed.dtype == torch.uint8 else want
    assert mixed.dtype == getattr(torch, out or dtype)
    assert torch.equal(mixed, want.to(mixed.dtype))
    assert torch.equal(soft, torch.from_numpy(reference.soft_labels(LABELS, plan, 6)))


def test_channels_last_tensors_stay_channels_last(torch):
    nchw = torch.rand(4, 3, 8, 8)
    images = nchw.contiguous(memory_format=torch.channels_last)
    mixup = Mixup(num_classes=6, layout="CHW")

    mixed, _ = mixup(images, torch.arange(4))

    assert mixed.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(mixed, mixup(nchw, None, plan=mixup.plan(4))[0])


def test_dense_bfloat16_labels_are_taken(torch):
    labels = torch.eye(6, dtype=torch.bfloat16)
    mixup = Mixup(num_classes=6)

    _, soft = mixup(torch.from_numpy(IMAGES), labels)

    want = reference.soft_labels(LABELS, mixup.plan(6), 6)
    assert torch.equal(soft, torch.from_numpy(want))


def test_pairs_are_tensors_for_tensors(torch):
    _, (own, partner, lam) = Mixup(num_classes=6, targets="pairs")(
        torch.from_numpy(IMAGES), torch.from_numpy(LABELS)
    )

    assert (own.dtype, partner.dtype, lam.dtype) == (torch.int64, torch.int64, torch.float32)


def test_labels_elsewhere_than_the_images_are_refused(torch):
    elsewhere = torch.zeros(6, dtype=torch.int64, device="meta")

    with pytest.raises(TypeError, match="labels: expected a torch tensor on the CPU, got meta"):
        Mixup(num_classes=6)(torch.from_numpy(IMAGES), elsewhere)


def test_images_that_want_a_gradient_are_refused(torch):
    with pytest.raises(TypeError, match=r"requires_grad; give images.detach\(\)"):
        Mixup(num_classes=6)(torch.rand(2, 3, 8, 8, requires_grad=True), torch.arange(2))


def test_tensors_elsewhere_are_refused(torch):
    with pytest.raises(TypeError, match=r"expected on 'cpu' or 'cuda' .*got on 'meta'"):
        Mixup(num_classes=6)(torch.rand(2, 3, 8, 8, device="meta"), torch.arange(2))


def test_torchs_generator_is_left_alone(torch):
    before = torch.get_rng_state()

    Mixup(num_classes=6)(torch.from_numpy(IMAGES), torch.from_numpy(LABELS))

    assert torch.equal(torch.get_rng_state(), before)


def test_cross_entropy_takes_the_soft_labels(torch):
    _, soft = Mixup(num_classes=6)(torch.from_numpy(IMAGES), torch.from_numpy(LABELS))

    assert torch.nn.functional.cross_entropy(torch.zeros(6, 6), soft) == pytest.approx(np.log(6))


def test_float32_equals_timms_formula_within_one_rounding(torch):
    images, labels = torch.rand(8, 3, 16, 16), torch.arange(8)
    mixup = Mixup(num_classes=8, pairing="flip", label_smoothing=0.1, alpha=0.5)
    plan = mixup.plan(8)
    lam = float(plan.lam[0])

    mixed, soft = mixup(images, labels)

    timm_images = images.mul(lam).add_(images.flip(0).mul(1.0 - lam))
    on, off = 1 - 0.1 + 0.1 / 8, 0.1 / 8
    rows = torch.full((8, 8), off).scatter_(1, labels.view(-1, 1), on)
    timm_labels = rows * lam + rows.flip(0) * (1.0 - lam)
    torch.testing.assert_close(mixed, timm_images, rtol=2**-23, atol=2**-24)
    torch.testing.assert_close(soft, timm_labels, rtol=2**-22, atol=2**-26)


def test_float32_equals_torchvisions_formula_within_one_rounding(torch):
    images, labels = torch.rand(8, 3, 16, 16), torch.arange(8)
    mixup = Mixup(num_classes=8, pairing="roll", alpha=1.0)
    lam = float(mixup.plan(8).lam[0])

    mixed, soft = mixup(images, labels)

    rows = torch.nn.functional.one_hot(labels, 8).float()
    rolled = images.roll(1, 0).mul_(1.0 - lam).add_(images.mul(lam))
    torch.testing.assert_close(mixed, rolled, rtol=2**-23, atol=2**-24)
    torch.testing.assert_close(
        soft, rows.roll(1, 0).mul_(1.0 - lam).add_(rows.mul(lam)), rtol=2**-23, atol=0
    )
