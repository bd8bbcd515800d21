"""The command itself: how it is called, and what it says where its extra is missing."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from support.requirements import require

require("typer", backend="dali")


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


@pytest.mark.parametrize("argument", ["doctor", "--help"])
def test_a_reader_that_has_left_is_no_error_to_tell(argument):
    reading, writing = os.pipe()
    os.close(reading)

    said = subprocess.run(
        [sys.executable, "-m", "dali_mixup", argument],
        stdout=writing,
        stderr=subprocess.PIPE,
        text=True,
    )

    os.close(writing)
    assert said.returncode == 1
    assert said.stderr == ""
