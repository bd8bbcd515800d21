"""The trainer and the study: they run, resume exactly, and their statistics are right."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from support.requirements import require

torch = require("torch")
require("nvidia.dali", backend="dali")
require("matplotlib", backend="dali")
require("sklearn", backend="dali")

from dali_mixup.recipes import RECIPES  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def benchmarks(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT))


@pytest.fixture
def data(photo_folder, tmp_path):
    """train/ and val/ of the same 14 photographs."""
    for part in ("train", "val"):
        (tmp_path / "data").mkdir(exist_ok=True)
        (tmp_path / "data" / part).symlink_to(photo_folder)
    return tmp_path / "data"


def curves(folder):
    return json.loads((folder / "curves.json").read_text())["history"]


def with_dropout(name, num_classes, image_size, **options):
    return torch.nn.Sequential(
        torch.nn.AdaptiveAvgPool2d(4),
        torch.nn.Flatten(),
        torch.nn.Dropout(),
        torch.nn.Linear(48, num_classes),
    )


@pytest.mark.parametrize("recipe", ["", "--recipe deit3-b --image-size 32 --lr 0.01"])
def test_a_training_that_is_resumed_equals_one_that_was_not_stopped(
    benchmarks, monkeypatch, data, tmp_path, recipe
):
    from benchmarks.training import train

    monkeypatch.setattr(train, "build_model", with_dropout)
    command = f"train.py {recipe} --data {data} --epochs 4 --batch-size 4 --num-threads 1"
    command = f"{command} --out {tmp_path}"

    for arguments in ("/whole", "/parts --stop-after 2", "/parts --resume"):
        monkeypatch.setattr(sys, "argv", (command + arguments).split())
        train.main()

    assert curves(tmp_path / "parts") == curves(tmp_path / "whole")
    assert len(curves(tmp_path / "whole")) == 4
    assert (tmp_path / "whole" / "curves.png").stat().st_size > 10_000


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_the_trainer_takes_a_step_of_each_recipe(
    benchmarks, monkeypatch, data, tmp_path, capsys, name
):
    from benchmarks.training import train

    command = f"train.py --recipe {name} --data {data} --out {tmp_path} --num-threads 1"
    command += " --epochs 1 --batch-size 14 --image-size 64"
    monkeypatch.setattr(sys, "argv", command.split())
    monkeypatch.setattr(torch, "save", lambda *_: None)  # a gigabyte with LAMB's state
    told, epoch = {}, train.train_epoch
    monkeypatch.setattr(train, "train_epoch", lambda *a, **k: told.update(k) or epoch(*a, **k))

    train.main()

    loss = told["criterion"]
    assert {"name": loss.func.__name__, **loss.keywords} == RECIPES[name].loss
    assert told["clip_grad_norm"] == RECIPES[name].clip_grad_norm
    [row] = curves(tmp_path)
    assert 0 < row["train_loss"] < 10
    said = " ".join(capsys.readouterr().out.split())
    assert RECIPES[name].model in said
    assert f"otherwise than published: {RECIPES[name].left_out}" in said


def test_what_another_model_cannot_take_from_the_recipe_is_named(benchmarks, monkeypatch):
    from benchmarks.training import train

    command = "train.py --recipe mae-vit-b-finetune --model small_vit"
    monkeypatch.setattr(sys, "argv", command.split())
    chosen = train.chosen_recipe(train.parse())

    assert chosen.layer_decay is None
    assert chosen.model_options == {}
    assert "drop_path_rate 0.1" in chosen.left_out
    assert "layer decay 0.65" in chosen.left_out


def test_layer_decay_lowers_the_rate_of_lower_layers(benchmarks):
    from benchmarks.training import parts
    from benchmarks.training.models import build_model

    chosen = RECIPES["mae-vit-b-finetune"]
    model = build_model("timm:vit_tiny_patch16_224", 3, 32)
    optimizer = parts.optimizer_for(model, chosen.optimizer, chosen.layer_decay)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    rates = {
        names[id(parameter)]: (group["lr"], group["weight_decay"])
        for group in optimizer.param_groups
        for parameter in group["params"]
    }

    assert set(rates) == set(names.values())
    assert rates["head.weight"] == pytest.approx((2e-3, 0.05))
    assert rates["blocks.11.mlp.fc1.weight"] == pytest.approx((2e-3 * 0.65, 0.05))
    assert rates["blocks.0.mlp.fc1.bias"] == pytest.approx((2e-3 * 0.65**12, 0.0))
    assert rates["pos_embed"] == pytest.approx((2e-3 * 0.65**13, 0.0))


def test_gradients_are_clipped_to_the_recipes_norm(benchmarks):
    from benchmarks.training import parts

    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 3))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    schedule = parts.schedule_for(optimizer, {"name": "cosine", "warmup_epochs": 0}, 1, 1)
    batch = [{"data": 100 * torch.ones(2, 3, 2, 2), "label": torch.eye(3)[:2]}]

    parts.train_epoch(model, [batch], optimizer, schedule, torch.device("cpu"), clip_grad_norm=0.5)

    norm = sum(parameter.grad.square().sum() for parameter in model.parameters()).sqrt()
    assert norm == pytest.approx(0.5, rel=1e-3)


def test_the_loss_is_the_recipes(benchmarks):
    from benchmarks.training import parts

    logits, targets = torch.randn(2, 4), torch.tensor([[0.3, 0.7, 0, 0], [0, 0, 0.1, 0.9]])

    got = parts.loss_for(RECIPES["resnet50-rsb-a2"].loss)(logits, targets)

    want = torch.nn.functional.binary_cross_entropy_with_logits(logits, (targets > 0.2).float())
    torch.testing.assert_close(got, want)


def test_processes_share_the_work(data, tmp_path):
    torchrun = [str(Path(sys.executable).with_name("torchrun")), "--nproc-per-node", "2"]
    settings = ["--data", data, "--epochs", 3, "--batch-size", 8, "--num-threads", 1]
    command = [*torchrun, "-m", "benchmarks.training.train", *map(str, settings)]

    done = subprocess.run([*command, "--out", tmp_path], cwd=ROOT, capture_output=True, text=True)

    assert done.returncode == 0, done.stderr
    assert "2 x 4 images" in done.stdout
    assert curves(tmp_path)[-1]["train_loss"] < curves(tmp_path)[0]["train_loss"]
    saved = torch.load(tmp_path / "last.pt", weights_only=True)
    assert [rank["loader"]["epoch"] for rank in saved["ranks"]] == [3, 3]


def test_a_recipes_rate_follows_the_batch_size(benchmarks, monkeypatch):
    from benchmarks.training import train

    command = "train.py --recipe resnet50-imagenet --batch-size 256"
    monkeypatch.setattr(sys, "argv", command.split())
    chosen = train.chosen_recipe(train.parse())

    assert chosen.optimizer["lr"] == pytest.approx(0.1)
    assert chosen.mixup["alpha"] == 0.2


@pytest.mark.parametrize(
    ("schedule", "at"),
    [
        (
            {"name": "cosine", "warmup_epochs": 2, "warmup_factor": 0.1},
            {20: 1.0, 60: 0.5, 100: 0.0},
        ),
        (
            {"name": "cosine", "warmup_epochs": 2, "warmup_factor": 0.0, "min_factor": 0.1},
            {0: 0.0, 10: 0.5, 20: 1.0, 60: 0.55, 100: 0.1},
        ),
        (
            {
                "name": "step",
                "gamma": 0.1,
                "milestones": (4, 8),
                "warmup_epochs": 2,
                "warmup_factor": 0.25,
            },
            {0: 0.25, 20: 1.0, 39: 1.0, 41: 0.1, 79: 0.1, 81: 0.01},
        ),
        (
            {"name": "exponential", "gamma": 0.5, "every_epochs": 2.5, "warmup_epochs": 0},
            {0: 1.0, 24: 1.0, 26: 0.5, 51: 0.25},
        ),
    ],
    ids=["cosine", "cosine to a least rate", "step", "exponential"],
)
def test_the_rate_follows_its_schedule(benchmarks, schedule, at):
    from benchmarks.training import parts

    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    steps = parts.schedule_for(optimizer, schedule, epochs=10, steps=10)
    rates = [optimizer.param_groups[0]["lr"]]

    for _ in range(100):
        optimizer.step()
        steps.step()
        rates.append(optimizer.param_groups[0]["lr"])

    for step, rate in at.items():
        assert rates[step] == pytest.approx(rate, abs=1e-6)


def test_norms_and_biases_do_not_decay(benchmarks):
    from benchmarks.training import parts
    from benchmarks.training.models import SmallCNN

    optimizer = parts.optimizer_for(SmallCNN(3), {"name": "AdamW", "lr": 0.1, "weight_decay": 0.5})

    decay, rest = optimizer.param_groups
    assert {p.ndim for p in decay["params"]} == {2, 4}
    assert decay["weight_decay"] == 0.5
    assert {p.ndim for p in rest["params"]} == {1}
    assert rest["weight_decay"] == 0.0


@pytest.mark.parametrize(
    ("name", "size"), [("small_cnn", 16), ("small_vit", 16), ("small_vit", 32)]
)
def test_the_small_models_tell_classes(benchmarks, name, size):
    from benchmarks.training.models import build_model

    assert build_model(name, 7, size)(torch.zeros(2, 3, size, size)).shape == (2, 7)


def test_replaced_labels_are_a_share_and_never_the_own(benchmarks, tmp_path):
    from benchmarks.study.data import with_replaced_labels, write_digits

    write_digits(tmp_path / "clean", seed=0)
    with_replaced_labels(tmp_path / "clean/train", tmp_path / "some", share=0.4, seed=0)
    with_replaced_labels(tmp_path / "clean/train", tmp_path / "all", share=1.0, seed=0)

    assert np.mean(moved(tmp_path / "some")) == pytest.approx(0.4, abs=0.1)
    assert all(moved(tmp_path / "all"))
    assert len(moved(tmp_path / "some")) == len(list((tmp_path / "clean/train").glob("*/*")))


def moved(folder):
    return [file.parent.name != file.name.partition("_")[0] for file in folder.glob("*/*")]


def test_differences_are_paired_by_seed(benchmarks):
    from benchmarks.study.report import PERCENTAGES, summary

    def result(arm, seed, accuracy):
        rest = dict.fromkeys(PERCENTAGES, 0.5)
        against = None if arm == "base" else "base"
        return {"arm": arm, "against": against, "model": "m", "seed": seed,
                "epochs_to_loss": None, **rest, "accuracy": accuracy}  # fmt: skip

    bases, gains = [0.5, 0.7, 0.9], [0.01, 0.02, 0.03]
    results = [result("base", seed, base) for seed, base in enumerate(bases)]
    results += [
        result("mixed", s, b + g) for s, (b, g) in enumerate(zip(bases, gains, strict=True))
    ]

    (_, mixed) = summary(results)

    assert mixed["accuracy"] == pytest.approx(72.0)
    assert mixed["accuracy_difference"] == pytest.approx(2.0)
    assert mixed["accuracy_interval"] == pytest.approx(4.303 * 1.0 / 3**0.5, abs=0.01)


def test_the_arms_have_their_baselines(benchmarks):
    from benchmarks.study.arms import arms_of

    for quick in (False, True):
        arms = arms_of(quick=quick)
        names = [arm.name for arm in arms]
        assert len(set(names)) == len(names)
        assert {arm.against for arm in arms} - {None} <= set(names)


def test_one_run_of_the_study_measures_everything(benchmarks, tmp_path):
    from benchmarks.study import run as study
    from benchmarks.study.arms import PLAIN

    scale = study.Scale(None, tmp_path, epochs=2)
    study.prepare(scale, 0)

    found = study.train(scale, study.Run(PLAIN, "small_cnn", 0))

    assert 0 < found["accuracy"] <= 1
    assert sum(count for count, _, _ in found["reliability"]) == 1547
    assert found["fgsm_accuracy"] <= found["accuracy"]
