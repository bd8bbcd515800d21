"""The documentation: its code runs, its files are there, its figures are the recorded ones."""

import json
import re
import subprocess
import sys
from pathlib import Path
from unittest import SkipTest

import numpy as np
import pytest
from support.requirements import require
from support.videos import write_video

ROOT = Path(__file__).resolve().parents[2]
README = ROOT / "README.md"
GENERATED = {"_build", "gallery"}
PAGES = [
    README,
    ROOT / "CONTRIBUTING.md",
    *(page for page in sorted((ROOT / "docs").rglob("*.md")) if not GENERATED & {*page.parts}),
]
GALLERY = sorted((ROOT / "docs" / "examples").glob("*.py"))
LABEL = {page: str(page.relative_to(ROOT)) for page in [*PAGES, *GALLERY]}


def blocks(page):
    """A page's Python blocks, with those that it says to skip."""
    sybil = require("sybil", backend="dali")
    myst = require("sybil.parsers.myst", backend="dali")
    parsers = [myst.PythonCodeBlockParser(), myst.SkipParser()]
    return list(sybil.Sybil(parsers).parse(page))


def with_code(pages):
    return [page for page in pages if "```python" in page.read_text()]


@pytest.fixture
def a_users_machine(tmp_path, monkeypatch, photo_folder, torch):
    """A folder with the data that the pages name, and a CPU where there is no GPU."""
    require("lightning", backend="dali")
    for library in ("accelerate", "transformers", "torchdata"):
        require(library, backend="dali")
    pipeline = require("dali_mixup.loaders.pipeline", backend="dali")
    for name in ("photos/train", "photos/val"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).symlink_to(photo_folder)
    for photo in photo_folder.glob("*/*"):  # more than a batch of 256
        folder = tmp_path / "imagenet" / "train" / photo.parent.name
        folder.mkdir(parents=True, exist_ok=True)
        for copy in range(20):
            (folder / f"{copy}_{photo.name}").symlink_to(photo)
    for name in ("archery", "bowling"):
        folder = tmp_path / "kinetics" / "train" / name
        folder.mkdir(parents=True)
        write_video(folder / "clip.avi", np.full((64, 120, 160, 3), 90, np.uint8))
    monkeypatch.chdir(tmp_path)
    if not torch.cuda.is_available():
        video = require("dali_mixup.loaders.video", backend="dali")
        made = pipeline.image_pipeline, pipeline.validation_pipeline, video.video_pipeline
        for make in made:
            monkeypatch.setattr(make, "__defaults__", (224, "cpu"))
    return {"model": Averages(torch), "torch": torch}


def Averages(torch):
    """A model of 1,000 classes that takes any images."""

    class Model(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.head = torch.nn.LazyLinear(1000)

        def forward(self, images):
            return self.head(images.float().mean((2, 3)))

    return Model()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("page", with_code(PAGES), ids=LABEL.get)
def test_the_code_of_a_page_runs(page, a_users_machine):
    examples = blocks(page)
    examples[0].document.namespace.update(a_users_machine)

    for example in examples:
        try:
            example.evaluate()
        except SkipTest:
            assert "needs a GPU" in page.read_text()


def test_wrong_code_in_a_page_is_noticed(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("# Page\n\n```python\nx = 1\n```\n\n```python\nassert x == 2\n```\n")

    first, second = blocks(page)
    first.evaluate()

    with pytest.raises(AssertionError):
        second.evaluate()


@pytest.mark.parametrize("script", GALLERY, ids=LABEL.get)
def test_a_script_of_the_gallery_runs(script, tmp_path):
    require("matplotlib", backend="dali")
    require("skimage", backend="dali")
    paths = f"import sys; sys.path[:0] = [{str(ROOT)!r}, {str(ROOT / 'docs/_ext')!r}]"
    program = f"{paths}; import runpy; runpy.run_path({str(script)!r})"

    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True
    )

    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("page", [*PAGES, *GALLERY], ids=LABEL.get)
def test_a_file_that_is_named_is_there(page):
    folders = "benchmarks|tests|dali_mixup|kernels|docs"
    named = re.findall(rf"\b(?:{folders})/[\w/.-]+\.\w+", page.read_text())

    missing = [path for path in named if not (ROOT / path).exists()]

    assert missing == []


def test_the_readme_fits_on_a_few_screens():
    assert len(README.read_text().splitlines()) <= 200


def recorded(file):
    return json.loads((ROOT / "benchmarks/results" / file).read_text())["rows"]


ROWS = {  # name in the README: method of the batches, method of the loader
    "copy of the output": ("copy", ""),
    "DALI, not mixed": ("", "DALI, normalised"),
    "dali-mixup": ("dali-mixup", "dali-mixup from uint8"),
    "dali-mixup, only the class replaced": ("", "dali-mixup, class swapped"),
    'dali-mixup, mode="elem"': ("dali-mixup elem", ""),
    "dali-mixup, without numba": ("dali-mixup, without numba", ""),
    "timm, batch": ("timm batch", "DALI + timm batch"),
    "timm, elem": ("timm elem", "DALI + timm elem"),
    "torchvision": ("torchvision", "DALI + torchvision"),
    "kornia": ("kornia", "DALI + kornia"),
    "torch, eager": ("torch eager", ""),
    "torch.compile": ("torch.compile", ""),
    "DALI's operators in its graph": ("", "DALI, in graph by operators"),
}


def recorded_table():
    """The README's table: ms and us per image to three figures, images per second to the unit."""
    batch = {
        (row["condition"], row["method"]): f"{row['median_ms']:.3g}"
        for row in recorded("cpu-blend.json")
        if row["work"].startswith("float32") and row["threads"] == 1
    }
    small = {row["method"]: f"{row['median_us']:.3g}" for row in recorded("cpu-small-float.json")}
    loader = {
        row["method"]: f"{row['median_images_per_s']:.0f}" for row in recorded("cpu-loader.json")
    }
    for name, (method, of_loader) in ROWS.items():
        figures = (
            batch.get(("default allocator", method), "-"),
            batch.get(("memory kept", method), "-"),
            small.get(method, "-"),
            loader.get(of_loader, "-"),
        )
        yield f"| {' | '.join((name, *figures))} |"


def test_the_readmes_figures_are_the_recorded_ones():
    shown = README.read_text().replace("**", "").splitlines()

    assert [row for row in recorded_table() if row not in shown] == []
