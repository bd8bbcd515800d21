"""How the package is built: what imports what, and how heavy it is to import."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support.requirements import require

import dali_mixup
from dali_mixup.backends.cuda.source import read_kernel

ROOT = Path(__file__).resolve().parents[2]
STDLIB = set(sys.stdlib_module_names)


@pytest.fixture
def checkout(tmp_path):
    """A copy of the package beside the pyproject.toml that declares its layers."""
    require("importlinter", backend="dali")
    shutil.copytree(ROOT / "dali_mixup", tmp_path / "dali_mixup")
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def lint_imports(checkout):
    command = Path(sys.executable).with_name("lint-imports")
    return subprocess.run([command, "--no-cache"], cwd=checkout, capture_output=True, text=True)


def test_the_layers_are_kept(checkout):
    assert lint_imports(checkout).returncode == 0


@pytest.mark.parametrize(
    ("file", "planted", "broken"),
    [
        ("plan.py", "from dali_mixup.mixup import Mixup", "Layers BROKEN"),
        ("plan.py", "from dali_mixup.backends import reference", "Layers BROKEN"),
        ("loaders/mixer.py", "from dali_mixup.cli import app", "Layers BROKEN"),
        ("loaders/mixer.py", "from dali_mixup.loaders.dali import STATE_KEY", "loaders BROKEN"),
        ("mixup.py", "def f():\n    from dali_mixup.recipes import recipe", "Layers BROKEN"),
        ("backends/labels.py", "from dali_mixup.backends import reference", "backends BROKEN"),
        ("loaders/pipeline.py", "from dali_mixup.plan import unmixed", "pipelines .* BROKEN"),
        ("extra.py", "", "Layers BROKEN"),
        ("mixup.py", "import torch", "numpy alone BROKEN"),
        ("loaders/wrapper.py", "from nvidia.dali import fn", "DALI BROKEN"),
        ("loaders/mixer.py", "from PIL import Image", "draws .* BROKEN"),
    ],
)
def test_what_breaks_the_layers_is_noticed(checkout, file, planted, broken):
    with (checkout / "dali_mixup" / file).open("a") as module:
        module.write(f"\n{planted}\n")

    found = lint_imports(checkout)

    assert found.returncode == 1
    assert re.search(broken, found.stdout)


def libraries_without_a_contract(package):
    grimp = require("grimp", backend="dali")
    importlinter = require("importlinter.api", backend="dali")
    settings = importlinter.read_configuration(str(ROOT / "pyproject.toml"))
    protected = {
        library
        for contract in settings["contracts_options"]
        for library in contract.get("protected_modules", ())
    }
    graph = grimp.build_graph(package, include_external_packages=True, cache_dir=None)
    libraries = {module for module in graph.modules if graph.is_module_squashed(module)}
    return libraries - STDLIB - protected - {"numpy"}


def test_every_library_that_is_imported_has_a_contract():
    assert libraries_without_a_contract("dali_mixup") == set()


def test_a_library_without_a_contract_is_noticed(tmp_path, monkeypatch):
    (tmp_path / "planted").mkdir()
    (tmp_path / "planted" / "__init__.py").write_text("import scipy\nimport numpy\nimport os\n")
    monkeypatch.syspath_prepend(tmp_path)

    assert libraries_without_a_contract("planted") == {"scipy"}


def loaded_by(code):
    program = f"import sys\n{code}\nprint(*sorted({{m.partition('.')[0] for m in sys.modules}}))"
    return set(subprocess.check_output([sys.executable, "-c", program], text=True).split())


HEAVY = {"torch", "nvidia", "cupy", "scipy", "PIL"}


def test_importing_the_package_loads_numpy_and_nothing_heavier():
    loaded = loaded_by("import dali_mixup")

    assert "numpy" in loaded
    assert not loaded & HEAVY


def test_the_test_of_the_import_notices_torch(torch):
    assert loaded_by("import dali_mixup.backends.torch_cpu") & HEAVY == {"torch"}


def test_a_name_that_is_not_there_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'dali_mixup' has no attribute 'Mixer'"):
        _ = dali_mixup.Mixer


@pytest.mark.parametrize("name", ["MixupClassificationIterator", "image_pipeline"])
def test_a_missing_library_names_the_extra_to_install(name):
    program = (
        "import sys; sys.modules['nvidia.dali'] = None; sys.modules['nvidia'] = None\n"
        "import dali_mixup\n"
        f"try: dali_mixup.{name}\n"
        "except ModuleNotFoundError as error: print(error)"
    )

    said = subprocess.check_output([sys.executable, "-c", program], text=True)

    assert "needs NVIDIA DALI" in said
    assert "pip install 'dali-mixup[cuda12]'" in said


def test_the_kernel_comes_with_the_package():
    assert "__global__" in read_kernel("mixup.cu")


def test_a_package_without_its_kernel_says_so():
    with pytest.raises(FileNotFoundError, match=r"other\.cu: expected in .*install it anew"):
        read_kernel("other.cu")
