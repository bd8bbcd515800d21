"""Train a classifier on an image folder with mixup, through DALI: one process, or many by torchrun.

    python -m benchmarks.training.train --data DATA --model small_cnn --image-size 32 --epochs 20
    torchrun --nproc-per-node 8 -m benchmarks.training.train --recipe resnet50-imagenet --data DATA

DATA has train/ and val/, each with one folder a class; without it scikit-image's photographs are
cut into one, to look at. Prints loss and both accuracies side by side, the training one as a share
of what mixed targets allow: where it stays low, alpha is too large, or the training too short.
Writes curves, as JSON and PNG, and last.pt, from which --resume goes on.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure
from rich.progress import track
from torch.nn.parallel import DistributedDataParallel

from benchmarks.training.models import build_model, pixels_of
from benchmarks.training.parts import (
    Share,
    loss_for,
    optimizer_for,
    predict,
    random_state,
    schedule_for,
    set_random_state,
    train_epoch,
    training_loader,
    validation_loader,
)
from benchmarks.training.processes import gathered, join_processes, leave, sum_of_all, wait_for_all
from dali_mixup import OutputFormat, dali_checkpoints
from dali_mixup.recipes import RECIPES, Recipe, recipe

SMALL = Recipe(
    name="small",
    model="small_cnn",
    source="this file",
    reported="nothing",
    left_out="nothing",
    image_size=32,
    batch_size=64,
    epochs=20,
    mixup={"alpha": 0.2},
    optimizer={"name": "AdamW", "lr": 3e-3, "weight_decay": 0.05},
    schedule={"name": "cosine", "warmup_epochs": 1, "warmup_factor": 0.1},
)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, help="a folder with train/ and val/")
    parser.add_argument("--recipe", choices=sorted(RECIPES), help="else: a small network")
    parser.add_argument("--out", type=Path, default=Path("demo/train"))
    parser.add_argument("--resume", action="store_true", help="go on from OUT/last.pt")
    parser.add_argument("--model", help="small_cnn, small_vit, torchvision's, or timm:NAME")
    parser.add_argument("--pretrained", action="store_true", help="begin with timm's weights")
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--stop-after", type=int, metavar="EPOCHS", help="end early, to resume")
    parser.add_argument("--batch-size", type=int, help="of all processes together")
    parser.add_argument("--image-size", type=int)
    parser.add_argument("--lr", type=float, help="for the batch size that is used")
    parser.add_argument("--alpha", type=float)
    parser.add_argument("--cutmix-alpha", type=float)
    parser.add_argument("--label-smoothing", type=float)
    parser.add_argument("--mode", choices=("batch", "elem", "pair"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--num-threads", type=int, default=2, help="of DALI, a process")
    return parser.parse_args()


def chosen_recipe(flags: argparse.Namespace) -> Recipe:
    """The recipe with what the flags replace; its rate follows the batch size."""
    base = recipe(flags.recipe) if flags.recipe else SMALL
    given = {name: value for name, value in vars(flags).items() if value is not None}
    own = {k: given[k] for k in ("model", "epochs", "batch_size", "image_size") if k in given}
    mixup = {
        k: given[k] for k in ("alpha", "cutmix_alpha", "label_smoothing", "mode") if k in given
    }
    batch_size = own.get("batch_size", base.batch_size)
    lr = given.get("lr", base.optimizer["lr"] * batch_size / base.batch_size)
    if own.get("model", base.model) != base.model:
        options = "".join(f"{name} {value}, " for name, value in base.model_options.items())
        decay = f"layer decay {base.layer_decay}, " if base.layer_decay else ""
        own |= {
            "model_options": {},
            "layer_decay": None,
            "left_out": f"{options}{decay}{base.model}; {base.left_out}",
        }
    return replace(
        base, **own, mixup={**base.mixup, **mixup}, optimizer={**base.optimizer, "lr": lr},
        schedule=stretched(base.schedule, own.get("epochs", base.epochs) / base.epochs),
    )  # fmt: skip


def stretched(schedule: Mapping[str, Any], factor: float) -> Mapping[str, Any]:
    """The schedule of a training that is so many times as long; the warm-up keeps its epochs."""
    times: dict[str, Any] = {}
    if "milestones" in schedule:
        times["milestones"] = [factor * epoch for epoch in schedule["milestones"]]
    if "every_epochs" in schedule:
        times["every_epochs"] = factor * schedule["every_epochs"]
    return {**schedule, **times}


def names_of_classes(data: Path) -> list[str]:
    """The folders of train/, which val/ has to have as well: they number the classes."""
    train, val = (
        sorted(folder.name for folder in (data / part).iterdir() if folder.is_dir())
        for part in ("train", "val")
    )
    if train != val:
        raise SystemExit(
            f"--data: expected the same folders in train/ and val/, got {sorted({*train} ^ {*val})}"
            " in one of them; class ids follow the sorted names"
        )
    return train


def photographs(share: Share, out: Path) -> Path:
    """scikit-image's, where no data are given."""
    folder = out / "photographs"
    if share.rank == 0 and not folder.exists():
        from benchmarks.photographs import write_photographs

        write_photographs(folder / "train", per_class=64)
        write_photographs(folder / "val", per_class=16, seed=1)
    wait_for_all(share)
    return folder


def main() -> None:
    flags = parse()
    share = join_processes(flags.num_threads)
    torch.manual_seed(flags.seed)
    chosen = chosen_recipe(flags)
    part, rest = divmod(chosen.batch_size, share.world_size)
    if rest:
        raise SystemExit(
            f"--batch-size: expected a multiple of {share.world_size} processes, "
            f"got {chosen.batch_size}"
        )
    data = flags.data or photographs(share, flags.out)
    names = names_of_classes(data)
    pixels = pixels_of(chosen.model, pretrained=flags.pretrained)
    mixup = chosen.mixup_for(len(names), output=output_on(share.device, pixels), seed=flags.seed)

    saved = None
    if flags.resume:
        saved = torch.load(flags.out / "last.pt", map_location="cpu", weights_only=True)
    own = saved["ranks"][share.rank] if saved else None
    checkpoint = dali_checkpoints(own["loader"])[0] if own else None
    loader = training_loader(
        data / "train", part, chosen.image_size, mixup, share, seed=flags.seed + share.rank,
        enable_checkpointing=True, checkpoint=checkpoint, **chosen.pipeline,
    )  # fmt: skip
    resize = chosen.image_size * 8 // 7
    validation = validation_loader(data / "val", part, chosen.image_size, mixup, share, resize)

    model = build_model(
        chosen.model, len(names), chosen.image_size, pretrained=flags.pretrained,
        **chosen.model_options,
    ).to(share.device)  # fmt: skip
    if share.device.type == "cuda":
        model = model.to(memory_format=torch.channels_last)
    optimizer = optimizer_for(model, chosen.optimizer, chosen.layer_decay)
    schedule = schedule_for(optimizer, chosen.schedule, chosen.epochs, len(loader))
    history: list[dict[str, float]] = []
    torch.manual_seed(flags.seed + share.rank)  # the weights are one for all, the dropout is not
    if saved:
        loader.load_state_dict(own["loader"])
        set_random_state(own["random"], share.device)
        model.load_state_dict(saved["model"])
        optimizer.load_state_dict(saved["optimizer"])
        if schedule.base_lrs != saved["schedule"]["base_lrs"]:
            raise SystemExit(
                f"--lr: expected {saved['schedule']['base_lrs'][0]} of the run that is resumed, "
                f"got {schedule.base_lrs[0]}"
            )
        schedule.load_state_dict(saved["schedule"])
        history = saved["history"]
    trained = DistributedDataParallel(model) if share.world_size > 1 else model

    if share.rank == 0:
        flags.out.mkdir(parents=True, exist_ok=True)
        print(f"{chosen.name}: {chosen.model}, {share.world_size} x {part} images, {mixup}")
        print(f"left out or otherwise than published: {chosen.left_out}")
    for epoch in range(len(history), min(chosen.epochs, flags.stop_after or chosen.epochs)):
        bar = partial(
            track,
            description=f"epoch {epoch + 1}/{chosen.epochs}",
            total=len(loader),
            transient=True,
            disable=share.rank > 0,
        )
        row = train_epoch(
            trained, loader, optimizer, schedule, share.device, bar,
            criterion=loss_for(chosen.loss), clip_grad_norm=chosen.clip_grad_norm,
        )  # fmt: skip
        logits, labels = predict(model, validation, share.device)
        right = int((logits.argmax(1) == labels).sum())
        loss, accuracy, right, seen = sum_of_all(
            row["train_loss"], row["train_accuracy"], right, len(labels), share=share
        )
        history.append(
            {
                "epoch": epoch + 1,
                "train_loss": loss / share.world_size,
                "train_accuracy": accuracy / share.world_size,
                "validation_accuracy": right / seen,
                "lr": schedule.get_last_lr()[0],
            }
        )
        random = random_state(share.device)
        ranks = gathered({"loader": loader.state_dict(), "random": random}, share)
        if share.rank == 0:
            report(history[-1])
            state = {
                "model": model.state_dict(),
                "optimizer": optimizer.state_dict(),
                "schedule": schedule.state_dict(),
                "ranks": ranks,
                "history": history,
            }
            torch.save(state, flags.out / "last.pt")
    if share.rank == 0:
        write_curves(flags.out, chosen, history)
    leave(share)


def output_on(device: torch.device, pixels: Mapping[str, Any]) -> OutputFormat:
    if device.type == "cuda":
        return OutputFormat(dtype="bfloat16", channels_last=True, **pixels)
    return OutputFormat(dtype="float32", layout="CHW", **pixels)


def report(row: dict[str, float]) -> None:
    print(
        f"epoch {row['epoch']:3}  loss {row['train_loss']:.3f}  "
        f"train {row['train_accuracy']:.3f}  validation {row['validation_accuracy']:.3f}",
        flush=True,
    )


def write_curves(out: Path, chosen: Recipe, history: list[dict[str, float]]) -> None:
    run = {
        "recipe": chosen.name,
        "model": chosen.model,
        "batch_size": chosen.batch_size,
        "image_size": chosen.image_size,
        "mixup": dict(chosen.mixup),
        "history": history,
    }
    (out / "curves.json").write_text(json.dumps(run, indent=2) + "\n")
    figure = Figure(figsize=(9, 3.5), layout="constrained")
    left, right = figure.subplots(1, 2)
    epochs = [row["epoch"] for row in history]
    left.plot(epochs, [row["train_loss"] for row in history], color="#334155")
    left.set(title="training loss (mixed targets)", xlabel="epoch")
    for name, colour in (("train_accuracy", "#94a3b8"), ("validation_accuracy", "#d97706")):
        right.plot(epochs, [row[name] for row in history], color=colour, label=name.split("_")[0])
    right.set(title="accuracy", xlabel="epoch", ylim=(0, 1))
    right.legend(frameon=False)
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(out / "curves.png", dpi=120)
    print(f"{out}: curves.json, curves.png, last.pt")


if __name__ == "__main__":
    main()
