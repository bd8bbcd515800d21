"""A wrapped loader and its data agree on the epoch, also where a run is stopped and resumed."""

import numpy as np
import pytest
from support.requirements import require

from dali_mixup import Mixup, MixupLoader

BATCHES = 5


def make_batches(count=BATCHES):
    return [(np.full((4, 6, 6, 3), i, np.uint8), np.arange(4)) for i in range(count)]


def make_loader(batches, **options):
    return MixupLoader(batches, Mixup(num_classes=4, alpha=1.0, pairing="derangement"), **options)


def make_data(torch, batch_sampler=False):
    data = torch.utils.data.TensorDataset(torch.zeros(8, 3, 6, 6), torch.arange(8) % 4)
    sampler = torch.utils.data.DistributedSampler(data, num_replicas=1, rank=0)
    if not batch_sampler:
        return torch.utils.data.DataLoader(data, batch_size=4, sampler=sampler), sampler
    batches = torch.utils.data.BatchSampler(sampler, 4, drop_last=False)
    return torch.utils.data.DataLoader(data, batch_sampler=batches), sampler


@pytest.mark.parametrize("batch_sampler", [False, True])
def test_a_distributed_sampler_is_told_the_epoch(torch, batch_sampler):
    data, sampler = make_data(torch, batch_sampler)

    make_loader(data).set_epoch(3)

    assert sampler.epoch == 3


def test_others_tell_the_sampler_through_the_loader(torch):
    data, sampler = make_data(torch)

    make_loader(data).sampler.set_epoch(5)

    assert sampler.epoch == 5


def test_a_resumed_run_tells_the_data_its_epoch(torch):
    data, _ = make_data(torch)
    loader = make_loader(data)
    loader.set_epoch(2)
    next(iter(loader))
    again, sampler = make_data(torch)

    make_loader(again).load_state_dict(loader.state_dict())

    assert sampler.epoch == 2


class MoreThanItsLength(list):
    """As torch's DataLoader over an IterableDataset that each of its workers shards."""

    def __len__(self):
        return super().__len__() - 2


def passed_through(loader, passes=2, save_every=0):
    """The epoch of each batch, and its largest shares."""
    seen = []
    for _ in range(passes):
        for step, (_, targets) in enumerate(loader):
            seen.append((loader.mixer.epoch, targets.max(1).tolist()))
            if save_every and step % save_every == 0:
                loader.state_dict()
    return seen


def test_a_state_changes_nothing_where_there_are_more_batches_than_the_length():
    saved = make_loader(MoreThanItsLength(make_batches()), off_after_epoch=1)
    not_saved = make_loader(MoreThanItsLength(make_batches()), off_after_epoch=1)

    assert passed_through(saved, save_every=1) == passed_through(not_saved)


def test_a_state_changes_nothing_where_the_steps_exceed_the_batches():
    stopped = make_loader(make_batches())
    batches = iter(stopped)
    next(batches), next(batches), next(batches)
    saved, not_saved = (make_loader(make_batches(), off_after_epoch=1) for _ in range(2))
    for loader in (saved, not_saved):
        loader.load_state_dict(stopped.state_dict())

    assert passed_through(saved, save_every=1) == passed_through(not_saved)


def test_a_state_changes_nothing_after_a_pass_that_was_left():
    saved, not_saved = make_loader(make_batches()), make_loader(make_batches())
    for loader in (saved, not_saved):
        batches = iter(loader)
        next(batches), next(batches)

    assert passed_through(saved, save_every=1) == passed_through(not_saved)


def test_a_program_that_counts_batches_begins_the_next_epoch_with_the_next_pass():
    loader = make_loader(make_batches())
    for epoch in range(3):
        batches = iter(loader)
        for _ in range(BATCHES):
            next(batches)
            assert loader.mixer.epoch == epoch


def make_stateful(torch):
    stateful = require("torchdata.stateful_dataloader", backend="dali").StatefulDataLoader
    data = torch.utils.data.TensorDataset(torch.rand(16, 3, 6, 6), torch.arange(16) % 4)
    return make_loader(stateful(data, batch_size=4))


def test_a_state_after_the_last_batch_loses_no_epoch(torch):
    loader = make_stateful(torch)
    for _ in loader:
        state = loader.state_dict()
    resumed = make_stateful(torch)
    resumed.load_state_dict(state)

    assert sum(len(list(resumed)) for _ in range(state["epoch"], 3)) == 2 * len(loader)


@pytest.mark.parametrize("counts", [False, True])
def test_a_resumed_pass_of_a_stateful_loader_ends_its_epoch(torch, counts):
    loader = make_stateful(torch)
    next(iter(loader))
    resumed = make_stateful(torch)
    resumed.load_state_dict(loader.state_dict())

    batches = iter(resumed)
    for _ in range(3):
        next(batches)
        assert resumed.mixer.epoch == 0
    assert counts or next(batches, None) is None
    next(iter(resumed))

    assert (resumed.mixer.epoch, resumed.mixer.step) == (1, 1)
