"""Positions in a run: no two batches of it share the key of their draws."""

import sys
import threading
from types import SimpleNamespace

import numpy as np
import pytest
from support.requirements import require

from dali_mixup import Mixup, MixupLoader

IMAGES = np.zeros((4, 8, 8, 3), np.uint8)
LABELS = np.arange(4)
BATCHES = [(IMAGES, LABELS)] * 3
SETTINGS = {"num_classes": 4, "alpha": 1.0, "pairing": "derangement"}


def shares(batches):
    """The share of the own image in each batch, from its soft labels or its plan."""
    return [float(soft[0].max()) for _, soft in batches]


# Loaders that are created again.


def test_a_loader_that_is_created_again_goes_on_where_the_last_one_stood():
    shared, whole = Mixup(**SETTINGS), MixupLoader(BATCHES, Mixup(**SETTINGS))
    want = [shares(whole) for _ in range(3)]

    got = [shares(MixupLoader(BATCHES, shared)) for _ in range(3)]

    assert got == want
    assert len({lam for epoch in got for lam in epoch}) == 9


def test_a_loader_after_one_that_was_left_begins_the_next_epoch():
    shared = Mixup(**SETTINGS)
    next(iter(MixupLoader(BATCHES, shared)))

    again = MixupLoader(BATCHES, shared)

    assert (again.mixer.epoch, again.mixer.step) == (1, 0)


def test_a_loader_that_was_never_used_takes_no_epoch():
    shared = Mixup(**SETTINGS)
    MixupLoader(BATCHES, shared)

    assert MixupLoader(BATCHES, shared).mixer.epoch == 0


def test_set_epoch_rules_over_where_the_last_loader_stood():
    shared = Mixup(**SETTINGS)
    first = shares(MixupLoader(BATCHES, shared))
    again = MixupLoader(BATCHES, shared)

    again.set_epoch(0)

    assert shares(again) == first


def test_a_state_rules_over_where_the_last_loader_stood():
    shared = Mixup(**SETTINGS)
    start = MixupLoader(BATCHES, shared).state_dict()
    first = shares(MixupLoader(BATCHES, shared))
    again = MixupLoader(BATCHES, shared)

    again.load_state_dict(start)

    assert shares(again) == first


def test_a_dali_iterator_that_is_created_again_goes_on(photo_folder):
    require("nvidia.dali", backend="dali")
    from dali_mixup import MixupClassificationIterator, image_pipeline

    shared = Mixup(num_classes=3, alpha=1.0)

    plans = []
    for size in (24, 32):  # stages of image size
        pipe = image_pipeline(photo_folder, 4, size, "cpu", num_threads=1)
        loader = MixupClassificationIterator(
            pipe, reader_name="Reader", mixup=shared, plan_key="plan"
        )
        plans += [batch["plan"].lam[0] for (batch,) in loader]

    assert len(set(plans)) == len(plans) == 8


# Calls.


def test_calls_from_several_threads_take_a_step_each():
    mixup = Mixup(**SETTINGS, mode="elem")
    drawn = []

    def work():
        for _ in range(50):
            drawn.append(mixup(IMAGES, LABELS)[1].tobytes())

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert mixup.state_dict()["step"] == 200
    assert len(set(drawn)) == 200


@pytest.mark.parametrize(
    "labels", [np.array([0, 1, 2, 9]), np.arange(3), "labels"], ids=["range", "length", "type"]
)
def test_a_call_that_is_refused_takes_no_step(labels):
    mixup, whole = Mixup(**SETTINGS), Mixup(**SETTINGS)
    want = [whole(IMAGES, LABELS)[1].tobytes() for _ in range(2)]
    got = [mixup(IMAGES, LABELS)[1].tobytes()]

    with pytest.raises((TypeError, ValueError)):
        mixup(IMAGES, labels)

    got.append(mixup(IMAGES, LABELS)[1].tobytes())
    assert got == want


@pytest.mark.parametrize("name", ["epoch", "step", "stream"])
def test_a_position_that_would_share_a_key_is_refused(name):
    message = f"{name}: expected less than 4294967296, got 4294967296"

    with pytest.raises(ValueError, match=message):
        Mixup(**SETTINGS).plan(4, **{name: 2**32})


def test_a_rank_that_would_share_a_key_is_refused():
    with pytest.raises(ValueError, match="rank: expected less than 4294967296"):
        Mixup(**SETTINGS, rank=2**32)


@pytest.mark.parametrize("mixes", [Mixup(**SETTINGS), MixupLoader(BATCHES, Mixup(**SETTINGS))])
def test_an_epoch_that_would_share_a_key_is_refused(mixes):
    with pytest.raises(ValueError, match="epoch: expected less than 4294967296"):
        mixes.set_epoch(2**32)


def test_rank_0_is_not_the_environments_rank(monkeypatch):
    monkeypatch.setenv("RANK", "3")

    explicit, environment = Mixup(**SETTINGS, rank=0), Mixup(**SETTINGS)

    assert (explicit.plan(4).lam != environment.plan(4).lam).any()
    monkeypatch.delenv("RANK")
    assert (explicit.plan(4).lam == Mixup(**SETTINGS).plan(4).lam).all()


# Workers of a torch DataLoader.


class Collate:
    """Mixes in a worker, as torchvision's documentation shows it."""

    def __init__(self, mixup):
        self.mixup = mixup

    def __call__(self, samples):
        torch = sys.modules["torch"]
        images, labels = torch.utils.data.default_collate(samples)
        return self.mixup(images, labels)


def worker_loader(torch, mixup, workers=2, persistent=False, seed=None):
    data = torch.utils.data.TensorDataset(
        torch.zeros(16, 3, 8, 8, dtype=torch.uint8), torch.arange(16) % 4
    )
    generator = None if seed is None else torch.Generator().manual_seed(seed)
    return torch.utils.data.DataLoader(
        data,
        batch_size=4,
        num_workers=workers,
        collate_fn=Collate(mixup),
        persistent_workers=persistent,
        generator=generator,
    )


@pytest.mark.parametrize("persistent", [False, True])
def test_workers_and_epochs_do_not_repeat_each_others_plans(torch, persistent):
    loader = worker_loader(torch, Mixup(**SETTINGS), persistent=persistent)

    drawn = [lam for _ in range(3) for lam in shares(loader)]

    assert len(set(drawn)) == 12


@pytest.mark.parametrize("persistent", [False, True])
def test_workers_under_a_seeded_generator_can_be_repeated(torch, persistent):
    first, again, other = (
        worker_loader(torch, Mixup(**SETTINGS), persistent=persistent, seed=seed)
        for seed in (1, 1, 2)
    )

    drawn = [[shares(loader) for _ in range(2)] for loader in (first, again, other)]

    assert drawn[0] == drawn[1] != drawn[2]


def test_the_id_and_all_of_the_seed_of_a_worker_are_part_of_the_key(torch, monkeypatch):
    def drawn_by(worker, seed):
        info = SimpleNamespace(id=worker, seed=seed)
        monkeypatch.setattr(torch.utils.data, "get_worker_info", lambda: info)
        return Mixup(**SETTINGS)(IMAGES, LABELS)[1].tobytes()

    keys = [(0, 5), (1, 5), (0, 6), (0, 5 + 2**32), (0, 5 + 2**33)]

    assert len({drawn_by(*key) for key in keys}) == len(keys)
