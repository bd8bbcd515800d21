"""What all tests share: the backends, and a folder of photographs."""

from __future__ import annotations

import gc
import os
import shutil
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from support.requirements import BACKENDS, VARIABLE, require, skip_or_fail, wanted

# A DALI pipeline that is garbage crashes a forked process when it is collected there. Tracebacks
# that pytest keeps are in cycles with pipelines, so they are collected before each fork.
os.register_at_fork(before=gc.collect)


def pytest_configure() -> None:
    for name in wanted():
        if name not in BACKENDS:
            raise pytest.UsageError(f"{VARIABLE}: expected names among {BACKENDS}, got {name!r}")
    with suppress(ModuleNotFoundError):  # torchvision then loads beside a CPU build of torch
        import_module("dali_mixup.cli.peers")


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


@pytest.fixture(params=["numpy", "numba", "host", "ptx", "cupy"])
def backend(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Each backend's `blend` and `soft_labels` on numpy arrays.

    "numpy" is the reference, "numba" the compiled loops.
    "host" is the GPU backend with the kernel's source compiled for the CPU, "ptx" with what NVRTC
    compiles executed instruction by instruction; "cupy" is the GPU.
    """
    if request.param in ("numpy", "numba"):
        cpu: Any = import_module("dali_mixup.backends.cpu")
        if request.param == "numpy":
            monkeypatch.setattr(cpu, "compiled_loops", lambda: (None, "not asked for"))
        else:
            require("numba")
        return cpu
    torch = require("torch", request.param)
    require("cupy", request.param)
    if request.param == "cupy":
        if not torch.cuda.is_available():
            skip_or_fail("cupy", "there is no GPU")
        return import_module("support.tensor_backend").TensorBackend("cuda")
    if request.param == "host" and shutil.which("g++") is None:
        skip_or_fail("host", "g++ is not installed")
    module = {"host": "support.host_shim", "ptx": "support.ptx_kernels"}[request.param]
    import_module(module).take_the_gpus_place(monkeypatch)
    return import_module("support.tensor_backend").TensorBackend("cpu")
