"""The demonstration: what it writes, what it refuses, and how ``make demo`` calls it."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support.command import picture

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def demo(tmp_path):
    def call(images):
        command = [sys.executable, "-m", "benchmarks.demo", "--images", images]
        command += ["--out", tmp_path / "out"]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)

    return call


@pytest.fixture
def make_demo(tmp_path):
    """Calls ``make demo`` with a program in Python's place that notes its arguments."""
    if shutil.which("make") is None:
        pytest.skip("make is not installed")
    python, noted = tmp_path / "bin" / "python", tmp_path / "noted"
    python.parent.mkdir()
    python.write_text(f"#!/bin/sh\nprintf '%s\\n' \"$@\" > '{noted}'\n")
    python.chmod(0o755)

    def call(*settings):
        command = ["make", "--assume-old=.venv/ready", "demo", f"FULL={python.parent}", *settings]
        subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
        return noted.read_text().splitlines()

    return call


def test_the_demonstration_draws_photographs_and_times_the_loader(demo, photo_folder, tmp_path):
    said = demo(photo_folder)

    assert said.returncode == 0, said.stderr
    assert "batch['label']: torch.float32 (16, 3)" in said.stdout
    assert "not mixed: " in said.stdout
    assert picture(tmp_path / "out" / "contact_sheet.png").std() > 10


@pytest.mark.parametrize(
    "files",
    [None, [], ["photo.jpg"], ["class/notes.txt"]],
    ids=["no folder", "empty", "images without a class", "classes without an image"],
)
def test_a_folder_without_images_in_class_folders_is_refused_in_a_line(demo, tmp_path, files):
    folder = tmp_path / "images"
    if files is not None:
        folder.mkdir()
    for file in files or ():
        (folder / file).parent.mkdir(exist_ok=True)
        (folder / file).touch()

    said = demo(folder)

    assert said.returncode == 2
    assert said.stderr == (
        "ValueError: images: expected a folder with one folder of images a class, "
        f"got {folder}\n"
    )  # fmt: skip


def test_a_corrupt_image_is_named_in_a_line(demo, photo_folder, tmp_path):
    folder = tmp_path / "images"
    shutil.copytree(photo_folder, folder)
    (folder / "class_1" / "photo_07.jpg").write_text("no image")

    said = demo(folder)

    assert said.returncode == 2
    assert said.stderr == (
        "ValueError: images: expected images that can be decoded, "
        f"got {folder}/class_1/photo_07.jpg\n"
    )


def test_make_demo_needs_no_images(make_demo):
    assert make_demo() == ["-m", "benchmarks.demo"]


@pytest.mark.parametrize("images", ["my images", "a; echo b", 'it\'s "one"', "a & b"])
def test_make_demo_hands_a_folder_on_as_one_argument(make_demo, images):
    assert make_demo(f"IMAGES={images}") == ["-m", "benchmarks.demo", "--images", images]
