"""What the tests share: which libraries have to be there, and a folder of photographs."""

from __future__ import annotations

import os
import shutil
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn

import numpy as np
import pytest

BACKENDS = ("numpy", "host", "torch", "dali", "cupy")
VARIABLE = "DALI_MIXUP_TEST_BACKENDS"


def _wanted() -> list[str]:
    return [name for name in os.environ.get(VARIABLE, "").split(",") if name]


def pytest_configure() -> None:
    for name in _wanted():
        if name not in BACKENDS:
            raise pytest.UsageError(f"{VARIABLE}: expected names among {BACKENDS}, got {name!r}")


def require(module: str, backend: str | None = None) -> ModuleType:
    """Import what the tests that follow cannot do without: of a file, or of one test.

    Where it is not installed they are skipped, with the reason; but they fail if the variable
    DALI_MIXUP_TEST_BACKENDS ("numpy,torch,dali") names `backend`, by default the module's own
    name ("dali" of "nvidia.dali"). What is installed and broken is an error.
    """
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        if not f"{module}.".startswith(f"{error.name}."):
            raise
    skip_or_fail(backend or module.rpartition(".")[2], f"{module} is not installed")


def skip_or_fail(backend: str, why: str) -> NoReturn:
    """Skip what follows, with the reason; fail where `backend` was asked for by name."""
    if backend in _wanted():
        pytest.fail(f"{why}, and {VARIABLE} names {backend!r}", pytrace=False)
    pytest.skip(why, allow_module_level=True)


@pytest.fixture
def torch() -> ModuleType:
    return require("torch")


@pytest.fixture(scope="session")
def photo_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """14 JPEGs of 64 x 48 pixels, each unlike the others, in 3 class folders of 5, 5 and 4."""
    image_module: Any = require("PIL.Image", backend="dali")
    folder = tmp_path_factory.mktemp("photos")
    for index in range(14):
        path = folder / f"class_{index // 5}" / f"photo_{index:02d}.jpg"
        path.parent.mkdir(exist_ok=True)
        image_module.fromarray(_photo(index)).save(path, quality=95)
    return folder


def _photo(index: int) -> np.ndarray:
    """A gradient with a disc; colours, slopes and place follow from `index`."""
    rng = np.random.default_rng(index)
    y, x = np.mgrid[0:48, 0:64]
    down, right = rng.uniform(-2, 2, (2, 3))
    photo = rng.uniform(80, 176, 3) + down * (y - 24)[..., None] + right * (x - 32)[..., None]
    disc = np.hypot(y - rng.integers(12, 36), x - rng.integers(16, 48)) < 10
    photo[disc] = rng.uniform(0, 255, 3)
    return np.clip(photo, 0, 255).astype(np.uint8)


@pytest.fixture(params=["numpy", "host", "cupy"])
def backend(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Each backend's `blend` and `soft_labels` on numpy arrays.

    "host" is the GPU backend with the kernel's source compiled for the CPU; "cupy" is the GPU.
    """
    if request.param == "numpy":
        return import_module("dali_mixup.backends.reference")
    torch = require("torch", request.param)
    require("cupy", request.param)
    if request.param == "cupy":
        if not torch.cuda.is_available():
            skip_or_fail("cupy", "there is no GPU")
        return import_module("tensor_backend").TensorBackend("cuda")
    if shutil.which("g++") is None:
        skip_or_fail("host", "g++ is not installed")
    import_module("host_backend").take_the_gpus_place(monkeypatch)
    return import_module("tensor_backend").TensorBackend("cpu")
