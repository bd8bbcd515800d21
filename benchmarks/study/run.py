"""What mixup does to a model: paired experiments on real images, through the whole DALI path.

    python -m benchmarks.study.run --quick
    python -m benchmarks.study.run --json study.json --png study.png

Every arm is trained with the same seeds, each with its own split of the digits, weights and order,
and compared with its baseline seed by seed; "+-" is half of the 95 % interval of the mean
difference (Student's t), over splits of one data set, not corrected for how many there are. The
images are scikit-learn's handwritten digits, or --data FOLDER with train/ and val/, as it is.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import tempfile
import warnings
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import torch
from rich.progress import track
from torch.nn.functional import avg_pool2d, cross_entropy

from benchmarks.study.arms import Arm, arms_of
from benchmarks.study.data import with_replaced_labels, write_digits
from benchmarks.study.report import draw, summary, table
from benchmarks.training.models import build_model
from benchmarks.training.parts import (
    Share,
    optimizer_for,
    schedule_for,
    train_epoch,
    training_loader,
    validation_loader,
)
from dali_mixup import Mixup, OutputFormat
from dali_mixup.advice import MixupWarning
from dali_mixup.cli.measure import card, record

MODELS = ("small_cnn", "small_vit")
OUTPUT = OutputFormat(dtype="float32", layout="CHW", mean=127.5, std=127.5)
CROPS = {
    "light": {"random_area": (0.7, 1.0)},
    "none": {"random_area": (1.0, 1.0), "random_aspect_ratio": (1.0, 1.0)},
}
LEARNED = 0.2  # a loss on every second training image that counts as learned
FGSM, NOISE = 8 / 127.5, 64 / 127.5  # 8 and 64 of 255 grey levels
OPTIMIZER = {"name": "AdamW", "lr": 3e-3, "weight_decay": 0.05}


class Scale(NamedTuple):
    """What all runs have in common."""

    data: Path | None
    work: Path
    image_size: int = 16
    batch_size: int = 25
    epochs: int = 40
    device: str = "cpu"


class Run(NamedTuple):
    arm: Arm
    model: str
    seed: int


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="the main claims alone, 3 seeds")
    parser.add_argument("--seeds", type=int)
    parser.add_argument("--data", type=Path, help="a folder with train/ and val/")
    parser.add_argument("--models", nargs="+", default=MODELS)
    parser.add_argument("--image-size", type=int, default=16)
    parser.add_argument("--batch-size", type=int, default=25)
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--json", type=Path, metavar="PATH", help="record every run here")
    parser.add_argument("--png", type=Path, metavar="PATH", help="draw the results here")
    flags = parser.parse_args()

    gpu = torch.cuda.is_available()
    seeds = flags.seeds or (3 if flags.quick else 10)
    arms = arms_of(quick=flags.quick)
    runs = [
        Run(arm, model, seed) for seed in range(seeds) for arm in arms for model in flags.models
    ]
    with tempfile.TemporaryDirectory() as work:
        scale = Scale(
            flags.data, Path(work), flags.image_size, flags.batch_size, flags.epochs,
            "cuda" if gpu else "cpu",
        )  # fmt: skip
        for seed in range(seeds):
            prepare(scale, seed)
        results = trained(runs, scale, processes=1 if gpu else len(os.sched_getaffinity(0)))
    rows = summary(results)
    print(table(rows))
    if flags.png:
        draw(flags.png, results, rows)
    if flags.json:
        record(
            flags.json,
            cores=len(os.sched_getaffinity(0)),
            packages=("numpy", "torch", "nvidia-dali-cuda120", "scikit-learn", "torchmetrics"),
            rows=[*rows, *({"run": result} for result in results)],
            **(card() if gpu else {}),
        )


def prepare(scale: Scale, seed: int) -> None:
    folder = scale.work / str(seed)
    if scale.data is None:
        write_digits(folder / "clean", seed)
    else:
        folder.mkdir()
        (folder / "clean").symlink_to(scale.data.resolve())
    for noise in (20, 40):
        with_replaced_labels(folder / "clean/train", folder / f"train-{noise}", noise / 100, seed)


def trained(runs: list[Run], scale: Scale, processes: int) -> list[dict[str, Any]]:
    context = multiprocessing.get_context("spawn")
    with context.Pool(processes, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        finished = pool.imap_unordered(partial(train, scale), runs)
        return list(track(finished, f"{len(runs)} runs", total=len(runs)))


def train(scale: Scale, run: Run) -> dict[str, Any]:
    """One run: trained, then measured on images it has not seen."""
    warnings.simplefilter("ignore", MixupWarning)  # settings that disappoint are what is studied
    arm, seed = run.arm, run.seed
    folder = scale.work / str(seed)
    train_folder = folder / (f"train-{arm.noise}" if arm.noise else "clean/train")
    share = Share(device=torch.device(scale.device), num_threads=1)
    num_classes = sum(entry.is_dir() for entry in train_folder.iterdir())
    mixup = Mixup(num_classes=num_classes, output=OUTPUT, seed=seed, **arm.mixup)

    torch.manual_seed(seed)
    model = build_model(run.model, num_classes, scale.image_size).to(share.device)
    loader = training_loader(
        train_folder, scale.batch_size, scale.image_size, mixup, share, seed=seed,
        augment=arm.randaugment and "randaugment", randaugment=arm.randaugment,
        mirror_probability=0.0, **CROPS[arm.crop],
    )  # fmt: skip
    optimizer = optimizer_for(model, OPTIMIZER)
    schedule = schedule_for(
        optimizer,
        {"name": "cosine", "warmup_epochs": 2, "warmup_factor": 0.1},
        scale.epochs,
        len(loader),
    )
    load = partial(all_images, scale=scale, mixup=mixup, share=share)
    seen, unseen = load(train_folder), load(folder / "clean/val")

    losses = []
    for _ in range(scale.epochs):
        train_epoch(model, loader, optimizer, schedule, share.device)
        losses.append(float(cross_entropy(logits_of(model, seen[0][::2]), seen[1][::2])))
    learned = next((i + 1 for i, loss in enumerate(losses) if loss <= LEARNED), None)
    return {
        "arm": arm.name,
        "against": arm.against,
        "model": run.model,
        "seed": seed,
        "train_accuracy": accuracy(logits_of(model, seen[0]), seen[1]),
        "epochs_to_loss": learned,
        **measured(model, *unseen, seed),
    }


def all_images(
    folder: Path, *, scale: Scale, mixup: Mixup, share: Share
) -> tuple[torch.Tensor, torch.Tensor]:
    loader = validation_loader(
        folder, scale.batch_size, scale.image_size, mixup, share, scale.image_size
    )
    batches = [(outputs["data"].clone(), outputs["label"].argmax(1)) for [outputs] in loader]
    images, labels = (torch.cat(parts).to(share.device) for parts in zip(*batches, strict=True))
    return images, labels


@torch.no_grad()
def logits_of(model: torch.nn.Module, images: torch.Tensor) -> torch.Tensor:
    model.eval()
    return torch.cat([model(part) for part in images.split(256)])


def accuracy(logits: torch.Tensor, labels: torch.Tensor) -> float:
    return float((logits.argmax(1) == labels).float().mean())


def measured(
    model: torch.nn.Module, images: torch.Tensor, labels: torch.Tensor, seed: int
) -> dict[str, Any]:
    """Accuracy on images as they are, attacked, noisy and blurred; calibration.

    Noise is not clipped; blur is the mean of 3 x 3 pixels, with mid-grey beyond the border.
    """
    logits = logits_of(model, images)
    probabilities = logits.softmax(1)
    confidence, prediction = probabilities.max(1)
    right = (prediction == labels).float()
    bins = (confidence * 10).long().clamp(max=9)
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(images.shape, generator=generator).to(images.device) * NOISE
    return {
        "accuracy": accuracy(logits, labels),
        "calibration_error": calibration_error(probabilities, labels),
        "overconfidence": float(confidence.mean() - right.mean()),
        "fgsm_accuracy": accuracy(logits_of(model, attacked(model, images, labels)), labels),
        "noise_accuracy": accuracy(logits_of(model, images + noise), labels),
        "blur_accuracy": accuracy(logits_of(model, avg_pool2d(images, 3, 1, 1)), labels),
        "reliability": [
            [
                int((bins == b).sum()),
                float(confidence[bins == b].sum()),
                int(right[bins == b].sum()),
            ]
            for b in range(10)
        ],
    }


def calibration_error(probabilities: torch.Tensor, labels: torch.Tensor) -> float:
    """Expected calibration error in 15 bins (Guo et al., ICML 2017)."""
    multiclass = import_module("torchmetrics.functional.classification")
    return float(
        multiclass.multiclass_calibration_error(probabilities, labels, probabilities.shape[1])
    )


def attacked(model: torch.nn.Module, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """One step along the sign of the gradient (Goodfellow et al., ICLR 2015)."""
    model.eval()
    images = images.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(cross_entropy(model(images), labels), images)
    return (images + FGSM * gradient.sign()).clamp(-1, 1).detach()


if __name__ == "__main__":
    main()
