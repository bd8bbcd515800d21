"""How much of a training step is mixing: ResNet-50 and ViT-B/16, dali-mixup beside timm.

A step is forward, loss and backward with dense targets, in bfloat16 autocast on a GPU. Mixing
starts from uint8 HWC, as DALI hands it out, and ends with normalised images and soft labels.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path
from time import perf_counter

import torch
from torch.nn.functional import cross_entropy

from benchmarks.training.models import build_model
from dali_mixup.cli.bench import Work
from dali_mixup.cli.measure import Row, card, interleaved, record, show
from dali_mixup.cli.peers import mixers

GPU = torch.cuda.is_available()
MODELS = ("resnet50", "vit_b_16")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, metavar="PATH", help="record the run here")
    parser.add_argument("--rounds", type=int, default=30 if GPU else 11)
    parser.add_argument("--batch-size", type=int, default=128 if GPU else 8)
    flags = parser.parse_args()

    work = Work(
        flags.batch_size,
        dtype="bfloat16" if GPU else "float32",
        device="cuda" if GPU else "cpu",
    )
    rows: list[Row] = []
    for model in MODELS:
        measured = interleaved(
            {
                name: call and partial(milliseconds, call)
                for name, call in calls_of(model, work).items()
            },
            rounds=flags.rounds,
            warm_up=2,
            unit="ms",
            bases={"step": "step"},
        )
        show(f"{model}, {work.title}", measured)
        rows += [{"model": model, "work": work.title} | row for row in measured]
    if flags.json:
        packages = ("numpy", "numba", "torch", "torchvision", "timm")
        cores = torch.get_num_threads()
        record(flags.json, cores=cores, packages=packages, rows=rows, **(card() if GPU else {}))


def calls_of(name: str, work: Work) -> dict[str, Callable[[], object] | None]:
    model = build_model(name, work.num_classes, work.image_size).to(work.device)
    images, labels = work.batch()
    mixup, timm = work.mixup, mixers(work.num_classes)["timm batch"]
    prepare = work.preparation()
    mixed, targets = mixup(images, labels)

    def step() -> None:
        with torch.autocast(work.device, torch.bfloat16, enabled=GPU):
            loss = cross_entropy(model(mixed), targets)
        loss.backward()

    return {
        "step": step,
        "mixing, dali-mixup": lambda: mixup(images, labels),
        "mixing, timm": timm and (lambda: timm(prepare(images), labels)),
    }


def milliseconds(call: Callable[[], object]) -> float:
    start = perf_counter()
    call()
    if GPU:
        torch.cuda.synchronize()
    return (perf_counter() - start) * 1e3


if __name__ == "__main__":
    main()
