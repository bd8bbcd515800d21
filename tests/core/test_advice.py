"""Warnings: who gets one, who does not, and what they say to do."""

import warnings
from functools import partial

import numpy as np
import pytest
from support.requirements import require

from dali_mixup import Mixup, MixupLoader
from dali_mixup.advice import (
    MixupWarning,
    NothingMixedWarning,
    NumClassesWarning,
    UnderfittingWarning,
)


def batches(labels, size=10):
    """A loader of one epoch, each time it is asked."""
    ids = np.asarray(labels)
    images = np.zeros((size, 8, 8, 3), np.uint8)
    parts = [ids[at : at + size] for at in range(0, len(ids), size)]
    return [(images[: len(part)], part) for part in parts]


def test_a_large_alpha_beside_smoothing_is_said_to_underfit():
    with pytest.warns(UnderfittingWarning, match=r"alpha=0\.8 .*take alpha 0\.2 to 0\.4") as said:
        Mixup(num_classes=10, alpha=0.8, label_smoothing=0.1)

    assert said[0].filename == __file__


@pytest.mark.parametrize(
    "settings",
    [
        {"alpha": 0.5, "label_smoothing": 0.1},
        {"alpha": 4.0},
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


@pytest.mark.parametrize("wrapped", [False, True])
def test_a_large_alpha_behind_randaugment_is_said_to_underfit(photo_folder, wrapped):
    iterator, image_pipeline = iterators()
    pipe = image_pipeline(photo_folder, 4, 32, "cpu", randaugment=(2, 9))
    mixup = Mixup(num_classes=3, alpha=0.8)
    make = partial(MixupLoader, iterator(pipe)) if wrapped else partial(iterator, pipe)

    with pytest.warns(UnderfittingWarning, match=r"alpha=0\.8 beside RandAugment"):
        make(mixup=mixup)


@pytest.mark.parametrize(("alpha", "randaugment"), [(0.8, None), (0.2, (2, 9))])
def test_one_of_both_is_not_warned_about(photo_folder, alpha, randaugment):
    make, image_pipeline = iterators()
    pipe = image_pipeline(photo_folder, 4, 32, "cpu", randaugment=randaugment)

    make(pipe, reader_name="Reader", mixup=Mixup(num_classes=3, alpha=alpha))


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
