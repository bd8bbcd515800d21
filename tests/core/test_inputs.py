"""Batches as users pass them: dtypes, shapes, labels, and what is refused."""

import numpy as np
import pytest

from dali_mixup import MixPlan, Mixup, OutputFormat
from dali_mixup.backends import reference

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (6, 8, 9, 3), dtype=np.uint8)
LABELS = np.arange(6)
ROWS = np.eye(6, dtype=np.float32)


# Settings and labels.


@pytest.mark.parametrize(
    ("setting", "kind"),
    [
        ({"num_classes": np.int64(6)}, int),
        ({"seed": np.uint8(3)}, int),
        ({"rank": np.int32(2)}, int),
        ({"alpha": np.float32(0.5)}, float),
        ({"cutmix_alpha": np.int64(1)}, float),
        ({"label_smoothing": np.float64(0.25)}, float),
    ],
)
def test_numpys_numbers_are_stored_as_pythons(setting, kind):
    (name, value), *_ = setting.items()

    mixup = Mixup(**{"num_classes": 6, **setting})

    assert type(getattr(mixup, name)) is kind
    assert getattr(mixup, name) == value
    assert mixup.state_dict()["mixup"][name] == value


def test_dense_labels_tell_the_number_of_classes():
    known, unknown = Mixup(num_classes=6, alpha=1.0), Mixup(num_classes=None, alpha=1.0)

    want, got = known(IMAGES, ROWS), unknown(IMAGES, ROWS)

    assert got[1].tobytes() == want[1].tobytes()


@pytest.mark.parametrize("labels", [LABELS, LABELS[:, None]])
def test_class_ids_do_not_tell_the_number_of_classes(labels):
    with pytest.raises(ValueError, match="num_classes: expected an int beside class ids, got None"):
        Mixup(num_classes=None)(IMAGES, labels)


def test_pairs_need_the_number_of_classes():
    with pytest.raises(ValueError, match="num_classes: expected an int beside targets='pairs'"):
        Mixup(num_classes=None, targets="pairs")


def test_ignored_samples_are_neither_mixed_nor_mixed_in():
    labels = np.array([0, -1, 2, 3, -1, 5])
    mixup = Mixup(num_classes=6, alpha=1.0, mode="elem", pairing="derangement", ignore_index=-1)

    for _ in range(20):
        plan = mixup.plan_for(IMAGES, labels, epoch=0, step=mixup.state_dict()["step"])
        mixed, soft = mixup(IMAGES, labels)

        assert plan.partner[[1, 4]].tolist() == [1, 4]
        assert not {1, 4} & set(plan.partner[[0, 2, 3, 5]].tolist())
        assert (mixed[[1, 4]] == IMAGES[[1, 4]]).all()
        assert (soft[[1, 4]] == 0).all()
        assert np.allclose(soft[[0, 2, 3, 5]].sum(1), 1)


def test_boxes_leave_ignored_samples_alone():
    labels = np.array([-1, 1, 2, -1, 4, 5])
    mixup = Mixup(num_classes=6, alpha=0, cutmix_alpha=1.0, mode="elem", ignore_index=-1)

    plan = mixup.plan_for(IMAGES, labels, epoch=0, step=0)

    assert plan.box[1:3].any()
    assert not plan.box[[0, 3]].any()


def test_without_ignored_labels_the_plan_is_the_usual_one():
    usual, careful = (Mixup(num_classes=6, ignore_index=index) for index in (None, -100))

    want, got = usual(IMAGES, LABELS), careful(IMAGES, LABELS)

    assert got[0].tobytes() == want[0].tobytes()
    assert got[1].tobytes() == want[1].tobytes()


def test_rows_of_ignored_samples_are_zeros_while_nothing_is_mixed():
    mixup = Mixup(num_classes=6, ignore_index=255)
    mixup.enabled = False

    _, soft = mixup(IMAGES, np.array([0, 255, 2, 3, 4, 5], np.uint8))

    assert soft.sum(1).tolist() == [1, 0, 1, 1, 1, 1]


def test_a_plan_that_mixes_an_ignored_sample_is_refused():
    mixup = Mixup(num_classes=6, ignore_index=-1)
    plan = MixPlan([1, 0, 2, 3, 4, 5], [0.5] + [1] * 5)

    with pytest.raises(ValueError, match=r"plan: expected samples .* left alone, got row 0 mixed"):
        mixup(IMAGES, np.array([0, -1, 2, 3, 4, 5]), plan=plan)


def test_dense_labels_have_nothing_to_ignore():
    with pytest.raises(TypeError, match=r"labels: expected class ids .* beside ignore_index=-1"):
        Mixup(num_classes=6, ignore_index=-1)(IMAGES, ROWS)


def test_pairs_have_no_ignored_samples():
    with pytest.raises(ValueError, match="ignore_index: expected None beside targets='pairs'"):
        Mixup(num_classes=6, targets="pairs", ignore_index=-1)


@pytest.mark.parametrize("dtype", ["uint16", "uint32", "uint64", "int8"])
def test_class_ids_of_every_integer_dtype_are_taken(torch, dtype):
    labels = torch.from_numpy(LABELS.astype(dtype))

    _, soft = Mixup(num_classes=6, alpha=1.0)(torch.from_numpy(IMAGES), labels)

    _, want = Mixup(num_classes=6, alpha=1.0)(IMAGES, LABELS)
    assert soft.numpy().tobytes() == want.tobytes()


# Images.


def test_float64_images_become_float32():
    images = RNG.random((6, 3, 8, 9))

    mixed, _ = Mixup(num_classes=6, alpha=1.0)(images, LABELS)

    want, _ = Mixup(num_classes=6, alpha=1.0)(images.astype(np.float32), LABELS)
    assert mixed.dtype == np.float32
    assert mixed.tobytes() == want.tobytes()


def test_float64_tensors_become_float32(torch):
    images = torch.rand(6, 3, 8, 9, dtype=torch.float64)

    mixed, _ = Mixup(num_classes=6)(images, torch.arange(6))

    assert mixed.dtype == torch.float32


def test_images_without_a_channel_axis_stay_without_one():
    images = IMAGES[..., 0]
    mixup = Mixup(num_classes=6, alpha=1.0, cutmix_alpha=1.0, mode="elem", layout="HW")

    mixed, _ = mixup(images, LABELS)

    plan = mixup.plan(6, (8, 9))
    want = reference.blend(images[:, None], plan, layout="CHW")[:, 0]
    assert mixed.tobytes() == want.tobytes()


def test_a_channel_axis_is_given_where_the_output_names_a_layout():
    output = OutputFormat(dtype="float32", layout="CHW", mean=127.5, std=64.0)

    mixed, _ = Mixup(num_classes=6, layout="HW", output=output)(IMAGES[..., 0], LABELS)

    assert mixed.shape == (6, 1, 8, 9)


def test_images_with_a_channel_axis_are_refused_as_hw():
    with pytest.raises(ValueError, match=r"expected shape \(B, H, W\) for layout='HW', got \(6, 8"):
        Mixup(num_classes=6, layout="HW")(IMAGES, LABELS)


def test_images_that_want_a_gradient_are_taken_where_there_is_none(torch):
    images = torch.rand(6, 3, 8, 9, requires_grad=True)

    with torch.no_grad():
        mixed, _ = Mixup(num_classes=6)(images, torch.arange(6))

    want, _ = Mixup(num_classes=6)(images.detach(), torch.arange(6))
    assert torch.equal(mixed, want)
    assert not mixed.requires_grad


def sparse(torch):
    return torch.rand(6, 3, 8, 9).to_sparse()


def quantised(torch):
    return torch.quantize_per_tensor(torch.rand(6, 3, 8, 9), 0.1, 0, torch.quint8)


def nested(torch):
    return torch.nested.nested_tensor([torch.rand(3, 8, 9)] * 6)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("make", [sparse, quantised, nested])
def test_tensors_that_are_not_dense_are_refused(torch, make):
    message = f"images: expected a dense tensor, got a {make.__name__} one"

    with pytest.raises(TypeError, match=message):
        Mixup(num_classes=6)(make(torch), torch.arange(6))


def test_complex_images_are_refused():
    with pytest.raises(TypeError, match=r"expected uint8, .* got complex64"):
        Mixup(num_classes=6)(np.zeros((6, 3, 8, 9), np.complex64), LABELS)


def test_complex_labels_are_refused():
    with pytest.raises(TypeError, match="labels: expected integers, floats or bools, got kind 'c'"):
        Mixup(num_classes=6)(IMAGES, ROWS.astype(np.complex64))


def test_images_without_pixels_cannot_be_cut():
    mixup = Mixup(num_classes=6, cutmix_alpha=1.0)

    with pytest.raises(ValueError, match="images: expected pixels to cut for CutMix, got 0 x 9"):
        mixup(np.zeros((6, 3, 0, 9), np.uint8), LABELS)


def test_images_larger_than_a_box_can_say_are_refused_for_cutmix():
    images = np.zeros((2, 70_000, 1, 1), np.uint8)
    mixup = Mixup(num_classes=6, cutmix_alpha=1.0, layout="HWC")

    with pytest.raises(ValueError, match=r"expected sides of at most 65535 .* got 70000 x 1"):
        mixup(images, LABELS[:2])


def test_images_larger_than_a_box_can_say_are_mixed_without_one():
    images = np.zeros((2, 70_000, 1, 1), np.uint8)

    mixed, _ = Mixup(num_classes=6, layout="HWC")(images, LABELS[:2])

    assert mixed.shape == images.shape


def test_draws_do_not_depend_on_numpys_error_state():
    want = Mixup(num_classes=6, alpha=1e-3, mode="elem").plan(512)

    with np.errstate(all="raise"):
        got = Mixup(num_classes=6, alpha=1e-3, mode="elem").plan(512)

    assert (got.lam == want.lam).all()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("cutmix_alpha", [0.0, 1.0])
def test_a_compiled_function_mixes_as_an_uncompiled_one(torch, cutmix_alpha):
    settings = {"num_classes": 6, "alpha": 1.0, "cutmix_alpha": cutmix_alpha, "mode": "elem"}
    plain, compiled = Mixup(**settings), Mixup(**settings)
    images, labels = torch.rand(6, 3, 8, 9), torch.arange(6)

    def step(mixup, images):
        mixed, targets = mixup(images + 1, labels)
        return mixed * 2, targets

    run = torch.compile(step, backend="eager")

    for _ in range(3):
        want, got = step(plain, images), run(compiled, images)
        assert torch.equal(got[0], want[0])
        assert torch.equal(got[1], want[1])


# What would be ignored.


@pytest.mark.parametrize("name", ["enable", "mixup_enabled", "alhpa"])
def test_an_attribute_that_is_no_setting_is_refused(name):
    with pytest.raises(AttributeError, match=f"{name}: a Mixup has no such setting; only enabled"):
        setattr(Mixup(num_classes=6), name, False)


def test_enabled_is_true_or_false():
    with pytest.raises(TypeError, match="enabled: expected True or False, got 'False'"):
        Mixup(num_classes=6).enabled = "False"


def test_channels_last_is_true_or_false():
    with pytest.raises(TypeError, match="channels_last: expected True or False, got 'False'"):
        OutputFormat(channels_last="False")


def test_a_dtype_is_named_by_a_string():
    with pytest.raises(ValueError, match="dtype: expected one of 'float32', "):
        OutputFormat(dtype=np.dtype("float32"))


def test_one_std_in_other_units_than_the_pixels_is_refused():
    output = OutputFormat(dtype="float32", mean=(120.0, 110.0, 100.0), std=(0.2, 55.0, 50.0))

    with pytest.raises(ValueError, match="std: expected the units of the pixels, 0 to 255"):
        Mixup(num_classes=6, output=output)(IMAGES, LABELS)


def test_ignored_labels_need_the_number_of_classes():
    with pytest.raises(ValueError, match="num_classes: expected an int beside ignore_index=-1"):
        Mixup(num_classes=None, ignore_index=-1)


@pytest.mark.parametrize("channels", [2, 5])
def test_another_number_of_channels_is_not_taken_for_a_layout(channels):
    with pytest.raises(ValueError, match="no axis has 1, 3 or 4 channels; give layout='CHW' or"):
        Mixup(num_classes=6)(np.zeros((6, channels, 8, 9), np.uint8), LABELS)


@pytest.mark.parametrize("plan", [0.5, {"lam": 1}, "plan"])
def test_a_plan_has_to_be_one(plan):
    with pytest.raises(TypeError, match="plan: expected a MixPlan or a DevicePlan, got"):
        Mixup(num_classes=6)(IMAGES, LABELS, plan=plan)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (("4",), TypeError, "batch_size: expected an int, got '4'"),
        ((-1,), ValueError, "batch_size: expected at least 0, got -1"),
        ((4, 32), TypeError, r"image_size: expected \(height, width\) in pixels, got 32"),
        ((4, (32, 32, 3)), TypeError, "image_size: expected"),
        ((4, (32.0, 32)), TypeError, "image_size: expected an int, got 32.0"),
    ],
)
def test_a_plan_of_another_size_is_refused(arguments, error, message):
    with pytest.raises(error, match=message):
        Mixup(num_classes=6, cutmix_alpha=1.0).plan(*arguments)


@pytest.mark.parametrize("name", ["uint16", "uint32", "uint64", "int8"])
def test_ignored_labels_of_any_integers(torch, name):
    labels = torch.tensor([0, 9, 2, 3]).to(getattr(torch, name))

    _, targets = Mixup(num_classes=5, ignore_index=9)(torch.zeros(4, 3, 6, 8), labels)

    assert targets.sum(1).tolist() == [1, 0, 1, 1]


def test_arrays_in_the_other_order_of_bytes():
    images = np.random.default_rng(0).random((4, 3, 6, 8))
    labels = np.array([0, 1, 2, 9])
    settings = {"num_classes": 5, "ignore_index": 9, "layout": "CHW"}

    native = Mixup(**settings)(images, labels)
    swapped = Mixup(**settings)(images.astype(">f8"), labels.astype(">i8"))

    assert (native[0] == swapped[0]).all()
    assert (native[1] == swapped[1]).all()
