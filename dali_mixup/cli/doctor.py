"""What is installed, what would be used and why, and whether the kernel equals the reference."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib import import_module
from importlib.metadata import distributions
from pathlib import Path
from typing import NamedTuple

import numpy as np

from dali_mixup.mixup import Mixup
from dali_mixup.output import OutputFormat

GOOD, NOTE, BAD = "good", "note", "bad"
EXTRAS = "pip install 'dali-mixup[cuda12]' (or [cuda13])"
CONTAINER = "pip install 'dali-mixup[{}]', which leaves the container's torch, numpy and DALI alone"
CACHE = "CuPy cannot create its cache: set CUPY_CACHE_DIR to a writable folder"
NVRTC = (
    "pip install nvidia-cuda-nvrtc-cu12 (or nvidia-cuda-nvrtc for CUDA 13); CuPy before 14 finds "
    "it with its folder on LD_LIBRARY_PATH alone"
)
CONTAINER_VERSION = "NVIDIA_PYTORCH_VERSION"
SIZES = (9, 65, 2040)  # plans in 4,096 bytes of a launch's parameters, in more, and by pointer
NEEDS_CAPABILITY = (7, 0)  # plans travel in a launch's 32,764 bytes of parameters


class Finding(NamedTuple):
    """One line of the report: `what` is `state`, because of `detail`; `advice` mends it."""

    what: str
    state: str
    detail: str
    advice: str = ""


def examine(backend: str = "auto") -> list[Finding]:
    """Look at this machine.

    Parameters
    ----------
    backend : {"auto", "numpy", "cupy"}
        What has to work. "auto": the GPU where torch sees one, else numpy; what a GPU alone needs
        is then a note and not bad.
    """
    gpu = _torch_sees_a_gpu()
    wanted = ("cupy" if gpu else "numpy") if backend == "auto" else backend
    missing = BAD if wanted == "cupy" else NOTE
    findings = [
        Finding("Python", GOOD, f"{platform.python_version()}, {platform.system()}"),
        _library("numpy", BAD, "pip install numpy"),
        _compiled_loops(),
        *_container(),
        _library("torch", missing, how_to_install()),
        _library("nvidia.dali", missing, how_to_install()),
        _library("cupy", missing, how_to_install()),
        *_doubles(),
        *_nvrtc(missing),
        _driver(missing),
        _card(missing),
        _choice(backend, wanted, gpu),
    ]
    findings.append(_attempt("mixing on the CPU", BAD, _mixing_equals_the_formula))
    findings.append(_attempt("kernel, compiled", missing, _kernel_compiles))
    if gpu:
        findings.append(_attempt("kernel, run", missing, _kernel_equals_the_reference))
    return findings


def how_to_install() -> str:
    """The command that installs what a GPU needs, in NVIDIA's containers another one."""
    if CONTAINER_VERSION not in os.environ:
        return EXTRAS
    cuda = os.environ.get("CUDA_VERSION", "12").partition(".")[0]
    return CONTAINER.format(f"container-cuda{cuda}")


def _container() -> Iterator[Finding]:
    version = os.environ.get(CONTAINER_VERSION)
    if version is not None:
        yield Finding(
            "container", GOOD, f"NVIDIA's PyTorch {version}; to install: {how_to_install()}"
        )


def _library(module: str, missing: str, advice: str) -> Finding:
    try:
        found = import_module(module)
    except Exception as error:  # a library that does not load raises what it likes
        return Finding(module, missing, f"not usable: {error}", _advice(error, advice))
    return Finding(module, GOOD, found.__version__)


def _compiled_loops() -> Finding:
    """numba, which is not needed and many times as fast as numpy."""
    loops, obstacle = import_module("dali_mixup.backends.cpu").compiled_loops()
    if loops is None:
        return Finding(
            "numba", NOTE, f"{obstacle}; numpy mixes on the CPU", "pip install --upgrade numba"
        )
    return Finding("numba", GOOD, f"{import_module('numba').__version__}, mixes on the CPU")


def _advice(error: Exception, usual: str) -> str:
    """CuPy creates the folders of its cache when it is imported, and loads NVRTC later."""
    if "libnvrtc" in str(error):
        return NVRTC
    cache = os.environ.get("CUPY_CACHE_DIR", os.path.expanduser("~/.cupy/kernel_cache"))
    refused = error.filename if isinstance(error, OSError) else None
    return CACHE if refused is not None and Path(cache).is_relative_to(refused) else usual


def _torch_sees_a_gpu() -> bool:
    try:
        return bool(import_module("torch").cuda.is_available())
    except Exception:  # said by _library
        return False


def _doubles() -> Iterator[Finding]:
    """Builds for different CUDA versions overwrite each other's files."""
    names = {str(found.metadata["Name"]).lower() for found in distributions()}
    for kind, pattern in {"cupy": r"cupy-cuda\d+x|cupy", "DALI": r"nvidia-dali-cuda\d+"}.items():
        builds = sorted(name for name in names if re.fullmatch(pattern, name))
        if len(builds) > 1:
            yield Finding(
                f"{kind} builds",
                BAD,
                f"{' and '.join(builds)} overwrite each other's files",
                f"pip uninstall {' '.join(builds)}, then install the one for your CUDA",
            )


def _nvrtc(missing: str) -> Iterator[Finding]:
    try:
        version = ".".join(map(str, import_module("cupy.cuda").nvrtc.getVersion()))
    except Exception as error:  # CuPy reports a library that does not load in several ways
        yield Finding("NVRTC", missing, f"not usable: {error}", _advice(error, how_to_install()))
        return
    loaded = sorted(
        {line.split()[-1] for line in _memory_map() if re.search(r"libnvrtc\.so", line)}
    )
    yield Finding("NVRTC", GOOD, f"{version}, {' and '.join(loaded) or 'linked statically'}")
    copies = nvrtc_copies()
    if len(copies) > 1:
        found = "; ".join(f"{name} in {folder}" for folder, name in sorted(copies.items()))
        yield Finding(
            "NVRTC copies",
            NOTE,
            f"{found}; CuPy took {version}",
            "where compiling fails, keep the one of CuPy's CUDA version",
        )


def nvrtc_copies() -> dict[str, str]:
    """Folders on the import path with an NVRTC library, and its file name."""
    found = {}
    for root in map(Path, dict.fromkeys(sys.path)):
        for pattern in ("nvidia/*/lib/libnvrtc.so*", "torch/lib/libnvrtc*.so*"):
            for file in root.glob(pattern):
                if "builtins" not in file.name:
                    found[str(file.parent)] = file.name
    return found


def _memory_map() -> list[str]:
    maps = Path("/proc/self/maps")
    return maps.read_text().splitlines() if maps.exists() else []


def _driver(missing: str) -> Finding:
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return Finding("driver", missing, "nvidia-smi is not there", "install NVIDIA's driver")
    query = [tool, "--query-gpu=driver_version", "--format=csv,noheader", "--id=0"]
    answer = subprocess.run(query, capture_output=True, text=True)
    if answer.returncode:
        return Finding("driver", missing, answer.stdout.strip(), "look at nvidia-smi")
    return Finding("driver", GOOD, answer.stdout.strip())


def _card(missing: str) -> Finding:
    if not _torch_sees_a_gpu():
        return Finding("card", missing, "torch sees none", "install torch's build for your CUDA")
    cuda = import_module("torch").cuda
    capability = cuda.get_device_capability()
    detail = f"{cuda.get_device_name()}, compute capability {'.'.join(map(str, capability))}"
    if capability < NEEDS_CAPABILITY:
        return Finding("card", BAD, detail, "expected 7.0 or newer")
    return Finding("card", GOOD, detail)


def _choice(backend: str, wanted: str, gpu: bool) -> Finding:
    if backend != "auto":
        return Finding("backend", GOOD, f"{wanted}, as asked for")
    if gpu:
        return Finding("backend", GOOD, "cupy for images on the GPU, numpy for those on the CPU")
    return Finding("backend", GOOD, "numpy: torch sees no GPU")


def _attempt(what: str, failed: str, test: Callable[[], str]) -> Finding:
    try:
        return Finding(what, GOOD, test())
    except ArithmeticError as error:
        return Finding(what, BAD, str(error), "report this, with all the lines above")
    except Exception as error:  # whatever it is, a report is asked for and not a traceback
        detail = f"{type(error).__name__}: {error}"
        return Finding(what, failed, detail, _advice(error, how_to_install()))


def _example(size: int = 9) -> tuple[Mixup, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    output = OutputFormat(dtype="float16", layout="CHW", mean=127.5, std=64.0)
    mixup = Mixup(num_classes=7, alpha=1.0, cutmix_alpha=1.0, mode="elem", output=output)
    return mixup, rng.integers(0, 256, (size, 33, 40, 3), np.uint8), rng.integers(0, 7, size)


def _mixing_equals_the_formula() -> str:
    mixup, images, labels = _example()
    plan = mixup.plan(len(images), images.shape[1:3])
    mixed, _ = mixup(images, labels, plan=plan)
    y, x = np.mgrid[: images.shape[1], : images.shape[2]]
    for i, (partner, lam) in enumerate(zip(plan.partner, plan.lam, strict=True)):
        pixels = images[i] * lam + images[partner] * (np.float32(1) - lam)
        if plan.box is not None and plan.box[i].any():
            y0, y1, x0, x1 = plan.box[i]
            inside = (y0 <= y) & (y < y1) & (x0 <= x) & (x < x1)
            pixels = np.where(inside[..., None], images[partner], images[i])
        want = ((pixels - 127.5) / 64).transpose(2, 0, 1)
        if not np.allclose(mixed[i], want, rtol=2e-3, atol=2e-3):
            raise ArithmeticError(f"image {i} differs from its formula")
    return f"equals its formula on {len(images)} images"


def _kernel_compiles() -> str:
    compiler = import_module("dali_mixup.backends.cuda.compiler")
    launch = import_module("dali_mixup.backends.cuda.launch")
    gpu = _torch_sees_a_gpu()
    capability = import_module("torch").cuda.get_device_capability() if gpu else (9, 0)
    architecture = compiler.target_for(capability)
    kernel = launch.label_launch(64, by_pointer=False).kernel
    size = len(compiler.compile_kernels((kernel,), architecture).code)
    return f"{size} bytes for {architecture}"


def _kernel_equals_the_reference() -> str:
    torch = import_module("torch")
    for size in SIZES:
        mixup, images, labels = _example(size)
        plan = mixup.plan(size, images.shape[1:3])
        want = mixup(images, labels, plan=plan)
        on_gpu = (torch.from_numpy(array).cuda() for array in (images, labels))
        for got, expected in zip(mixup(*on_gpu, plan=plan), want, strict=True):
            if got.cpu().numpy().tobytes() != expected.tobytes():
                raise ArithmeticError("the kernel differs from the numpy reference")
    return f"equals the reference in every bit, in batches of {' and '.join(map(str, SIZES))}"
