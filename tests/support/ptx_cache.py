"""The kernel's specialisations as PTX, compiled by NVRTC and kept from one run to the next."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Iterable
from functools import lru_cache, partial
from pathlib import Path

from cupy.cuda import nvrtc
from support import ptx
from support.processes import in_processes, split

from dali_mixup.backends.cuda.compiler import compile_kernels
from dali_mixup.backends.cuda.launch import COMPILE_OPTIONS
from dali_mixup.backends.cuda.source import read_kernel


class PtxKernels:
    """Specialisations of a kernel source for an architecture, compiled when they are asked for."""

    def __init__(self, architecture: str = "compute_90", source: str | None = None) -> None:
        self.architecture = architecture
        self.source = read_kernel("mixup.cu") if source is None else source
        self._kernels: dict[str, ptx.Kernel] = {}

    def __getitem__(self, name: str) -> ptx.Kernel:
        if name not in self._kernels:
            self._add(compiled((name,), self.architecture, self.source))
        return self._kernels[name]

    def prepare(self, names: Iterable[str]) -> None:
        """Compile many specialisations, in as many processes as there are cores."""
        every = sorted(set(names))
        compile_part = partial(compiled, architecture=self.architecture, source=self.source)
        files = [cache_file(part, self.architecture, self.source) for part in split(every)]
        if not all(file.exists() for file in files):
            in_processes(compile_part, every)
        for part in split(every):
            self._add(compile_part(part))

    def _add(self, found: dict[str, str]) -> None:
        parsed = ptx.parse(found.pop("ptx"))
        self._kernels |= {name: parsed[lowered] for name, lowered in found.items()}


@lru_cache
def kernels_for(architecture: str) -> PtxKernels:
    return PtxKernels(architecture)


def compiled(names: tuple[str, ...], architecture: str, source: str) -> dict[str, str]:
    """The text, as "ptx", and each specialisation's name in it."""
    file = cache_file(names, architecture, source)
    if not file.exists():
        made = compile_kernels(names, architecture, source=source)
        text = made.code.rstrip(b"\0").decode()
        scratch = file.with_suffix(f".{os.getpid()}")
        scratch.write_text(json.dumps(dict(zip(names, made.names, strict=True)) | {"ptx": text}))
        os.replace(scratch, file)
    found: dict[str, str] = json.loads(file.read_text())
    return found


def cache_file(names: tuple[str, ...], architecture: str, source: str) -> Path:
    version = ".".join(map(str, nvrtc.getVersion()))
    parts = (*names, architecture, source, *COMPILE_OPTIONS, version)
    key = hashlib.sha256("\0".join(parts).encode()).hexdigest()[:24]
    folder = Path(tempfile.gettempdir()) / f"dali_mixup_ptx_{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder / f"{key}.json"
