"""Mixed clips and soft labels on one core, in ms a clip: dali-mixup beside its peers.

    python -m benchmarks.speed.clips --json benchmarks/results/cpu-clips.json

Every method hands out 8 float32 clips of 3 x 16 x 112 x 112 and dense labels of 400 classes, from
such clips or from bytes as DALI's video readers hand them out, which it also normalises and lays
out. "pytorchvideo" is the way of its `MixUp`, written out here: the batch flipped, weighed in place
and added.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from time import perf_counter

import torch
from torch.nn.functional import one_hot

from dali_mixup import Mixup, OutputFormat
from dali_mixup.cli.measure import Row, interleaved, record, show
from dali_mixup.cli.peers import mixers

CLIPS, FRAMES, SIDE, CLASSES = 8, 16, 112, 400
MEAN, STD = 114.75, 57.375

Method = Callable[[], object]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, metavar="PATH", help="record the run here")
    parser.add_argument("--rounds", type=int, default=40)
    arguments = parser.parse_args()
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    torch.set_num_threads(1)
    rows: list[Row] = []
    for work, methods in works().items():
        timers = {name: partial(ms_a_clip, method) for name, method in methods.items()}
        measured = interleaved(
            timers, rounds=arguments.rounds, warm_up=3, unit="ms",
            bases={"copy": "copy", "ours": "dali-mixup"},
        )  # fmt: skip
        show(work, measured)
        rows += [{"work": work} | row for row in measured]
    if arguments.json:
        packages = ("numpy", "numba", "torch", "torchvision")
        record(arguments.json, cores=1, packages=packages, rows=rows)


def works() -> dict[str, dict[str, Method]]:
    generator = torch.Generator().manual_seed(0)
    shape = (CLIPS, FRAMES, SIDE, SIDE, 3)
    pixels = torch.randint(256, shape, dtype=torch.uint8, generator=generator)
    floats = pixels.permute(0, 4, 1, 2, 3).float().contiguous()
    labels = torch.randint(CLASSES, (CLIPS,), generator=generator)
    output = OutputFormat(dtype="float32", layout="CFHW", mean=MEAN, std=STD)
    settings = {"num_classes": CLASSES, "alpha": 1.0}
    of_floats, of_bytes = (
        Mixup(**settings, layout="CFHW"),
        Mixup(**settings, layout="FHWC", output=output),
    )
    peers = {"torchvision": torchvision(), "pytorchvideo": flipped}
    return {
        "float32 CFHW -> float32 CFHW": {
            "copy": floats.clone,
            "dali-mixup": partial(of_floats, floats, labels),
            **{name: partial(mix, floats, labels) for name, mix in peers.items()},
        },
        "uint8 FHWC -> normalised float32 CFHW": {
            "copy": floats.clone,
            "dali-mixup": partial(of_bytes, pixels, labels),
            **{name: partial(normalised_first, mix, pixels, labels) for name, mix in peers.items()},
        },
    }


def torchvision() -> Callable[..., object]:
    mix = mixers(CLASSES)["torchvision"]
    assert mix is not None, "torchvision is not installed"
    from torchvision.tv_tensors import Video

    return lambda clips, labels: mix(Video(clips), labels)


def flipped(clips: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    lam = float(torch.distributions.Beta(1.0, 1.0).sample())
    rows = one_hot(labels, CLASSES).float()
    partners = clips.flip(0).mul_(1 - lam)
    return partners.add_(clips, alpha=lam), lam * rows + (1 - lam) * rows.flip(0)


def normalised_first(
    mix: Callable[..., object], pixels: torch.Tensor, labels: torch.Tensor
) -> object:
    return mix(pixels.permute(0, 4, 1, 2, 3).float().sub_(MEAN).div_(STD).contiguous(), labels)


def ms_a_clip(method: Method) -> float:
    begin = perf_counter()
    method()
    return (perf_counter() - begin) * 1e3 / CLIPS


if __name__ == "__main__":
    main()
