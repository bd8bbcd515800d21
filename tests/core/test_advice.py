"""Warnings: who gets one, who does not, and what they say to do."""

import warnings
from functools import partial

import numpy as np
import pytest
from support.requirements import require

from dali_mixup import Mixup, MixupLoader, OutputFormat
from dali_mixup.advice import (
    BypassedMixingWarning,
    LabelsSeen,
    MixupWarning,
    NormalizationWarning,
    NothingMixedWarning,
    NumClassesWarning,
    UnderfittingWarning,
    UnshardedLoaderWarning,
)


def batches(labels, size=10):
    """A loader of one epoch, each time it is asked."""
    ids = np.asarray(labels)
    images = np.zeros((size, 8, 8, 3), np.uint8)
    parts = [ids[at : at + size] for at in range(0, len(ids), size)]
    return [(images[: len(part)], part) for part in parts]


@pytest.mark.parametrize(
    "settings",
    [
        {"alpha": 0.5, "label_smoothing": 0.1},
        {"alpha": 4.0},
        {"alpha": 0.8, "label_smoothing": 0.1},
        {"alpha": 0, "cutmix_alpha": 1.0, "label_smoothing": 0.1},
    ],
)
def test_what_is_usual_is_not_warned_about(settings):
    Mixup(num_classes=10, **settings)  # a warning would be an error


@pytest.mark.parametrize("settings", [{"alpha": 0}, {"prob": 0, "cutmix_alpha": 1.0}])
def test_settings_that_mix_nothing_are_said_to(settings):
    with pytest.warns(NothingMixedWarning, match=r"nothing will be mixed.*for_validation\(\)"):
        Mixup(num_classes=10, **settings)


def test_validation_neither_mixes_nor_smooths_nor_warns():
    images = np.arange(4 * 2 * 2 * 3, dtype=np.uint8).reshape(4, 2, 2, 3)

    mixed, soft = Mixup(num_classes=4, label_smoothing=0.1).for_validation()(images, np.arange(4))

    assert (mixed == images).all()
    assert (soft == np.eye(4)).all()


def test_an_advice_is_given_once_for_a_place():
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("default")
        for _ in range(3):
            Mixup(num_classes=10, alpha=0)

    assert len(said) == 1


def test_labels_far_below_num_classes_are_said_after_the_first_epoch():
    loader = MixupLoader(batches(np.arange(200) % 10), Mixup(num_classes=1000))

    with pytest.warns(NumClassesWarning, match=r"num_classes=1000, and the largest of 200 .* 9"):
        list(loader)

    list(loader)  # said once: a second warning would be an error


@pytest.mark.parametrize(
    ("labels", "num_classes"),
    [
        (np.arange(200) % 10, 10),
        (np.arange(150) % 9, 10),  # a class may be rare
        ([3] * 10, 20),  # too few to tell
        (np.eye(10, dtype=np.float32), 10),
        (np.empty((0,), np.int64), 10),
    ],
    ids=["all classes", "a rare class", "few labels", "dense", "none"],
)
def test_labels_that_may_be_of_all_classes_are_not_warned_about(labels, num_classes):
    list(MixupLoader(batches(labels), Mixup(num_classes=num_classes)))


@pytest.mark.parametrize("why", ["validation", "several processes"])
def test_a_part_of_the_data_is_not_judged(monkeypatch, why):
    mixup = Mixup(num_classes=1000)
    if why == "validation":
        mixup = mixup.for_validation()
    else:
        monkeypatch.setenv("WORLD_SIZE", "8")

    list(MixupLoader(batches(np.arange(200) % 10), mixup))


def test_a_batch_is_handed_out_before_the_epoch_is_judged():
    loader = iter(MixupLoader(batches(np.zeros(100, int)), Mixup(num_classes=1000)))

    for _ in range(10):
        next(loader)

    with pytest.warns(NumClassesWarning), pytest.raises(StopIteration):
        next(loader)


def iterators():
    require("nvidia.dali", backend="dali")
    require("torch", backend="dali")
    from dali_mixup import MixupClassificationIterator, image_pipeline

    return MixupClassificationIterator, image_pipeline


STRONG = {"alpha": 0.8, "label_smoothing": 0.1}


@pytest.mark.parametrize("wrapped", [False, True])
@pytest.mark.parametrize(
    ("augmentation", "said"),
    [({"augment": "randaugment"}, "randaugment"), ({"color_jitter": 0.4}, r"color_jitter=0\.4")],
)
def test_a_large_alpha_with_smoothing_and_strong_augmentation_is_said_to_underfit(
    photo_folder, wrapped, augmentation, said
):
    iterator, image_pipeline = iterators()
    pipe = image_pipeline(photo_folder, 4, 32, "cpu", **augmentation)
    mixup = Mixup(num_classes=3, **STRONG)
    make = partial(MixupLoader, iterator(pipe)) if wrapped else partial(iterator, pipe)

    with pytest.warns(
        UnderfittingWarning,
        match=rf"alpha=0\.8 beside label_smoothing=0\.1 and {said}: .*take alpha 0\.2 to 0\.4",
    ) as warned:
        make(mixup=mixup)

    assert warned[0].filename == __file__


def test_cutmix_that_is_never_chosen_is_not_beside_mixup(photo_folder):
    make, image_pipeline = iterators()
    pipe = image_pipeline(photo_folder, 4, 32, "cpu", color_jitter=0.4)
    mixup = Mixup(num_classes=3, cutmix_alpha=1.0, switch_prob=0.0, **STRONG)

    with pytest.warns(UnderfittingWarning):
        make(pipe, mixup=mixup)


@pytest.mark.parametrize(
    ("settings", "augmentation"),
    [
        (STRONG, {}),
        (STRONG | {"alpha": 0.5}, {"augment": "randaugment"}),
        (STRONG | {"label_smoothing": 0.0}, {"augment": "randaugment"}),
        (STRONG | {"cutmix_alpha": 1.0}, {"augment": "randaugment"}),
    ],
    ids=["no augmentation", "small alpha", "no smoothing", "CutMix beside it"],
)
def test_less_than_all_of_them_is_not_warned_about(photo_folder, settings, augmentation):
    make, image_pipeline = iterators()
    pipe = image_pipeline(photo_folder, 4, 32, "cpu", **augmentation)

    make(pipe, reader_name="Reader", mixup=Mixup(num_classes=3, **settings))


def test_a_dali_loader_says_it_with_its_last_batch(photo_folder):
    make, image_pipeline = iterators()
    pipe = image_pipeline(photo_folder, 14, 32, "cpu")
    loader = make(pipe, reader_name="Reader", mixup=Mixup(num_classes=1000))

    with pytest.warns(NumClassesWarning, match="largest of 14 class ids in an epoch was 2"):
        list(loader)


@pytest.mark.parametrize("kind", [UnderfittingWarning, NothingMixedWarning, NumClassesWarning])
def test_one_filter_silences_all(kind):
    assert issubclass(kind, MixupWarning)
    assert issubclass(kind, UserWarning)


# Images that are normalised already.


def crop_mirror_normalize(images):
    mean = np.array([123.675, 116.28, 103.53], np.float32)
    std = np.array([58.395, 57.12, 57.375], np.float32)
    return ((images - mean) / std).transpose(0, 3, 1, 2)


PIXELS = np.random.default_rng(0).integers(0, 256, (4, 8, 8, 3)).astype(np.float32)
IN_255 = OutputFormat(mean=(123.675, 116.28, 103.53), std=(58.395, 57.12, 57.375))
IN_1 = OutputFormat(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))


@pytest.mark.parametrize("output", [IN_255, IN_1])
def test_images_that_are_normalised_already_are_said_once(output):
    images = np.ascontiguousarray(crop_mirror_normalize(PIXELS))
    loader = MixupLoader([(images, np.arange(4))] * 2, Mixup(num_classes=4, output=output))

    with pytest.warns(NormalizationWarning, match="normalised already or in other units") as said:
        list(loader)

    assert len(said) == 1


@pytest.mark.parametrize(
    ("images", "output"),
    [
        (PIXELS, IN_255),
        (PIXELS / 255, IN_1),
        (PIXELS * 12 - 1000, OutputFormat(mean=50.0, std=300.0)),  # a CT in Hounsfield units
        (PIXELS / 127.5 - 1, OutputFormat(mean=0.0, std=0.5)),
        (np.zeros_like(PIXELS), IN_255),
        (np.ascontiguousarray(crop_mirror_normalize(PIXELS)), OutputFormat(dtype="float16")),
    ],
    ids=["0 to 255", "0 to 1", "CT", "-1 to 1", "black", "not normalised again"],
)
def test_pixels_in_the_units_of_mean_and_std_are_not_warned_about(images, output):
    list(MixupLoader([(images, np.arange(4))], Mixup(num_classes=4, output=output)))


@pytest.mark.parametrize(("images", "output"), [(PIXELS / 255, IN_255), (PIXELS, IN_1)])
def test_images_in_other_units_than_mean_and_std_are_said_for_a_call_too(images, output):
    mixup = Mixup(num_classes=4, output=output)

    with pytest.warns(NormalizationWarning, match="in the units of the images"):
        mixup(images, np.arange(4))

    mixup(images, np.arange(4))  # said once: a second warning would be an error


# Data that is not sharded.


def torch_loader(torch, **options):
    data = torch.utils.data.TensorDataset(torch.zeros(8, 3, 8, 8), torch.arange(8) % 4)
    return torch.utils.data.DataLoader(data, batch_size=2, **options)


@pytest.mark.parametrize("shuffle", [True, False])
def test_a_loader_that_gives_all_data_to_every_process_is_said(torch, monkeypatch, shuffle):
    monkeypatch.setenv("WORLD_SIZE", "2")
    loader = MixupLoader(torch_loader(torch, shuffle=shuffle), Mixup(num_classes=4))

    with pytest.warns(UnshardedLoaderWarning, match="each of 2 processes reads all of the data"):
        next(iter(loader))


@pytest.mark.parametrize("why", ["one process", "distributed sampler", "no torch loader"])
def test_a_loader_that_is_sharded_is_not_warned_about(torch, monkeypatch, why):
    loader = torch_loader(torch)
    if why != "one process":
        monkeypatch.setenv("WORLD_SIZE", "2")
    if why == "distributed sampler":
        sampler = torch.utils.data.DistributedSampler(loader.dataset, num_replicas=2, rank=0)
        loader = torch_loader(torch, sampler=sampler)
    if why == "no torch loader":
        loader = list(loader)

    next(iter(MixupLoader(loader, Mixup(num_classes=4))))


# Subclasses that go past the mixing.


def test_a_subclass_that_calls_dalis_own_next_is_said():
    generic = dali_iterator()

    with pytest.warns(BypassedMixingWarning, match=r"Loader\.__next__ takes a batch .* super\(\)"):

        class Loader(generic):
            def __next__(self):
                return DALIGenericIterator.__next__(self)  # noqa: F821


def test_a_subclass_that_takes_the_first_batch_is_said():
    generic = dali_iterator()

    with pytest.warns(BypassedMixingWarning, match=r"Loader\.peek takes a batch"):

        class Loader(generic):
            def peek(self):
                return self._first_batch


def test_a_subclass_that_calls_super_is_not_warned_about():
    class Loader(dali_iterator()):
        def __next__(self):
            return super().__next__()[0]


def dali_iterator():
    require("nvidia.dali", backend="dali")
    require("torch", backend="dali")
    from dali_mixup import MixupGenericIterator

    return MixupGenericIterator


# Nothing is lost.


def test_no_batch_is_lost_where_warnings_are_errors(photo_folder):
    iterator, image_pipeline = iterators()
    pipe = image_pipeline(photo_folder, 4, 32, "cpu", num_threads=1)
    loader = iterator(pipe, reader_name="Reader", auto_reset=True, mixup=Mixup(num_classes=10**6))
    batches = [next(loader) for _ in range(len(loader))]

    with pytest.raises(NumClassesWarning):
        next(loader)

    assert len(batches) == 4
    assert len(list(loader)) in (0, 4)  # DALI ends the epoch first where it was not reset


def test_the_largest_label_of_all_batches_counts():
    seen = LabelsSeen()

    for labels in ([3, 9], [2, 1]):
        seen.add(np.array(labels))

    assert (seen.count, seen.largest) == (4, 9)


@pytest.mark.parametrize("labels", [None, [0, 1, 2, 3]])
def test_labels_that_tell_nothing_are_passed_over(labels):
    seen = LabelsSeen()

    seen.add(labels)

    assert seen.count == 0


def test_a_world_size_that_is_no_number_is_named_before_a_batch_is_fetched(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "abc")

    with pytest.raises(ValueError, match=r"WORLD_SIZE: expected an integer .*, got 'abc'"):
        MixupLoader([], Mixup(num_classes=10))


def test_an_empty_world_size_is_none(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "")

    assert list(MixupLoader([], Mixup(num_classes=10))) == []
