"""The trainer and the study: they run, resume exactly, and their statistics are right."""

import gzip
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
    monkeypatch.setattr(sys, "argv", f"{command}/parts --resume --lr 0.5".split())
    with pytest.raises(SystemExit, match=r"--lr: expected 0\.0.* that is resumed, got 0\.5"):
        train.main()
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


def test_a_shorter_training_lowers_its_rate_as_often(benchmarks, monkeypatch):
    from benchmarks.training import train

    monkeypatch.setattr(sys, "argv", "train.py --recipe resnet50-imagenet --epochs 100".split())

    assert train.chosen_recipe(train.parse()).schedule["milestones"] == [30, 60, 90]


def test_classes_that_train_and_val_do_not_share_are_refused(benchmarks, tmp_path):
    from benchmarks.training.train import names_of_classes

    for folder in ("train/a", "train/b", "train/c", "val/b", "val/c"):
        (tmp_path / folder).mkdir(parents=True)

    with pytest.raises(SystemExit, match=r"the same folders in train/ and val/, got \['a'\]"):
        names_of_classes(tmp_path)


def test_pretrained_weights_get_pixels_of_their_own(benchmarks):
    from benchmarks.training.models import build_model, pixels_of

    require("timm", backend="timm")
    assert pixels_of("timm:vit_base_patch16_224", pretrained=True)["mean"] == (127.5,) * 3
    assert pixels_of("timm:vit_base_patch16_224", pretrained=False)["mean"][0] == 0.485 * 255
    with pytest.raises(ValueError, match="pretrained: expected a model of timm"):
        build_model("resnet18", 10, 64, pretrained=True)


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


@pytest.fixture
def digits(benchmarks, tmp_path):
    """The study's digits, few of them, for two epochs."""
    from benchmarks.study import data, run
    from benchmarks.study.experiment import Data

    data.write_digits(tmp_path, 60, [0])
    run.replace_labels(tmp_path, 60, range(1))
    return Data(tmp_path, 60, 16, 20, lambda model, size: 2)


def test_replaced_labels_are_a_share_and_never_the_own(benchmarks, digits, tmp_path):
    from benchmarks.study.data import with_replaced_labels

    clean = digits.folder / "train-60-0"
    with_replaced_labels(clean, tmp_path / "some", share=0.4, seed=0)
    with_replaced_labels(clean, tmp_path / "all", share=1.0, seed=0)

    assert np.mean(moved(tmp_path / "some")) == pytest.approx(0.4, abs=0.15)
    assert all(moved(tmp_path / "all"))
    assert len(moved(tmp_path / "some")) == len(list(clean.glob("*/*")))


def moved(folder):
    return [file.parent.name != file.name.partition("_")[0] for file in folder.glob("*/*")]


def test_the_parts_of_the_data_share_no_image(digits):
    def images(name):
        return {file.read_bytes() for file in (digits.folder / name).glob("*/*.png")}

    parts = [images(name) for name in ("train-60-0", "held_out", "val", "outsiders")]
    assert [len(part) > 50 for part in parts] == [True] * 4
    assert sum(map(len, parts)) == len(set.union(*parts))


@pytest.mark.parametrize("compressed", [False, True])
def test_idx_files_are_read(benchmarks, tmp_path, compressed):
    from benchmarks.study.idx import read_idx

    data = b"\0\0\x08\x02" + bytes([0, 0, 0, 2, 0, 0, 0, 3]) + bytes(range(6))
    name = tmp_path / ("some-ubyte" + ".gz" * compressed)
    name.write_bytes(gzip.compress(data) if compressed else data)

    assert read_idx(tmp_path / "some-ubyte").tolist() == [[0, 1, 2], [3, 4, 5]]


def test_idx_files_that_are_missing_or_broken_are_refused(benchmarks, tmp_path):
    from benchmarks.study.idx import read_idx

    with pytest.raises(FileNotFoundError, match="dataset-fashion-mnist"):
        read_idx(tmp_path / "none")
    (tmp_path / "other").write_bytes(b"\x89PNG")
    with pytest.raises(ValueError, match="expected an idx file of bytes"):
        read_idx(tmp_path / "other")
    (tmp_path / "short").write_bytes(b"\0\0\x08\x01" + bytes([0, 0, 0, 9]) + b"abc")
    with pytest.raises(ValueError, match="expected 9 bytes"):
        read_idx(tmp_path / "short")


def result(arm, seed, accuracy, against="base"):
    from benchmarks.study.report import OTHERS, SHARES

    rest = dict.fromkeys((*SHARES, *OTHERS), 0.5)
    return {"arm": arm, "against": None if arm == "base" else against, "model": "m", "seed": seed,
            "train_images": 10, **rest, "accuracy": accuracy}  # fmt: skip


def test_differences_are_paired_by_seed(benchmarks):
    from benchmarks.study.report import summary

    bases, gains = [0.5, 0.7, 0.9], [0.01, 0.02, 0.03]
    results = [result("base", seed, base) for seed, base in enumerate(bases)]
    results += [
        result("mixed", s, b + g) for s, (b, g) in enumerate(zip(bases, gains, strict=True))
    ]

    (_, mixed) = summary(results)

    assert mixed["accuracy"] == pytest.approx(72.0)
    assert mixed["accuracy_difference"] == pytest.approx(2.0)
    assert mixed["accuracy_interval"] == pytest.approx(4.303 * 1.0 / 3**0.5, abs=0.01)
    assert mixed["accuracy_p"] == pytest.approx(0.0742, abs=1e-4)
    assert not mixed["nll_significant"]


def test_significance_is_corrected_for_the_number_of_comparisons(benchmarks):
    from benchmarks.study.report import summary

    noise = [-1e-3, 0, 1e-3]
    gains = {"large": 0.1, "middle": 0.0055, "none": 0.0}
    results = [result("base", seed, 0.5) for seed in range(3)]
    results += [
        result(arm, seed, 0.5 + gain + noise[seed])
        for arm, gain in gains.items()
        for seed in range(3)
    ]

    found = {row["arm"]: row for row in summary(results)}

    assert found["middle"]["accuracy_p"] == pytest.approx(0.0109, abs=1e-3)
    assert [found[arm]["accuracy_significant"] for arm in gains] == [True, True, False]

    for number in range(8):  # more comparisons, of which none shows a difference
        results += [result(f"more {number}", seed, 0.5 + noise[seed]) for seed in range(3)]
    found = {row["arm"]: row for row in summary(results)}
    assert [found[arm]["accuracy_significant"] for arm in gains] == [True, False, False]


def test_the_arms_have_their_baselines(benchmarks):
    from benchmarks.study.arms import arms_of, curve

    for arms in (arms_of(quick=True), [*arms_of(quick=False), *curve()]):
        names = [arm.name for arm in arms]
        assert len(set(names)) == len(names)
        assert {arm.against for arm in arms} - {None} <= set(names)


@pytest.mark.parametrize("model", ["small_resnet", "small_vit"])
def test_one_run_of_the_study_measures_everything(benchmarks, digits, model):
    from benchmarks.study.arms import PLAIN
    from benchmarks.study.experiment import Run, train
    from benchmarks.study.report import OTHERS, SHARES, summary

    found = train(digits, Run(PLAIN, model, 0))

    assert {*SHARES, *OTHERS} <= set(found)
    assert all(0 <= found[name] <= 1 for name in SHARES if name != "overconfidence")
    assert sum(count for count, _, _ in found["reliability"]) == 500
    assert found["pgd_8"] <= found["accuracy"] + 0.05
    assert found["nll_scaled"] <= found["nll"] + 0.2
    assert [point["epoch"] for point in found["curve"]] == [1, 2]
    assert len(summary([found, {**found, "seed": 1}])) == 1


@pytest.mark.parametrize("arm", ["alpha 0.2, targets in pairs", "alpha 0.2, timm's Mixup"])
def test_every_kind_of_mixing_trains(benchmarks, digits, arm):
    require("timm", backend="dali")
    from benchmarks.study.arms import arms_of
    from benchmarks.study.experiment import Run, Training

    (chosen,) = [each for each in arms_of(quick=False) if each.name == arm]
    training = Training(digits, Run(chosen, "small_resnet", 0))
    before = [p.clone() for p in training.model.parameters()]
    while not training.is_over:
        training.step()
    assert training.steps == 6
    assert any((p != b).any() for p, b in zip(training.model.parameters(), before, strict=True))


def test_a_run_that_is_repeated_or_resumed_in_mid_epoch_ends_alike(benchmarks, digits):
    from benchmarks.study.arms import Arm
    from benchmarks.study.experiment import Run, Training

    arm = Arm("strong", None, {"alpha": 0.4, "cutmix_alpha": 1.0}, 20, "strong")
    run = Run(arm, "small_resnet", 0)

    def trained(training, steps=None):
        while not training.is_over and training.steps != steps:
            training.step()
        return training

    first, second = (trained(Training(digits, run)).model.state_dict() for _ in range(2))
    stopped = trained(Training(digits, run), steps=4).state_dict()
    resumed = trained(Training(digits, run, stopped)).model.state_dict()

    assert all(torch.equal(first[name], second[name]) for name in first)
    assert all(torch.equal(first[name], resumed[name]) for name in first)


def test_the_measures_of_attacks_and_shifts(benchmarks):
    from benchmarks.study import measures

    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 8 * 8, 4))
    images = torch.rand(20, 3, 8, 8) * 2 - 1
    labels = measures.logits_of(model, images).argmax(1)
    radius = 8 * measures.LEVEL

    for attack in (measures.fgsm, measures.pgd):
        changed = attack(model, images, labels, radius)
        assert (changed - images).abs().max() <= radius + 1e-6
        assert changed.abs().max() <= 1
        loss = torch.nn.functional.cross_entropy
        assert loss(model(changed), labels) > loss(model(images), labels)
    for name, shift in measures.shifts(seed=0).items():
        changed = shift(images)
        assert changed.shape == images.shape, name
        assert not torch.equal(changed, images), name
    assert torch.allclose(measures.rotated(images, 0.0), images, atol=1e-5)
    assert measures.auroc(torch.tensor([0.9, 0.8]), torch.tensor([0.1, 0.2])) == 1
    confident = torch.tensor([[9.0, 0, 0, 0]]).repeat(4, 1)
    assert measures.best_temperature(confident, torch.tensor([0, 0, 0, 1])) > 2
