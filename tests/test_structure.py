"""How the package is built: what imports what, and how heavy it is to import."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import dali_mixup
from dali_mixup.kernel_source import read_kernel

PACKAGE = Path(dali_mixup.__file__).parent
STDLIB = set(sys.stdlib_module_names)

LEVEL = {
    "advice": -1,
    "measure": -1,
    "chart": 0,
    "peers": 0,
    "checks": -1,
    "state": 0,
    "plan": 0,
    "output": 0,
    "labels": 0,
    "memory": 0,
    "kernel_source": 0,
    "launch": 1,
    "tensors": 1,
    "numpy_backend": 1,
    "nvrtc": 2,
    "torch_cpu": 2,
    "cuda": 3,
    "cupy_backend": 4,
    "mixup": 5,
    "loader": 6,
    "iterators": 7,
    "pipeline": 7,
    "contact_sheet": 7,
    "losses": 1,
    "nodes": 7,
    "recipes": 6,
    "bench": 8,
    "preview": 8,
    "doctor": 8,
    "compat": 8,
    "cli": 9,
    "__init__": 10,
    "__main__": 10,
}
LIBRARIES = {
    "tensors": {"torch"},
    "torch_cpu": {"numpy", "torch"},
    "nvrtc": {"cupy"},
    "cuda": {"torch", "cupy"},
    "cupy_backend": {"numpy", "torch"},
    "contact_sheet": {"numpy", "PIL"},
    "losses": {"torch"},
    "iterators": {"nvidia"},
    "nodes": {"torchdata"},
    "chart": {"matplotlib"},
    "peers": {"torch"},
    "bench": {"torch"},
    "preview": {"numpy", "PIL"},
    "cli": {"torch", "typer", "rich"},
    "pipeline": {"nvidia"},
}


def imports(source):
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module == "dali_mixup":
            yield from (f"dali_mixup.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module


def against_the_rules(module, source):
    for name in imports(source):
        top, _, inner = name.partition(".")
        if top == "dali_mixup":
            if LEVEL.get(inner, 99) >= LEVEL[module]:
                yield f"{module} imports {inner}"
        elif top not in STDLIB and top not in LIBRARIES.get(module, {"numpy"}):
            yield f"{module} imports {top}"


@pytest.mark.parametrize("path", sorted(PACKAGE.glob("*.py")), ids=lambda path: path.stem)
def test_a_module_imports_only_lower_ones_and_its_libraries(path):
    assert path.stem in LEVEL
    assert list(against_the_rules(path.stem, path.read_text())) == []


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("plan", "from dali_mixup.mixup import Mixup"),
        ("plan", "from dali_mixup import numpy_backend"),
        ("mixup", "import torch"),
        ("loader", "from nvidia.dali import fn"),
        ("mixup", "def f():\n    from dali_mixup.loader import MixupLoader"),
    ],
)
def test_the_rules_notice_what_breaks_them(module, source):
    assert list(against_the_rules(module, source))


def loaded_by(code):
    program = f"import sys\n{code}\nprint(*sorted({{m.partition('.')[0] for m in sys.modules}}))"
    return set(subprocess.check_output([sys.executable, "-c", program], text=True).split())


HEAVY = {"torch", "nvidia", "cupy", "scipy", "PIL"}


def test_importing_the_package_loads_numpy_and_nothing_heavier():
    loaded = loaded_by("import dali_mixup")

    assert "numpy" in loaded
    assert not loaded & HEAVY


def test_the_test_of_the_import_notices_torch(torch):
    assert loaded_by("import dali_mixup.torch_cpu") & HEAVY == {"torch"}


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
