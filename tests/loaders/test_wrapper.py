"""The wrapper around any loader: forms, positions, and when a setting takes effect."""

import copy
import pickle
from collections import UserDict, namedtuple
from collections.abc import MutableMapping
from types import MappingProxyType

import numpy as np
import pytest

from dali_mixup import Mixup, MixupLoader
from dali_mixup.backends import reference
from dali_mixup.loaders.mixer import BatchMixer

CLASSES = 5
Sample = namedtuple("Sample", ["images", "labels"])


def make_mixup(**settings):
    return Mixup(**{"num_classes": CLASSES, "seed": 3, "mode": "elem", **settings})


def make_pairs(count=3, size=4):
    rng = np.random.default_rng(0)
    return [
        (rng.integers(0, 256, (size, 6, 8, 3), np.uint8), rng.integers(0, CLASSES, size))
        for _ in range(count)
    ]


def make_dicts(count=3, size=4):
    return [
        {"image": images, "index": np.arange(size), "name": f"batch {i}", "target": labels}
        for i, (images, labels) in enumerate(make_pairs(count, size))
    ]


def mixed_by_hand(mixup, images, labels, plan):
    soft = reference.soft_labels(labels, plan, CLASSES, mixup.label_smoothing)
    return reference.blend(images, plan, layout="HWC"), soft


def assert_mixed_at(handed_out, given, mixup, *, epoch, step):
    """The pair is `given`, mixed by the plan of this position."""
    plan = mixup.plan(len(given[0]), given[0].shape[1:3], epoch=epoch, step=step)
    images, soft = mixed_by_hand(mixup, *given, plan)
    where = f"epoch {epoch}, step {step}"
    np.testing.assert_array_equal(handed_out[0], images, where, strict=True)
    np.testing.assert_array_equal(handed_out[1], soft, where, strict=True)


def assert_unmixed(handed_out, given, label_smoothing=0.0):
    """The pair is `given`, with labels in the form that mixed ones have."""
    off = np.float32(label_smoothing / CLASSES)
    soft = np.float32(1 - label_smoothing) * np.eye(CLASSES, dtype=np.float32)[given[1]] + off
    np.testing.assert_array_equal(handed_out[0], given[0], strict=True)
    np.testing.assert_array_equal(handed_out[1], soft, strict=True)


class Resettable:
    """An iterator like DALI's: keeps raising StopIteration until it is reset."""

    size = 12
    batch_size = 4

    def __init__(self, batches):
        self.batches = batches
        self.position = 0
        self.epochs_told = []
        self.closed_with = None

    def __iter__(self):
        return self

    def __next__(self):
        if self.position == len(self.batches):
            raise StopIteration
        self.position += 1
        return self.batches[self.position - 1]

    def __len__(self):
        return len(self.batches)

    def __enter__(self):
        self.entered = True
        return "the loader's own"

    def __exit__(self, kind, error, trace):
        self.closed_with = kind
        return kind is KeyError

    def reset(self):
        self.position = 0

    def set_epoch(self, epoch):
        self.epochs_told.append(epoch)


class Prefetching:
    """Hands out batches that it fetched two batches earlier, the first ones when it is made."""

    def __init__(self, batches):
        self.batches = batches
        self.source = iter(batches)
        self.fetched = [next(self.source), next(self.source)]

    def __iter__(self):
        for batch in self.source:
            self.fetched.append(batch)
            yield self.fetched.pop(0)
        yield from self.fetched


# The forms of a batch.


@pytest.mark.parametrize("form", [tuple, list, Sample._make])
def test_a_pair_comes_back_mixed_and_in_its_own_form(form):
    mixup, (given,) = make_mixup(), make_pairs(1)
    batch = form(given)

    (handed_out,) = MixupLoader([batch], mixup)

    assert type(handed_out) is type(batch)
    assert_mixed_at(handed_out, given, mixup, epoch=0, step=0)


def test_a_named_tuple_keeps_its_names():
    (given,) = make_pairs(1)

    (handed_out,) = MixupLoader([Sample(*given)], make_mixup())

    assert handed_out.images.shape == given[0].shape
    assert handed_out.labels.shape == (4, CLASSES)


def test_a_dict_is_mixed_in_its_first_and_its_last_output():
    mixup, (given,) = make_mixup(), make_dicts(1)

    (handed_out,) = MixupLoader([given], mixup)

    assert list(handed_out) == ["image", "index", "name", "target"]
    pair = handed_out["image"], handed_out["target"]
    assert_mixed_at(pair, (given["image"], given["target"]), mixup, epoch=0, step=0)


def test_each_dict_of_a_list_is_mixed_by_a_plan_of_its_own():
    mixup, given = make_mixup(), make_dicts(2)
    given[1]["image"] = given[0]["image"]

    (handed_out,) = MixupLoader([given], mixup)

    plans = [mixup.plan(4, (6, 8), stream=stream) for stream in (0, 1)]
    assert not np.array_equal(plans[0].lam, plans[1].lam)
    assert type(handed_out) is list
    for part, outputs, plan in zip(handed_out, given, plans, strict=True):
        images, soft = mixed_by_hand(mixup, outputs["image"], outputs["target"], plan)
        np.testing.assert_array_equal(part["image"], images)
        np.testing.assert_array_equal(part["target"], soft)


def test_named_outputs_are_mixed_wherever_they_stand():
    mixup, (given,) = make_mixup(), make_dicts(1)
    turned_round = dict(reversed(given.items()))

    (handed_out,) = MixupLoader([turned_round], mixup, data_key="image", label_key="target")

    pair = handed_out["image"], handed_out["target"]
    assert_mixed_at(pair, (given["image"], given["target"]), mixup, epoch=0, step=0)


def test_a_list_of_dicts_and_its_dicts_are_fresh():
    given = make_dicts(2)
    before = copy.deepcopy(given)

    (handed_out,) = MixupLoader([given], make_mixup())

    assert handed_out is not given
    assert [set(part) for part in given] == [set(part) for part in before]
    for part, was in zip(given, before, strict=True):
        np.testing.assert_array_equal(part["image"], was["image"], strict=True)
        np.testing.assert_array_equal(part["target"], was["target"], strict=True)


@pytest.mark.parametrize("plan_key", [None, "plan"])
def test_the_loaders_own_dict_keeps_what_it_had(plan_key):
    (given,) = make_dicts(1)
    before, contents = dict(given), copy.deepcopy(given)

    (handed_out,) = MixupLoader([given], make_mixup(), plan_key=plan_key)

    assert handed_out is not given
    assert list(given) == list(before)
    assert all(given[key] is before[key] for key in before)
    np.testing.assert_array_equal(given["image"], contents["image"])


def test_the_loaders_own_list_keeps_what_it_had():
    (given,) = make_pairs(1)
    batch, contents = list(given), copy.deepcopy(given)

    (handed_out,) = MixupLoader([batch], make_mixup())

    assert handed_out is not batch
    assert all(part is original for part, original in zip(batch, given, strict=True))
    np.testing.assert_array_equal(batch[0], contents[0], strict=True)
    np.testing.assert_array_equal(batch[1], contents[1], strict=True)


@pytest.mark.parametrize("enabled", [True, False])
def test_what_is_handed_out_shares_no_memory_with_the_loaders_images(enabled):
    mixup, (given,) = make_mixup(), make_dicts(1)
    given = {"second": given["image"], **given}
    mixup.enabled = enabled

    (handed_out,) = MixupLoader([given], mixup, data_key=["image", "second"])

    images = handed_out["image"], handed_out["second"]
    assert not any(np.may_share_memory(image, given["image"]) for image in images)
    assert not np.may_share_memory(*images)


@pytest.mark.parametrize("as_list", [False, True])
def test_other_outputs_are_handed_out_as_they_are(as_list):
    (given,) = make_dicts(1)

    (handed_out,) = MixupLoader([[given] if as_list else given], make_mixup())

    outputs = handed_out[0] if as_list else handed_out
    assert outputs["index"] is given["index"]
    assert outputs["name"] is given["name"]


def test_an_empty_batch_stays_one():
    given = np.zeros((0, 6, 8, 3), np.uint8), np.zeros(0, np.int64)

    ((images, soft),) = MixupLoader([given], make_mixup())

    assert images.shape == (0, 6, 8, 3)
    assert soft.shape == (0, CLASSES)


def test_several_images_share_one_plan():
    mixup, (given,) = make_mixup(), make_dicts(1)
    given = {"second": (255 - given["image"]).astype(np.float32), **given}

    (handed_out,) = MixupLoader([given], mixup, data_key=["image", "second"])

    plan = mixup.plan(4, (6, 8))
    for key in ("image", "second"):
        by_hand = reference.blend(given[key], plan, layout="HWC")
        np.testing.assert_array_equal(handed_out[key], by_hand, strict=True)


def test_images_too_small_for_the_boxes_they_share_are_refused():
    (given,) = make_dicts(1)
    given = {"second": given["image"][:, :2, :2], **given}
    mixup = make_mixup(alpha=0, cutmix_alpha=1.0)
    loader = MixupLoader([given], mixup, data_key=("image", "second"))

    with pytest.raises(ValueError, match="expected images of one size for CutMix, got"):
        next(iter(loader))


def test_the_plan_is_handed_out_under_the_name_that_was_asked_for():
    mixup, (given,) = make_mixup(), make_dicts(1)

    (handed_out,) = MixupLoader([given], mixup, plan_key="plan")

    again = mixup(given["image"], given["target"], plan=handed_out["plan"])
    np.testing.assert_array_equal(handed_out["image"], again[0])
    np.testing.assert_array_equal(handed_out["target"], again[1])


def test_targets_can_be_two_class_ids_and_a_share():
    mixup, (given,) = make_mixup(targets="pairs"), make_pairs(1)

    ((_, (own, partner, lam)),) = MixupLoader([given], mixup)

    plan = mixup.plan(4, (6, 8))
    np.testing.assert_array_equal(own, given[1])
    np.testing.assert_array_equal(partner, given[1][plan.partner])
    np.testing.assert_array_equal(lam, plan.lam)


# torch's loader.


def test_a_torch_loader_of_pairs_is_mixed_as_its_arrays_would_be(torch):
    mixup, given = make_mixup(), make_pairs(3)
    data = torch.utils.data.TensorDataset(
        *(torch.from_numpy(np.concatenate(parts)) for parts in zip(*given, strict=True))
    )
    loader = MixupLoader(torch.utils.data.DataLoader(data, batch_size=4), mixup)

    handed_out = list(loader)

    assert len(loader) == 3
    assert all(type(batch) is list for batch in handed_out)
    for step, batch in enumerate(handed_out):
        pair = [part.numpy() for part in batch]
        assert_mixed_at(pair, given[step], mixup, epoch=0, step=step)


def test_a_torch_loader_of_dicts_is_mixed_in_its_named_outputs(torch):
    mixup, ((images, labels),) = make_mixup(), make_pairs(1)
    samples = [{"y": int(y), "n": n, "x": x} for n, (x, y) in enumerate(zip(images, labels))]  # noqa: B905
    inner = torch.utils.data.DataLoader(samples, batch_size=4)

    (handed_out,) = MixupLoader(inner, mixup, data_key="x", label_key="y")

    assert handed_out["n"].tolist() == [0, 1, 2, 3]
    pair = handed_out["x"].numpy(), handed_out["y"].numpy()
    assert_mixed_at(pair, (images, labels), mixup, epoch=0, step=0)


# What is the loader's own.


def test_every_pass_hands_out_every_batch():
    mixup, given = make_mixup(), make_pairs(3)
    loader = MixupLoader(given, mixup)

    first, second = list(loader), list(loader)

    assert len(first) == len(second) == 3
    assert not np.array_equal(first[0][0], second[0][0])


def test_the_length_is_the_loaders():
    inner = Resettable(make_pairs(3))
    loader = MixupLoader(inner, make_mixup())

    before = len(loader)
    inner.batches = inner.batches[:2]

    assert [before, len(loader)] == [3, 2]


def test_a_loader_without_a_length_has_none_here_and_is_iterated_all_the_same():
    loader = MixupLoader(iter(make_pairs(2)), make_mixup())

    with pytest.raises(TypeError, match=r"has no len\(\)"):
        len(loader)

    assert len(list(loader)) == 2


def test_reset_and_attributes_are_the_loaders():
    inner = Resettable(make_pairs(3))
    loader = MixupLoader(inner, make_mixup())
    next(loader)

    loader.reset()

    assert inner.position == 0
    assert [loader.size, loader.batch_size, loader.loader] == [12, 4, inner]


def test_an_attribute_that_nobody_has_is_missed_by_name():
    loader = MixupLoader(make_pairs(1), make_mixup())

    with pytest.raises(AttributeError, match="reset"):
        loader.reset()


def test_batches_can_be_had_one_by_one():
    mixup, given = make_mixup(), make_pairs(3)
    loader = MixupLoader(Resettable(given), mixup)

    handed_out = [next(loader), loader.next(), next(loader)]

    for step in range(3):
        assert_mixed_at(handed_out[step], given[step], mixup, epoch=0, step=step)


def test_a_loader_that_is_no_iterator_has_no_next():
    loader = MixupLoader(make_pairs(1), make_mixup())

    with pytest.raises(TypeError, match="'list' object is not an iterator"):
        next(loader)


def test_a_pass_goes_on_after_a_reset_as_the_loaders_own_does():
    mixup, given = make_mixup(), make_pairs(2)
    loader = MixupLoader(Resettable(given), mixup)
    passing = iter(loader)
    first = [next(passing), next(passing), next(passing, "end")]

    loader.reset()

    assert first[2] == "end"
    assert_mixed_at(next(passing), given[0], mixup, epoch=1, step=0)


def test_entering_the_context_gives_the_loader_that_mixes():
    inner = Resettable(make_pairs(1))
    loader = MixupLoader(inner, make_mixup())

    with loader as entered:
        assert entered is loader
        assert inner.entered

    assert inner.closed_with is None


def test_leaving_the_context_is_the_loaders_to_handle():
    inner = Resettable(make_pairs(1))
    loader = MixupLoader(inner, make_mixup())

    with loader:
        raise KeyError  # which this loader swallows
    with pytest.raises(ZeroDivisionError), loader:
        _ = 1 / 0

    assert inner.closed_with is ZeroDivisionError


def test_asking_for_an_iterator_fetches_nothing():
    inner = Resettable(make_pairs(2))

    iter(MixupLoader(inner, make_mixup()))

    assert inner.position == 0


def test_batches_are_fetched_no_earlier_than_they_are_handed_out():
    inner = Resettable(make_pairs(3))
    batches = iter(MixupLoader(inner, make_mixup()))

    next(batches)

    assert inner.position == 1


@pytest.mark.parametrize(
    "duplicate",
    [copy.copy, copy.deepcopy, lambda loader: pickle.loads(pickle.dumps(loader))],
    ids=["copy", "deepcopy", "pickle"],
)
def test_a_copy_stands_where_the_original_stood(duplicate):
    mixup, given = make_mixup(), make_pairs(3)
    original = MixupLoader(Resettable(given), mixup)
    next(original)

    handed_out = next(duplicate(original))

    assert_mixed_at(handed_out, given[1], mixup, epoch=0, step=1)


class CopiesItself(list):
    def __deepcopy__(self, memo):
        return CopiesItself(self)


def test_a_deep_copy_mixes_even_where_the_loader_copies_itself():
    loader = MixupLoader(CopiesItself(make_pairs(1)), make_mixup())

    assert type(copy.deepcopy(loader)) is MixupLoader


def test_a_loader_that_is_not_made_yet_has_no_attributes_to_forward():
    blank = MixupLoader.__new__(MixupLoader)

    with pytest.raises(AttributeError, match="loader"):
        _ = blank.batch_size


# Where the run stands.


def test_plans_follow_epoch_and_step():
    mixup, given = make_mixup(), make_pairs(3)
    loader = MixupLoader(given, mixup)

    epochs = [list(loader), list(loader)]

    for epoch, handed_out in enumerate(epochs):
        for step, batch in enumerate(handed_out):
            assert_mixed_at(batch, given[step], mixup, epoch=epoch, step=step)


def test_a_pass_left_half_way_counts_on_in_the_same_epoch():
    mixup, given = make_mixup(), make_pairs(3)
    loader = MixupLoader(given, mixup)
    passed = iter(loader)
    next(passed)
    next(passed)

    second, third = list(loader), list(loader)

    for step, batch in enumerate(second):
        assert_mixed_at(batch, given[step], mixup, epoch=0, step=2 + step)
    for step, batch in enumerate(third):
        assert_mixed_at(batch, given[step], mixup, epoch=1, step=step)


def test_an_epoch_ends_once_however_often_its_end_is_met():
    mixup, given = make_mixup(), make_pairs(2)
    loader = MixupLoader(Resettable(given), mixup)
    list(loader)

    at_the_end = [next(loader, "end"), next(loader, "end"), list(loader)]
    loader.reset()

    assert at_the_end == ["end", "end", []]
    assert_mixed_at(next(loader), given[0], mixup, epoch=1, step=0)


def test_a_batch_that_is_refused_takes_no_step():
    mixup, given = make_mixup(), make_pairs(2)
    bad = given[0][0], given[0][1] + CLASSES
    loader = MixupLoader(Resettable([bad, given[1]]), mixup)

    with pytest.raises(ValueError, match="labels: expected class ids"):
        next(loader)

    assert_mixed_at(next(loader), given[1], mixup, epoch=0, step=0)


def test_a_batch_that_is_refused_does_not_end_the_pass():
    mixup, given = make_mixup(), make_pairs(2)
    bad = given[0][0], given[0][1] + CLASSES
    passing = iter(MixupLoader([bad, given[1]], mixup))

    with pytest.raises(ValueError, match="labels: expected class ids"):
        next(passing)

    assert_mixed_at(next(passing), given[1], mixup, epoch=0, step=0)


@pytest.mark.parametrize("handed_out_before", [0, 1, 3])
def test_setting_the_epoch_holds_from_the_very_next_batch(handed_out_before):
    mixup, given = make_mixup(), make_pairs(3) * 2
    loader = MixupLoader(Resettable(given), mixup)
    for _ in range(handed_out_before):
        next(loader)

    loader.set_epoch(7)

    for step in range(2):
        now = given[handed_out_before + step]
        assert_mixed_at(next(loader), now, mixup, epoch=7, step=step)


def test_saying_which_epoch_it_is_anyway_changes_nothing():
    mixup, given = make_mixup(), make_pairs(2)
    loader = MixupLoader(given, mixup)
    told = []

    for epoch in range(2):
        loader.set_epoch(epoch)
        told.append(list(loader))

    for epoch, handed_out in enumerate(told):
        for step, batch in enumerate(handed_out):
            assert_mixed_at(batch, given[step], mixup, epoch=epoch, step=step)


def test_saying_the_same_epoch_in_its_middle_goes_on_with_its_steps():
    mixup, given = make_mixup(), make_pairs(2)
    loader = MixupLoader(Resettable(given), mixup)
    next(loader)

    loader.set_epoch(0)

    assert_mixed_at(next(loader), given[1], mixup, epoch=0, step=1)


def test_setting_the_epoch_tells_a_loader_that_wants_to_know():
    inner = Resettable(make_pairs(1))

    MixupLoader(inner, make_mixup()).set_epoch(4)

    assert inner.epochs_told == [4]


def test_after_the_last_mixed_epoch_batches_are_unmixed_in_the_same_form():
    mixup, given = make_mixup(label_smoothing=0.1), make_pairs(2)
    loader = MixupLoader(given, mixup, off_after_epoch=1)

    epochs = [list(loader), list(loader), list(loader)]

    for step, batch in enumerate(epochs[0]):
        assert_mixed_at(batch, given[step], mixup, epoch=0, step=step)
    for step, batch in enumerate(epochs[1] + epochs[2]):
        assert_unmixed(batch, given[step % 2], label_smoothing=0.1)


def test_epochs_that_are_set_count_for_the_last_mixed_one():
    mixup, given = make_mixup(), make_pairs(3)
    loader = MixupLoader(Resettable(given), mixup, off_after_epoch=5)

    loader.set_epoch(5)
    after = next(loader)
    loader.set_epoch(4)
    before = next(loader)

    assert_unmixed(after, given[0])
    assert_mixed_at(before, given[1], mixup, epoch=4, step=0)


def test_no_epoch_at_all_may_be_mixed():
    given = make_pairs(1)

    (handed_out,) = MixupLoader(given, make_mixup(), off_after_epoch=0)

    assert_unmixed(handed_out, given[0])


def test_an_unmixed_batch_hands_out_the_plan_that_says_so():
    loader = MixupLoader(make_dicts(1), make_mixup(), plan_key="plan", off_after_epoch=0)

    (handed_out,) = loader

    assert handed_out["plan"].partner.tolist() == [0, 1, 2, 3]
    assert handed_out["plan"].lam.tolist() == [1, 1, 1, 1]


def test_turning_mixup_off_holds_from_the_very_next_batch_whatever_is_prefetched():
    mixup, given = make_mixup(), make_pairs(5)
    inner = Prefetching(given)
    batches = iter(MixupLoader(inner, mixup))

    mixup.enabled = False
    first = next(batches)
    mixup.enabled = True
    second = next(batches)
    mixup.enabled = False
    third = next(batches)

    assert len(inner.fetched) == 2
    assert_unmixed(first, given[0])
    assert_mixed_at(second, given[1], mixup, epoch=0, step=1)
    assert_unmixed(third, given[2])


def test_the_epoch_holds_from_the_very_next_batch_whatever_is_prefetched():
    mixup, given = make_mixup(), make_pairs(5)
    loader = MixupLoader(Prefetching(given), mixup)
    batches = iter(loader)
    next(batches)

    loader.set_epoch(2)

    assert_mixed_at(next(batches), given[1], mixup, epoch=2, step=0)


# What is refused.


def test_a_loader_has_to_be_iterable():
    with pytest.raises(TypeError, match="loader: expected an iterable of batches, got 7"):
        MixupLoader(7, make_mixup())


@pytest.mark.parametrize("mixup", [None, Mixup, 0.2])
def test_the_mixup_has_to_be_one(mixup):
    with pytest.raises(TypeError, match="mixup: expected a Mixup, got "):
        MixupLoader([], mixup)


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        (np.zeros(3), r"images: expected shape \(B, C, H, W\) .*got \(3,\)"),
        ("ab", "images: expected a numpy array or a torch tensor, got str"),
        ([{}, {}, 1], "images: expected a numpy array or a torch tensor, got dict"),
        (None, "images: expected a numpy array or a torch tensor, got NoneType"),
    ],
    ids=["array", "string", "not all dicts", "none"],
)
def test_a_batch_of_another_form_is_refused(batch, message):
    loader = MixupLoader([batch], make_mixup())

    with pytest.raises((TypeError, ValueError), match=message):
        next(iter(loader))


@pytest.mark.parametrize(
    "pair",
    [({}, {}), [{}, np.zeros(2)], ([np.zeros((6, 8, 3))] * 4, np.zeros(4, int)), ["ab", "cd"]],
    ids=["two dicts", "a dict and an array", "a list of images", "two strings"],
)
@pytest.mark.parametrize("off_after_epoch", [None, 0])
def test_a_pair_without_images_is_refused(pair, off_after_epoch):
    loader = MixupLoader([pair], make_mixup(), off_after_epoch=off_after_epoch)

    with pytest.raises(TypeError, match="images: expected a numpy array or a torch tensor, got "):
        next(iter(loader))


def test_an_output_that_is_no_images_is_refused():
    loader = MixupLoader(make_dicts(1), make_mixup(), data_key="name")

    with pytest.raises(
        TypeError, match="images: expected a numpy array or a torch tensor, got str"
    ):
        next(iter(loader))


@pytest.mark.parametrize(
    ("keys", "error", "message"),
    [
        ({"data_key": "x"}, ValueError, r"expected names among \['0', '1'\], got 'x'"),
        ({"label_key": "y"}, ValueError, r"expected names among \['0', '1'\], got 'y'"),
        ({"plan_key": "plan"}, TypeError, "plan_key: expected a loader of dicts"),
        ({"target_key": "soft"}, TypeError, "target_key: expected a loader of dicts"),
    ],
)
def test_names_are_refused_for_pairs(keys, error, message):
    loader = MixupLoader(make_pairs(1), make_mixup(), **keys)

    with pytest.raises(error, match=message):
        next(iter(loader))


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (
            {"data_key": "pixels"},
            "data_key, label_key, mask_key: expected names among .*, got 'pixels'",
        ),
        (
            {"data_key": ["image", "b"]},
            "data_key, label_key, mask_key: expected names among .*, got 'b'",
        ),
        (
            {"label_key": "class"},
            "data_key, label_key, mask_key: expected names among .*, got 'class'",
        ),
        ({"data_key": "target"}, "label_key: expected the name of the labels among"),
        ({"label_key": "image"}, "data_key: expected the names of the images among"),
        (
            {"data_key": "image", "label_key": "image"},
            "expected different outputs, got 'image' twice",
        ),
        ({"target_key": "index"}, "target_key: expected a new name, got the output 'index'"),
        ({"plan_key": "index"}, "plan_key: expected a new name, got the output 'index'"),
    ],
)
def test_keys_that_do_not_fit_the_outputs_are_refused(keys, message):
    loader = MixupLoader(make_dicts(1), make_mixup(), **keys)

    with pytest.raises(ValueError, match=message):
        next(iter(loader))


def test_a_dict_without_labels_holds_images_that_are_mixed_alone():
    images = make_pairs(1)[0][0]
    loader = MixupLoader([{"image": images}], make_mixup(alpha=1.0), plan_key="plan")

    (handed_out,) = loader

    want = reference.blend(images, handed_out["plan"], layout="HWC")
    assert handed_out["image"].tobytes() == want.tobytes()


@pytest.mark.parametrize("form", [tuple, list])
def test_further_items_of_a_tuple_are_untouched(form):
    images, labels = make_pairs(1)[0]
    paths, index = ["a.jpg", "b.jpg"], object()
    mixup = make_mixup(alpha=1.0)

    (handed_out,) = MixupLoader([form([images, labels, paths, index])], mixup)

    assert type(handed_out) is form
    assert_mixed_at(handed_out[:2], (images, labels), mixup, epoch=0, step=0)
    assert handed_out[2] is paths
    assert handed_out[3] is index


def test_images_alone_are_mixed_too():
    images = make_pairs(1)[0][0]
    mixup = make_mixup(alpha=1.0)

    (handed_out,) = MixupLoader([images], mixup)

    plan = mixup.plan(len(images), images.shape[1:3])
    assert handed_out.tobytes() == reference.blend(images, plan, layout="HWC").tobytes()


class Features(UserDict):
    """A mapping that is no dict, as Transformers' BatchFeature."""


def test_a_mapping_comes_back_as_its_own_type():
    batch = Features(make_dicts(1)[0])
    mixup = make_mixup(alpha=1.0)

    (handed_out,) = MixupLoader([batch], mixup)

    assert type(handed_out) is Features
    assert handed_out["name"] is batch["name"]
    assert not np.array_equal(handed_out["image"], batch["image"])


def test_a_mapping_that_cannot_be_written_to_is_made_anew():
    batch = MappingProxyType(make_dicts(1)[0])

    (handed_out,) = MixupLoader([batch], make_mixup(alpha=1.0))

    assert type(handed_out) is MappingProxyType
    assert not np.array_equal(handed_out["image"], batch["image"])


def test_outputs_inside_nested_containers_are_named_by_paths():
    images, labels = make_pairs(1)[0]
    batch = ({"image": images, "meta": "m"}, {"id": {"class": labels}})
    mixup = make_mixup(alpha=1.0)

    (handed_out,) = MixupLoader([batch], mixup, data_key="0.image", label_key="1.id.class")

    pair = handed_out[0]["image"], handed_out[1]["id"]["class"]
    assert_mixed_at(pair, (images, labels), mixup, epoch=0, step=0)
    assert handed_out[0]["meta"] == "m"
    assert batch[0]["image"] is images


def test_a_path_that_leads_nowhere_is_refused():
    images, labels = make_pairs(1)[0]
    loader = MixupLoader([({"image": images}, labels)], make_mixup(), data_key="0.pixels")

    with pytest.raises(ValueError, match=r"expected names among .*, got '0\.pixels'"):
        next(iter(loader))


def test_views_without_labels_are_all_mixed():
    images = make_pairs(1)[0][0]
    batch = {"first": images, "second": images[::-1].copy(), "index": np.arange(len(images))}
    loader = MixupLoader(
        [batch], make_mixup(alpha=1.0), data_key=("first", "second"), label_key=(), plan_key="plan"
    )

    (handed_out,) = loader

    for key in ("first", "second"):
        want = reference.blend(batch[key], handed_out["plan"], layout="HWC")
        assert handed_out[key].tobytes() == want.tobytes()
    assert handed_out["index"] is batch["index"]


def test_a_dict_without_outputs_is_refused():
    loader = MixupLoader([{}], make_mixup())

    with pytest.raises(ValueError, match="data_key, label_key: expected "):
        next(iter(loader))


@pytest.mark.parametrize(
    ("epoch", "error", "message"),
    [
        (-1, ValueError, "epoch: expected at least 0, got -1"),
        ("two", TypeError, "epoch: expected an int, got 'two'"),
    ],
)
def test_an_epoch_has_to_be_a_count(epoch, error, message):
    loader = MixupLoader(make_pairs(1), make_mixup())

    with pytest.raises(error, match=message):
        loader.set_epoch(epoch)


@pytest.mark.parametrize(
    ("epochs", "error", "message"),
    [
        (-1, ValueError, "off_after_epoch: expected at least 0, got -1"),
        (0.5, TypeError, "off_after_epoch: expected an int, got 0.5"),
    ],
)
def test_the_number_of_mixed_epochs_has_to_be_a_count(epochs, error, message):
    with pytest.raises(error, match=message):
        MixupLoader(make_pairs(1), make_mixup(), off_after_epoch=epochs)


def test_the_mixer_alone_mixes_whatever_it_is_given_to_fetch():
    mixup, given = make_mixup(), make_pairs(2)
    mixer = BatchMixer(mixup)

    handed_out = [mixer.next_from(lambda: given[0]), mixer.next_from(lambda: given[1])]

    for step in range(2):
        assert_mixed_at(handed_out[step], given[step], mixup, epoch=0, step=step)
    assert [mixer.epoch, mixer.step] == [0, 2]


def test_outputs_are_taken_in_the_order_of_the_loaders_map():
    mixup, (given,) = make_mixup(), make_dicts(1)
    inner = Resettable([{key: given[key] for key in sorted(given, reverse=True)}])
    inner.output_map = ["image", "index", "name", "target"]

    handed_out = next(MixupLoader(inner, mixup))

    pair = handed_out["image"], handed_out["target"]
    assert_mixed_at(pair, (given["image"], given["target"]), mixup, epoch=0, step=0)


# What others would rebuild a loader from.


@pytest.mark.parametrize("name", ["dataset", "collate_fn", "generator"])
def test_what_a_loader_is_rebuilt_from_is_not_forwarded(torch, name):
    data = torch.utils.data.TensorDataset(torch.zeros(4, 3, 8, 8), torch.arange(4))
    loader = MixupLoader(torch.utils.data.DataLoader(data), make_mixup())

    with pytest.raises(AttributeError, match=rf"a loader that is rebuilt .*loader\.loader\.{name}"):
        getattr(loader, name)

    assert not hasattr(loader, name)
    assert loader.batch_size == 1


def test_a_loader_whose_length_is_a_value_error_is_iterated_all_the_same():
    class WithoutSize(list):
        def __len__(self):
            raise ValueError("no size")

        def __iter__(self):
            return iter(make_pairs(2))

    assert len([*iter(MixupLoader(WithoutSize(), make_mixup()))]) == 2


# What would mix twice, or not at all.


def test_a_loader_that_mixes_is_not_wrapped_again():
    inner = MixupLoader(make_pairs(1), make_mixup())

    with pytest.raises(ValueError, match="expected one that does not mix, got a MixupLoader"):
        MixupLoader(inner, make_mixup())


def test_an_int_names_an_item_of_a_tuple():
    images, labels = make_pairs(1)[0]
    mixup = make_mixup(alpha=1.0)

    (handed_out,) = MixupLoader([(labels, images)], mixup, data_key=1, label_key=0)

    assert_mixed_at(handed_out[::-1], (images, labels), mixup, epoch=0, step=0)


@pytest.mark.parametrize(
    "keys",
    [
        {"label_key": ""},
        {"label_key": False},
        {"label_key": [""]},
        {"mask_key": ["mask", 0.5]},
        {"data_key": 1.5},
        {"data_key": ("image", None)},
        {"target_key": ""},
        {"plan_key": b"plan"},
    ],
    ids=str,
)
def test_a_key_that_is_no_name_is_refused(keys):
    (option,) = keys

    with pytest.raises(TypeError, match=rf"{option}: expected the name of an output, got|iterable"):
        MixupLoader(make_dicts(1), make_mixup(), **keys)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"target_key": "x", "plan_key": "x"}, "expected two names, got 'x' for both"),
        ({"target_key": "x", "label_key": ()}, r"target_key: expected labels .* label_key=\(\)"),
    ],
)
def test_keys_that_exclude_each_other_are_refused(keys, message):
    with pytest.raises(ValueError, match=message):
        MixupLoader(make_dicts(1), make_mixup(), **keys)


def test_a_target_without_labels_is_refused():
    loader = MixupLoader([{"image": make_pairs(1)[0][0]}], make_mixup(), target_key="soft")

    with pytest.raises(ValueError, match=r"target_key: expected labels .* outputs \['image'\]"):
        next(iter(loader))


def test_a_target_inside_of_an_output_is_refused():
    loader = MixupLoader(make_dicts(1), make_mixup(), target_key="name.soft")

    with pytest.raises(ValueError, match=r"target_key: expected a new name, got the output 'name"):
        next(iter(loader))


def test_a_larger_view_is_refused_for_cutmix():
    images, labels = make_pairs(1)[0]
    large = np.repeat(np.repeat(images, 2, axis=1), 2, axis=2)
    batch = {"small": images, "large": large, "label": labels}
    cut = make_mixup(alpha=0.0, cutmix_alpha=1.0)

    with pytest.raises(ValueError, match=r"one size for CutMix, got .* for 'small' and .* 'large'"):
        next(iter(MixupLoader([batch], cut, data_key=("small", "large"))))

    next(iter(MixupLoader([batch], make_mixup(), data_key=("small", "large"))))


class SharesItsItems(MutableMapping):
    """Its copy writes into the original."""

    def __init__(self, items):
        self.items_of_both = items

    def __getitem__(self, key):
        return self.items_of_both[key]

    def __setitem__(self, key, value):
        self.items_of_both[key] = value

    def __delitem__(self, key):
        del self.items_of_both[key]

    def __iter__(self):
        return iter(self.items_of_both)

    def __len__(self):
        return len(self.items_of_both)


def test_a_mapping_whose_copy_shares_its_items_is_refused_and_stays_as_it_was():
    batch = SharesItsItems(make_dicts(1)[0])
    images = batch["image"]

    with pytest.raises(TypeError, match="got a SharesItsItems, whose copy shares its items"):
        next(iter(MixupLoader([batch], make_mixup())))

    assert batch["image"] is images


def test_a_state_after_the_last_batch_belongs_to_the_next_epoch():
    loader = MixupLoader(make_pairs(3), make_mixup())
    batches = iter(loader)
    for _ in range(3):
        next(batches)

    state = loader.state_dict()

    assert (state["epoch"], state["step"]) == (1, 0)
    assert next(batches, None) is None
    assert (loader.mixer.epoch, loader.mixer.step) == (1, 0)


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("enabled", "assign loader.mixup.enabled"),
        ("mixup_enabled", "assign loader.mixup.enabled"),
        ("off_after_epoch", "give it when the loader is made"),
        ("alpha", r"loader.mixup = dataclasses.replace\(loader.mixup, alpha=...\)"),
    ],
)
def test_a_setting_that_is_assigned_to_a_loader_says_where_it_belongs(name, advice):
    loader = MixupLoader(make_pairs(1), make_mixup())

    with pytest.raises(AttributeError, match=f"{name}: not a setting of a loader; {advice}"):
        setattr(loader, name, 0)


def test_a_subclass_may_have_attributes_with_the_names_of_settings():
    class Ranked(MixupLoader):
        rank = None

    loader = Ranked(make_pairs(1), make_mixup())
    loader.rank = 3

    assert loader.rank == 3


def test_labels_beside_a_container_with_the_images_are_found_by_their_name():
    images, labels = make_pairs(1)[0]
    batch = {"inputs": {"image": images}, "label": labels}

    mixed = next(iter(MixupLoader([batch], make_mixup(), data_key="inputs.image")))

    assert mixed["label"].shape == (4, CLASSES)


@pytest.mark.parametrize("others", [{}, {"index": np.arange(4)}])
def test_labels_inside_a_container_have_to_be_named(others):
    images, labels = make_pairs(1)[0]
    batch = {"inputs": {"image": images, "label": labels}, **others}

    with pytest.raises(ValueError, match="label_key: expected the name of the labels"):
        next(iter(MixupLoader([batch], make_mixup(), data_key="inputs.image")))


def test_a_loader_mixes_dense_labels_of_bfloat16(torch):
    batch = torch.zeros(CLASSES, 3, 6, 8), torch.eye(CLASSES).bfloat16()

    (mixed,) = MixupLoader([batch], Mixup(num_classes=CLASSES, layout="CHW"))

    assert mixed[1].shape == (CLASSES, CLASSES)
