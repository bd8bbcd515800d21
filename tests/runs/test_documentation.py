"""The README's examples are Python, its names exist, its files are there."""

import ast
import re
from importlib import import_module
from pathlib import Path

import pytest
from support.requirements import require

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text()
EXAMPLES = [
    re.sub(r"^ {2}", "", block, flags=re.M) if block.startswith("  ") else block
    for block in re.findall(r"```python\n(.*?)```", README, flags=re.S)
]


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.splitlines()[0][:40])
def test_an_example_is_python_and_imports_what_there_is(example):
    require("torch")
    require("nvidia.dali", backend="dali")
    require("torchdata", backend="dali")
    for node in ast.walk(ast.parse(example)):
        if isinstance(node, ast.ImportFrom) and node.module.startswith(("dali_mixup", "nvidia")):
            module = import_module(node.module)
            for alias in node.names:
                assert hasattr(module, alias.name)


def test_there_are_examples():
    assert len(EXAMPLES) >= 6


@pytest.mark.parametrize(
    "path", sorted(set(re.findall(r"(?:benchmarks|tests)/[\w/.-]+\.\w+", README)))
)
def test_a_file_that_is_named_is_there(path):
    assert (ROOT / path).exists()


@pytest.mark.parametrize(
    "file", sorted(set(re.findall(r"`(cpu-[\w*-]+\.json|study\.\w+)`", README)))
)
def test_a_result_that_is_named_is_recorded(file):
    assert list((ROOT / "benchmarks/results").glob(file))
