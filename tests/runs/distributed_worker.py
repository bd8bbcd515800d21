"""One rank of a run: reads its shards and writes down what it was handed.

Started by torchrun, or by hand with RANK and WORLD_SIZE. After every batch a rank replaces its
journal, which holds the deliveries and the loader's state, so that both always tell of the same
batch; started again, it goes on from there.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
from pathlib import Path
from typing import Any

import torch
from nvidia.dali.plugin.pytorch import LastBatchPolicy
from torch import distributed
from torch.nn.parallel import DistributedDataParallel

from dali_mixup import (
    Mixup,
    MixupClassificationIterator,
    OutputFormat,
    dali_checkpoints,
    image_pipeline,
)

SIDE, BATCH = 8, 3
EPOCHS = 3
STEPS_OF_TRAINING = 64
RANK, WORLD = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
ATTEMPT = int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--read", type=Path, nargs="+", default=[])
    parser.add_argument("--train", type=Path)
    parser.add_argument("--die-after", type=int, help="batches that the last rank is handed")
    arguments = parser.parse_args()

    if "MASTER_ADDR" in os.environ:
        distributed.init_process_group("gloo")
    for folder in arguments.read:
        read(folder, journal_of(arguments.out, folder.name, RANK), arguments.die_after)
    if arguments.train:
        write(journal_of(arguments.out, "training", RANK), train(arguments.train))
    if distributed.is_initialized():
        distributed.destroy_process_group()


def journal_of(out: Path, name: str, rank: int) -> Path:
    return out / f"{name}_{rank}.json"


def write(journal: Path, content: Any) -> None:
    """All of it or nothing, whenever the process dies."""
    unfinished = journal.with_suffix(".tmp")
    unfinished.write_text(json.dumps(content))
    unfinished.replace(journal)


def mixup_for(folder: Path, **settings: Any) -> Mixup:
    """Class ids and file ids are the same: every file is a class of its own."""
    return Mixup(**{"num_classes": len(list(folder.iterdir())), "alpha": 1.0, **settings})


def loader_for(
    folder: Path, mixup: Mixup, state: dict[str, Any] | None = None
) -> MixupClassificationIterator:
    pipeline = image_pipeline(
        folder, BATCH, SIDE, "cpu", shard_id=RANK, num_shards=WORLD, num_threads=1, seed=3,
        enable_checkpointing=True, checkpoint=dali_checkpoints(state)[0] if state else None,
    )  # fmt: skip
    loader = MixupClassificationIterator(
        pipeline,
        reader_name="Reader",
        auto_reset=True,
        last_batch_policy=LastBatchPolicy.PARTIAL,
        mixup=mixup,
        plan_key="plan",
    )
    if state:
        loader.load_state_dict(state)
    return loader


def read(folder: Path, journal: Path, die_after: int | None) -> None:
    """Write down every batch of all epochs, from where the journal ends."""
    kept = json.loads(journal.read_text()) if journal.exists() else {"state": None, "batches": []}
    batches, state = kept["batches"], kept["state"]
    mixup = mixup_for(folder, mode="elem", cutmix_alpha=1.0, targets="pairs")
    loader = loader_for(folder, mixup, state)
    state = state or loader.state_dict()
    while state["epoch"] < EPOCHS:
        for [batch] in loader:
            batches.append(described(batch) | {"epoch": state["epoch"], "step": state["step"]})
            if len(batches) == die_after and RANK == WORLD - 1 and ATTEMPT == 0:
                os._exit(17)
            state = loader.state_dict()
            write(journal, {"state": state, "batches": batches})


def described(batch: dict[str, Any]) -> dict[str, Any]:
    own, partners, _ = batch["label"]
    plan = batch["plan"]
    return {
        "files": own.tolist(),
        "partners": partners.tolist(),
        "plan": [plan.partner.tolist(), plan.lam.tolist(), plan.box.tolist()],
        "pixels": hashlib.sha256(batch["data"].numpy().tobytes()).hexdigest(),
        "attempt": ATTEMPT,
    }


def train(folder: Path) -> dict[str, Any]:
    """Train a linear model on this rank's part; its losses, and the weights it ends with."""
    output = OutputFormat(dtype="float32", layout="CHW", mean=127.5, std=127.5)
    loader = loader_for(folder, mixup_for(folder, alpha=0.2, output=output))
    torch.manual_seed(RANK)  # DDP hands rank 0's weights to the others
    linear = torch.nn.Linear(3 * SIDE * SIDE, loader.mixer.mixup.num_classes)
    model = DistributedDataParallel(torch.nn.Sequential(torch.nn.Flatten(), linear))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    losses = []
    for _ in range(STEPS_OF_TRAINING // len(loader)):
        for [batch] in loader:
            loss = torch.nn.functional.cross_entropy(model(batch["data"]), batch["label"])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    return {"losses": losses, "weights": linear.weight.tolist()}


if __name__ == "__main__":
    main()
