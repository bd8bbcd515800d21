"""Train a classifier on an image folder with mixup, through DALI: one process, or many by torchrun.

    python benchmarks/train.py --data FOLDER --model small_cnn --image-size 32 --epochs 20
    torchrun --nproc-per-node 8 benchmarks/train.py --recipe efficientnet-imagenet --data FOLDER

FOLDER has train/ and val/, each with one folder a class; without it scikit-image's photographs are
cut into one. Prints loss, training and validation accuracy side by side: mixup is to raise the
second, and where the first stays low with it, alpha is too large. Writes curves, as JSON and PNG,
and last.pt, from which --resume goes on.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from matplotlib.figure import Figure
from models import build_model
from rich.progress import track
from torch.nn.parallel import DistributedDataParallel
from training import (
    Share,
    optimizer_for,
    predict,
    schedule_for,
    train_epoch,
    training_loader,
    validation_loader,
)

from dali_mixup import OutputFormat, dali_checkpoints
from dali_mixup.recipes import IMAGENET, RECIPES, Recipe, recipe

SMALL = Recipe(
    name="small",
    model="small_cnn",
    source="this file",
    reported="nothing",
    image_size=32,
    batch_size=64,
    epochs=20,
    mixup={"alpha": 0.2},
    optimizer={"name": "AdamW", "lr": 3e-3, "weight_decay": 0.05},
    schedule={"name": "cosine", "warmup_epochs": 1},
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
    return replace(
        base, **own, mixup={**base.mixup, **mixup}, optimizer={**base.optimizer, "lr": lr}
    )


def share_of_this_process(num_threads: int) -> Share:
    world_size, local_rank = (int(os.environ.get(k, d)) for k, d in WORLD)
    gpu = torch.cuda.is_available()
    device = torch.device("cuda", local_rank) if gpu else torch.device("cpu")
    if gpu:
        torch.cuda.set_device(device)
    if world_size > 1:
        dist.init_process_group("nccl" if gpu else "gloo")
        if not gpu:
            torch.set_num_threads(max(1, len(os.sched_getaffinity(0)) // world_size))
    rank = dist.get_rank() if world_size > 1 else 0
    return Share(rank, world_size, device, num_threads)


WORLD = (("WORLD_SIZE", "1"), ("LOCAL_RANK", "0"))


def photographs(share: Share, out: Path) -> Path:
    folder = out / "photographs"
    if share.rank == 0 and not folder.exists():
        from photographs import write_photographs

        write_photographs(folder / "train", per_class=64)
        write_photographs(folder / "val", per_class=16, seed=1)
    if share.world_size > 1:
        dist.barrier()
    return folder


def main() -> None:
    flags = parse()
    share = share_of_this_process(flags.num_threads)
    torch.manual_seed(flags.seed)
    data = flags.data or photographs(share, flags.out)
    chosen = chosen_recipe(flags)
    part, rest = divmod(chosen.batch_size, share.world_size)
    if rest:
        raise SystemExit(
            f"--batch-size: expected a multiple of {share.world_size} processes, "
            f"got {chosen.batch_size}"
        )
    names = sorted(folder.name for folder in (data / "train").iterdir() if folder.is_dir())
    gpu = share.device.type == "cuda"
    output = OutputFormat(
        dtype="bfloat16" if gpu else "float32",
        layout=None if gpu else "CHW",
        channels_last=gpu,
        mean=IMAGENET.mean,
        std=IMAGENET.std,
    )
    mixup = chosen.mixup_for(len(names), output=output, seed=flags.seed)

    saved = torch.load(flags.out / "last.pt", weights_only=True) if flags.resume else None
    loader_state = saved["loaders"][share.rank] if saved else None
    loader = training_loader(
        data / "train", part, chosen.image_size, mixup, share, seed=flags.seed,
        enable_checkpointing=True,
        checkpoint=dali_checkpoints(loader_state)[0] if loader_state else None,
        **chosen.pipeline,
    )  # fmt: skip
    resize = chosen.image_size * 8 // 7
    validation = validation_loader(data / "val", part, chosen.image_size, mixup, share, resize)

    model = build_model(chosen.model, len(names), chosen.image_size).to(share.device)
    if gpu:
        model = model.to(memory_format=torch.channels_last)
    optimizer = optimizer_for(model, chosen.optimizer)
    schedule = schedule_for(optimizer, chosen.schedule, chosen.epochs, len(loader))
    history: list[dict[str, float]] = []
    if saved:
        loader.load_state_dict(loader_state)
        model.load_state_dict(saved["model"])
        optimizer.load_state_dict(saved["optimizer"])
        schedule.load_state_dict(saved["schedule"])
        history = saved["history"]
    trained = DistributedDataParallel(model) if share.world_size > 1 else model

    if share.rank == 0:
        flags.out.mkdir(parents=True, exist_ok=True)
        print(f"{chosen.name}: {chosen.model}, {share.world_size} x {part} images, {mixup}")
    for epoch in range(len(history), min(chosen.epochs, flags.stop_after or chosen.epochs)):

        def progress(batches: Iterable[Any], epoch: int = epoch) -> Iterable[Any]:
            title = f"epoch {epoch + 1}/{chosen.epochs}"
            return track(batches, title, total=len(loader), transient=True, disable=share.rank > 0)

        row = train_epoch(trained, loader, optimizer, schedule, share.device, progress)
        logits, labels = predict(model, validation, share.device)
        right = (logits.argmax(1) == labels).sum()
        row = mean_of_all(row, share) | {
            "validation_accuracy": float(
                sum_of_all(right, share)
                / sum_of_all(torch.tensor(len(labels), device=share.device), share)
            ),
        }
        history.append({"epoch": epoch + 1, **row, "lr": schedule.get_last_lr()[0]})
        states = gathered(loader.state_dict(), share)
        if share.rank == 0:
            print(
                f"epoch {epoch + 1:3}  loss {row['train_loss']:.3f}  "
                f"train {row['train_accuracy']:.3f}  validation {row['validation_accuracy']:.3f}",
                flush=True,
            )
            torch.save(
                {
                    "model": model.state_dict(),
                    "optimizer": optimizer.state_dict(),
                    "schedule": schedule.state_dict(),
                    "loaders": states,
                    "history": history,
                },
                flags.out / "last.pt",
            )
    if share.rank == 0:
        write_curves(flags.out, chosen, history)
    if share.world_size > 1:
        dist.destroy_process_group()


def sum_of_all(value: torch.Tensor, share: Share) -> torch.Tensor:
    if share.world_size > 1:
        dist.all_reduce(value)
    return value


def mean_of_all(row: dict[str, float], share: Share) -> dict[str, float]:
    total = sum_of_all(torch.tensor([*row.values()], device=share.device), share)
    return dict(zip(row, (total / share.world_size).tolist(), strict=True))


def gathered(state: dict[str, Any], share: Share) -> list[dict[str, Any]]:
    states: list[Any] = [state] * share.world_size
    if share.world_size > 1:
        dist.all_gather_object(states, state)
    return states


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
