"""The record of a run: what it says of the commit that was measured."""

import json
import shutil
import subprocess

import pytest

from dali_mixup.cli import measure


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A folder of this package's layout, from which it seems to run."""
    for file in ("dali_mixup/cli/measure.py", "benchmarks/results/run.json"):
        (tmp_path / file).parent.mkdir(parents=True)
        (tmp_path / file).touch()
    monkeypatch.setattr(measure, "__file__", str(tmp_path / "dali_mixup/cli/measure.py"))
    monkeypatch.delenv("COMMIT", raising=False)
    return tmp_path


@pytest.fixture
def committed(checkout):
    """The checkout, and what its only commit is called."""
    if shutil.which("git") is None:
        pytest.skip("git is not installed")
    author = ["-c", "user.name=a", "-c", "user.email=a@b"]
    git(checkout, "init", "--quiet")
    git(checkout, "add", ".")
    git(checkout, *author, "commit", "--quiet", "--message", "all")
    return checkout, git(checkout, "rev-parse", "HEAD").strip()


def git(folder, *arguments):
    command = ["git", *arguments]
    return subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True).stdout


def recorded_commit(folder):
    path = folder / "out" / "run.json"
    measure.record(path, cores=1, packages=(), rows=[{"method": "copy"}])
    return json.loads(path.read_text())["commit"]


def test_the_record_has_the_commit(committed):
    checkout, commit = committed

    assert recorded_commit(checkout) == commit


@pytest.mark.parametrize("staged", [False, True])
def test_a_changed_file_makes_the_commit_dirty(committed, staged):
    checkout, commit = committed
    (checkout / "dali_mixup" / "cli" / "measure.py").write_text("changed")
    if staged:
        git(checkout, "add", ".")

    assert recorded_commit(checkout) == f"{commit}-dirty"


def test_results_that_were_just_written_do_not_make_it_dirty(committed):
    checkout, commit = committed
    (checkout / "benchmarks" / "results" / "run.json").write_text("{}")

    assert recorded_commit(checkout) == commit


def test_the_variable_commit_says_it_for_files_without_history(checkout, monkeypatch):
    monkeypatch.setenv("COMMIT", "abc123")

    assert recorded_commit(checkout) == "abc123"


def test_an_installed_package_has_its_version_for_a_commit(checkout):
    assert recorded_commit(checkout) == f"dali-mixup {measure.installed('dali-mixup')}"
