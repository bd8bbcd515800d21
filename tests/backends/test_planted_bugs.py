"""Bugs planted in the kernel are noticed when what NVRTC compiles of it is executed."""

from __future__ import annotations

import numpy as np
import pytest
from support.requirements import require

require("torch", "ptx")
require("cupy", "ptx")

from support import ptx  # noqa: E402
from support.kernel_batch import Batch  # noqa: E402
from support.planted_bugs import BUGS, COSTLY, Bug, noticed  # noqa: E402
from support.ptx_batch import run  # noqa: E402
from support.ptx_cache import PtxKernels  # noqa: E402

from dali_mixup import MixPlan, OutputFormat  # noqa: E402
from dali_mixup.backends.cuda.source import read_kernel  # noqa: E402


@pytest.mark.parametrize("architecture", ["compute_75", "compute_90"])
def test_the_kernel_without_a_bug_is_right(architecture):
    assert noticed(Bug("none", "none", (), architecture)) is None


@pytest.mark.parametrize("bug", [pytest.param(bug, id=bug.name) for bug in BUGS])
def test_a_bug_is_noticed(bug):
    assert noticed(bug)


def cost(source, architecture, *, lam=0.3, box=None, layout="CHW"):
    """Bytes loaded for a byte of the images, how much accesses fill of sectors, and arithmetic."""
    images = np.random.default_rng(0).integers(0, 256, (4, 96, 96, 3), np.uint8)
    plan = MixPlan([1, 2, 3, 0], [lam] * 4, None if box is None else [box] * 4)
    output = OutputFormat(dtype="float16", layout=layout, mean=1.0, std=2.0)
    counters = ptx.Counters()
    run(
        PtxKernels(architecture, source),
        Batch(plan, images, output, shifts=(0, 0)),
        counters=counters,
    )
    floats = counters.by_class()["float32 arithmetic"] * 32 / (images.size / 3)
    return {
        "loaded": counters.loads.bytes / images.nbytes,
        "loads fill": round(counters.loads.efficiency, 2),
        "stores fill": counters.stores.efficiency,
        "store widths": set(counters.stores.by_width),
        "float32 arithmetic": int(floats),  # a pixel
    }


PLANAR = {
    "loaded": 2, "loads fill": 0.33, "stores fill": 1.0, "store widths": {16},
    "float32 arithmetic": 15,
}  # fmt: skip
COSTS = [
    ({"architecture": "compute_90"}, PLANAR),
    ({"architecture": "compute_100"}, PLANAR | {"float32 arithmetic": 7}),
    (
        {"architecture": "compute_90", "lam": 1.0},
        PLANAR | {"loaded": 1, "float32 arithmetic": 9},
    ),
    (
        {"architecture": "compute_90", "lam": 0.0},
        PLANAR | {"loaded": 1, "float32 arithmetic": 9},
    ),
    (
        {"architecture": "compute_90", "box": (24, 72, 24, 72)},
        PLANAR | {"loaded": 1, "loads fill": 0.32, "float32 arithmetic": 9},
    ),
    (
        {"architecture": "compute_90", "layout": "HWC"},
        PLANAR | {"loads fill": 1.0},
    ),
]


@pytest.mark.parametrize(("work", "counted"), COSTS)
def test_each_image_is_read_twice_at_most_and_stores_fill_their_sectors(work, counted):
    assert cost(read_kernel("mixup.cu"), **work) == counted


@pytest.mark.parametrize("bug", [pytest.param(bug, id=bug.name) for bug in COSTLY])
def test_a_bug_that_costs_time_alone_is_counted(bug):
    assert noticed(bug) is None

    assert any(cost(bug.source, **work) != counted for work, counted in COSTS)
