"""``dali-mixup preview``: what it draws of which source, and what it refuses."""

import sys
from importlib import import_module

import numpy as np
import pytest
from support.command import Image, picture, run

from dali_mixup.recipes import RECIPES

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
@pipeline_def(batch_size=6, num_threads=1, device_id=None)
def labelled(kind):
    encoded, labels = fn.readers.file(file_root=ROOT)
    images = fn.resize(fn.decoders.image(encoded, device="cpu"), size=(40, 40))
    if kind == "ids":
        labels = fn.squeeze(labels, axes=[0])
    elif kind != "column":
        on, off = {{"smoothed": (0.9, 0.05), "empty": (0, 0)}}.get(kind, (1, 0))
        dtype = types.INT32 if kind == "integers" else types.FLOAT
        labels = fn.one_hot(labels, num_classes=3, on_value=on, off_value=off, dtype=dtype)
    return images, labels
@pipeline_def(batch_size=6, num_threads=1, device_id=None)
def bands():
    encoded, labels = fn.readers.file(file_root=ROOT)
    images = fn.resize(fn.decoders.image(encoded, device="cpu"), size=(40, 40))
    return fn.cat(images, images, images, axis=2), labels
ids, column, floats, integers, smoothed, empty = (
    labelled(kind) for kind in ("ids", "column", "floats", "integers", "smoothed", "empty"))
made = normalised()
number = 3
"""

CALLBACK = """from nvidia.dali import fn, pipeline_def
def source():
    raise KeyError("gone")
@pipeline_def(batch_size=2, num_threads=1, device_id=None)
def pipe():
    return fn.external_source(source), fn.external_source(source)
"""
CONDITIONALS = """from nvidia.dali import pipeline_def
@pipeline_def(batch_size=2, num_threads=1, device_id=None, enable_conditionals=True)
def pipe():
    return missing_name
"""


@pytest.fixture
def pipelines(photo_folder, tmp_path, monkeypatch):
    """A module of a user's own, in the folder where the user stands."""
    (tmp_path / "users_pipelines.py").write_text(PIPELINES.format(root=str(photo_folder)))
    monkeypatch.chdir(tmp_path)
    yield "users_pipelines"
    sys.modules.pop("users_pipelines", None)


def sheet_arguments(monkeypatch):
    """Images, labels, plan and names of the sheet, once it is drawn."""
    received = []
    monkeypatch.setattr(
        "dali_mixup.cli.preview.contact_sheet",
        lambda *arguments, title: received.extend(arguments) or Image.new("RGB", (1, 1)),
    )
    return received


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


@pytest.mark.parametrize("form", ["ids", "column", "integers"])
def test_labels_may_be_ids_or_one_hot_rows(pipelines, form):
    assert run("preview", f"{pipelines}:floats", "--out", "expected.png").exit_code == 0

    said = run("preview", f"{pipelines}:{form}", "--out", "sheet.png")

    assert said.exit_code == 0, said.output
    assert (picture("sheet.png") == picture("expected.png")).all()


@pytest.mark.parametrize("form", ["column", "floats"])
def test_the_sheet_gets_the_labels_ids_and_a_name_for_each(pipelines, monkeypatch, form):
    received = sheet_arguments(monkeypatch)

    run("preview", f"{pipelines}:{form}", "--out", "sheet.png")

    _, labels, _, names = received
    assert labels.tolist() == [0, 0, 0, 0, 0, 1]
    assert names[:2] == ["class 0", "class 1"]


def test_the_classes_of_a_folder_have_its_folders_names(photo_folder, tmp_path, monkeypatch):
    received = sheet_arguments(monkeypatch)

    run("preview", photo_folder, "--out", tmp_path / "sheet.png", "--image-size", 32)

    assert received[3] == ["class_0", "class_1", "class_2"]


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("\n\nmissing_name", "users_mistake.py, line 3: NameError: name 'missing_name' is not"),
        ("import numpy\ndef pipe(:", "SyntaxError: invalid syntax (users_mistake.py, line 2)"),
        ("import not_installed", "line 1: ModuleNotFoundError: No module named 'not_installed'"),
        ("def pipe():\n    raise ValueError('no data')", "line 2: ValueError: no data"),
        (
            "def pipe():\n    import numpy\n    return numpy.zeros(-1)",
            "users_mistake.py, line 3: ValueError: negative dimensions",
        ),
        (CALLBACK, "users_mistake.py, line 3: KeyError: 'gone'"),
        (CONDITIONALS, 'users_mistake.py", line 4, in pipe'),
    ],
    ids=["name", "syntax", "import", "call", "library", "callback", "conditionals"],
)
def test_an_error_in_the_users_code_is_told_with_its_line(tmp_path, monkeypatch, code, message):
    (tmp_path / "users_mistake.py").write_text(code)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "users_mistake", raising=False)

    said = run("preview", "users_mistake:pipe")

    assert said.exit_code == 1
    assert message in said.output
    assert "generated" not in said.output
    assert "Traceback" not in said.output


def test_an_error_in_another_module_of_the_users_package_is_told_with_its_line(
    tmp_path, monkeypatch
):
    (tmp_path / "users_package").mkdir()
    (tmp_path / "users_package" / "pipelines.py").write_text("from users_package import helper")
    (tmp_path / "users_package" / "helper.py").write_text("\n1 / 0")
    monkeypatch.chdir(tmp_path)

    said = run("preview", "users_package.pipelines:pipe")

    assert said.exit_code == 1
    assert "helper.py, line 2: ZeroDivisionError: division by zero" in said.output


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("nowhere", "expected a folder of images or module:pipeline, got 'nowhere'"),
        ("no_module:x", "No module named 'no_module'"),
        ("{}:number", "expected 'number' of '{}' to be a DALI pipeline"),
        ("{}:missing", "expected 'missing' of '{}' to be a DALI pipeline"),
        ("{}:unlabelled", "class ids or one-hot rows in the pipeline's last output, got uint8"),
        ("{}:smoothed", "one-hot rows in the pipeline's last output, got float32 (6, 3)"),
        ("{}:empty", "one-hot rows in the pipeline's last output, got float32 (6, 3)"),
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


def test_a_recipe_gives_the_pipeline_and_the_mixing(photo_folder, tmp_path, monkeypatch):
    told = {}
    preview = import_module("dali_mixup.cli.preview")
    pipeline, sheet = preview.image_pipeline, preview.contact_sheet
    monkeypatch.setattr(
        preview,
        "image_pipeline",
        lambda *a, **options: told.update(options, size=a[2]) or pipeline(*a, **options),
    )
    monkeypatch.setattr(
        preview,
        "contact_sheet",
        lambda *a, title: told.update(title=title) or sheet(*a, title=title),
    )
    out = tmp_path / "sheet.png"

    said = run("preview", photo_folder, "--recipe", "deit3-b", "--count", 4, "--out", out)

    assert said.exit_code == 0, said.output
    assert RECIPES["deit3-b"].pipeline.items() <= told.items()
    assert told["size"] == 192
    assert told["title"] == "deit3-b: alpha=0.8, cutmix_alpha=1.0, pairing=flip, mode=elem"


def test_an_option_replaces_the_recipes(photo_folder, tmp_path, monkeypatch):
    received = sheet_arguments(monkeypatch)

    said = run(
        "preview", photo_folder, "--recipe", "deit-s", "--cutmix-alpha", 0, "--mode", "batch",
        "--image-size", 48, "--count", 6, "--out", tmp_path / "sheet.png",
    )  # fmt: skip

    assert said.exit_code == 0, said.output
    images, _, plan, _ = received
    assert images.shape == (6, 48, 48, 3)
    assert len(set(plan.lam.tolist())) == 1
    assert plan.box is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--recipe", "deit"], "recipe: expected one of 'deit-s', "),
        (["--recipe", "deit-s"], "recipe: expected a folder of images beside it, got '{}:ids'"),
    ],
)
def test_a_recipe_that_cannot_be_shown_says_so(pipelines, arguments, message):
    said = run("preview", f"{pipelines}:ids", *arguments)

    assert said.exit_code == 2
    assert message.format(pipelines) in said.output.replace("\n", " ")


def test_images_of_many_channels_are_drawn_in_the_layout_that_is_given(pipelines, tmp_path):
    said = run("preview", f"{pipelines}:bands", "--layout", "HWC", "--out", tmp_path / "sheet.png")

    assert said.exit_code == 0, said.output
