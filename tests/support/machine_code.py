"""The machine code of a kernel: its accesses, and the instructions that a thread executes."""

from __future__ import annotations

import heapq
import re
import shutil
import subprocess
import sysconfig
import tempfile
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from dali_mixup.backends.cuda.compiler import compile_kernels

BY_VALUE = "PlanByValue<256>"
LINE = re.compile(r"\s+/\*\w+\*/\s+(?:@!?(U?P\w+) +)?([A-Z][A-Z0-9_.]*) *(.*?) ?;")
SECTION = re.compile(r"\.text\.(\w+):")
LABEL = re.compile(r"\.L_x_\d+")


class Aligned(NamedTuple):
    """A specialisation that aligned batches use: the accesses and the pixels of a thread."""

    kernel: str
    loads: tuple[int, str]
    stores: tuple[int, str]
    pixels: float

    @property
    def name(self) -> str:
        return self.kernel.format(BY_VALUE)

    @property
    def chunk(self) -> float:
        """The pixels that a thread reads at a time."""
        return self.pixels / int(self.kernel.split(", ")[-3])


ALIGNED = [
    Aligned(f"mix<{kernel}, STILLS, {{}}>", loads, stores, pixels)
    for kernel, loads, stores, pixels in (
        ("UINT8, HWC, FLOAT16, CHW, 3, 1, 8, 1", (6, "LDG.E.64"), (3, "STG.E.EF.128"), 8),
        ("UINT8, HWC, FLOAT32, CHW, 3, 1, 4, 1", (6, "LDG.E"), (3, "STG.E.EF.128"), 4),
        ("UINT8, CHW, FLOAT16, CHW, 1, 3, 8, 4", (8, "LDG.E.64"), (4, "STG.E.EF.128"), 32 / 3),
        ("UINT8, CHW, FLOAT16, CHW, 3, 1, 8, 1", (6, "LDG.E.64"), (3, "STG.E.EF.128"), 8),
        ("FLOAT16, CHW, FLOAT16, CHW, 3, 1, 8, 1", (6, "LDG.E.128"), (3, "STG.E.EF.128"), 8),
        ("FLOAT32, CHW, FLOAT32, CHW, 3, 1, 4, 1", (6, "LDG.E.128"), (3, "STG.E.EF.128"), 4),
    )
]


class Instruction(NamedTuple):
    opcode: str
    conditional: bool
    target: str | None  # of a branch

    @property
    def image_access(self) -> str | None:
        """Its width, as an opcode: images are read as constants, and written to be evicted."""
        is_one = "CONSTANT" in self.opcode or ".EF" in self.opcode
        return self.opcode.removesuffix(".CONSTANT") if is_one else None

    @property
    def multiplications(self) -> int:
        found = re.match(r"(?:FMUL|FFMA)(2?)\b", self.opcode)
        return 0 if found is None else 2 if found[1] else 1


class Code(NamedTuple):
    instructions: list[Instruction]
    labels: dict[str, int]


def disassembler() -> str | None:
    """The path of nvdisasm, of a CUDA toolkit or of its wheel."""
    found = sorted(Path(sysconfig.get_path("purelib"), "nvidia").glob("*/bin/nvdisasm"))
    return shutil.which("nvdisasm") or (str(found[0]) if found else None)


@lru_cache
def machine_code(kernel: str, architecture: str, source: str | None = None) -> Code:
    compiled = compile_kernels((kernel,), architecture, source=source)
    return disassembled(compiled.code)[compiled.names[0]]


def disassembled(cubin: bytes) -> dict[str, Code]:
    """The instructions of each kernel in it."""
    nvdisasm = disassembler()
    assert nvdisasm is not None, "nvdisasm is not installed"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        command = [nvdisasm, "-c", file.name]
        text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    kernels: dict[str, Code] = {}
    code = Code([], {})
    for line in text.splitlines():
        if begins := SECTION.match(line):
            code = kernels[begins[1]] = Code([], {})
        elif label := LABEL.match(line):
            code.labels[label[0]] = len(code.instructions)
        elif found := LINE.match(line):
            predicate, opcode, operands = found.groups()
            target = LABEL.search(operands) if opcode.startswith("BRA") else None
            conditional = predicate is not None or re.match(r"!?U?P", operands) is not None
            code.instructions.append(
                Instruction(opcode, conditional, target[0] if target else None)
            )
    return kernels


def main_path(aligned: Aligned, architecture: str, source: str | None = None) -> list[str]:
    """The opcodes of the fewest instructions from the start of a thread to its end, with which it
    reads its part of both images, mixes, normalises and writes all of it.

    Parameters
    ----------
    aligned : Aligned
    architecture : str
        Such as "sm_90".
    source : str, optional
    """
    code = machine_code(aligned.name, architecture, source)
    whole = (aligned.loads[0], aligned.stores[0], round(9 * aligned.pixels))
    start = (0, 0, 0, 0)  # an instruction, and the loads, stores and multiplications before it
    steps, before = {start: 0}, {start: start}
    waiting = [(0, start)]
    while waiting:
        count, state = heapq.heappop(waiting)
        at = state[0]
        if at == len(code.instructions) or count > steps[state]:
            continue
        instruction = code.instructions[at]
        access = instruction.image_access or ""
        gained = (access.startswith("LDG"), access.startswith("STG"), instruction.multiplications)
        done = tuple(
            min(most, so_far + more)
            for most, so_far, more in zip(whole, state[1:], gained, strict=True)
        )
        ends = instruction.opcode == "EXIT"
        if ends and done == whole:
            opcodes = [instruction.opcode]
            while state != start:
                state = before[state]
                opcodes.append(code.instructions[state[0]].opcode)
            return opcodes[::-1]
        following = [code.labels[instruction.target]] if instruction.target else []
        if instruction.conditional or not (ends or instruction.target):
            following.append(at + 1)
        for place in following:
            after = (place, *done)
            if count + 1 < steps.get(after, count + 2):
                steps[after], before[after] = count + 1, state
                heapq.heappush(waiting, (count + 1, after))
    raise AssertionError(f"{aligned.kernel}: no path reads, mixes and writes all pixels")


def machine_code_problems(
    aligned: Aligned, architecture: str = "sm_90", source: str | None = None
) -> list[str]:
    """Accesses to images that are missing, wrong fused operations, and uses of local memory."""
    code = machine_code(aligned.name, architecture, source)
    images = [each.image_access for each in code.instructions]
    missing = [op for count, op in (aligned.loads, aligned.stores) if images.count(op) < count]
    local = {each.opcode for each in code.instructions if each.opcode.startswith(("LDL", "STL"))}
    fused, weights = fused_operations(code), weights_of_integers(aligned.name, architecture)
    return [
        *(f"no {op}" for op in missing),
        *(
            []
            if fused == weights
            else [f"{fused} fused operations, and {weights} weights of integers"]
        ),
        *local,
    ]


def fused_operations(code: Code) -> int:
    """Values that are multiplied and added with one rounding."""
    opcodes = [each.opcode for each in code.instructions]
    return sum(2 if op.startswith("FFMA2") else op.startswith("FFMA") for op in opcodes)


def weights_of_integers(kernel: str, architecture: str) -> int:
    """The fused operations that the kernel has to have: one for each integer of the two images."""
    types, numbers = kernel.removeprefix("mix<").split(", ")[:4], re.findall(r" (\d+),", kernel)
    channels, _, pixels, unroll = map(int, numbers)
    in_pairs, is_integer = architecture.startswith("sm_10"), types[0].startswith("UINT")
    return 2 * unroll * channels * (max(2, pixels) if in_pairs else pixels) * is_integer
