"""Cross entropy with mixed targets, forward and backward: as pairs and as dense rows.

"hard labels" is what training without mixup pays. The dense path makes its (B, num_classes) target
in every step, as it has to. "peak" is memory beside the logits, their gradient included.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from time import perf_counter

import torch
from torch.nn.functional import cross_entropy

from dali_mixup import MixPlan, Mixup
from dali_mixup.backends import reference
from dali_mixup.cli.measure import Row, card, interleaved, record, show
from dali_mixup.losses import mixup_cross_entropy

BATCH = 256
WIDTHS = (1_000, 21_841)
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
EVERY_BLOCK_BY_ITSELF = {"MALLOC_MMAP_THRESHOLD_": str(1 << 16)}

Loss = Callable[[], torch.Tensor]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, metavar="PATH", help="record the run here")
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--peak-of", nargs=2, metavar=("METHOD", "WIDTH"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.peak_of:
        method, width = arguments.peak_of
        print(peak_bytes(losses(int(width))[method]))
        return

    rows: list[Row] = []
    for width in WIDTHS:
        methods = losses(width)
        measured = interleaved(
            {name: partial(milliseconds, loss) for name, loss in methods.items()},
            rounds=arguments.rounds,
            warm_up=5,
            unit="ms",
            bases={"hard_labels": "hard labels"},
        )
        for row in measured:
            row["peak_MB"] = round(peak_of(row["method"], width) / 1e6, 1)
        show(f"{BATCH} x {width} float32 logits, {DEVICE}", measured)
        rows += [{"num_classes": width} | row for row in measured]
    if arguments.json:
        hardware = card() if DEVICE == "cuda" else {}
        cores = torch.get_num_threads()
        record(arguments.json, cores=cores, packages=("numpy", "torch"), rows=rows, **hardware)


def losses(width: int) -> dict[str, Loss]:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(BATCH, width, generator=generator).to(DEVICE).requires_grad_()
    labels = torch.randint(width, (BATCH,), generator=generator).to(DEVICE)
    plan = Mixup(num_classes=width).plan(BATCH)
    lam = torch.from_numpy(plan.lam.copy()).to(DEVICE)
    partner = labels[torch.from_numpy(plan.partner.copy()).long().to(DEVICE)]
    pairs = labels, partner, lam

    def two_terms() -> torch.Tensor:
        own, partner, lam = pairs
        each = partial(cross_entropy, logits, reduction="none")
        return (lam * each(own) + (1 - lam) * each(partner)).mean()

    return {
        "hard labels": lambda: cross_entropy(logits, labels),
        "pairs": lambda: mixup_cross_entropy(logits, pairs),
        "pairs, two terms": two_terms,
        "dense": lambda: cross_entropy(logits, dense_rows(labels, plan, width)),
    }


def dense_rows(labels: torch.Tensor, plan: MixPlan, width: int) -> torch.Tensor:
    if DEVICE == "cuda":
        from dali_mixup.backends.cuda import backend as cuda_backend

        return cuda_backend.soft_labels(labels, plan, width)
    return torch.from_numpy(reference.soft_labels(labels.numpy(), plan, width))


def milliseconds(loss: Loss) -> float:
    start = perf_counter()
    loss().backward()
    if DEVICE == "cuda":
        torch.cuda.synchronize()
    return (perf_counter() - start) * 1e3


def peak_of(method: str, width: int) -> int:
    """On a CPU in a process of its own, where memory that is given back is gone."""
    if DEVICE == "cuda":
        return peak_bytes(losses(width)[method])
    again = [sys.executable, "-m", __spec__.name, "--peak-of", method, str(width)]
    environment = os.environ | EVERY_BLOCK_BY_ITSELF
    return int(subprocess.run(again, env=environment, check=True, stdout=subprocess.PIPE).stdout)


def peak_bytes(loss: Loss) -> int:
    cross_entropy(torch.randn(2, 3, requires_grad=True), torch.tensor([0, 1])).backward()
    if DEVICE == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        loss().backward()
        return torch.cuda.max_memory_allocated() - before
    before = resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # VmHWM begins anew
    loss().backward()
    return resident("VmHWM") - before


def resident(kind: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(kind))


if __name__ == "__main__":
    main()
