"""Several processes, as torchrun starts them: their plans, their shares of the data, a crash."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
from support.processes import finish, start, torchrun
from support.requirements import require

from dali_mixup import Mixup

require("torch", backend="dali")
require("nvidia.dali")
image_module = require("PIL.Image", backend="dali")

WORKER = Path(__file__).with_name("distributed_worker.py")
EPOCHS, SIDE = 3, 8
FULL = 6  # files a rank, two batches of them
WORLDS = [2, *(pytest.param(world, marks=pytest.mark.nightly) for world in (4, 8))]


def write_files(folder, count):
    """`count` images of a colour each, every one a class of its own; class id and file id agree."""
    rng = np.random.default_rng(count)
    for index in range(count):
        (folder / f"{index:03d}").mkdir(parents=True)
        photo = rng.integers(0, 256, 3) + rng.integers(-9, 10, (12, 16, 3))
        photo = image_module.fromarray(np.clip(photo, 0, 255).astype(np.uint8))
        photo.save(folder / f"{index:03d}" / "photo.png")
    return folder


def folders(root, world):
    """One that divides evenly, and one that gives a single rank a third batch, of one file."""
    return {
        "even": write_files(root / "even", FULL * world),
        "uneven": write_files(root / "uneven", FULL * world + 1),
    }


def journals(out, name, world):
    return [json.loads((out / f"{name}_{rank}.json").read_text()) for rank in range(world)]


def batches_of(out, name, world):
    """Of each rank, what it was handed."""
    return [journal["batches"] for journal in journals(out, name, world)]


def files_by_epoch(batches_by_rank):
    """All files that all ranks were handed in each epoch, sorted."""
    epochs = [[] for _ in range(EPOCHS)]
    for batches in batches_by_rank:
        for batch in batches:
            epochs[batch["epoch"]] += batch["files"]
    return [sorted(files) for files in epochs]


def without_attempts(batches_by_rank):
    return [[{**batch, "attempt": None} for batch in batches] for batches in batches_by_rank]


@pytest.fixture(scope="module", params=WORLDS)
def world(request):
    return request.param


@pytest.fixture(scope="module")
def data(world, tmp_path_factory):
    return folders(tmp_path_factory.mktemp("data"), world)


@pytest.fixture(scope="module")
def undisturbed(world, data, tmp_path_factory):
    """The folder of the journals of a run that nothing happened to."""
    out = tmp_path_factory.mktemp("undisturbed")
    torchrun(world, WORKER, out, "--read", *data.values(), "--train", data["even"])
    return out


@pytest.mark.parametrize("name", ["even", "uneven"])
def test_the_ranks_together_read_every_file_once_an_epoch(undisturbed, world, name):
    files = FULL * world + (name == "uneven")

    delivered = files_by_epoch(batches_of(undisturbed, name, world))

    assert delivered == [list(range(files))] * EPOCHS


def test_ranks_that_have_run_out_are_handed_empty_batches(undisturbed, world):
    sizes = [
        [len(batch["files"]) for batch in batches if batch["epoch"] == 0]
        for batches in batches_of(undisturbed, "uneven", world)
    ]

    assert sorted(sizes) == [[3, 3, 0]] * (world - 1) + [[3, 3, 1]]


@pytest.mark.parametrize("name", ["even", "uneven"])
def test_the_plans_are_those_of_each_ranks_number(undisturbed, world, data, name):
    settings = {"num_classes": len(list(data[name].iterdir())), "mode": "elem"}
    for rank, batches in enumerate(batches_of(undisturbed, name, world)):
        mixup = Mixup(alpha=1.0, cutmix_alpha=1.0, rank=rank, **settings)
        for batch in batches:
            plan = mixup.plan(
                len(batch["files"]), (SIDE, SIDE), epoch=batch["epoch"], step=batch["step"]
            )

            assert batch["plan"] == [plan.partner.tolist(), plan.lam.tolist(), plan.box.tolist()]


def test_no_two_ranks_ever_draw_the_same_plan(undisturbed, world):
    drawn = [
        tuple(batch["plan"][1])
        for batches in batches_of(undisturbed, "even", world)
        for batch in batches
    ]

    assert len(drawn) == len(set(drawn)) == world * EPOCHS * FULL // 3


def test_ranks_mix_only_what_they_were_handed_themselves(undisturbed, world):
    for batches in batches_of(undisturbed, "uneven", world):
        for batch in batches:
            partner = batch["plan"][0]

            assert batch["partners"] == [batch["files"][i] for i in partner]


def test_distributed_training_goes_down(undisturbed, world):
    trained = journals(undisturbed, "training", world)

    for losses in (rank["losses"] for rank in trained):
        assert all(map(math.isfinite, losses))
        assert np.mean(losses[-8:]) < 0.8 * np.mean(losses[:8])


def test_distributed_training_ends_with_one_model(undisturbed, world):
    first, *others = journals(undisturbed, "training", world)

    for other in others:
        assert other["weights"] == first["weights"]
        assert other["losses"] != first["losses"]


def test_a_group_that_is_restarted_loses_nothing_and_repeats_nothing(
    undisturbed, world, data, tmp_path
):
    arguments = ["--read", data["uneven"], "--die-after", 5]

    printed = torchrun(world, WORKER, tmp_path, *arguments, max_restarts=1)

    batches = batches_of(tmp_path, "uneven", world)
    assert "exitcode: 17" in printed
    assert [batch["attempt"] for batch in batches[-1]] == [0] * 4 + [1] * 5
    assert without_attempts(batches) == without_attempts(batches_of(undisturbed, "uneven", world))


def test_two_nodes_do_not_repeat_each_other(tmp_path):
    world, data = 4, folders(tmp_path, 4)
    ranks = [
        start(
            [WORKER, tmp_path, "--read", data["even"]],
            RANK=str(rank), LOCAL_RANK=str(rank % 2), WORLD_SIZE=str(world), LOCAL_WORLD_SIZE="2",
        )
        for rank in range(world)
    ]  # fmt: skip

    for rank in ranks:
        finish(rank)

    batches = batches_of(tmp_path, "even", world)
    plans = [tuple(batch["plan"][1]) for rank in batches for batch in rank]
    assert files_by_epoch(batches) == [list(range(FULL * world))] * EPOCHS
    assert len(plans) == len(set(plans))
