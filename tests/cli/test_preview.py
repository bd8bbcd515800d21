"""``dali-mixup preview``: what it draws of which source, and what it refuses."""

import sys

import numpy as np
import pytest
from support.command import picture, run

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


@pytest.fixture
def pipelines(photo_folder, tmp_path, monkeypatch):
    """A module of a user's own, in the folder where the user stands."""
    (tmp_path / "users_pipelines.py").write_text(PIPELINES.format(root=str(photo_folder)))
    monkeypatch.chdir(tmp_path)
    yield "users_pipelines"
    sys.modules.pop("users_pipelines", None)


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
