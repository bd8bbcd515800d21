"""Where draws stand: in Mixups whose settings were replaced, and in copies in other processes."""

import copy
import dataclasses
import multiprocessing
import os
import pickle

import numpy as np
import pytest

from dali_mixup import Mixup, MixupLoader
from dali_mixup.advice import CopiedMixupWarning

IMAGES, LABELS = np.zeros((4, 6, 6, 3), np.uint8), np.arange(4)
BATCHES = [(IMAGES, LABELS)] * 3


def make_mixup(**settings):
    return Mixup(num_classes=4, alpha=1.0, pairing="derangement", **settings)


def share(targets):
    return float(targets[0].max())


def through_pickle(mixup):
    return pickle.loads(pickle.dumps(mixup))


def called(mixup, times=3):
    return [share(mixup(IMAGES, LABELS)[1]) for _ in range(times)]


def test_calls_go_on_where_the_mixup_stood_whose_settings_are_replaced():
    mixup, same = make_mixup(), make_mixup()
    expected = called(same, 6)

    first = called(mixup)
    second = called(dataclasses.replace(mixup, label_smoothing=0.0))

    assert first + second == expected
    assert called(mixup) == second  # which stands where it stood


def test_loaders_go_on_where_the_mixup_stood_whose_settings_are_replaced():
    mixup = make_mixup()
    list(MixupLoader(BATCHES, mixup))

    assert MixupLoader(BATCHES, dataclasses.replace(mixup, alpha=0.4)).mixer.epoch == 1


def test_validation_begins_at_the_start():
    mixup = make_mixup()
    called(mixup)
    mixup.set_epoch(3)

    assert mixup.for_validation().state_dict()["epoch"] == 0


def test_a_mixup_of_another_class_is_refused_in_the_middle_of_a_run():
    class Other(Mixup):
        pass

    loader = MixupLoader(BATCHES, make_mixup())

    with pytest.raises(TypeError, match=r"expected dataclasses.replace\(loader.mixup, ...\)"):
        loader.mixup = Other(num_classes=4)


class MixesItsOwnShard:
    """An iterable dataset; torch's base class is not imported where torch is not there."""

    def __init__(self, mixup):
        self.mixup = mixup

    def __iter__(self):
        for _, targets in MixupLoader(BATCHES, self.mixup):
            yield share(targets)


def test_loaders_in_the_workers_of_a_dataloader_draw_differently(torch):
    data = torch.utils.data
    dataset = type("Shard", (MixesItsOwnShard, data.IterableDataset), {})(make_mixup())
    loader = data.DataLoader(dataset, batch_size=None, num_workers=2)

    shares = [share for _ in range(2) for share in loader]

    assert len(set(shares)) == len(shares) == 12


def draw_with_warnings(mixup):
    with pytest.warns(CopiedMixupWarning, match="make a Mixup with another seed or rank"):
        mixup(IMAGES, LABELS)
    return called(mixup, 1)


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_copy_in_another_process_warns_once(monkeypatch):
    monkeypatch.delenv("RANK", raising=False)
    with multiprocessing.get_context("fork").Pool(1) as pool:
        assert pool.apply_async(draw_with_warnings, (make_mixup(),)).get(60)


@pytest.mark.filterwarnings("error")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_copy_with_a_rank_of_its_own_does_not_warn(monkeypatch):
    monkeypatch.setenv("RANK", "1")
    with multiprocessing.get_context("fork").Pool(1) as pool:
        assert pool.apply_async(called, (make_mixup(),)).get(60)
        assert pool.apply_async(called, (make_mixup(rank=3),)).get(60)


def test_a_copy_keeps_the_rank_of_the_process_that_it_came_from(monkeypatch):
    monkeypatch.setenv("RANK", "5")
    copied = pickle.dumps(make_mixup())
    monkeypatch.delenv("RANK")

    assert pickle.loads(copied).global_rank == 5
    monkeypatch.setenv("RANK", "2")
    assert pickle.loads(copied).global_rank == 2


def test_other_settings_keep_the_rank_of_the_process_that_it_came_from(monkeypatch):
    monkeypatch.setenv("RANK", "5")
    copied = pickle.dumps(make_mixup())
    monkeypatch.delenv("RANK")

    assert dataclasses.replace(pickle.loads(copied), alpha=0.4).global_rank == 5


def test_other_settings_leave_mixing_off():
    mixup = make_mixup()
    mixup.enabled = False

    changed = dataclasses.replace(mixup, alpha=0.4)

    assert not changed.enabled
    changed.enabled = True
    assert not mixup.enabled
    assert dataclasses.replace(changed, alpha=0.3).enabled


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, through_pickle])
def test_a_copy_has_a_place_of_its_own(duplicate):
    mixup = make_mixup()
    copied = duplicate(mixup)
    expected = called(mixup)

    assert called(copied) == expected
    assert os.getpid() == copied._process
