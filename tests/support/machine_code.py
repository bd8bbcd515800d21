"""What the machine code of aligned batches has to look like, for sm_90."""

from __future__ import annotations

import re
import shutil
import subprocess
import sysconfig
import tempfile
from pathlib import Path

from dali_mixup.backends.cuda.compiler import compile_kernels

BY_VALUE = "PlanByValue<256>"
ALIGNED = [
    ("mix<UINT8, HWC, FLOAT16, CHW, 3, 1, 8, 1, {}>", {"LDG.E.64": 6, "STG.E.EF.128": 3}),
    ("mix<UINT8, HWC, FLOAT32, CHW, 3, 1, 4, 1, {}>", {"LDG.E": 6, "STG.E.EF.128": 3}),
    ("mix<FLOAT32, CHW, FLOAT32, CHW, 3, 1, 4, 1, {}>", {"LDG.E.128": 6, "STG.E.EF.128": 3}),
    ("mix<FLOAT16, CHW, FLOAT16, CHW, 3, 1, 8, 1, {}>", {"LDG.E.128": 6, "STG.E.EF.128": 3}),
    ("mix<UINT8, CHW, FLOAT16, CHW, 1, 3, 8, 4, {}>", {"LDG.E.64": 8, "STG.E.EF.128": 4}),
]
OPCODE = re.compile(r"^\s+/\*\w+\*/\s+(?:@!?\w+\s+)?([A-Z][A-Z0-9_.]+)", re.M)


def disassembler() -> str | None:
    """The path of nvdisasm, of a CUDA toolkit or of its wheel."""
    found = sorted(Path(sysconfig.get_path("purelib"), "nvidia").glob("*/bin/nvdisasm"))
    return shutil.which("nvdisasm") or (str(found[0]) if found else None)


def machine_code_problems(
    kernel: str, accesses: dict[str, int], source: str | None = None
) -> list[str]:
    """Accesses to images that are missing, and instructions that are fused or use local memory."""
    nvdisasm = disassembler()
    assert nvdisasm is not None, "nvdisasm is not installed"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as cubin:
        cubin.write(compile_kernels((kernel,), "sm_90", source=source).code)
        cubin.flush()
        command = [nvdisasm, "-c", cubin.name]
        code = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    opcodes = OPCODE.findall(code)
    images = [op.removesuffix(".CONSTANT") for op in opcodes if "CONSTANT" in op or ".EF" in op]
    return [
        *(access for access, count in accesses.items() if images.count(access) < count),
        *(op for op in opcodes if op.startswith(("FFMA", "LDL", "STL"))),
    ]
