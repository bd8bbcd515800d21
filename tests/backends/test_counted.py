"""What is counted of a launch without a GPU: occupancy, and DRAM bytes behind an L2 cache."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.requirements import require

require("torch", "ptx")
require("cupy", "ptx")
require("rich", "ptx")


@pytest.fixture
def counted(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).resolve().parents[2]))
    from benchmarks.kernel import counted

    return counted


@pytest.mark.parametrize(("registers", "warps"), [(32, 60), (39, 48), (40, 48), (41, 42), (56, 36)])
def test_registers_limit_the_blocks_of_a_multiprocessor(counted, registers, warps):
    assert counted.occupancy(registers) == warps / 64


@pytest.mark.parametrize("batch_size", [64, 1024])
def test_both_reads_of_an_image_meet_in_the_cache(counted, batch_size):
    for work in counted.WORKS:
        assert counted.dram_over_minimum(work, batch_size, 224) == pytest.approx(1.0)


def test_in_a_cache_that_is_too_small_images_are_read_twice(counted):
    work = counted.WORKS[0]  # 3 bytes a pixel in, 6 out

    assert counted.dram_over_minimum(work, 1024, 224, l2_bytes=2**16) == pytest.approx(
        12 / 9, abs=0.01
    )


def test_a_row_has_the_counts_of_its_launch(counted):
    row = counted.row(counted.WORKS[0])

    assert (row["bytes loaded"], row["bytes stored"]) == (6.0, 6.0)
    assert (row["loads fill"], row["stores fill"]) == (33, 100)
    assert 40 < row["instructions"] < 60
    assert row["registers"] == 39
