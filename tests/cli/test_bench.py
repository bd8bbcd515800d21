"""``dali-mixup bench``: what it prints, records and draws."""

import json
import sys

import pytest
from support.command import picture, run

from dali_mixup.cli import bench


def test_bench_prints_records_and_draws(photo_folder, tmp_path):
    recorded, chart = tmp_path / "run.json", tmp_path / "run.png"

    said = run(
        "bench", "--rounds", 2, "--batch-size", 4, "--image-size", 32, "--num-classes", 5,
        "--device", "cpu", "--images", photo_folder, "--json", recorded, "--png", chart,
    )  # fmt: skip

    assert said.exit_code == 0, said.output
    run_of = json.loads(recorded.read_text())
    medians = {
        row["method"]: row.get("median_us", row.get("median_images_per_s"))
        for row in run_of["rows"]
    }
    assert {"copy", "dali-mixup", "torch eager", "loader, mixed", "loader, not mixed"} <= {*medians}
    assert all(value is None or value > 0 for value in medians.values())
    assert medians["copy"]
    assert medians["dali-mixup"]
    assert run_of["versions"]["torch"] == sys.modules["torch"].__version__
    assert picture(chart).std() > 10
    for method in medians:
        assert method in said.output


def test_a_method_that_takes_no_such_batch_is_listed_without_figures():
    said = run("bench", "--rounds", 1, "--batch-size", 3, "--image-size", 16, "--device", "cpu")

    assert said.exit_code == 0, said.output
    (line,) = (line for line in said.output.splitlines() if "timm batch" in line)
    assert [cell.strip() for cell in line.split("│")[2:-1]] == ["-"] * 4
    assert "-: not installed, or does not take such a batch" in said.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--dtype", "float64"], "dtype: expected one of 'float32', 'float16', 'bfloat16'"),
        (["--from-dtype", "int8"], "from-dtype: expected one of 'uint8', 'float', got 'int8'"),
        (["--images", "nowhere"], "images: expected a folder with one folder a class, got nowhere"),
    ],
)
def test_bench_refuses_before_it_measures(arguments, message):
    said = run("bench", *arguments)

    assert said.exit_code == 2
    assert message in said.output


class Clock:
    """Stands in for the timer: what is measured moves it on."""

    def __init__(self):
        self.seconds = 0.0

    def __call__(self):
        return self.seconds

    def batches(self, *seconds, size):
        for taken in seconds:
            self.seconds += taken
            yield [{"data": sys.modules["torch"].zeros(size)}]


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(bench, "perf_counter", clock)
    return clock


def test_a_batchs_time_is_told_in_microseconds_an_image(clock):
    def method():
        clock.seconds += 0.002

    assert bench.microseconds_an_image(method, bench.Work(batch_size=4)) == pytest.approx(500)


def test_a_loaders_first_batches_do_not_count(clock):
    batches = clock.batches(100, 100, 2, 2, 2, size=6)

    assert bench.images_a_second(batches, untimed=2, timed=3) == 3


def test_a_method_costs_one_of_itself(tmp_path):
    said = run(
        "bench", "--rounds", 3, "--batch-size", 2, "--image-size", 16, "--device", "cpu",
        "--json", tmp_path / "run.json",
    )  # fmt: skip

    assert said.exit_code == 0, said.output
    rows = {row["method"]: row for row in json.loads((tmp_path / "run.json").read_text())["rows"]}
    assert rows["copy"]["ratio_to_copy"] == 1
    assert rows["dali-mixup"]["ratio_to_ours"] == 1
