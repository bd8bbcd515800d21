"""One training of the study: it can be stopped after any step, and resumed with the same result."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import lru_cache
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from benchmarks.study.arms import AUGMENTATIONS, Arm
from benchmarks.study.measures import accuracy, logits_of, measured
from benchmarks.training.models import build_model
from benchmarks.training.parts import (
    Share,
    optimizer_for,
    schedule_for,
    training_loader,
    validation_loader,
)
from dali_mixup import Mixup, OutputFormat, dali_checkpoints
from dali_mixup.advice import MixupWarning
from dali_mixup.losses import mixup_cross_entropy

OUTPUT = OutputFormat(dtype="float32", layout="CHW", mean=127.5, std=127.5)
OPTIMIZER = {"name": "AdamW", "weight_decay": 0.05}
RATES = {"small_resnet": 3e-3, "small_cnn": 3e-3, "small_vit": 2e-3}
SHARE = Share(num_threads=1)
CURVE_POINTS = 8
ON_THE_WAY = 1000
"""So many training and test images are predicted for each point of the curves."""


class Data(NamedTuple):
    """Where the images are, and how long is trained on them.

    `folder` has ``train-SIZE-SEED``, the same with ``-20`` and ``-40`` for wrong labels, ``val``,
    ``held_out`` and ``outsiders``, each with a folder for each class.
    """

    folder: Path
    train_size: int
    image_size: int
    batch_size: int
    epochs: Callable[[str, int], int]
    """Of a model and a number of training images."""


class Run(NamedTuple):
    arm: Arm
    model: str
    seed: int


class Training:
    """A model on its way, a step at a time.

    Parameters
    ----------
    data : Data
    run : Run
    state : dict, optional
        From :meth:`state_dict`, to go on.
    """

    def __init__(self, data: Data, run: Run, state: dict[str, Any] | None = None) -> None:
        warnings.simplefilter("ignore", MixupWarning)  # settings that disappoint are studied too
        arm, seed = run.arm, run.seed
        size = arm.train_size or data.train_size
        name = f"train-{size}-{seed}"
        self.clean = data.folder / name
        folder = data.folder / f"{name}-{arm.noise}" if arm.noise else self.clean
        num_classes = sum(entry.is_dir() for entry in folder.iterdir())
        mixup = Mixup(num_classes=num_classes, output=OUTPUT, seed=seed, **arm.mixup)
        self.timm: Any = None
        if arm.by_timm:
            alpha = arm.mixup["alpha"]
            self.timm = import_module("timm.data").Mixup(
                alpha, num_classes=num_classes, label_smoothing=0.0
            )
            mixup = mixup.for_validation()
        self.loader = training_loader(
            folder, data.batch_size, data.image_size, mixup, SHARE, seed=seed,
            enable_checkpointing=True,
            checkpoint=dali_checkpoints(state["loader"])[0] if state else None,
            **{"mirror_probability": 0.0, **AUGMENTATIONS[arm.augmentation]},
        )  # fmt: skip
        torch.manual_seed(seed)
        np.random.seed(seed)  # noqa: NPY002 - timm draws by it
        self.model = build_model(run.model, num_classes, data.image_size)
        self.epochs = data.epochs(run.model, size)
        self.optimizer = optimizer_for(self.model, {**OPTIMIZER, "lr": RATES[run.model]})
        self.schedule = schedule_for(
            self.optimizer,
            {"name": "cosine", "warmup_epochs": 2, "warmup_factor": 0.1},
            self.epochs,
            len(self.loader),
        )
        self.steps = 0
        self.curve: list[dict[str, float]] = []
        if state:
            self.loader.load_state_dict(state["loader"])
            self.model.load_state_dict(state["model"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.schedule.load_state_dict(state["schedule"])
            self.steps, self.curve = state["steps"], state["curve"]

    @property
    def is_over(self) -> bool:
        return self.steps >= self.epochs * len(self.loader)

    def step(self) -> None:
        """Train on the next batch."""
        try:
            [batch] = next(self.loader)
        except StopIteration:
            [batch] = next(self.loader)
        images, targets = batch["data"], batch["label"]
        if self.timm is not None:
            images, targets = self.timm(images.clone(), targets.argmax(1))
        self.model.train()
        loss = mixup_cross_entropy(self.model(images), targets)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()
        self.schedule.step()
        self.steps += 1

    def state_dict(self) -> dict[str, Any]:
        return {
            "loader": self.loader.state_dict(),
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "steps": self.steps,
            "curve": self.curve,
        }


class Pictures(NamedTuple):
    """Images as they are measured: normalised, not augmented."""

    images: torch.Tensor
    labels: torch.Tensor


def train(data: Data, run: Run) -> dict[str, Any]:
    """One run: trained, then measured on images it has not seen."""
    training = Training(data, run)
    seen = pictures(training.clean, data)
    unseen, held_out, outsiders = (
        pictures(data.folder / name, data) for name in ("val", "held_out", "outsiders")
    )
    every = max(1, training.epochs // CURVE_POINTS) * len(training.loader)
    while not training.is_over:
        training.step()
        if training.steps % every == 0:
            training.curve.append(point_of_the_curve(training, seen, unseen))
    model = training.model
    return {
        "arm": run.arm.name,
        "against": run.arm.against,
        "model": run.model,
        "seed": run.seed,
        "train_images": len(seen.labels),
        "train_accuracy": accuracy(logits_of(model, seen.images), seen.labels),
        **measured(model, *unseen, outsiders.images, held_out, run.seed),
        "curve": training.curve,
    }


def point_of_the_curve(training: Training, seen: Pictures, unseen: Pictures) -> dict[str, float]:
    """Accuracy on training images with their true labels, and on images of the test."""
    trained, tested = (
        accuracy(logits_of(training.model, images[:ON_THE_WAY]), labels[:ON_THE_WAY])
        for images, labels in (seen, unseen)
    )
    return {
        "epoch": training.steps / len(training.loader),
        "train_accuracy": trained,
        "accuracy": tested,
    }


@lru_cache(maxsize=4)
def pictures(folder: Path, data: Data) -> Pictures:
    """All images of a folder, in an order that does not follow the classes."""
    mixup = Mixup(num_classes=sum(entry.is_dir() for entry in folder.iterdir()), output=OUTPUT)
    size = data.image_size
    loader = validation_loader(folder, data.batch_size, size, mixup, SHARE, size)
    batches = [(outputs["data"].clone(), outputs["label"].argmax(1)) for [outputs] in loader]
    images, labels = (torch.cat(parts) for parts in zip(*batches, strict=True))
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
    return Pictures(images[order], labels[order])
