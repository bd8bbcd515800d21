"""What is counted of a launch without a GPU: instructions, occupancy, and DRAM bytes behind L2."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.requirements import require

torch = require("torch", "ptx")
require("cupy", "ptx")
require("rich", "ptx")

from support.machine_code import disassembler  # noqa: E402


@pytest.fixture(scope="module")
def counted():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(Path(__file__).resolve().parents[2]))
        from benchmarks.speed import counted

    return counted


@pytest.mark.parametrize(("registers", "warps"), [(32, 60), (39, 48), (40, 48), (41, 42), (56, 36)])
def test_registers_limit_the_blocks_of_a_multiprocessor(counted, registers, warps):
    assert counted.occupancy(registers) == warps / 64


@pytest.mark.parametrize("batch_size", [64, 1024])
def test_both_reads_of_an_image_meet_in_the_cache(counted, batch_size):
    for work in counted.WORKS:
        assert counted.dram_over_minimum(work, batch_size, 224) == pytest.approx(1.0, abs=1e-3)


def test_in_a_cache_that_is_too_small_images_are_read_twice(counted):
    work = counted.WORKS[0]  # 3 bytes a pixel in, 6 out

    assert counted.dram_over_minimum(work, 1024, 224, l2_bytes=2**16) == pytest.approx(
        12 / 9, abs=0.01
    )


def test_blocks_that_run_in_any_order_read_images_twice(counted):
    everything = dict(at_a_time=10**9, l2_bytes=2**22)

    assert counted.dram_over_minimum(counted.WORKS[0], 1024, 224, **everything) > 1.3


def test_a_row_has_the_counts_of_its_launch(counted):
    if disassembler() is None:
        pytest.skip("nvdisasm is not installed")
    row = counted.row(counted.WORKS[0])

    assert (row["bytes loaded"], row["bytes from L2"], row["bytes stored"]) == (6.0, 6.0, 6.0)
    assert (row["loads fill"], row["stores fill"]) == (33, 100)
    assert row["lines"] == 6 * 6 + 3 * 4
    assert row["KiB in flight"] == 8 * 192 * 8 * 6 // 1024
    assert row["opcodes"]["FFMA"] == 6  # two images of three channels
    assert row["H100 memory"] == pytest.approx(256 * 224**2 * 9 / 3.35e6, rel=0.01)


def test_a_card_issues_four_instructions_a_cycle_unless_a_kind_has_fewer_lanes(counted):
    h100 = next(card for card in counted.CARDS if card.name == "H100")
    cycle = 1e6 / h100.clock / h100.multiprocessors

    assert h100.instructions_us(["FADD"] * 40, 1) == pytest.approx(10 * cycle)
    assert h100.instructions_us(["PRMT"] * 40, 1) == pytest.approx(20 * cycle)
    assert h100.instructions_us(["FADD2"] * 40, 1) == pytest.approx(20 * cycle)
    assert h100.instructions_us(["LDG"] * 40, 1) == pytest.approx(10 * cycle)


def test_operators_are_launches_and_views_are_not():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(Path(__file__).resolve().parents[2]))
        from benchmarks.speed import peers_counted
    images = torch.ones(4, 8)

    moved = peers_counted.of_operators("", lambda: (images.t() * 2).mul_(3).flip(0))

    assert (moved.launches, moved.bytes) == (3, 3 * 2 * 4 * 8 * 4)


def test_a_measured_card_finds_its_data_sheet(counted):
    from benchmarks.speed.cards import card_of

    assert card_of("NVIDIA H100 80GB HBM3").name == "H100"
    assert card_of("NVIDIA GeForce RTX 4090") is None
