"""What a launch of the kernel costs, counted without a GPU. Nothing is timed.

    python -m benchmarks.kernel.counted --json benchmarks/results/counted.json

Instructions and 32-byte sectors are counted while the engine of tests/support/ptx executes the PTX
for compute_90. Registers are ptxas's for sm_90. DRAM bytes come from a simulated L2 cache, least
recently used first out, that the blocks of a launch go through in the order of their numbers; each
block reads and writes its tile of the images at once.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections import OrderedDict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests"))

from support import ptx
from support.kernel_batch import Batch
from support.ptx_batch import run
from support.ptx_cache import kernels_for
from support.specializations import SIZE

from dali_mixup import MixPlan, OutputFormat
from dali_mixup.backends.cuda.compiler import compile_kernels
from dali_mixup.backends.cuda.launch import BLOCK, image_launch
from dali_mixup.cli.measure import record

WARP = 32
L2_BYTES = 25 * 2**20  # half of an H100's 50 MiB, because each half may hold a copy
NORMAL = {"mean": (123.7, 116.3, 103.5), "std": (58.4, 57.1, 57.4)}


class Work(NamedTuple):
    """Images of 3 channels, from a dtype and layout to an output."""

    name: str
    dtype: str
    layout: str
    output: OutputFormat


WORKS = (
    Work("uint8 HWC to float16 CHW", "uint8", "HWC", OutputFormat("float16", "CHW", **NORMAL)),
    Work("uint8 HWC to float32 CHW", "uint8", "HWC", OutputFormat("float32", "CHW", **NORMAL)),
    Work("uint8 HWC to float16 HWC", "uint8", "HWC", OutputFormat("float16", "HWC", **NORMAL)),
    Work("uint8 CHW to float16 CHW", "uint8", "CHW", OutputFormat("float16", "CHW", **NORMAL)),
    Work("float16 CHW to float16 CHW", "float16", "CHW", OutputFormat("float16", "CHW")),
    Work("float32 CHW to float32 CHW", "float32", "CHW", OutputFormat("float32", "CHW")),
)


def executed(work: Work, side: int = 96) -> tuple[ptx.Counters, str, int]:
    """Counters of four images, the kernel's name, and the number of pixels."""
    shape = (4, side, side, 3) if work.layout == "HWC" else (4, 3, side, side)
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, shape).astype(work.dtype)
    plan = MixPlan([1, 2, 3, 0], [0.3, 0.6, 0.2, 0.9])
    batch = Batch(plan, images, work.output, work.layout, shifts=(0, 0))
    counters = ptx.Counters()
    run(kernels_for("compute_90"), batch, counters=counters)
    return counters, batch.launch().kernel, 4 * side * side


def registers(kernel: str) -> int:
    """Registers a thread, of the machine code for sm_90."""
    log = compile_kernels((kernel,), "sm_90", options=("--ptxas-options=-v",)).log
    return int(re.search(r"Used (\d+) registers", log)[1])  # type: ignore[index]


def occupancy(registers: int, *, warps: int = 64, of_registers: int = 65536) -> float:
    """Share of a multiprocessor's warps that blocks of BLOCK threads fill, limited by registers.

    Registers are given to a warp in units of 256 (CUDA occupancy calculator, 9.0).
    """
    block_warps = BLOCK // WARP
    of_warp = -(-registers * WARP // 256) * 256
    blocks = min(of_registers // (of_warp * block_warps), warps // block_warps)
    return blocks * block_warps / warps


def dram_over_minimum(work: Work, batch_size: int, side: int, l2_bytes: int = L2_BYTES) -> float:
    """DRAM bytes of a launch over those of reading each image once and writing each once."""
    shape = (batch_size, side, side, 3) if work.layout == "HWC" else (batch_size, 3, side, side)
    form = work.output.resolve(shape, work.dtype, work.layout)
    launch = image_launch(form, 0, 0, with_labels=False, by_pointer=False)
    tiles = launch.grid[1]
    values = side * side * 3
    read, written = values * SIZE[work.dtype] / tiles, values * SIZE[form.out_dtype] / tiles
    partner = np.random.default_rng(0).permutation(batch_size)
    cache: OrderedDict[tuple[Any, ...], float] = OrderedDict()
    held = missed = 0.0
    for tile in range(tiles):
        for sample in range(batch_size):
            for key, size in (
                (("in", sample, tile), read),
                (("in", int(partner[sample]), tile), read),
                (("out", sample, tile), written),
            ):
                if key in cache:
                    cache.move_to_end(key)
                    continue
                missed += size
                held += size
                cache[key] = size
                while held > l2_bytes:
                    held -= cache.popitem(last=False)[1]
    return missed / (batch_size * tiles * (read + written))


def row(work: Work) -> dict[str, Any]:
    counters, kernel, pixels = executed(work)
    classes = counters.by_class()
    found = registers(kernel)
    return {
        "work": work.name,
        "instructions": round(counters.warp_instructions.total() * WARP / pixels, 1),
        "float32 arithmetic": round(classes["float32 arithmetic"] * WARP / pixels, 1),
        "bytes loaded": round(counters.loads.bytes / pixels, 1),
        "loads fill": round(100 * counters.loads.efficiency),
        "bytes stored": round(counters.stores.bytes / pixels, 1),
        "stores fill": round(100 * counters.stores.efficiency),
        "registers": found,
        "occupancy": round(100 * occupancy(found)),
        **{
            f"DRAM {size} x {side}": round(dram_over_minimum(work, size, side), 3)
            for size, side in ((64, 224), (256, 224), (1024, 224), (64, 512), (256, 512))
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path)
    flags = parser.parse_args()
    rows = [row(work) for work in WORKS]
    for found in rows:
        print(", ".join(f"{name} {value}" for name, value in found.items()))
    if flags.json:
        packages = ("numpy", "cupy-cuda12x", "nvidia-cuda-nvrtc-cu12")
        record(flags.json, cores=len(os.sched_getaffinity(0)), packages=packages, rows=rows)


if __name__ == "__main__":
    main()
