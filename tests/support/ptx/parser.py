"""PTX text into kernels: parameters, registers and basic blocks of instructions.

Covers what NVRTC writes for kernels without calls, shared or local memory. Anything else in a
kernel's body is an error.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from dataclasses import dataclass, field

from support.ptx.errors import ParseError

REGISTER_BITS = {
    "pred": 1, "b16": 16, "u16": 16, "s16": 16, "f16": 16, "b32": 32, "u32": 32, "s32": 32,
    "f32": 32, "b64": 64, "u64": 64, "s64": 64, "f64": 64,
}  # fmt: skip
PARAMETER_BYTES = {"b8": 1, "u8": 1, "u16": 2, "b32": 4, "u32": 4, "f32": 4, "b64": 8, "u64": 8}

_COMMENT = re.compile(r"//[^\n]*|/\*.*?\*/", re.S)
_ENTRY = re.compile(r"\.entry\s+(\w+)\s*\(([^)]*)\)([^{]*)\{")
_PARAMETER = re.compile(r"\.param\s+(?:\.align\s+\d+\s+)?\.(\w+)\s+(\w+)(?:\[(\d+)\])?")
_SPACE = re.compile(r"\s*")
_LABEL = re.compile(r"([$\w]+):(?!:)")
_STATEMENT = re.compile(r"(?:@(!?)([%\w]+)\s+)?([a-z]\w*(?:\.[\w:]+)*)(?:\s+(.*))?", re.S)
_INTEGER = re.compile(r"-?(?:0[xX][0-9a-fA-F]+|\d+)U?")


@dataclass(frozen=True)
class Register:
    index: int
    bits: int


@dataclass(frozen=True)
class Immediate:
    """An integer, or the bits of a float32."""

    value: int


@dataclass(frozen=True)
class Symbol:
    """The name of a parameter, of a label or of a special register."""

    name: str


SINK = Symbol("_")  # takes what nobody reads


@dataclass(frozen=True)
class Address:
    base: Register | Symbol
    offset: int


@dataclass(frozen=True)
class Vector:
    items: tuple[Register | Immediate | Symbol, ...]


Operand = Register | Immediate | Symbol | Address | Vector


@dataclass(frozen=True)
class Instruction:
    opcode: str  # with all modifiers
    operands: tuple[Operand, ...]
    guard: Register | None
    negated: bool
    text: str
    line: int


@dataclass(frozen=True)
class Parameter:
    name: str
    size: int


@dataclass(eq=False)
class Kernel:
    name: str
    parameters: list[Parameter]
    max_threads: int
    register_bits: list[int] = field(default_factory=list)
    register_names: list[str] = field(default_factory=list)
    blocks: list[list[Instruction]] = field(default_factory=lambda: [[]])
    labels: dict[str, int] = field(default_factory=dict)  # the number of the block that follows


def parse(text: str) -> dict[str, Kernel]:
    """The kernels of a PTX module by name."""
    text = _COMMENT.sub(lambda found: "\n" * found.group().count("\n"), text)
    lines = [0, *(found.end() for found in re.finditer("\n", text))]
    kernels = (_Body(text, lines, found).kernel for found in _ENTRY.finditer(text))
    return {kernel.name: kernel for kernel in kernels}


class _Body:
    """One kernel's statements. Braces open a scope with registers of its own."""

    def __init__(self, text: str, line_starts: list[int], entry: re.Match[str]) -> None:
        name, parameters, attributes = entry.groups()
        most = re.search(r"\.maxntid\s+(\d+)", attributes)
        self.kernel = Kernel(
            name,
            [_parameter(found) for found in _PARAMETER.finditer(parameters)],
            int(most[1]) if most else 1024,
        )
        self.text, self.at, self.line_starts = text, entry.end(), line_starts
        self.scopes: list[dict[str, Register]] = [{}]
        while self.scopes:
            self._next()
        self._check_labels()

    def _next(self) -> None:
        self.at = _SPACE.match(self.text, self.at).end()  # type: ignore[union-attr]
        if self.text[self.at] == "{":
            self.scopes.append({})
            self.at += 1
        elif self.text[self.at] == "}":
            self.scopes.pop()
            self.at += 1
        elif label := _LABEL.match(self.text, self.at):
            self._begin_block()
            self.kernel.labels[label[1]] = len(self.kernel.blocks) - 1
            self.at = label.end()
        else:
            end = self.text.index(";", self.at)
            self._statement(" ".join(self.text[self.at : end].split()))
            self.at = end + 1

    def _begin_block(self) -> None:
        if self.kernel.blocks[-1]:
            self.kernel.blocks.append([])

    def _statement(self, text: str) -> None:
        line = bisect_right(self.line_starts, self.at)
        if text.startswith(".pragma"):
            return
        if text.startswith(".reg"):
            self._declare(text)
            return
        found = _STATEMENT.fullmatch(text)
        if not found:
            raise ParseError(f"line {line}: not understood: {text}")
        negated, guard, opcode, operands = found.groups()
        self.kernel.blocks[-1].append(
            Instruction(
                opcode,
                tuple(self._operand(part, line) for part in split_operands(operands or "")),
                self._register(guard, line) if guard else None,
                bool(negated),
                text,
                line,
            )
        )
        if opcode.split(".")[0] in ("bra", "ret"):
            self._begin_block()

    def _declare(self, text: str) -> None:
        _, kind, names = text.split(" ", 2)
        for name in names.replace(" ", "").split(","):
            family = re.fullmatch(r"(%?\w+)<(\d+)>", name)
            count = int(family[2]) if family else 0
            for each in [f"{family[1]}{k}" for k in range(count)] if family else [name]:
                register = Register(len(self.kernel.register_bits), REGISTER_BITS[kind[1:]])
                self.scopes[-1][each] = register
                self.kernel.register_bits.append(register.bits)
                self.kernel.register_names.append(each)

    def _find(self, name: str) -> Register | None:
        return next((scope[name] for scope in reversed(self.scopes) if name in scope), None)

    def _register(self, name: str, line: int) -> Register:
        found = self._find(name)
        if found is None:
            raise ParseError(f"line {line}: register {name} is not declared")
        return found

    def _operand(self, text: str, line: int) -> Operand:
        if text.startswith("{"):
            items = tuple(self._operand(part, line) for part in split_operands(text[1:-1]))
            if not all(isinstance(item, (Register, Immediate)) or item == SINK for item in items):
                raise ParseError(f"line {line}: operand not understood: {text}")
            return Vector(items)  # type: ignore[arg-type]
        if text.startswith("["):
            base, _, offset = text[1:-1].partition("+")
            found = self._operand(base.strip(), line)
            if not isinstance(found, (Register, Symbol)):
                raise ParseError(f"line {line}: address not understood: {text}")
            return Address(found, int(offset or "0", 0))
        if _INTEGER.fullmatch(text):
            return Immediate(int(text.rstrip("U"), 0))
        if re.fullmatch(r"0[fF][0-9a-fA-F]{8}", text):
            return Immediate(int(text[2:], 16))
        found_register = self._find(text)
        if found_register is not None:
            return found_register
        if re.fullmatch(r"%(n?tid|n?ctaid)\.[xyz]|[$_a-zA-Z][$\w]*", text):
            return Symbol(text)
        raise ParseError(f"line {line}: operand not understood: {text}")

    def _check_labels(self) -> None:
        for block in self.kernel.blocks:
            for instruction in block:
                target = instruction.operands[0] if instruction.operands else None
                is_branch = instruction.opcode.split(".")[0] == "bra"
                if is_branch and getattr(target, "name", None) not in self.kernel.labels:
                    raise ParseError(f"line {instruction.line}: no label for {instruction.text}")


def _parameter(found: re.Match[str]) -> Parameter:
    kind, name, count = found.groups()
    return Parameter(name, PARAMETER_BYTES[kind] * int(count or 1))


def split_operands(text: str) -> list[str]:
    """Split at commas outside of braces and brackets."""
    parts = re.split(r",(?![^{\[]*[}\]])", text)
    return [part.strip() for part in parts if part.strip()]
