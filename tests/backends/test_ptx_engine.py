"""The engine that executes PTX: its arithmetic beside other sources, and each fault planted."""

from __future__ import annotations

import ctypes
import ctypes.util

import numpy as np
import pytest
from support.requirements import require

torch = require("torch", "ptx")

from support import ptx  # noqa: E402
from support.ptx.arithmetic import OPERATIONS, fused_multiply_add  # noqa: E402

rng = np.random.default_rng(0)
SPECIAL = [0.0, -0.0, 1.0, np.inf, -np.inf, np.nan, 65504.0, 65519.9, 65520.0, 6e-8, 2.9e-8, 1e-40]


def float32s(count=200_000):
    """Any bits, and values around float16's range."""
    bits = rng.integers(0, 2**32, count, dtype=np.uint32).view(np.float32)
    ordinary = (rng.standard_normal(count) * 10.0 ** rng.integers(-9, 6, count)).astype(np.float32)
    return np.concatenate((bits, ordinary, np.float32(SPECIAL)))


def op(name, *arguments):
    with np.errstate(all="ignore"):
        return np.asarray(OPERATIONS[name].compute(*map(np.asarray, arguments)))


@pytest.mark.parametrize(("kind", "dtype"), [("f16", "float16"), ("bf16", "bfloat16")])
def test_conversions_from_float32_are_torchs(kind, dtype):
    values = float32s()
    want = torch.from_numpy(values).to(getattr(torch, dtype)).view(torch.int16).numpy()

    got = op(f"cvt.rn.{kind}.f32", values)

    number = ~np.isnan(values)
    assert (got[number] == want.view(np.uint16)[number]).all()
    assert (got[~number] == 0x7FFF).all()


def test_conversions_from_float16_are_torchs():
    bits = np.arange(2**16).astype(np.uint16)
    want = torch.from_numpy(bits.view(np.int16)).view(torch.float16).float().numpy()

    got = op("cvt.f32.f16", bits)

    assert ((got.view(np.uint32) == want.view(np.uint32)) | np.isnan(want)).all()
    assert (got[np.isnan(want)].view(np.uint32) == 0x7FFFFFFF).all()


def test_integers_become_floats_as_torch_makes_them():
    integers = np.random.default_rng(0).integers(0, 2**32, 10_000).astype(np.uint32)
    integers[:4] = 0, 2**24 + 1, 2**24 + 3, 2**32 - 1

    got = op("cvt.rn.f32.u32", integers)

    np.testing.assert_array_equal(got, torch.from_numpy(integers.astype(np.int64)).float().numpy())


def test_floats_become_integers_towards_0_and_no_others():
    floats = np.array([1.9, -1.5, np.nan, np.inf, -np.inf, 4e9, 0.999], np.float32)

    got = op("cvt.rzi.u32.f32", floats)

    assert got.tolist() == [1, 0, 0, 2**32 - 1, 0, 4_000_000_000, 0]


def test_a_pair_of_halves_has_the_first_argument_above():
    assert op("cvt.rn.f16x2.f32", np.float32([2.0]), np.float32([1.0])) == 0x40003C00
    assert op("cvt.rn.bf16x2.f32", np.float32([2.0]), np.float32([1.0])) == 0x40003F80


def test_a_fused_multiplication_is_libms():
    libm = ctypes.CDLL(ctypes.util.find_library("m"))
    libm.fmaf.restype, libm.fmaf.argtypes = ctypes.c_float, [ctypes.c_float] * 3
    values = float32s(5_000)
    a, b, c = (rng.permutation(values) for _ in range(3))
    close = (rng.random(len(c)) < 0.5) & np.isfinite(a) & np.isfinite(b)
    with np.errstate(all="ignore"):
        c = np.where(close, -(a * b) * np.float32(1 + 2**-20), c).astype(np.float32)
        got = fused_multiply_add(a, b, c)

    want = np.float32([libm.fmaf(*each) for each in zip(a, b, c, strict=True)])

    assert ((got.view(np.uint32) == want.view(np.uint32)) | (np.isnan(got) & np.isnan(want))).all()


@pytest.mark.parametrize("name", ["add", "sub", "mul"])
def test_float32_is_rounded_once_and_keeps_subnormal_numbers(name):
    a, b = rng.permutation(float32s()), rng.permutation(float32s())
    tensors = torch.from_numpy(a), torch.from_numpy(b)
    want = getattr(torch, name)(*tensors).numpy()

    got = op(f"{name}.rn.f32", a, b)

    same = got.view(np.uint32) == want.view(np.uint32)
    assert (same | np.isnan(want)).all()
    assert (got[np.isnan(want)].view(np.uint32) == 0x7FFFFFFF).all()


@pytest.mark.parametrize(("name", "count"), [("add", 2), ("sub", 2), ("mul", 2), ("fma", 3)])
def test_pairs_of_float32_are_computed_as_each_alone(name, count):
    halves = [rng.permutation(float32s(10_000)).reshape(-1, 2) for _ in range(count)]

    pairs = op(f"{name}.rn.f32x2", *(each.view(np.uint64)[:, 0] for each in halves))

    for half in (0, 1):
        alone = op(f"{name}.rn.f32", *(each[:, half] for each in halves))
        assert (pairs.view(np.uint32)[half::2] == alone.view(np.uint32)).all()


def test_a_byte_is_weighted_by_one_fused_operation_as_by_one_multiplication():
    lam = np.concatenate(
        [rng.beta(0.2, 0.2, 8_000), 2.0 ** -np.arange(1, 150.0), [0, 1, 1 - 2**-24]]
    )
    lam = lam.astype(np.float32)[:, None]
    value = np.arange(256, dtype=np.float32)

    fused = op("fma.rn.f32", np.float32(2**23) + value, lam, -(lam * np.float32(2**23)))

    assert (fused.view(np.uint32) == (lam * value).view(np.uint32)).all()


@pytest.mark.parametrize(
    ("name", "arguments", "want"),
    [
        ("prmt.b32", (0x4B000000, 0x11223344, 0x3004), 0x4B000044),
        ("prmt.b32", (0x4B000000, 0x11223344, 0x3007), 0x4B000011),
        ("prmt.b32", (0x00000080, 0, 0x8888), 0xFFFFFFFF),
        ("shl.b32", (1, 31), 0x80000000),
        ("shl.b32", (1, 32), 0),
        ("shr.u32", (0x80000000, 40), 0),
        ("mul.hi.u32", (0xFFFFFFFF, 0xFFFFFFFF), 0xFFFFFFFE),
        ("mul.wide.u32", (0xFFFFFFFF, 2), 0x1FFFFFFFE),
        ("add.u32", (0xFFFFFFFF, 2), 1),
        ("bfi.b32", (0x1AB, 0x11223344, 8, 8), 0x1122AB44),
        ("bfi.b32", (0xFFFFFFFF, 0, 0, 32), 0xFFFFFFFF),
        ("bfi.b32", (0xFFFFFFFF, 5, 7, 0), 5),
    ],
)
def test_integers_have_the_bits_of_the_manual(name, arguments, want):
    assert int(op(name, *(np.array([value], np.uint32) for value in arguments))[0]) == want


@pytest.mark.parametrize(
    ("a", "b", "quotient", "rest"), [(7, 2, 3, 1), (-7, 2, -3, -1), (7, -2, -3, 1)]
)
def test_signed_division_is_towards_zero(a, b, quotient, rest):
    left, right = np.array([a], np.int32), np.array([b], np.int32)

    assert op("div.s32", left, right) == quotient
    assert op("rem.s32", left, right) == rest
    assert op("shr.s32", np.array([-8], np.int32), np.array([40], np.uint32)) == -1


@pytest.mark.parametrize("name", ["eq", "ne", "lt", "le", "gt", "ge"])
def test_comparisons_with_nan_are_false_unless_they_are_unordered(name):
    nan, one = np.float32([np.nan]), np.float32([1])

    assert not op(f"setp.{name}.f32", nan, one)
    assert op(f"setp.{name}u.f32", nan, one)


@pytest.mark.parametrize("opcode", ["add.f32", "mul.f32", "sub.f32", "mul.ftz.f32", "fma.rn.f64"])
def test_what_ptxas_may_fuse_or_flush_is_not_executed(opcode):
    assert opcode not in OPERATIONS


# ---- whole kernels of a few lines ----------------------------------------------------------------

HEAD = """
.visible .entry kernel(.param .u64 from, .param .u64 to) .maxntid 64, 1, 1
{
  .reg .pred %p<3>; .reg .b16 %h<3>; .reg .b32 %r<9>; .reg .b64 %d<9>;
  ld.param.u64 %d1, [from];
  ld.param.u64 %d2, [to];
  mov.u32 %r1, %tid.x;
  mul.wide.u32 %d3, %r1, 4;
  add.s64 %d4, %d1, %d3;
  add.s64 %d5, %d2, %d3;
"""
COPY = "ld.global.nc.u32 %r2, [%d4]; st.global.u32 [%d5], %r2; ret; }"


def execute(body, *, threads=32, grid=(1, 1, 1), size=128, **how):
    """Run a kernel on 128 bytes of input and `size` bytes of output."""
    memory = ptx.Memory()
    values = np.arange(32, dtype=np.uint32).view(np.uint8)
    source = memory.allocate("input", values)
    target = memory.allocate("output", size, writable=True)
    parameters = tuple(np.uint64(a.address).tobytes() for a in (source, target))
    kernel = ptx.parse(HEAD + body)["kernel"]
    ptx.execute(kernel, ptx.Launch(grid, threads, parameters), memory, **how)
    return target


def test_a_kernel_copies():
    assert execute(COPY).bytes.view(np.uint32).tolist() == list(range(32))


def test_threads_that_part_meet_again():
    body = """
      and.b32 %r3, %r1, 1; setp.eq.s32 %p1, %r3, 0; mov.u32 %r2, 5;
      @%p1 bra EVEN;
      mov.u32 %r2, 7;
      EVEN: add.u32 %r4, %r2, %r1;
      @!%p1 add.u32 %r4, %r4, 100;
      st.global.u32 [%d5], %r4; ret; }
    """

    got = execute(body).bytes.view(np.uint32)

    assert got.tolist() == [5 + t if t % 2 == 0 else 107 + t for t in range(32)]


def test_a_half_that_nobody_reads_is_dropped():
    body = """
      mov.b64 %d6, {%r1, 9}; mov.b64 {_, %r2}, %d6; mov.b64 {%r3, _}, %d6;
      shl.b32 %r2, %r2, 8; add.u32 %r2, %r2, %r3; st.global.u32 [%d5], %r2; ret; }
    """

    assert execute(body).bytes.view(np.uint32).tolist() == [9 * 256 + t for t in range(32)]


def test_a_byte_is_extended_with_or_without_its_sign():
    body = """
      cvt.u16.u32 %h1, %r1; add.u16 %h1, %h1, 0x17f0;
      cvt.u32.u8 %r2, %h1; cvt.s32.s8 %r3, %h1; shl.b32 %r3, %r3, 8; add.u32 %r2, %r2, %r3;
      st.global.u32 [%d5], %r2; ret; }
    """
    value = (np.arange(32) + 0xF0).astype(np.uint8)

    got = execute(body).bytes.view(np.uint32)

    assert got.tolist() == (value + value.view(np.int8).astype(np.int32) * 256).view("u4").tolist()


def test_a_loop_runs_as_often_as_each_thread_wants():
    body = """
      mov.u32 %r2, 0;
      NEXT: add.u32 %r2, %r2, 3; setp.lt.u32 %p1, %r2, %r1; @%p1 bra NEXT;
      st.global.u32 [%d5], %r2; ret; }
    """

    assert execute(body).bytes.view(np.uint32).tolist() == [
        max(3, -(-t // 3) * 3) for t in range(32)
    ]


def test_halves_and_scopes():
    body = """
      { .reg .b16 low, high; mov.b32 {low, high}, %r1; mov.b32 %r2, {high, low}; }
      st.global.u32 [%d5], %r2; ret; }
    """

    assert execute(body).bytes.view(np.uint32).tolist() == [t << 16 for t in range(32)]


READ_NEIGHBOUR = """st.global.u32 [%d5], %r1; xor.b32 %r2, %r1, 1;
mul.wide.u32 %d6, %r2, 4; add.s64 %d6, %d2, %d6; ld.global.u32 %r3, [%d6];"""
FAULTS = {
    "past the end": (ptx.OutOfBounds, "ld.global.u32 %r2, [%d4+4];", "at byte 128 of 'input'"),
    "nowhere": (ptx.OutOfBounds, "mov.u64 %d6, 64; ld.global.u32 %r2, [%d6];", "load at 0x40"),
    "misaligned": (ptx.Misaligned, "ld.global.u32 %r2, [%d4+2];", "load of 4 bytes at"),
    "register": (ptx.Uninitialised, "add.u32 %r2, %r3, 1;", "register %r3 was never written"),
    "some lanes": (
        ptx.Uninitialised,
        "setp.lt.u32 %p1, %r1, 7; @%p1 mov.u32 %r3, 1; add.u32 %r2, %r3, 1;",
        "thread 7, line 11: add.u32",
    ),
    "memory": (ptx.Uninitialised, "ld.global.u32 %r2, [%d5];", "'output' that were never"),
    "input": (ptx.ReadOnly, "st.global.u32 [%d4], %r1;", "store to 'input'"),
    "two writers": (ptx.Race, "st.global.u32 [%d2], %r1;", "two threads store to one byte"),
    "two equal writers": (
        ptx.Race,
        "mov.u32 %r2, 1; st.global.u32 [%d2], %r2;",
        "two threads store",
    ),
    "foreign read": (
        ptx.Race,
        READ_NEIGHBOUR,
        "load of what another thread wrote",
    ),
    "constant read of what is written": (
        ptx.Race,
        "st.global.u32 [%d5], %r1; ld.global.nc.u32 %r3, [%d5];",
        "load of what",
    ),
    "division": (ptx.DivisionByZero, "mov.u32 %r2, 0; div.u32 %r3, %r1, %r2;", "divided by 0"),
    "opcode": (ptx.UnknownInstruction, "bar.sync 0;", "no instruction bar.sync"),
    "may be fused": (ptx.UnknownInstruction, "mul.f32 %r2, %r1, %r1;", "mul.f32"),
    "width": (ptx.ParseError, "add.u32 %d6, %r1, 1;", "a result of 32 bits into"),
    "argument": (ptx.ParseError, "add.u32 %r2, %d1, 1;", "a register of 64 bits as u32"),
    "declaration": (ptx.ParseError, "add.u32 %r2, %q1, 1;", "operand not understood: %q1"),
    "label": (ptx.ParseError, "bra NOWHERE;", "no label for bra NOWHERE"),
    "directive": (ptx.ParseError, ".shared .b8 x[4];", "not understood"),
}


@pytest.mark.parametrize(("error", "body", "message"), FAULTS.values(), ids=FAULTS)
def test_a_planted_fault_is_named(error, body, message):
    with pytest.raises(error) as raised:
        execute(f"{body} ret; }}")

    assert message in str(raised.value)
    if error is not ptx.ParseError:
        assert "in kernel kernel" in str(raised.value)
        assert "line 1" in str(raised.value)


def test_a_fault_names_block_thread_and_line():
    body = "mov.u32 %r2, %ctaid.x; setp.eq.u32 %p1, %r2, 3; @%p1 ld.global.u32 %r3, [%d4+4]; ret; }"

    with pytest.raises(ptx.OutOfBounds, match=r"block \(3, 0, 0\), thread 31, line 11: @%p1 ld"):
        execute(body, grid=(4, 1, 1))


def test_a_kernel_that_does_not_end_is_stopped(monkeypatch):
    monkeypatch.setattr("support.ptx.execution.MOST_STEPS", 100)

    with pytest.raises(ptx.Endless, match="more than 100 basic blocks"):
        execute("AGAIN: bra AGAIN; }")


@pytest.mark.parametrize(
    ("launch", "message"),
    [
        (ptx.Launch((1, 1, 1), 65, (bytes(8), bytes(8))), "65 threads a block, .* compiled for 64"),
        (ptx.Launch((1, 1, 2**16), 32, (bytes(8), bytes(8))), r"a grid of \(1, 1, 65536\)"),
        (ptx.Launch((0, 1, 1), 32, (bytes(8), bytes(8))), r"a grid of \(0, 1, 1\)"),
        (ptx.Launch((1, 1, 1), 32, (bytes(8), bytes(4))), r"of \[8, 4\] bytes, .* takes \[8, 8\]"),
        (ptx.Launch((1, 1, 1), 32, (bytes(8),)), r"of \[8\] bytes, the kernel takes \[8, 8\]"),
    ],
)
def test_a_launch_that_the_kernel_does_not_take_is_refused(launch, message):
    with pytest.raises(ptx.LaunchError, match=message):
        ptx.execute(ptx.parse(HEAD + COPY)["kernel"], launch, ptx.Memory())


def test_a_conversion_takes_the_low_bits_of_a_wider_register():
    body = """
      cvt.u64.u32 %d6, %r1; shl.b64 %d6, %d6, 33; add.s64 %d6, %d6, 7;
      cvt.s64.s32 %d6, %d6; cvt.u32.u64 %r2, %d6; st.global.u32 [%d5], %r2; ret; }
    """

    assert execute(body).bytes.view(np.uint32).tolist() == [7] * 32


def test_requests_and_sectors_are_counted():
    counters = ptx.Counters()

    execute(COPY, counters=counters)

    assert (counters.loads.requests, counters.loads.sectors, counters.loads.bytes) == (1, 4, 128)
    assert (counters.loads.lines, counters.loads.sectors_of_blocks) == (1, 4)
    assert counters.stores.efficiency == 1.0
    assert counters.stores.by_width == {4: 1}
    assert counters.by_class()["global load"] == 1
    assert counters.warp_instructions["mov.u32"] == 1


def test_scattered_stores_fill_less_of_their_sectors():
    body = """
      shl.b32 %r3, %r1, 5; cvt.u64.u32 %d6, %r3; add.s64 %d6, %d2, %d6;
      st.global.u32 [%d6], %r1; ret; }
    """
    counters = ptx.Counters()

    execute(body, size=32 * 32, counters=counters)

    assert (counters.stores.sectors, counters.stores.lines) == (32, 8)
    assert counters.stores.efficiency == 4 / 32


def test_what_a_block_loads_twice_leaves_its_cache_once():
    counters = ptx.Counters()

    execute(COPY.replace("ld.global", "ld.global.u32 %r3, [%d4]; ld.global", 1), counters=counters)

    assert (counters.loads.sectors, counters.loads.sectors_of_blocks) == (8, 4)
