"""Runs that stop and go on: what is handed out after is what would have been handed out."""

import copy
import json
import pickle

import numpy as np
import pytest
from support.requirements import require

from dali_mixup import Mixup, MixupLoader, OutputFormat, dali_checkpoints
from dali_mixup.advice import MixupWarning

IMAGES = np.random.default_rng(0).integers(0, 256, (6, 8, 9, 3), dtype=np.uint8)
LABELS = np.arange(6)
STATE = Mixup(num_classes=6).state_dict()


def through_json(state):
    return json.loads(json.dumps(state))


def through_pickle(state):
    return pickle.loads(pickle.dumps(state))


def through_torch(state, torch, folder):
    torch.save(state, folder / "state.pt")
    return torch.load(folder / "state.pt", weights_only=True)


@pytest.mark.parametrize("survive", [through_json, through_pickle, copy.deepcopy])
def test_calls_go_on_where_the_state_stands(survive):
    whole, first = (Mixup(num_classes=6, mode="elem") for _ in range(2))
    expected = [whole(IMAGES, LABELS) for _ in range(6)]
    for _ in range(4):
        first(IMAGES, LABELS)
    resumed = Mixup(num_classes=6, mode="elem")

    resumed.load_state_dict(survive(first.state_dict()))

    for images, soft in expected[4:]:
        got = resumed(IMAGES, LABELS)
        assert (got[0] == images).all()
        assert (got[1] == soft).all()


def test_a_wrapped_loader_goes_on_where_the_state_stands():
    batches = [(IMAGES, LABELS)] * 5
    whole = list(MixupLoader(batches, Mixup(num_classes=6)))
    first = MixupLoader(iter(batches), Mixup(num_classes=6))
    for _ in range(2):
        next(first)
    resumed = MixupLoader(iter(batches[2:]), Mixup(num_classes=6))

    resumed.load_state_dict(through_json(first.state_dict()))

    for got, want in zip(resumed, whole[2:], strict=True):
        assert (got[1] == want[1]).all()


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"alpha": 0.4}, "alpha: expected 0.2 as saved, got 0.4"),
        ({"seed": 1}, "seed: expected 0 as saved, got 1"),
        ({"num_classes": 7}, "num_classes: expected 6 as saved, got 7"),
        ({"mode": "elem", "prob": 0.5}, "mode: expected 'batch' as saved.*prob: expected 1.0"),
        ({"output": OutputFormat(dtype="float32")}, "output: expected None as saved"),
    ],
)
def test_a_state_of_other_settings_is_refused_with_the_difference(setting, message):
    other = Mixup(**{"num_classes": 6, **setting})

    with pytest.raises(ValueError, match=message):
        other.load_state_dict(STATE)


def test_a_state_of_other_settings_is_taken_where_that_is_said():
    saved = Mixup(num_classes=6)
    saved(IMAGES, LABELS)
    other = Mixup(num_classes=6, alpha=1.0)

    other.load_state_dict(saved.state_dict(), strict=False)

    assert other.state_dict()["step"] == 1


@pytest.mark.parametrize(
    ("state", "error", "message"),
    [
        (None, TypeError, "state: expected a dict from state_dict.., got NoneType"),
        (
            {},
            ValueError,
            "state: expected the keys",
        ),
        ({**STATE, "extra": 1}, ValueError, "state: expected the keys"),
        ({**STATE, "epoch": -1}, ValueError, r"state\['epoch'\]: expected at least 0, got -1"),
        (
            {**STATE, "epoch": 10**200000},
            ValueError,
            "expected less than 4294967296, got an int of",
        ),
        ({**STATE, "step": 1.5}, TypeError, r"state\['step'\]: expected an int, got 1.5"),
        ({**STATE, "step": True}, TypeError, r"state\['step'\]: expected an int, got True"),
        ({**STATE, "mixup": []}, TypeError, r"state\['mixup'\]: expected a dict of settings"),
        ({**STATE, "dali": "abc"}, TypeError, r"state\['dali'\]: expected a list of str"),
        ({**STATE, "dali": [b"abc"]}, TypeError, r"state\['dali'\]: expected a list of str"),
        ({**STATE, "dali": ["%%"]}, ValueError, r"state\['dali'\]\[0\]: expected base64"),
    ],
)
def test_what_is_no_state_is_refused_and_changes_nothing(state, error, message):
    mixup = Mixup(num_classes=6)
    mixup(IMAGES, LABELS)
    before = mixup.state_dict()

    with pytest.raises(error, match=message):
        mixup.load_state_dict(state)

    assert mixup.state_dict() == before


def test_noise_for_a_state_is_refused_and_never_half_loaded():
    rng = np.random.default_rng(0)
    text = json.dumps({**STATE, "epoch": 3, "step": 5}).encode()
    refused = 0
    for _ in range(2000):
        noisy = bytearray(text)
        for _ in range(rng.integers(1, 4)):
            noisy[rng.integers(len(noisy))] = rng.integers(256)
        mixup = Mixup(num_classes=6)
        try:
            state = json.loads(bytes(noisy))
        except ValueError:
            continue

        try:
            mixup.load_state_dict(state)
        except (TypeError, ValueError):
            refused += 1
            assert mixup.state_dict() == STATE
        else:
            assert mixup.state_dict()["epoch"] == state["epoch"]

    assert refused > 100


def dali_iterators():
    require("torch", "dali")
    require("nvidia.dali")
    from nvidia.dali.plugin.pytorch import DALIClassificationIterator

    from dali_mixup import MixupClassificationIterator, image_pipeline

    return DALIClassificationIterator, MixupClassificationIterator, image_pipeline


def dali_version():
    return tuple(map(int, require("nvidia.dali").__version__.split(".")[:2]))


MIXUP = {"num_classes": 3, "alpha": 1.0, "cutmix_alpha": 1.0, "mode": "elem"}


def make_pipelines(folder, shards=1, state=None, checkpoints=None):
    image_pipeline = dali_iterators()[2]
    checkpoints = checkpoints or (dali_checkpoints(state) if state else [None] * shards)
    return [
        image_pipeline(
            folder, 3, 32, "cpu", shard_id=i, num_shards=shards, seed=7, num_threads=1,
            enable_checkpointing=True, checkpoint=checkpoints[i],
        )
        for i in range(shards)
    ]  # fmt: skip


def make_loader(folder, shards=1, state=None, *, mixup=None, checkpoints=None, **options):
    pipes = make_pipelines(folder, shards, state, checkpoints)
    return dali_iterators()[1](
        pipes, reader_name="Reader", auto_reset=True, mixup=mixup or Mixup(**MIXUP), **options
    )


def hand_out(loader, count):
    """Batches over the ends of epochs, as bytes."""
    batches = []
    while len(batches) < count:
        for outputs in loader:
            batches.append(
                [(out["data"].numpy().tobytes(), out["label"].numpy().tobytes()) for out in outputs]
            )
            if len(batches) == count:
                break
    return batches


@pytest.mark.parametrize("shards", [1, 2])
def test_every_step_of_two_epochs_can_be_gone_on_from(photo_folder, shards):
    whole = make_loader(photo_folder, shards)
    states, batches = [whole.state_dict()], []
    for _ in range(2):
        for outputs in whole:
            batches.append(
                [(out["data"].numpy().tobytes(), out["label"].numpy().tobytes()) for out in outputs]
            )
            states.append(through_json(whole.state_dict()))

    for step, state in enumerate(states[:-1]):
        resumed = make_loader(photo_folder, shards, state)
        resumed.load_state_dict(state)
        assert hand_out(resumed, min(3, len(batches) - step)) == batches[step : step + 3]


def test_a_state_saved_after_the_last_batch_of_an_epoch_goes_on_with_the_next(photo_folder):
    whole = make_loader(photo_folder)
    first = hand_out(whole, len(whole))
    state = whole.state_dict()
    after = hand_out(whole, 2)

    resumed = make_loader(photo_folder, state=state)
    resumed.load_state_dict(state)

    assert (state["epoch"], state["step"]) == (1, 0)
    assert hand_out(resumed, 2) == after
    assert len(first) == 5


def test_dalis_own_checkpoints_carry_our_position(photo_folder):
    whole = make_loader(photo_folder)
    batches = hand_out(whole, 4)

    first = make_loader(photo_folder)
    hand_out(first, 2)
    resumed = make_loader(photo_folder, checkpoints=first.checkpoints())

    assert (resumed.mixer.epoch, resumed.mixer.step) == (0, 2)
    assert hand_out(resumed, 2) == batches[2:]


def test_a_plain_checkpoint_of_dali_loads(photo_folder):
    plain = dali_iterators()[0]
    iterator = plain(make_pipelines(photo_folder), reader_name="Reader")
    next(iterator)

    resumed = make_loader(photo_folder, checkpoints=iterator.checkpoints())

    assert (resumed.mixer.epoch, resumed.mixer.step) == (0, 0)
    assert len(hand_out(resumed, 2)) == 2


def test_our_checkpoint_loads_into_dalis_own_iterator(photo_folder):
    plain, _, image_pipeline = dali_iterators()
    ours = make_loader(photo_folder, mixup=Mixup(num_classes=3).for_validation())
    hand_out(ours, 1)
    checkpoint = ours.checkpoints()[0]
    expected = next(ours)[0]["data"]
    pipe = image_pipeline(
        photo_folder, 3, 32, "cpu", seed=7, num_threads=1,
        enable_checkpointing=True, checkpoint=checkpoint,
    )  # fmt: skip

    got = next(plain(pipe, reader_name="Reader"))[0]["data"]

    assert (got == expected).all()


def test_dalis_checkpoint_of_other_settings_warns_with_the_difference(photo_folder):
    first = make_loader(photo_folder)
    hand_out(first, 1)

    with pytest.warns(MixupWarning, match="alpha: expected 1.0 as saved, got 0.3"):
        make_loader(
            photo_folder, checkpoints=first.checkpoints(), mixup=Mixup(**{**MIXUP, "alpha": 0.3})
        )


def test_pipelines_that_start_anew_are_refused(photo_folder):
    first = make_loader(photo_folder)
    hand_out(first, 1)

    with pytest.raises(RuntimeError, match="pipelines built with checkpoint=dali_checkpoints"):
        make_loader(photo_folder).load_state_dict(first.state_dict())


def test_a_state_of_another_number_of_pipelines_is_refused(photo_folder):
    one = make_loader(photo_folder)

    with pytest.raises(RuntimeError, match="the checkpoints of 2 DALI pipelines, got 1"):
        make_loader(photo_folder, 2).load_state_dict(one.state_dict())
    with pytest.raises(RuntimeError, match="the checkpoints of 1 DALI pipelines, got 2"):
        one.load_state_dict(make_loader(photo_folder, 2).state_dict())


@pytest.mark.parametrize("last_batch", ["FILL", "PARTIAL", "DROP"])
def test_a_wrapped_iterator_of_dali_goes_on_where_the_state_stands(photo_folder, last_batch):
    plain = dali_iterators()[0]
    from nvidia.dali.plugin.base_iterator import LastBatchPolicy

    def wrapped(state=None):
        inner = plain(make_pipelines(photo_folder, 1, state), reader_name="Reader", **policy)
        return MixupLoader(inner, Mixup(**MIXUP))

    policy = {"auto_reset": True, "last_batch_policy": LastBatchPolicy[last_batch]}
    batches = hand_out(wrapped(), 8)
    for step in range(7):
        first = wrapped()
        hand_out(first, step)
        state = through_json(first.state_dict())
        resumed = wrapped(state)

        resumed.load_state_dict(state)

        assert hand_out(resumed, 1) == batches[step : step + 1]


def test_a_wrapped_iterator_from_the_checkpoints_of_another_state_is_refused(photo_folder):
    dali = require("nvidia.dali.plugin.pytorch", backend="dali")

    def make(state=None):
        pipes = make_pipelines(photo_folder, 1, state)
        return MixupLoader(
            dali.DALIClassificationIterator(pipes, reader_name="Reader"), Mixup(**MIXUP)
        )

    loader = make()
    next(loader)
    early = loader.state_dict()
    next(loader)
    late = loader.state_dict()

    with pytest.raises(ValueError, match="expected the checkpoint that pipeline 0 was built from"):
        make(early).load_state_dict(late)

    make(early).load_state_dict(early)
    make(early).load_state_dict(late, strict=False)


def test_a_wrapped_iterator_of_this_package_without_mixup_has_dalis_checkpoints(photo_folder):
    loaders = require("dali_mixup.loaders.dali", backend="dali")
    iterator = loaders.MixupClassificationIterator(
        make_pipelines(photo_folder), reader_name="Reader"
    )

    state = MixupLoader(iterator, Mixup(**MIXUP)).state_dict()

    assert len(state["dali"]) == 1
    assert state["loader"] is None


def test_a_state_without_checkpointing_says_what_to_do(photo_folder):
    _, iterator, image_pipeline = dali_iterators()
    loader = iterator(image_pipeline(photo_folder, 3, 32, "cpu"), mixup=Mixup(num_classes=3))

    with pytest.raises(ValueError, match="checkpointing disabled"):
        loader.state_dict()


def test_without_mixup_there_is_no_state_but_dalis(photo_folder):
    _, iterator, image_pipeline = dali_iterators()
    pipe = image_pipeline(photo_folder, 3, 32, "cpu", enable_checkpointing=True)

    with pytest.raises(ValueError, match="expected a Mixup to have a state"):
        iterator(pipe, reader_name="Reader").state_dict()


def test_torch_saves_and_loads_a_state_as_data_alone(torch, photo_folder, tmp_path):
    loader = make_loader(photo_folder)
    hand_out(loader, 1)
    state = loader.state_dict()

    assert through_torch(state, torch, tmp_path) == state


def test_a_consumer_that_counts_its_batches_reaches_the_next_epoch(photo_folder):
    loader = make_loader(photo_folder, plan_key="plan")
    for _ in range(len(loader)):
        next(loader)

    loader.reset()
    plan = next(loader)[0]["plan"]

    assert plan.lam.tolist() == loader.mixer.mixup.plan(3, (32, 32), epoch=1).lam.tolist()


# What a state does not fit.


def test_a_state_of_another_rank_is_refused(monkeypatch):
    monkeypatch.setenv("RANK", "0")
    state = Mixup(num_classes=6).state_dict()
    monkeypatch.setenv("RANK", "1")

    with pytest.raises(ValueError, match="rank: expected 0 as saved, got 1"):
        Mixup(num_classes=6).load_state_dict(state)

    Mixup(num_classes=6).load_state_dict(state, strict=False)


def test_enabled_is_no_setting_of_a_state():
    off = Mixup(num_classes=6)
    off.enabled = False

    assert off.state_dict() == STATE
    assert "enabled" not in STATE["mixup"]


def test_a_setting_that_this_version_lacks_is_named():
    state = {**STATE, "mixup": {**STATE["mixup"], "future": 1}}

    with pytest.raises(ValueError, match="future: expected 1 as saved, got None"):
        Mixup(num_classes=6).load_state_dict(state)


def test_a_refused_state_does_not_move_a_loader():
    loader = MixupLoader([(IMAGES, LABELS)] * 3, Mixup(num_classes=6))
    state = {**loader.state_dict(), "epoch": 5, "step": 2, "mixup": {"alpha": 9}}

    with pytest.raises(ValueError, match="other settings"):
        loader.load_state_dict(state)

    assert (loader.mixer.epoch, loader.mixer.step) == (0, 0)


def test_a_state_of_another_batch_size_is_refused(photo_folder):
    _, iterator, image_pipeline = dali_iterators()
    first = make_loader(photo_folder)
    hand_out(first, 1)
    state = first.state_dict()
    pipe = image_pipeline(
        photo_folder, 4, 32, "cpu", seed=7, num_threads=1,
        enable_checkpointing=True, checkpoint=dali_checkpoints(state)[0],
    )  # fmt: skip
    if dali_version() < (2, 0):  # it refuses another batch size by itself
        with pytest.raises(RuntimeError, match="Snapshot size does not match"):
            iterator(pipe, reader_name="Reader", mixup=Mixup(**MIXUP))
        return
    resumed = iterator(pipe, reader_name="Reader", mixup=Mixup(**MIXUP))

    with pytest.raises(
        ValueError, match=r"other data: expected \{'batch_size': 3.*'batch_size': 4"
    ):
        resumed.load_state_dict(state)

    resumed.load_state_dict(state, strict=False)


def test_a_state_of_another_shard_is_refused(photo_folder):
    _, iterator, image_pipeline = dali_iterators()

    def loader_of(shard, checkpoint=None):
        pipe = image_pipeline(
            photo_folder, 3, 32, "cpu", shard_id=shard, num_shards=2, num_threads=1,
            enable_checkpointing=True, checkpoint=checkpoint,
        )  # fmt: skip
        return iterator(pipe, reader_name="Reader", mixup=Mixup(**MIXUP))

    state = loader_of(0).state_dict()

    with pytest.raises(ValueError, match=r"other data: .*'shard_id': 0.*'shard_id': 1"):
        loader_of(1, dali_checkpoints(state)[0]).load_state_dict(state)


def test_a_state_of_another_position_than_its_pipelines_is_refused(photo_folder):
    first = make_loader(photo_folder)
    hand_out(first, 1)
    early = first.state_dict()
    hand_out(first, 2)
    late = first.state_dict()
    resumed = make_loader(photo_folder, state=early)

    with pytest.raises(ValueError, match=r"position of the pipelines' .*\(0, 1\), got \(0, 3\)"):
        resumed.load_state_dict(late)

    assert (resumed.mixer.epoch, resumed.mixer.step) == (0, 1)
    resumed.load_state_dict(late, strict=False)
    assert (resumed.mixer.epoch, resumed.mixer.step) == (0, 3)


# Wrapped loaders with a state of their own.


def stateful_loader(torch):
    stateful = require("torchdata.stateful_dataloader", backend="dali").StatefulDataLoader
    images = torch.arange(12, dtype=torch.uint8).view(12, 1, 1, 1).expand(12, 3, 8, 8)
    data = torch.utils.data.TensorDataset(images, torch.arange(12) % 6)
    return stateful(data, batch_size=2, num_workers=0)


def test_the_state_of_a_wrapped_loader_rides_along(torch, tmp_path):
    mixup = {"num_classes": 6, "alpha": 1.0}
    whole = list(MixupLoader(stateful_loader(torch), Mixup(**mixup)))
    first = MixupLoader(stateful_loader(torch), Mixup(**mixup))
    batches = iter(first)
    for _ in range(2):
        next(batches)
    torch.save(first.state_dict(), tmp_path / "state.pt")
    resumed = MixupLoader(stateful_loader(torch), Mixup(**mixup))

    resumed.load_state_dict(torch.load(tmp_path / "state.pt"))

    rest = list(resumed)
    assert len(rest) == 4
    for got, want in zip(rest, whole[2:], strict=True):
        assert torch.equal(got[0], want[0])
        assert torch.equal(got[1], want[1])


def test_a_loader_with_a_state_needs_it(torch):
    state = MixupLoader([(IMAGES, LABELS)], Mixup(num_classes=6)).state_dict()

    with pytest.raises(RuntimeError, match="expected the state of the wrapped loader, got None"):
        MixupLoader(stateful_loader(torch), Mixup(num_classes=6)).load_state_dict(state)


def test_a_loader_without_a_state_cannot_take_one(torch):
    state = MixupLoader(stateful_loader(torch), Mixup(num_classes=6)).state_dict()

    with pytest.raises(RuntimeError, match=r"expected no state of the wrapped loader, got \{"):
        MixupLoader([(IMAGES, LABELS)], Mixup(num_classes=6)).load_state_dict(state)


def test_a_state_says_that_the_loader_has_none():
    assert MixupLoader([(IMAGES, LABELS)], Mixup(num_classes=6)).state_dict()["loader"] is None


def test_a_state_of_calls_is_not_one_of_a_loader():
    loader = MixupLoader([(IMAGES, LABELS)], Mixup(num_classes=6))

    with pytest.raises(ValueError, match="expected one of a loader, got one of a Mixup that is"):
        loader.load_state_dict(STATE)


def test_a_state_of_a_loader_is_not_one_of_calls():
    state = MixupLoader([(IMAGES, LABELS)], Mixup(num_classes=6)).state_dict()

    with pytest.raises(ValueError, match="expected one of a Mixup that is called, got one of a lo"):
        Mixup(num_classes=6).load_state_dict(state)


def test_a_state_of_the_first_version_is_refused_because_of_its_draws():
    state = {name: Mixup(num_classes=2).state_dict()[name] for name in ("epoch", "step", "mixup")}

    with pytest.raises(ValueError, match=r"of dali-mixup 0\.1, which draws other plans"):
        Mixup(num_classes=2).load_state_dict(state | {"dali": []})
