"""The command: what it shows, what it writes, and how it fails."""

import importlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from support.requirements import require

require("torch")
require("nvidia.dali", backend="dali")
testing = require("typer.testing", backend="dali")
Image = require("PIL.Image", backend="dali")
require("matplotlib", backend="dali")

from dali_mixup.cli import doctor  # noqa: E402
from dali_mixup.cli.app import app  # noqa: E402
from dali_mixup.cli.doctor import BAD, GOOD, NOTE, Finding  # noqa: E402

PIPELINES = """
from nvidia.dali import fn, pipeline_def, types
ROOT = {root!r}
@pipeline_def(batch_size=6, num_threads=1, device_id=None)
def normalised():
    encoded, labels = fn.readers.file(file_root=ROOT)
    images = fn.resize(fn.decoders.image(encoded, device="cpu"), size=(40, 40))
    return fn.crop_mirror_normalize(
        images, dtype=types.FLOAT, output_layout="CHW", mean=[120.0], std=[60.0]), labels
@pipeline_def(batch_size=6, num_threads=1, device_id=None)
def unlabelled():
    encoded, _ = fn.readers.file(file_root=ROOT)
    images = fn.resize(fn.decoders.image(encoded, device="cpu"), size=(40, 40))
    return images, images
made = normalised()
number = 3
"""


def run(*arguments):
    return testing.CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture
def pipelines(photo_folder, tmp_path, monkeypatch):
    """A module of a user's own, in the folder where the user stands."""
    (tmp_path / "users_pipelines.py").write_text(PIPELINES.format(root=str(photo_folder)))
    monkeypatch.chdir(tmp_path)
    yield "users_pipelines"
    sys.modules.pop("users_pipelines", None)


def picture(path):
    return np.asarray(Image.open(path).convert("RGB"))


def test_a_folder_becomes_a_contact_sheet(photo_folder, tmp_path):
    out = tmp_path / "sheet.png"

    said = run("preview", photo_folder, "--out", out, "--count", 6, "--image-size", 64)

    assert said.exit_code == 0, said.output
    assert str(out) in said.output.replace("\n", "")
    assert len(np.unique(picture(out))) > 100


def test_settings_reach_the_picture(photo_folder, tmp_path):
    sheets = {}
    for name, settings in {
        "a": ["--alpha", 1],
        "again": ["--alpha", 1],
        "seed": ["--alpha", 1, "--seed", 1],
        "cut": ["--alpha", 0, "--cutmix-alpha", 1],
    }.items():
        out = tmp_path / f"{name}.png"
        assert run("preview", photo_folder, "--out", out, *settings).exit_code == 0
        sheets[name] = picture(out)

    assert (sheets["a"] == sheets["again"]).all()
    assert (sheets["a"] != sheets["seed"]).any()
    assert (sheets["a"] != sheets["cut"]).any()


@pytest.mark.parametrize("name", ["normalised", "made"])
def test_a_pipeline_of_ones_own_is_drawn_in_visible_colours(pipelines, name):
    said = run("preview", f"{pipelines}:{name}", "--out", "sheet.png")

    assert said.exit_code == 0, said.output
    first_image = picture("sheet.png")[56:96, 14:54]
    assert first_image.max() - first_image.min() > 50


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("nowhere", "expected a folder of images or module:pipeline, got 'nowhere'"),
        ("no_module:x", "No module named 'no_module'"),
        ("{}:number", "expected 'number' of '{}' to be a DALI pipeline"),
        ("{}:missing", "expected 'missing' of '{}' to be a DALI pipeline"),
        ("{}:unlabelled", "expected class ids in the pipeline's last output, got uint8"),
    ],
)
def test_a_source_that_cannot_be_drawn_says_so_in_a_line(pipelines, source, message):
    said = run("preview", source.format(pipelines))

    assert said.exit_code == 2
    assert message.format(pipelines) in said.output
    assert "Traceback" not in said.output


def test_a_bad_setting_says_what_the_library_says(photo_folder):
    said = run("preview", photo_folder, "--mode", "elements")

    assert said.exit_code == 2
    assert "mode: expected one of 'batch', 'elem', 'pair', got 'elements'" in said.output


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


def test_doctor_finds_nothing_bad_here():
    said = run("doctor")

    assert said.exit_code == 0, said.output
    for line in ("Python", "nvidia.dali", "NVRTC", "numpy reference", "equals its formula"):
        assert line in said.output


def test_doctor_fails_where_what_is_wanted_is_missing(monkeypatch):
    monkeypatch.setattr(doctor, "_torch_sees_a_gpu", lambda: False)

    said = run("doctor", "--backend", "cupy")

    assert said.exit_code == 1
    assert "torch sees none" in said.output


def test_doctor_fails_where_the_reference_is_wrong(monkeypatch):
    monkeypatch.setattr(
        "dali_mixup.backends.reference.mix",
        lambda images, *args, **kwargs: (np.zeros((9, 3, 33, 40), np.float16), None),
    )

    said = run("doctor")

    assert said.exit_code == 1
    assert "differs from its formula" in said.output


def test_doctor_names_the_command_for_a_library_that_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", None)

    (finding,) = (found for found in doctor.examine("numpy") if found.what == "cupy")

    assert finding.state == NOTE
    assert "pip install 'dali-mixup[cuda12]'" in finding.advice


def test_a_library_that_does_not_load_is_a_line_of_the_report(monkeypatch):
    def refuse(module):
        if module == "torch":
            raise OSError("libcudnn.so.9: cannot open shared object file")
        return importlib.import_module(module)

    monkeypatch.setattr(doctor, "import_module", refuse)

    findings = {found.what: found for found in doctor.examine()}

    assert findings["torch"].state == NOTE
    assert "libcudnn.so.9" in findings["torch"].detail
    assert findings["numpy reference"].state == GOOD


def test_two_builds_of_one_library_are_bad(monkeypatch):
    class Distribution:
        def __init__(self, name):
            self.metadata = {"Name": name}

    there = [Distribution("cupy-cuda12x"), Distribution("cupy-cuda13x"), Distribution("numpy")]
    monkeypatch.setattr(doctor, "distributions", lambda: there)

    (finding,) = doctor._doubles()

    assert finding.state == BAD
    assert "cupy-cuda12x and cupy-cuda13x" in finding.detail


def test_copies_of_nvrtc_are_listed(monkeypatch, tmp_path):
    for place in ("nvidia/cuda_nvrtc/lib/libnvrtc.so.12", "nvidia/cu13/lib/libnvrtc.so.13"):
        (tmp_path / place).parent.mkdir(parents=True)
        (tmp_path / place).touch()
    (tmp_path / "nvidia/cu13/lib/libnvrtc-builtins.so.13.0").touch()
    monkeypatch.setattr(sys, "path", [str(tmp_path)])

    assert sorted(doctor.nvrtc_copies().values()) == ["libnvrtc.so.12", "libnvrtc.so.13"]


@pytest.mark.parametrize(("state", "code"), [(GOOD, 0), (NOTE, 0), (BAD, 1)])
def test_doctors_exit_code_is_for_ci(monkeypatch, state, code):
    monkeypatch.setattr(
        "dali_mixup.cli.app.examine", lambda backend: [Finding("x", state, "[y]", "z")]
    )

    said = run("doctor")

    assert said.exit_code == code
    assert "[y]" in said.output


def test_the_module_and_the_script_are_the_same_command():
    module = [sys.executable, "-m", "dali_mixup"]
    script = [str(Path(sys.executable).with_name("dali-mixup"))]

    first, second = (
        subprocess.run([*command, "--help"], capture_output=True, text=True, check=True).stdout
        for command in (module, script)
    )

    assert first == second
    assert all(name in first for name in ("preview", "bench", "doctor"))


def test_the_command_without_its_extra_says_which():
    program = (
        "import sys; sys.modules['typer'] = None; sys.argv = ['dali-mixup']\n"
        "from dali_mixup.__main__ import main; main()"
    )

    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)

    assert said.returncode == 1
    assert "the command needs typer, which is missing: pip install 'dali-mixup[cli]'" in said.stderr
    assert "Traceback" not in said.stderr
