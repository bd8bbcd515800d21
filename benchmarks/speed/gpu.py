"""Blended images and soft labels on a GPU: dali-mixup beside its peers, in microseconds a batch.

Every method is given the same batches and hands out images of the same dtype and memory format
and dense float32 labels of 1,000 classes. The columns:

median_us, iqr_us   the GPU's time for a batch. The calls wait behind a sleeping kernel until all of
                    them are queued, so that the host's time is not in it.
bandwidth_of_copy   the copy's time over the method's: 1 moves the bytes that must move, each input
                    and output once, as fast as a device-to-device copy moves as many.
launches            kernels, copies and fills on the GPU.
counted_us          the shortest time of the one launch at the bandwidth of the card's data sheet,
                    counted without a GPU (benchmarks/speed/counted.py); none for other cards.
host_us             the host's time to queue a batch.
temporaries         bytes of GPU memory beside the outputs, at the peak.

Batches rotate through more memory than the L2 cache has, of random data, and each method takes its
turn in every round.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from itertools import cycle
from pathlib import Path
from time import perf_counter
from typing import Any, NamedTuple

import numpy as np
import torch

from benchmarks.speed.cards import card_of
from dali_mixup import MixPlan, Mixup, OutputFormat
from dali_mixup.backends import reference
from dali_mixup.backends.cuda import backend as cuda_backend
from dali_mixup.cli.measure import Row, card, interleaved, record, show
from dali_mixup.cli.peers import Mix, cutmixers, mixers

NUM_CLASSES = 1000
MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
ROTATED = 300_000_000
CYCLES_A_US = 2000
PACKAGES = ("numpy", "torch", "triton", "cupy-cuda13x", "timm", "torchvision")
TOLERANCE = {"float32": 1e-4, "float16": 4e-3, "bfloat16": 3e-2}

Call = Callable[[], Any]
Batch = tuple[torch.Tensor, torch.Tensor]


class Work(NamedTuple):
    """One kind of batch; its first column in the results is `title`."""

    in_dtype: str = "uint8"
    out_dtype: str = "float16"
    channels_last: bool = False
    batch: int = 256
    side: int = 224
    mode: str = "batch"
    cutmix: bool = False

    @property
    def title(self) -> str:
        layout = "channels_last" if self.channels_last else "CHW"
        kind = "CutMix" if self.cutmix else "mixup"
        size = f"{self.batch}x{self.side}x{self.side}x3"
        return f"{self.in_dtype}->{self.out_dtype} {layout} {size} {kind} {self.mode}"

    @property
    def values(self) -> int:
        return self.batch * self.side**2 * 3

    @property
    def bytes(self) -> int:
        """What must move: images and class ids in, images and dense labels out."""
        sizes = {"uint8": 1, "float16": 2, "bfloat16": 2, "float32": 4}
        images = self.values * (sizes[self.in_dtype] + sizes[self.out_dtype])
        return images + self.batch * (8 + 4 * NUM_CLASSES)

    @property
    def mixup(self) -> Mixup:
        kind = {"alpha": 0.0, "cutmix_alpha": 1.0} if self.cutmix else {"alpha": 1.0}
        normalise = {"mean": MEAN, "std": STD} if self.in_dtype == "uint8" else {}
        output = OutputFormat(
            dtype=self.out_dtype,
            layout=None if self.channels_last else "CHW",
            channels_last=self.channels_last,
            **normalise,
        )
        return Mixup(num_classes=NUM_CLASSES, mode=self.mode, output=output, **kind)


MAIN = Work()


def works() -> list[Work]:
    conversions = [
        ("uint8", "float16"),
        ("uint8", "bfloat16"),
        ("uint8", "float32"),
        ("float32", "float32"),
        ("float16", "float16"),
    ]
    return [
        *(Work(a, b, channels_last) for a, b in conversions for channels_last in (False, True)),
        *(MAIN._replace(batch=batch) for batch in (1, 8, 64, 1024)),
        MAIN._replace(batch=4096, side=64),
        *(MAIN._replace(side=side) for side in (32, 64, 128, 384, 512)),
        MAIN._replace(mode="elem"),
        MAIN._replace(cutmix=True),
        MAIN._replace(cutmix=True, mode="elem"),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--json", type=Path, metavar="PATH", help="record the run, and a plot of it"
    )
    parser.add_argument("--rounds", type=int, default=30)
    arguments = parser.parse_args()

    rows: list[Row] = []
    for work in works():
        measured = measure(work, arguments.rounds)
        counted = counted_us(work)
        title = f"{work.title}, {work.bytes / 1e6:.1f} MB must move, counted: {counted} us"
        show(title, measured)
        shared = {"work": work.title, "bytes": work.bytes, "counted_us": counted}
        rows += [shared | row for row in measured]
        keep(arguments.json, rows)
    for batch in (64, 256, 1024, 4096):
        measured = host_times(batch)
        show(f"host time, batches of {batch}", measured)
        rows += [{"work": f"host time, batches of {batch}"} | row for row in measured]
    keep(arguments.json, rows)
    if arguments.json:
        plot(arguments.json.with_suffix(".png"), rows)


def counted_us(work: Work) -> float | None:
    """Moving the bytes takes longer than the instructions, on every card that was counted for."""
    card = card_of(torch.cuda.get_device_name())
    return card and round(card.memory_us(work.bytes), 1)


def keep(path: Path | None, rows: list[Row]) -> None:
    """What is measured so far; a run that is cut short leaves it."""
    if path:
        cores = len(os.sched_getaffinity(0))
        record(path, cores=cores, packages=PACKAGES, rows=rows, **card())


# ---- what is measured ---------------------------------------------------------------------------


def measure(work: Work, rounds: int) -> list[Row]:
    calls = every_method(work)
    costs = {name: cost(call) for name, call in calls.items() if call}
    timers = {name: call and timer(call, costs[name]) for name, call in calls.items()}
    rows = interleaved(timers, rounds=rounds, warm_up=3, unit="us", bases={"copy": "copy"})
    none = dict.fromkeys(("launches", "host_us", "temporaries"))
    for row in rows:
        ratio = row.pop("ratio_to_copy")
        row["bandwidth_of_copy"] = ratio and round(1 / ratio, 4)
        row |= costs.get(row["method"], none)
    return rows


def every_method(work: Work) -> dict[str, Call | None]:
    torch._dynamo.reset()
    batches = random_batches(work)
    own = Rotation(batches)
    theirs = Rotation([(images.clone(), labels) for images, labels in batches])  # they write there
    plans = [work.mixup.plan(work.batch, (work.side,) * 2, step=step) for step in range(8)]
    check_against_numpy(work, batches[0], plans[0])
    methods = {
        "copy": copy_of(work.bytes),
        "dali-mixup": dali_mixup(work, own, plans),
        **{name: mix and peer(mix, work, theirs) for name, mix in peers(work).items()},
    }
    if not work.cutmix:
        methods["torch eager"] = written_out(work, own, plans[0], compiled=False)
        if compiled := written_out(work, own, plans[0], compiled=True):
            methods["torch.compile"] = compiled
    return methods


class Rotation:
    """One batch after the other, again and again."""

    def __init__(self, batches: list[Any]) -> None:
        self._turns: Iterator[Any] = cycle(batches)

    def next(self) -> Any:
        return next(self._turns)


def random_batches(work: Work) -> list[Batch]:
    dtype = getattr(torch, work.in_dtype)
    count = max(2, math.ceil(ROTATED / (work.values * dtype.itemsize)))
    labels = torch.randint(NUM_CLASSES, (count, work.batch), device="cuda")
    if work.in_dtype == "uint8":
        shape = (count, work.batch, work.side, work.side, 3)
        return list(zip(torch.randint(256, shape, dtype=dtype, device="cuda"), labels, strict=True))
    images = torch.randn(count * work.batch, 3, work.side, work.side, dtype=dtype, device="cuda")
    if work.channels_last:
        images = images.to(memory_format=torch.channels_last)
    return list(zip(images.split(work.batch), labels, strict=True))


def copy_of(moved: int) -> Call:
    """Half of the bytes are read, half are written."""
    size = moved // 2
    count = max(2, math.ceil(ROTATED / size))
    source = torch.randint(256, (count, size), dtype=torch.uint8, device="cuda")
    turns = Rotation(list(zip(source, torch.empty_like(source), strict=True)))

    def copy() -> None:
        here, there = turns.next()
        there.copy_(here)

    return copy


def settings(work: Work) -> dict[str, Any]:
    return {
        "output": work.mixup.output,
        "layout": "HWC" if work.in_dtype == "uint8" else "CHW",
        "num_classes": NUM_CLASSES,
        "label_smoothing": 0.0,
        "targets": "soft",
    }


def dali_mixup(work: Work, batches: Rotation, plans: list[MixPlan]) -> Call:
    given, turns = settings(work), Rotation(plans)
    return lambda: cuda_backend.mix(*batches.next(), turns.next(), **given)


def peers(work: Work) -> dict[str, Mix | None]:
    found = cutmixers(NUM_CLASSES) if work.cutmix else mixers(NUM_CLASSES)
    names = ["timm elem"] if work.mode == "elem" else ["timm batch", "torchvision"]
    if work.mode == "batch" and work.batch <= 256:
        names.append("timm elem")
    even = work.batch % 2 == 0  # timm takes no other
    return {name: found[name] for name in names if even or "timm" not in name}


def peer(mix: Mix, work: Work, batches: Rotation) -> Call:
    prepare = normaliser(work) if work.in_dtype == "uint8" else lambda images: images

    def call() -> Any:
        images, labels = batches.next()
        return mix(prepare(images), labels)

    return call


def normaliser(work: Work) -> Callable[[torch.Tensor], torch.Tensor]:
    """As timm's prefetching loader does it: in the output's dtype, in place."""
    dtype = getattr(torch, work.out_dtype)
    mean, std = (
        torch.tensor(values, dtype=dtype, device="cuda").view(3, 1, 1) for values in (MEAN, STD)
    )

    def normalise(images: torch.Tensor) -> torch.Tensor:
        images = images.permute(0, 3, 1, 2)
        if not work.channels_last:
            images = images.contiguous()
        return images.to(dtype).sub_(mean).div_(std)

    return normalise


def written_out(work: Work, batches: Rotation, plan: MixPlan, *, compiled: bool) -> Call | None:
    """The library's arithmetic as a user writes it in torch, its draws given on the GPU."""
    dtype = getattr(torch, work.out_dtype)
    form = torch.channels_last if work.channels_last else torch.contiguous_format
    mean, inverse_std = torch.tensor([MEAN, [1 / s for s in STD]], device="cuda")
    partner = torch.from_numpy(plan.partner.astype(np.int64)).cuda()
    lam = torch.from_numpy(plan.lam.copy()).cuda()
    classes = torch.arange(NUM_CLASSES, device="cuda")
    from_bytes = work.in_dtype == "uint8"

    def expression(images: torch.Tensor, labels: torch.Tensor) -> Batch:
        own, rest = lam.view(-1, 1, 1, 1), 1 - lam.view(-1, 1, 1, 1)
        mixed = own * images.float() + rest * images[partner].float()
        if from_bytes:
            mixed = ((mixed - mean) * inverse_std).permute(0, 3, 1, 2)
        rows = (labels[:, None] == classes).float()
        soft = lam[:, None] * rows + (1 - lam[:, None]) * rows[partner]
        return mixed.to(dtype, memory_format=form), soft

    step = torch.compile(expression, dynamic=False) if compiled else expression
    batch = batches.next()
    try:
        mixed, soft = step(*batch)
        ours, our_soft = cuda_backend.mix(*batch, plan, **settings(work))
        assert mixed.stride() == ours.stride()
        torch.testing.assert_close(mixed, ours, rtol=0, atol=TOLERANCE[work.out_dtype])
        torch.testing.assert_close(soft, our_soft, rtol=0, atol=1e-6)
    except Exception as error:
        if not compiled:
            raise
        print(f"torch.compile is left out: {type(error).__name__}: {error}"[:300], flush=True)
        return None
    return lambda: step(*batches.next())


def check_against_numpy(work: Work, batch: Batch, plan: MixPlan) -> None:
    """A few samples in every bit, in memory that was poisoned before."""
    poisoned = cuda_backend.mix(*batch, plan, **settings(work))
    for part in poisoned:
        part.fill_(math.nan)
    del poisoned, part  # the next outputs take their memory
    mixed, soft = cuda_backend.mix(*batch, plan, **settings(work))

    for i in sorted({0, work.batch // 3, work.batch - 1}):
        pair = [i, int(plan.partner[i])]
        images, labels = (part[pair].contiguous().cpu().numpy() for part in batch)
        box = None if plan.box is None else [plan.box[i], [0, 0, 0, 0]]
        alone = MixPlan([1, 1], [plan.lam[i], 1.0], box)
        layout = settings(work)["layout"]
        want = reference.blend(images, alone, work.mixup.output, layout=layout)[0]
        want_soft = reference.soft_labels(labels, alone, NUM_CLASSES)[0]
        assert bytes_of(mixed[i]) == want.tobytes(), f"{work.title}: sample {i} differs"
        assert bytes_of(soft[i]) == want_soft.tobytes(), f"{work.title}: label {i} differs"


def bytes_of(tensor: torch.Tensor) -> bytes:
    return tensor.contiguous().view(torch.uint8).cpu().numpy().tobytes()


# ---- how it is measured -------------------------------------------------------------------------


def timer(call: Call, costs: Row) -> Callable[[], float]:
    repeats = 10 if costs["host_us"] < 500 else 1
    cycles = int(CYCLES_A_US * (200 + 2 * repeats * costs["host_us"]))
    return partial(gpu_us, call, repeats, cycles)


def gpu_us(call: Call, repeats: int, cycles: int) -> float:
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda._sleep(cycles)
    start.record()
    for _ in range(repeats):
        call()
    end.record()
    end.synchronize()
    return start.elapsed_time(end) * 1e3 / repeats


def cost(call: Call) -> Row:
    for _ in range(3):
        call()
    count = launches(call)
    queue = max(1, min(20, 500 // max(1, count)))  # a queue holds some thousand launches
    host = host_us(call, queue, samples=10)
    return {"launches": count, "host_us": host, "temporaries": temporaries(call)}


def launches(call: Call) -> int:
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        call()
        torch.cuda.synchronize()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "trace.json")
        profile.export_chrome_trace(str(path))
        events = json.loads(path.read_text())["traceEvents"]
    return sum(event.get("cat") in ("kernel", "gpu_memcpy", "gpu_memset") for event in events)


def host_us(call: Call, queue: int, samples: int) -> float:
    times = []
    for _ in range(samples):
        torch.cuda.synchronize()
        start = perf_counter()
        for _ in range(queue):
            call()
        times.append((perf_counter() - start) * 1e6 / queue)
    torch.cuda.synchronize()
    return round(float(np.median(times)), 2)


def temporaries(call: Call) -> int:
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    result = call()
    peak, after = torch.cuda.max_memory_allocated(), torch.cuda.memory_allocated()
    del result
    return peak - after


def host_times(batch: int) -> list[Row]:
    """What a training step pays on the host: drawing the plan, queueing the launch, both."""
    [(images, labels), *_] = random_batches(MAIN._replace(batch=batch, side=32))
    rows = []
    for kind, work in {
        "mixup batch": MAIN,
        "mixup elem": MAIN._replace(mode="elem"),
        "CutMix elem": MAIN._replace(mode="elem", cutmix=True),
    }.items():
        mixup = work.mixup
        plan = mixup.plan(batch, (32, 32))
        methods = {
            "plan": partial(mixup.plan, batch, (32, 32)),
            "launch": partial(mixup, images, labels, plan=plan),
            "both": partial(mixup, images, labels),
        }
        for name, method in methods.items():
            method()
            rows.append({"method": f"{kind}: {name}", "host_us": host_us(method, 20, samples=30)})
    return rows


# ---- the plot -----------------------------------------------------------------------------------


def plot(path: Path, rows: list[Row]) -> None:
    """Each method's bandwidth as a share of the copy's, a bar a method, a panel a work."""
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError:
        print("matplotlib is not installed: no plot")
        return
    shown = [work.title for work in works()]
    figure = Figure(figsize=(18, 3 * math.ceil(len(shown) / 3)), layout="constrained")
    for place, title in enumerate(shown, 1):
        axes = figure.add_subplot(math.ceil(len(shown) / 3), 3, place)
        bars = [row for row in rows if row["work"] == title and row["median_us"]][::-1]
        drawn = axes.barh(
            [row["method"] for row in bars], [row["bandwidth_of_copy"] for row in bars]
        )
        axes.bar_label(drawn, [f"{row['median_us']:.0f} us" for row in bars], padding=3)
        axes.set_xlim(0, 1.4)
        axes.axvline(1, color="grey", linewidth=0.8)
        axes.set_title(title, fontsize=9)
    figure.suptitle("Share of a device-to-device copy's bandwidth, and the GPU's time a batch")
    figure.savefig(path, dpi=90)


if __name__ == "__main__":
    main()
