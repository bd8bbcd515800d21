"""Executes a kernel: every thread of many blocks is a lane of numpy arrays.

Each lane has a basic block that it executes next. The lowest number of all goes first, for the
lanes that wait there, so that lanes that took different branches meet again.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from functools import lru_cache
from math import prod
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from support.ptx.arithmetic import BITS, DTYPE, OPERATIONS, UNSIGNED
from support.ptx.counters import Counters
from support.ptx.errors import (
    Endless,
    LaunchError,
    ParseError,
    PtxError,
    Uninitialised,
    UnknownInstruction,
)
from support.ptx.memory import Memory
from support.ptx.parser import (
    SINK,
    Address,
    Immediate,
    Instruction,
    Kernel,
    Operand,
    Register,
    Symbol,
    Vector,
)

WARP = 32
MOST_STEPS = 1_000_000  # basic blocks; the longest of the kernels here takes some hundred
PARAMETERS_AT = 0x1000

_LOAD = re.compile(r"ld(?:\.volatile)?\.(param|global)(\.nc)?(?:\.v([24]))?\.([usbf])(8|16|32|64)")
_STORE = re.compile(r"st\.global(?:\.cs)?(?:\.v([24]))?\.[usbf](8|16|32|64)")

ALL = slice(None)
Lanes = slice | NDArray[np.int64]
Step = Callable[["_Machine"], None]
Reader = Callable[["_Machine"], Any]


class Launch(NamedTuple):
    """Blocks of `block` threads in a grid, and the bytes of each parameter."""

    grid: tuple[int, int, int]
    block: int
    parameters: tuple[bytes, ...]


def execute(
    kernel: Kernel,
    launch: Launch,
    memory: Memory,
    *,
    counters: Counters | None = None,
    blocks: Sequence[int] | None = None,
    lanes: int = 192 * 512,
) -> None:
    """Run all blocks, at most `lanes` threads at a time.

    Parameters
    ----------
    blocks : sequence of int, optional
        The order of the blocks; what comes out must not depend on it.

    Raises
    ------
    PtxError
        Whatever is wrong, with the kernel, block, thread and line of PTX.
    """
    with _named(f"kernel {kernel.name}"):
        _check(kernel, launch)
        parameters = _parameter_memory(kernel, launch.parameters)
        steps = _compiled(kernel)
        order = np.arange(prod(launch.grid)) if blocks is None else np.array(blocks)
        at_once = max(1, lanes // launch.block)
        for first in range(0, len(order), at_once):
            some = order[first : first + at_once]
            with np.errstate(all="ignore"):
                _Machine(kernel, launch, memory, parameters, some, counters).run(steps)


@contextmanager
def _named(where: str) -> Any:
    try:
        yield
    except PtxError as error:
        raise type(error)(f"{error}\n  in {where}", error.lane) from error


def _check(kernel: Kernel, launch: Launch) -> None:
    if launch.block > kernel.max_threads:
        raise LaunchError(
            f"{launch.block} threads a block, the kernel is compiled for {kernel.max_threads}"
        )
    x, y, z = launch.grid
    if not (0 < x < 2**31 and 0 < y < 2**16 and 0 < z < 2**16):
        raise LaunchError(f"a grid of {launch.grid}")
    sizes = [parameter.size for parameter in kernel.parameters]
    given = [len(parameter) for parameter in launch.parameters]
    if sizes != given:
        raise LaunchError(f"parameters of {given} bytes, the kernel takes {sizes}")


def _parameter_memory(kernel: Kernel, values: Sequence[bytes]) -> Memory:
    memory = Memory(PARAMETERS_AT)
    for parameter, given in zip(kernel.parameters, values, strict=True):
        memory.allocate(parameter.name, np.frombuffer(given, np.uint8))
    return memory


class _Machine:
    """The threads of some blocks, their registers, and the lanes that execute now."""

    def __init__(
        self,
        kernel: Kernel,
        launch: Launch,
        memory: Memory,
        parameters: Memory,
        blocks: NDArray[np.int64],
        counters: Counters | None,
    ) -> None:
        self.kernel, self.memory, self.parameters = kernel, memory, parameters
        self.counters = counters
        block = np.repeat(blocks.astype(np.int64), launch.block)
        thread = np.tile(np.arange(launch.block), len(blocks))
        self.size = len(block)
        self.block, self.thread = block, block * launch.block + thread
        self.warp = block * -(-launch.block // WARP) + thread // WARP
        zero = np.zeros(self.size, np.int64)
        of_lane = {
            "%tid.x": thread,
            "%ctaid.x": block % launch.grid[0],
            "%ctaid.y": block // launch.grid[0] % launch.grid[1],
            "%ctaid.z": block // launch.grid[0] // launch.grid[1],
            **dict.fromkeys(("%tid.y", "%tid.z"), zero),
            "%ntid.x": zero + launch.block,
            "%nctaid.x": zero + launch.grid[0],
            "%nctaid.y": zero + launch.grid[1],
            "%nctaid.z": zero + launch.grid[2],
            **dict.fromkeys(("%ntid.y", "%ntid.z"), zero + 1),
        }
        self.special = {name: values.astype(np.uint32) for name, values in of_lane.items()}
        self.registers = [np.zeros(self.size, UNSIGNED[bits]) for bits in kernel.register_bits]
        self.written = [np.zeros(self.size, np.bool_) for _ in self.registers]
        self.complete = [False] * len(self.registers)  # written by every lane
        self.next_block = np.zeros(self.size, np.int64)
        self.here: Lanes = ALL

    def run(self, steps: list[list[tuple[Instruction, Step]]]) -> None:
        for _ in range(MOST_STEPS):
            number = int(self.next_block.min())
            if number >= len(steps):
                return
            waiting = self.next_block == number
            self.here = ALL if waiting.all() else np.flatnonzero(waiting)
            self.next_block[self.here] = number + 1
            warps = len(np.unique(self.warp[self.here])) if self.counters else 0
            for instruction, step in steps[number]:
                if self.counters:
                    self.counters.warp_instructions[instruction.opcode] += warps
                try:
                    step(self)
                except PtxError as error:
                    raise type(error)(self._located(error, instruction), error.lane) from error
        raise Endless(f"more than {MOST_STEPS} basic blocks")

    def _located(self, error: PtxError, instruction: Instruction) -> str:
        lane = self.lanes()[error.lane]
        block = tuple(int(self.special[f"%ctaid.{axis}"][lane]) for axis in "xyz")
        thread = int(self.special["%tid.x"][lane])
        where = f"block {block}, thread {thread}, line {instruction.line}: {instruction.text}"
        return f"{error}\n  {where}"

    def lanes(self) -> NDArray[np.int64]:
        """The numbers of the lanes that execute now."""
        return np.arange(self.size)[self.here]

    def places(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The warps and blocks of the lanes that execute now."""
        return self.warp[self.here], self.block[self.here]

    def get(self, register: Register) -> Any:
        index = register.index
        if not self.complete[index]:
            written = self.written[index][self.here]
            if not written.all():
                name = self.kernel.register_names[index]
                raise Uninitialised(f"register {name} was never written", int(np.argmin(written)))
        return self.registers[index][self.here]

    def set(self, register: Register, value: Any) -> None:
        index = register.index
        self.registers[index][self.here] = value
        if not self.complete[index]:
            self.written[index][self.here] = True
            self.complete[index] = self.here is ALL


# ---- instructions into functions -----------------------------------------------------------------


@lru_cache(maxsize=32)  # a kernel is some thousand functions
def _compiled(kernel: Kernel) -> list[list[tuple[Instruction, Step]]]:
    empty = [bytes(parameter.size) for parameter in kernel.parameters]
    addresses = {p.name: p.address for p in _parameter_memory(kernel, empty).allocations}
    return [[(each, _step(each, kernel, addresses)) for each in block] for block in kernel.blocks]


def _step(instruction: Instruction, kernel: Kernel, addresses: dict[str, int]) -> Step:
    with _named(f"line {instruction.line}: {instruction.text}"):
        opcode = instruction.opcode
        if opcode in ("bra", "bra.uni", "ret"):
            return _branch(instruction, kernel)
        if found := _LOAD.fullmatch(opcode):
            step = _load(instruction, found, addresses)
        elif found := _STORE.fullmatch(opcode):
            step = _store(instruction, found, addresses)
        elif opcode in ("mov.b32", "mov.b64") and _has_vector(instruction):
            step = _move_halves(instruction)
        elif opcode in OPERATIONS:
            step = _compute(instruction, addresses)
        else:
            raise UnknownInstruction(f"no instruction {opcode}")
        return step if instruction.guard is None else _guarded(instruction, step)


def _has_vector(instruction: Instruction) -> bool:
    return any(isinstance(operand, Vector) for operand in instruction.operands)


def _guarded(instruction: Instruction, step: Step) -> Step:
    guard, negated = instruction.guard, instruction.negated
    assert guard is not None

    def run(machine: _Machine) -> None:
        before = machine.here
        chosen = machine.lanes()[machine.get(guard) != negated]
        if len(chosen):
            machine.here = chosen
            step(machine)
        machine.here = before

    return run


def _branch(instruction: Instruction, kernel: Kernel) -> Step:
    guard, negated = instruction.guard, instruction.negated
    target = len(kernel.blocks)
    if instruction.opcode != "ret":
        target = kernel.labels[instruction.operands[0].name]  # type: ignore[union-attr]

    def run(machine: _Machine) -> None:
        if guard is None:
            machine.next_block[machine.here] = target
        else:
            machine.next_block[machine.lanes()[machine.get(guard) != negated]] = target

    return run


def _reader(
    operand: Operand, kind: str, addresses: dict[str, int], *, wider: bool = False
) -> Reader:
    """Reads an operand as a PTX type; where `wider` holds, the low bits of a wider register."""
    dtype, bits = DTYPE[kind], BITS[kind]
    if isinstance(operand, Register):
        if operand.bits == bits:
            return lambda machine: machine.get(operand).view(dtype)
        if wider and operand.bits > bits:
            return lambda machine: machine.get(operand).astype(UNSIGNED[bits]).view(dtype)
        raise ParseError(f"a register of {operand.bits} bits as {kind}")
    if isinstance(operand, Immediate):
        value = np.array(operand.value % 2**bits, UNSIGNED[bits]).view(dtype)
        return lambda machine: value
    if isinstance(operand, Symbol) and operand.name.startswith("%"):
        return lambda machine: machine.special[operand.name][machine.here].view(dtype)
    if isinstance(operand, Symbol) and operand.name in addresses:
        address = np.array(addresses[operand.name], UNSIGNED[bits])
        return lambda machine: address
    raise ParseError(f"operand {operand} as {kind}")


def _target(operand: Operand, bits: int) -> Register:
    if not isinstance(operand, Register) or operand.bits != bits:
        raise ParseError(f"a result of {bits} bits into {operand}")
    return operand


def _compute(instruction: Instruction, addresses: dict[str, int]) -> Step:
    operation = OPERATIONS[instruction.opcode]
    if len(instruction.operands) != 1 + len(operation.arguments):
        raise ParseError(f"{len(instruction.operands)} operands")
    target = _target(instruction.operands[0], BITS[operation.result])
    wider = instruction.opcode.startswith("cvt.")
    readers = [
        _reader(operand, kind, addresses, wider=wider)
        for operand, kind in zip(instruction.operands[1:], operation.arguments, strict=True)
    ]
    compute, result, raw = operation.compute, DTYPE[operation.result], UNSIGNED[target.bits]

    def run(machine: _Machine) -> None:
        value = np.asarray(compute(*(read(machine) for read in readers)))
        machine.set(target, value.astype(result, casting="same_kind", copy=False).view(raw))

    return run


def _move_halves(instruction: Instruction) -> Step:
    """``mov.b32 {low, high}, %r`` and back, and the same of b64; ``_`` drops a half."""
    target, source = instruction.operands
    bits = BITS[instruction.opcode.removeprefix("mov.")] // 2
    half, whole = UNSIGNED[bits], UNSIGNED[2 * bits]
    shift = whole.type(bits)
    if isinstance(target, Vector):
        read = _reader(source, f"b{2 * bits}", {})
        low, high = (None if item == SINK else _target(item, bits) for item in target.items)

        def split(machine: _Machine) -> None:
            value = read(machine)
            if low:
                machine.set(low, value.astype(half))
            if high:
                machine.set(high, (value >> shift).astype(half))

        return split
    if not isinstance(source, Vector):
        raise ParseError("expected two halves")
    into = _target(target, 2 * bits)
    readers = [_reader(item, f"b{bits}", {}) for item in source.items]

    def join(machine: _Machine) -> None:
        low, high = (read(machine).astype(whole) for read in readers)
        machine.set(into, low | high << shift)

    return join


def _address(operand: Operand, addresses: dict[str, int]) -> Reader:
    if not isinstance(operand, Address):
        raise ParseError(f"expected an address, got {operand}")
    read, offset = _reader(operand.base, "u64", addresses), np.uint64(operand.offset % 2**64)

    def address(machine: _Machine) -> Any:
        at = read(machine) + offset
        return at if at.ndim else np.full(len(machine.lanes()), at)

    return address


def _load(instruction: Instruction, found: re.Match[str], addresses: dict[str, int]) -> Step:
    space, constant, vector, kind, bits = found.groups()
    targets = _items(instruction.operands[0])
    count, size = int(vector or 1), int(bits) // 8
    if len(targets) != count or any(item.bits < int(bits) for item in targets):
        raise ParseError(f"{count} values of {bits} bits into {instruction.operands[0]}")
    element = np.dtype(f"{'i' if kind == 's' else 'u'}{size}")
    address = _address(instruction.operands[1], addresses)

    def run(machine: _Machine) -> None:
        at, thread = address(machine), machine.thread[machine.here]
        memory = machine.parameters if space == "param" else machine.memory
        data = memory.load(at, count * size, thread, constant=bool(constant))
        if space == "global" and machine.counters:
            machine.counters.loads.add(at, count * size, *machine.places())
        values = data.view(element).reshape(-1, count)
        for number, item in enumerate(targets):
            extended = values[:, number].astype(f"{element.kind}{item.bits // 8}")
            machine.set(item, extended.view(UNSIGNED[item.bits]))

    return run


def _store(instruction: Instruction, found: re.Match[str], addresses: dict[str, int]) -> Step:
    vector, bits = found.groups()
    count, size = int(vector or 1), int(bits) // 8
    source = instruction.operands[1]
    items: tuple[Operand, ...] = source.items if isinstance(source, Vector) else (source,)
    if len(items) != count:
        raise ParseError(f"{count} values of {bits} bits from {source}")
    kind = f"u{max(16, int(bits))}"
    readers = [_reader(item, kind, addresses, wider=True) for item in items]
    address = _address(instruction.operands[0], addresses)

    def run(machine: _Machine) -> None:
        at = address(machine)
        data = np.empty((len(at), count), np.dtype(f"u{size}"))
        for number, read in enumerate(readers):
            data[:, number] = read(machine)
        machine.memory.write(at, data.view(np.uint8), machine.thread[machine.here])
        if machine.counters:
            machine.counters.stores.add(at, count * size, *machine.places())

    return run


def _items(operand: Operand) -> tuple[Register, ...]:
    items: tuple[Operand, ...] = operand.items if isinstance(operand, Vector) else (operand,)
    if not all(isinstance(item, Register) for item in items):
        raise ParseError(f"expected registers, got {operand}")
    return items  # type: ignore[return-value]
