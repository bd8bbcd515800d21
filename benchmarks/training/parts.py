"""What a training with mixup is made of: loaders, optimiser, one epoch, one evaluation."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import torch
from nvidia.dali.plugin.base_iterator import LastBatchPolicy
from torch import nn
from torch.optim.lr_scheduler import LambdaLR, LRScheduler

from dali_mixup import (
    Mixup,
    MixupClassificationIterator,
    image_pipeline,
    losses,
    validation_pipeline,
)
from dali_mixup.losses import mixup_accuracy, mixup_cross_entropy

Track = Callable[[Iterable[Any]], Iterable[Any]]


class Share(NamedTuple):
    """This process's part of the data and of the machine."""

    rank: int = 0
    world_size: int = 1
    device: torch.device = torch.device("cpu")
    num_threads: int = 2

    @property
    def of_pipeline(self) -> dict[str, Any]:
        gpu = self.device.type == "cuda"
        return {
            "device": "gpu" if gpu else "cpu",
            "device_id": self.device.index or 0,
            "shard_id": self.rank,
            "num_shards": self.world_size,
            "num_threads": self.num_threads,
        }


def training_loader(
    folder: Path,
    batch_size: int,
    image_size: int,
    mixup: Mixup,
    share: Share,
    **options: Any,
) -> MixupClassificationIterator:
    """Batches are whole, so that every process takes as many steps."""
    pipe = image_pipeline(folder, batch_size, image_size, **share.of_pipeline, **options)
    return MixupClassificationIterator(
        pipe, reader_name="Reader", auto_reset=True, last_batch_policy=LastBatchPolicy.DROP,
        mixup=mixup,
    )  # fmt: skip


def validation_loader(
    folder: Path, batch_size: int, image_size: int, mixup: Mixup, share: Share, resize: int
) -> MixupClassificationIterator:
    """Every image once, none mixed, normalised as in training."""
    pipe = validation_pipeline(folder, batch_size, image_size, resize=resize, **share.of_pipeline)
    return MixupClassificationIterator(
        pipe, reader_name="Reader", auto_reset=True, last_batch_policy=LastBatchPolicy.PARTIAL,
        mixup=mixup.for_validation(),
    )  # fmt: skip


def optimizer_for(
    model: nn.Module, settings: Mapping[str, Any], layer_decay: float | None = None
) -> torch.optim.Optimizer:
    """``name`` is of ``torch.optim``, or timm's "Lamb"; biases and norms do not decay."""
    options = dict(settings)
    name, decay = options.pop("name"), options.pop("weight_decay", 0.0)
    make = import_module("timm.optim").Lamb if name == "Lamb" else getattr(torch.optim, name)
    exempt = getattr(model, "no_weight_decay", set)()
    if layer_decay is None:
        decays: list[Any] = []
        rest: list[Any] = []
        for parameter_name, parameter in model.named_parameters():
            kept = parameter.ndim > 1 and parameter_name not in exempt
            (decays if kept else rest).append(parameter)
        groups = [
            {"params": decays, "weight_decay": decay},
            {"params": rest, "weight_decay": 0.0},
        ]
    else:
        groups = import_module("timm.optim").param_groups_layer_decay(
            model, decay, no_weight_decay_list=exempt, layer_decay=layer_decay
        )
        for group in groups:
            group["lr"] = options["lr"] * group.pop("lr_scale")
    return make(groups, **options)


def schedule_for(
    optimizer: torch.optim.Optimizer, settings: Mapping[str, Any], epochs: int, steps: int
) -> LRScheduler:
    """To be stepped after each of an epoch's `steps`."""
    warm_up = min(settings["warmup_epochs"], epochs // 2) * steps
    main = {"cosine": cosine, "step": multi_step, "exponential": exponential}.get(settings["name"])
    if main is None:
        raise ValueError(
            "schedule: expected 'cosine', 'step' or 'exponential', got " + repr(settings["name"])
        )

    def factor(step: int) -> float:
        if step < warm_up:
            first = settings["warmup_factor"]
            return first + (1 - first) * step / warm_up
        return main(settings, step, warm_up, epochs, steps)

    return LambdaLR(optimizer, factor)


def cosine(settings: Mapping[str, Any], step: int, warm_up: int, epochs: int, steps: int) -> float:
    least = settings.get("min_factor", 0.0)
    done = (step - warm_up) / max(1, epochs * steps - warm_up)
    return least + (1 - least) * (1 + math.cos(math.pi * done)) / 2


def multi_step(
    settings: Mapping[str, Any], step: int, warm_up: int, epochs: int, steps: int
) -> float:
    return settings["gamma"] ** sum(step >= epoch * steps for epoch in settings["milestones"])


def exponential(
    settings: Mapping[str, Any], step: int, warm_up: int, epochs: int, steps: int
) -> float:
    every = max(1, round(settings["every_epochs"] * steps))
    return settings["gamma"] ** ((step - warm_up) // every)


def loss_for(settings: Mapping[str, Any]) -> Callable[..., torch.Tensor]:
    """``name`` is a function of :mod:`dali_mixup.losses`; the rest are its arguments."""
    options = dict(settings)
    return partial(getattr(losses, options.pop("name")), **options)


def train_epoch(
    model: nn.Module,
    loader: Iterable[Any],
    optimizer: torch.optim.Optimizer,
    schedule: LRScheduler,
    device: torch.device,
    track: Track = iter,
    *,
    criterion: Callable[..., torch.Tensor] = mixup_cross_entropy,
    clip_grad_norm: float | None = None,
) -> dict[str, float]:
    """One pass over this part; loss, and accuracy as a share of what mixed targets allow.

    Always to name the class of the larger share is right; it gets that share.
    """
    model.train()
    seen, accuracies, best = [], [], []
    for batch in track(loader):
        images, targets = to_device(batch, device)
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            logits = model(images)
        loss = criterion(logits, targets)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        if clip_grad_norm is not None:
            nn.utils.clip_grad_norm_(model.parameters(), clip_grad_norm)
        optimizer.step()
        schedule.step()
        seen.append(loss.detach())
        accuracies.append(mixup_accuracy(logits.detach(), targets))
        best.append(targets.amax(1).mean())
    return {
        "train_loss": float(torch.stack(seen).mean()),
        "train_accuracy": float(torch.stack(accuracies).sum() / torch.stack(best).sum()),
    }


@torch.no_grad()
def predict(
    model: nn.Module, loader: Iterable[Any], device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits (N, num_classes) and class ids (N,) of a whole pass."""
    model.eval()
    logits, labels = [], []
    for batch in loader:
        images, targets = to_device(batch, device)
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            logits.append(model(images).float())
        labels.append(targets.argmax(1))
    return torch.cat(logits), torch.cat(labels)


def random_state(device: torch.device) -> list[torch.Tensor]:
    """Of torch's generators: the CPU's, and the device's where that is a GPU."""
    states = [torch.get_rng_state()]
    return [*states, torch.cuda.get_rng_state(device)] if device.type == "cuda" else states


def set_random_state(states: list[torch.Tensor], device: torch.device) -> None:
    torch.set_rng_state(states[0])
    if device.type == "cuda":
        torch.cuda.set_rng_state(states[1], device)


def to_device(batch: Any, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Labels come from DALI's reader on the CPU, and so do their mixed rows."""
    [outputs] = batch
    return outputs["data"].to(device), outputs["label"].to(device, non_blocking=True)
