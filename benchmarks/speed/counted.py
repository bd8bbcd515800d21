"""What a launch of the kernel costs, counted without a GPU. Nothing is timed.

    python -m benchmarks.speed.counted --json benchmarks/results/counted.json

Machine instructions: the shortest path of a thread that reads, mixes and writes its pixels, in the
machine code that NVRTC makes for sm_80, sm_90 and sm_100. Registers are ptxas's for sm_90. Requests
and 32-byte sectors are counted while the engine of tests/support/ptx executes the PTX for
compute_90. DRAM bytes come from a simulated L2 cache, which the blocks enter in the order of their
numbers, mixed among as many as a GPU runs at a time. Outputs leave it first, because the kernel
stores them so, then what was used least recently. The times on a card, of moving the bytes and of
executing the instructions, follow from its data sheet.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections import Counter, OrderedDict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests"))

from support import ptx
from support.kernel_batch import Batch
from support.machine_code import ALIGNED, BY_VALUE, Aligned, main_path
from support.ptx.counters import SECTOR
from support.ptx_batch import run
from support.ptx_cache import kernels_for
from support.specializations import SIZE

from benchmarks.speed.cards import CARDS, SCHEDULERS, WARP, Card
from benchmarks.speed.peers_counted import BATCH as PEERS_BATCH
from benchmarks.speed.peers_counted import SIDE as PEERS_SIDE
from benchmarks.speed.peers_counted import every_peer
from dali_mixup import MixPlan, OutputFormat
from dali_mixup.backends.cuda.compiler import compile_kernels
from dali_mixup.backends.cuda.launch import BLOCK, image_launch
from dali_mixup.cli.measure import record

L2_BYTES = 20 * 2**20  # half of an A100's 40 MiB, because each half may hold a copy; H100: 50
AT_A_TIME = 8 * 132  # blocks, on an H100
SHOWN = 256, 224  # images and their side, for times
NORMAL = {"mean": (123.7, 116.3, 103.5), "std": (58.4, 57.1, 57.4)}
PACKAGES = (
    "numpy", "torch", "cupy-cuda12x", "nvidia-cuda-nvrtc-cu12", "nvidia-cuda-nvdisasm", "timm",
    "torchvision",
)  # fmt: skip


class Work(NamedTuple):
    """Images or clips, from a dtype and layout to an output."""

    name: str
    dtype: str
    layout: str
    output: OutputFormat
    channels: int = 3

    @property
    def frames(self) -> int:
        return 2 if "F" in self.layout else 1

    @property
    def pixel_bytes(self) -> int:
        """Read once and written once."""
        return self.channels * (SIZE[self.dtype] + SIZE[self.output.dtype or self.dtype])


def work(dtype: str, layout: str, out_dtype: str, out_layout: str) -> Work:
    scale = NORMAL if dtype.startswith("uint") else {}
    name = f"{dtype} {layout} to {out_dtype} {out_layout}"
    return Work(name, dtype, layout, OutputFormat(out_dtype, out_layout, **scale))


def bands(layout: str, out_layout: str, channels: int = 13) -> Work:
    """Bytes of many channels to half, each channel with its own mean and std."""
    values = tuple(float(100 + band) for band in range(channels))
    output = OutputFormat("float16", out_layout, mean=values, std=values)
    name = f"uint8 {layout} to float16 {out_layout}, {channels} channels"
    return Work(name, "uint8", layout, output, channels)


WORKS = (
    work("uint8", "HWC", "float16", "CHW"),
    work("uint8", "HWC", "float32", "CHW"),
    work("uint8", "HWC", "float16", "HWC"),
    work("uint8", "CHW", "float16", "CHW"),
    work("float16", "CHW", "float16", "CHW"),
    work("float32", "CHW", "float32", "CHW"),
)


TO_CHW, TO_HWC, OF_PLANES, TRANSPOSED = (
    WORKS[0],
    WORKS[2],
    WORKS[3],
    work("uint8", "CHW", "float16", "HWC"),
)
OTHERS = (
    (work("uint16", "HWC", "float16", "CHW"), TO_CHW),
    (work("uint8", "FHWC", "float16", "CFHW"), TO_CHW),
    (bands("HWC", "CHW"), TO_CHW),
    (bands("CHW", "CHW"), OF_PLANES),
    (bands("HWC", "HWC"), TO_HWC),
    (bands("CHW", "HWC"), TRANSPOSED),
    (bands("HWC", "CHW", 64), TO_CHW),
    (bands("CHW", "HWC", 64), TRANSPOSED),
)
"""Other batches, each beside the stills of 3 channels in the same order."""


def batch_of(work: Work, side: int = 96) -> Batch:
    """Four images, or four clips."""
    sides = {"F": work.frames, "C": work.channels, "H": side, "W": side}
    rng = np.random.default_rng(0)
    shape = (4, *(sides[axis] for axis in work.layout))
    images = rng.integers(0, 256, shape).astype(work.dtype)
    plan = MixPlan([1, 2, 3, 0], [0.3, 0.6, 0.2, 0.9])
    return Batch(plan, images, work.output, work.layout, shifts=(0, 0))


def counters_of(work: Work) -> ptx.Counters:
    counters = ptx.Counters()
    run(kernels_for("compute_90"), batch_of(work), counters=counters)
    return counters


def aligned_of(work: Work) -> Aligned | None:
    """The machine code of its kernel, if it is one of those that are looked at."""
    kernel = re.sub(r"PlanByValue<\d+>", BY_VALUE, batch_of(work).launch().kernel)
    return next((aligned for aligned in ALIGNED if aligned.name == kernel), None)


def other_row(other: Work, plain: Work) -> dict[str, Any]:
    """What a value costs, and how much slower it is by the counts than a plain image's."""
    counters, values = counters_of(other), 4 * 96 * 96 * other.channels * other.frames
    before = counters_of(plain).warp_instructions.total() * WARP / (4 * 96 * 96 * 3)
    instructions = counters.warp_instructions.total() * WARP / values
    loads, stores = counters.loads, counters.stores
    both = 2 * SIZE[other.dtype] * values
    return {
        "other work": other.name,
        "PTX instructions a value": round(instructions, 1),
        "times those of 3 channels": round(instructions / before, 2),
        "L2 bytes over both images": round(SECTOR * loads.sectors_of_blocks / both, 2),
        "sectors over the output": round(
            SECTOR * stores.sectors_of_blocks / values / SIZE[other.output.dtype or other.dtype], 2
        ),
        "stores fill": round(100 * stores.efficiency),
        "lines for 32 values": round((loads.lines + stores.lines) * WARP / values, 1),
        **{card.name: slower(other, plain, instructions / before, card) for card in CARDS},
    }


def slower(other: Work, plain: Work, instructions: float, card: Card) -> float:
    """Time a value over that of a plain image, where the longer of bytes and instructions counts.

    The machine instructions are those of the plain kernel, or of the first one that is looked at,
    and as many times of them as PTX instructions.
    """
    aligned = aligned_of(plain) or ALIGNED[0]
    path = main_path(aligned, card.architecture)
    issue = card.instructions_us(path, 1e6 / (aligned.pixels * 3) / WARP)
    memory, of_plain = (
        card.memory_us(1e6 * each.pixel_bytes / each.channels) for each in (other, plain)
    )
    return round(max(memory, instructions * issue) / max(of_plain, issue), 2)


def registers(kernel: str) -> int:
    """Registers a thread, of the machine code for sm_90."""
    log = compile_kernels((kernel,), "sm_90", options=("--ptxas-options=-v",)).log
    return int(re.search(r"Used (\d+) registers", log)[1])  # type: ignore[index]


def resident_blocks(registers: int, *, warps: int = 64, of_registers: int = 65536) -> int:
    """Blocks of BLOCK threads that a multiprocessor of sm_90 runs at a time.

    Registers are given to a warp in units of 256 (CUDA occupancy calculator, 9.0).
    """
    block_warps = BLOCK // WARP
    of_warp = -(-registers * WARP // 256) * 256
    return min(of_registers // (of_warp * block_warps), warps // block_warps)


def occupancy(registers: int) -> float:
    """Share of a multiprocessor's 64 warps that these blocks fill."""
    return resident_blocks(registers) * BLOCK / WARP / 64


def order_of_blocks(count: int, at_a_time: int) -> NDArray[np.int64]:
    """Their numbers in turn, each up to `at_a_time` too late."""
    late = np.random.default_rng(0).random(count) * at_a_time
    return np.argsort(np.arange(count) + late)


def dram_over_minimum(
    work: Work,
    batch_size: int,
    side: int,
    *,
    l2_bytes: int = L2_BYTES,
    at_a_time: int = AT_A_TIME,
) -> float:
    """DRAM bytes of a launch over those of reading each image once and writing each once."""
    shape = (batch_size, side, side, 3) if work.layout == "HWC" else (batch_size, 3, side, side)
    form = work.output.resolve(shape, work.dtype, work.layout)
    launch = image_launch(form, 0, 0, with_labels=False, by_pointer=False)
    tiles = launch.grid[1]
    values = side * side * 3
    read, written = values * SIZE[work.dtype] / tiles, values * SIZE[form.out_dtype] / tiles
    partner = np.random.default_rng(0).permutation(batch_size)
    inputs: OrderedDict[tuple[int, int], None] = OrderedDict()
    outputs = 0.0  # bytes in the cache; they are stored to leave it first
    missed = 0.0
    for block in order_of_blocks(batch_size * tiles, at_a_time):
        tile, sample = divmod(int(block), batch_size)
        for image in (sample, int(partner[sample])):
            missed += 0 if (image, tile) in inputs else read
            inputs[image, tile] = None
            inputs.move_to_end((image, tile))
        outputs += written
        over = outputs + read * len(inputs) - l2_bytes
        outputs -= min(outputs, max(0, over))
        while read * len(inputs) > l2_bytes:
            inputs.popitem(last=False)
    return (missed + written * batch_size * tiles) / (batch_size * tiles * (read + written))


def row(work: Work) -> dict[str, Any]:
    counters, aligned = counters_of(work), aligned_of(work)
    assert aligned is not None, f"no machine code is looked at for {work.name}"
    pixels = 4 * 96 * 96
    path, found = main_path(aligned, "sm_90"), registers(aligned.name)
    kinds = Counter(opcode.partition(".")[0] for opcode in path)
    loads, stores = counters.loads, counters.stores
    warps = stores.requests / aligned.stores[0]
    in_flight = resident_blocks(found) * BLOCK * aligned.chunk * loads.bytes / pixels
    sizes = ((64, 224), (256, 224), (1024, 224), (64, 512), (256, 512))
    return {
        "work": work.name,
        **{
            f"instructions {target}": round(len(main_path(aligned, target)) / aligned.pixels, 1)
            for target in ("sm_80", "sm_90", "sm_100")
        },
        "opcodes": {opcode: round(n / aligned.pixels, 2) for opcode, n in kinds.most_common()},
        "PTX instructions": round(counters.warp_instructions.total() * WARP / pixels, 1),
        "bytes loaded": round(loads.bytes / pixels, 1),
        "loads fill": round(100 * loads.efficiency),
        "bytes from L2": round(SECTOR * loads.sectors_of_blocks / pixels, 1),
        "bytes stored": round(stores.bytes / pixels, 1),
        "stores fill": round(100 * stores.efficiency),
        "lines": round((loads.lines + stores.lines) / warps, 1),
        "issue cycles": round(len(path) / SCHEDULERS, 1),
        "registers": found,
        "occupancy": round(100 * occupancy(found)),
        "KiB in flight": round(in_flight / 1024),
        **{f"DRAM {n} x {side}": round(dram_over_minimum(work, n, side), 3) for n, side in sizes},
        **{name: value for card in CARDS for name, value in on_card(work, aligned, card).items()},
    }


def on_card(work: Work, aligned: Aligned, card: Card) -> dict[str, float]:
    """Microseconds for SHOWN images at the card's rates, and the share of the instructions'."""
    batch_size, side = SHOWN
    pixels = batch_size * side**2
    path = main_path(aligned, card.architecture)
    memory = card.memory_us(work.pixel_bytes * pixels)
    instructions = card.instructions_us(path, pixels / aligned.pixels / WARP)
    return {
        f"{card.name} memory": round(memory, 1),
        f"{card.name} instructions": round(instructions, 1),
        f"{card.name} ratio": round(instructions / memory, 2),
    }


def peer_rows() -> list[dict[str, Any]]:
    """uint8 HWC to normalised float16 CHW, with soft labels of 1,000 classes."""
    pixels = PEERS_BATCH * PEERS_SIDE**2
    ours = WORKS[0].pixel_bytes * pixels + PEERS_BATCH * 4 * 1000
    counted = [("dali-mixup", 1, ours), *every_peer()]
    return [
        {
            "method": method,
            "launches": launches,
            "bytes a pixel": round(moved / pixels, 1),
            "over minimum": round(moved / ours, 1),
        }
        for method, launches, moved in counted
    ]


def roofline(path: Path, rows: list[dict[str, Any]]) -> None:
    """Instructions a byte of DRAM: left of a card's edge, memory takes longer than instructions."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 5.2), layout="constrained")
    axes = figure.add_subplot()
    intensity = np.geomspace(0.02, 2, 200)
    for card, colour in zip(CARDS, ("tab:gray", "tab:blue", "tab:green", "tab:red"), strict=True):
        peak = SCHEDULERS * card.multiprocessors * card.clock
        axes.plot(intensity, np.minimum(peak, intensity * card.bandwidth) / 1e9, color=colour)
        left = (intensity[0], intensity[0] * card.bandwidth / 1e9)
        axes.annotate(
            card.name, left, color=colour, xytext=(3, 9), textcoords="offset points", rotation=32
        )
        for number, (work, row) in enumerate(zip(WORKS, rows, strict=True)):
            x = row[f"instructions {card.architecture}"] / WARP / work.pixel_bytes
            y = min(peak, x * card.bandwidth) / 1e9
            label = work.name if card is CARDS[0] else None
            axes.plot(x, y, "os^Dvp"[number], color=colour, label=label)
    axes.set(
        xscale="log", yscale="log", xlim=(0.02, 2),
        xlabel="instructions of a warp for each byte of DRAM",
        ylabel="instructions of warps, 10$^9$ a second",
        title="Roofline, counted and from data sheets, not timed",
    )  # fmt: skip
    axes.legend(fontsize=8, loc="lower right")
    axes.grid(alpha=0.3, which="both")
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, metavar="PATH", help="record it, and a picture")
    flags = parser.parse_args()
    print("Counted, not timed.")
    rows = [row(work) for work in WORKS]
    peers = peer_rows()
    others = [other_row(other, plain) for other, plain in OTHERS]
    for found in (*rows, *peers, *others):
        print(", ".join(f"{name} {value}" for name, value in found.items()))
    if flags.json:
        cores = len(os.sched_getaffinity(0))
        record(flags.json, cores=cores, packages=PACKAGES, rows=[*rows, *peers, *others])
        roofline(flags.json.with_suffix(".png"), rows)


if __name__ == "__main__":
    main()
