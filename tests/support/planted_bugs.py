"""Bugs to plant in kernels/mixup.cu, in three families, and batches that bring them out.

"device": in code that no C++ compiler for the CPU sees. "parallel": one thread after another they
change nothing. "general": all others. `COSTLY` ones change no value.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from support import ptx
from support.kernel_batch import Batch
from support.kernel_cases import any_plan, pixels
from support.mask_batch import MaskBatch
from support.mask_batch import cases as mask_cases
from support.mask_batch import run as run_masks
from support.ptx_batch import run
from support.ptx_cache import PtxKernels

from dali_mixup import MixPlan, OutputFormat
from dali_mixup.backends.cuda.source import read_kernel


class Bug(NamedTuple):
    name: str
    family: str
    edits: tuple[tuple[str, str], ...]
    architecture: str = "compute_90"
    begin: int = 0  # the batch to begin with, which is among those that bring it out

    @property
    def source(self) -> str:
        text = read_kernel("mixup.cu")
        for old, new in self.edits:
            assert old in text, f"{self.name}: the kernel has no {old!r}"
            text = text.replace(old, new)
        return text


def device(name: str, old: str, new: str, architecture: str = "compute_90") -> Bug:
    return Bug(name, "device", ((old, new),), architecture)


def parallel(name: str, *edits: tuple[str, str]) -> Bug:
    return Bug(name, "parallel", edits)


def general(name: str, *edits: tuple[str, str], architecture: str = "compute_90") -> Bug:
    return Bug(name, "general", edits, architecture)


def of_channels(name: str, *edits: tuple[str, str]) -> Bug:
    return Bug(name, "general", edits, begin=OF_CHANNELS)


def of_masks(name: str, *edits: tuple[str, str]) -> Bug:
    return Bug(name, "general", edits, begin=MASKS)


OF_CHANNELS, MASKS = 13, -1  # where `batches` begins to have other channels; before all batches

MIX = "__fadd_rn(__fmul_rn(lam, own), __fmul_rn(rest, partner))"  # of labels
WEIGHTED = "multiply(weight.value, {unpack<DTYPE>(words, e), unpack<DTYPE>(words, f)})"
ON_TWO = "return {intrinsic(x.a, y.a), intrinsic(x.b, y.b)};"
F16X2 = 'asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(bits) : "f"(high), "f"(low));'
BF16X2 = 'asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(bits) : "f"(high), "f"(low));'
HALF = "{.reg .b16 h; cvt.u16.u32 h, %1; cvt.f32.f16 %0, h;}"
SUBTRACT = "subtract(mixed[p / 2][c], {scales[v].mean, scales[next].mean})"
INVERSES = "{scales[v].inverse_std, scales[next].inverse_std}"
ROW_LOOP = (
    "for (int k = threadIdx.x; k < batch.num_classes; k += BLOCK) {\n    const float a = k =="
)
LAST_TILE = "if (batch.label_form != NO_LABELS && last) write_target"
LAST = "const bool last = blockIdx.y == gridDim.y - 1"
STORE = "store<To::BYTES, To::ACCESS>(to, words);"
PIXEL_ACCESS = ("PIXELS == 1 ? size_of(DTYPE) : access_of(BYTES)", "access_of(BYTES)")
END = ("if (first >= plane) {", "if (start >= plane) return;")

BUGS = (
    device("float16: halves swapped", F16X2, F16X2.replace("high", "x").replace("low", "high").replace("x)", "low)")),
    device("bfloat16: halves swapped", BF16X2, BF16X2.replace('"f"(high), "f"(low)', '"f"(low), "f"(high)')),
    device("float16: truncated", "cvt.rn.f16x2.f32", "cvt.rz.f16x2.f32"),
    device("bfloat16: truncated", "cvt.rn.bf16x2.f32", "cvt.rz.bf16x2.f32"),
    device("float16: negative values lost", "cvt.rn.f16x2.f32", "cvt.rn.relu.f16x2.f32"),
    device("float16: written as bfloat16", "cvt.rn.f16x2.f32", "cvt.rn.bf16x2.f32"),
    device("float16: one value twice", "cvt.rn.f16x2.f32 %0, %1, %2", "cvt.rn.f16x2.f32 %0, %2, %2"),
    device("bfloat16: one value twice", "cvt.rn.bf16x2.f32 %0, %1, %2", "cvt.rn.bf16x2.f32 %0, %1, %1"),
    device("float16 read from the upper half", HALF, "{.reg .b16 h, l; mov.b32 {l, h}, %1; cvt.f32.f16 %0, h;}"),
    device("float16 read as bfloat16", "cvt.f32.f16 %0, h", "cvt.f32.bf16 %0, h"),
    device("float16: subnormal numbers flushed", HALF, HALF[:-1] + " mul.ftz.f32 %0, %0, 0f3F800000;}"),
    device("float16: register not set", "cvt.u16.u32 h, %1; cvt.f32.f16", "cvt.f32.f16"),
    device("float16: 8 bits kept", "cvt.u16.u32 h, %1;", "cvt.u16.u8 h, %1;"),
    device("sm_100: the second value is the first", '"fma.rn.f32x2 x, x, y, z; mov.b64 {%0, %1}, x;}"', '"fma.rn.f32x2 x, x, y, z; mov.b64 {%0, %1}, x; mov.b32 %1, %0;}"', "compute_100"),
    device("sm_100: two values change places", '"mov.b64 {%0, %1}, x;}"                 ', '"mov.b64 {%1, %0}, x;}"                 ', "compute_100"),
    device("sm_100: the subtraction is the other way round", 'instruction " x, x, y; "', 'instruction " x, y, x; "', "compute_100"),
    device("sm_100: subnormal numbers flushed", '"mul.rn.f32x2"', '"mul.rn.ftz.f32x2"', "compute_100"),
    device("float16 on sm_75: halves joined the wrong way", "mov.b32 %0, {l, h};", "mov.b32 %0, {h, l};", "compute_75"),
    device("float16 on sm_75: one value twice", "cvt.rn.f16.f32 h, %2;", "cvt.rn.f16.f32 h, %1;", "compute_75"),
    device("float16 on sm_75: truncated", "cvt.rn.f16.f32 l, %1;", "cvt.rz.f16.f32 l, %1;", "compute_75"),
    parallel("labels mixed with a fused operation", (MIX, "lam * own + rest * partner")),
    parallel("dense labels smoothed with a fused operation", ("__fadd_rn(__fmul_rn(batch.keep, own[k]), batch.off)", "batch.keep * own[k] + batch.off")),
    parallel("any operation may be fused", (ON_TWO, "return {x.a intrinsic y.a, x.b intrinsic y.b};"), ('"add.rn.f32x2", __fadd_rn', '"add.rn.f32x2", +'), ('"sub.rn.f32x2", __fsub_rn', '"sub.rn.f32x2", -'), ('"mul.rn.f32x2", __fmul_rn', '"mul.rn.f32x2", *')),
    parallel("all threads write the pair", ("    if (threadIdx.x == 0) {\n      batch.ids", "    {\n      batch.ids")),
    parallel("kernel for blocks of 384 threads", ("constexpr int BLOCK = 192;", "constexpr int BLOCK = 384;")),
    parallel("kernel for blocks of 96 threads", ("constexpr int BLOCK = 192;", "constexpr int BLOCK = 96;")),
    parallel("launch bounds below the launch", ("BLOCK, (blocks_of<", "BLOCK / 2, (blocks_of<")),
    parallel("values shared by all threads", ("float values[To::RUNS][To::LENGTH];", "static float values[To::RUNS][To::LENGTH];")),
    parallel("two threads write a class", (ROW_LOOP, ROW_LOOP.replace("= threadIdx.x;", "= threadIdx.x / 2;").replace("+= BLOCK", "+= BLOCK / 2"))),
    parallel("every tile writes the target", (LAST_TILE, "if (batch.label_form != NO_LABELS) write_target"), ("  if (first >= plane) {", "  if (batch.label_form != NO_LABELS) write_target(batch, sample, i);\n  if (first >= plane) {")),
    parallel("every frame writes the target", (LAST + " && blockIdx.z == 0", LAST)),
    parallel("every thread reads back what it wrote beside it", (STORE, STORE + "\n      if (start) *(volatile Byte*)(to - 1);")),
    general("the partner is the sample itself", ("Word64(Word(sample.partner)) * elements", "Word64(i) * elements")),
    general("lam weighs the partner", ("c, lam),", "c, rest),")),
    general("lam weighs the partner's label", (MIX, "__fadd_rn(__fmul_rn(rest, own), __fmul_rn(lam, partner))")),
    general("1 - lam weighs both images", ("rest(__fsub_rn(1.0f, sample.lam))", "rest(sample.lam)")),
    general("uint8: the offset of a weight is rounded", ("__fmul_rn(weight, -__uint_as_float(TWO_TO_23))", "__fmul_rn(__fmul_rn(weight, -8388607.0f), 1.0f)")),
    general("a weight multiplies only one of two values", (WEIGHTED, "multiply({weight.value.a, 1.0f}, {unpack<DTYPE>(words, e), unpack<DTYPE>(words, f)})")),
    general("two values: the second one twice", (ON_TWO, "return {intrinsic(x.b, y.b), intrinsic(x.b, y.b)};")),
    general("normalised in another order", ("multiply(" + SUBTRACT, "subtract(multiply(mixed[p / 2][c], " + INVERSES + "), multiply({scales[v].mean, scales[next].mean}"), (INVERSES + ");", INVERSES + "));")),
    general("both values take the first one's mean", (SUBTRACT, "subtract(mixed[p / 2][c], {scales[v].mean, scales[v].mean})")),
    general("box one column too wide", ("sample.x1 * period - x", "sample.x1 * period - x + 1")),
    general("box begins a row late", ("if (y >= sample.y0", "if (y > sample.y0")),
    general("box: rows end one pixel late", ("p += width - x, x = 0", "p += width - x + 1, x = 0")),
    general("clips: only the first frame is read", ("frame * batch.in_frame + channel", "0 * batch.in_frame + channel")),
    general("clips: written as they are read", ("frame * batch.out_frame + channel", "frame * batch.in_frame + channel")),
    general("clips: planes of a frame follow each other", ("STILLS ? plane : batch.in_plane", "STILLS ? plane : plane")),
    general("clips: planes are written next to each other", ("STILLS ? plane : batch.out_plane", "STILLS ? plane : plane")),
    general("clips: a sample has one frame", ("STILLS ? plane * CHANNELS : batch.clip", "STILLS ? plane * CHANNELS : plane * CHANNELS")),
    general("clips: boxes in rows of all frames", ("taken<PIXELS>(sample, start, width, period)", "taken<PIXELS>(sample, start + blockIdx.z * plane, width, period)")),
    general("one chunk past the image", *((line, line.replace(">=", ">")) for line in END)),
    general("no check of the image's end", *((line, line.replace("plane", "plane + 4096")) for line in END)),
    general("one pixel read as if aligned", PIXEL_ACCESS),
    general("written to the input", ("Byte* to = batch.out", "Byte* to = const_cast<Byte*>(batch.images)")),
    general("int64 labels read one sample on", (": static_cast<const Int64*>(batch.labels)[i]", ": static_cast<const Int64*>(batch.labels)[i + 1]")),
    general("a class id of num_classes is taken", ("own < batch.num_classes;\n  const bool good", "own <= batch.num_classes;\n  const bool good")),
    general("chunks of a thread overlap", ("first + u * BLOCK * PIXELS", "first + u * PIXELS")),
    general("bfloat16 on sm_75: ties away from even", ("bits >> 16 & 1)", "bits >> 16 & 0)"), architecture="compute_75"),
    general("bfloat16 on sm_75: NaN of all ones overflows", ("if (value != value) return 0x7fff;", ""), architecture="compute_75"),
    general("partners' ids in the wrong row", ("batch.ids[gridDim.x + i]", "batch.ids[gridDim.y + i]")),
    general("last of four planes not written", ("run < To::RUNS; ++run, to +=", "run < To::RUNS - (To::RUNS == 4); ++run, to +=")),
    general("box: the pixels of the own image are taken", ("(words[run][w] & ~mask) | (other.words[run][w] & mask)", "(words[run][w] & mask) | (other.words[run][w] & ~mask)")),
    general("box: bits of pixels in planes", ("pixels >> (LAYOUT == HWC ? e / CHANNELS : e) & 1", "pixels >> e & 1")),
    general("the wrong byte of a word", ("0x3004 | e % 4", "0x3005 | e % 4")),
    general("planes of the input overlap", ("from += Word64(plane) * size_of(DTYPE)", "from += plane")),
    general("uint8: the highest bit lost", ("& 0xff) << 8 * k", "& 0x7f) << 8 * k")),
    general("lam of 1 multiplies", ("is_boxed(sample) || sample.lam == 1.0f || sample.lam == 0.0f", "is_boxed(sample)")),
    general("interleaved: the wrong channel's mean", ("(first + c) % PERIOD", "c % PERIOD")),
    general("interleaved: boxes in elements", ("sample.x0 * period", "sample.x0")),
    general("dense labels: lam of 1 multiplies", ("row[k] = lam == 1.0f ? a : lam == 0.0f ? b : mix_values", "row[k] = mix_values")),
    of_channels("uint16: bytes of a word in the wrong order", ("0x3276 : 0x3254", "0x3267 : 0x3245")),
    of_channels("uint16: only the lower byte", ("0x3276 : 0x3254", "0x3226 : 0x3224")),
    of_channels("uint16: the other half of a word", ("e % 2 ? 0x3276 : 0x3254", "e % 2 ? 0x3254 : 0x3276")),
    of_channels("channels: the mean of the next one", ("__ldg(all + channel), ", "__ldg(all + (channel + 1) % batch.channels), ")),
    of_channels("channels: the 1 / std of the first one", ("__ldg(all + batch.channels + channel)", "__ldg(all + batch.channels)")),
    of_channels("channels: interleaved ones do not begin again", ("if (++channel == period) channel = 0;", "if (++channel == period) channel = 1;")),
    of_channels("channels: planes of one frame alone", ("blockIdx.z - frame * batch.channels", "blockIdx.z - frame")),
    of_channels("channels: frames counted as channels", ("PLANES ? blockIdx.z / batch.channels : blockIdx.z", "PLANES ? 0 : blockIdx.z")),
    of_channels("channels: a group of them left out", ("(channels + GROUP - 1) / GROUP", "channels / GROUP")),
    of_channels("channels: more of them than there are", ("if (c + k >= channels) break;", ""), ("if (c >= count) break;", "")),
    of_channels("channels: planes written one pixel late", ("(Word64(c + k) * batch.out_plane + start)", "(Word64(c + k) * batch.out_plane + start + 1)")),
    of_channels("channels: a box in the columns of another row", ("x >= batch.width; x -= batch.width) ++y;", "x > batch.width; x -= batch.width) ++y;")),
    of_channels("channels: every second frame of clips", ("blockIdx.z * batch.in_frame) * size_of(IN)", "blockIdx.z / 2 * batch.in_frame) * size_of(IN)")),
    of_channels("channels: the partner of a box is the sample", ("partners >> p & 1 ? b : a", "a")),
    of_channels("CFHW: a box over frames and rows", ("Word y = start / width, x = start - y * width;", "Word y = start / width + blockIdx.z, x = start - start / width * width;")),
    of_masks("masks: through a float", ("store<Run::BYTES, Run::ACCESS>(", "for (Word& word : run.words[0]) word = Word(float(word));\n  store<Run::BYTES, Run::ACCESS>(")),
    of_masks("masks: every box in elements", ("taken<PIXELS>(sample, start, batch.width * PERIOD, PERIOD)", "taken<PIXELS>(sample, start, batch.width * PERIOD, 1)")),
    of_masks("masks: the sample's own alone", ("run.load_selected(batch.images, own, partner,", "run.load_selected(batch.images, own, own,")),
    of_masks("masks: 64 bits as 32", ("const Word64 own = Word64(i) * plane, partner", "const Word64 own = Word64(i) * batch.plane, partner")),
    general("report without the id's upper half", ("found.w = Word(own >> 32)", "found.w = 0")),
)  # fmt: skip

COSTLY = (
    Bug("accesses of 8 bytes at most", "time", (("bytes % 16 == 0 ? 16 : bytes", "bytes"),)),
    Bug("accesses of 4 bytes at most", "time", (("bytes % 16 == 0 ? 16 : bytes % 8 == 0 ? 8 : bytes", "bytes"),)),
    Bug("both images are read where one is taken", "time", (("if (pixels != 0 && pixels != ALL) {", "if (pixels != 0) {"),)),
    Bug("a box reads all of the own image", "time", (("pixels == ALL ? partner : own, start", "own, start"), ("if (pixels != 0 && pixels != ALL) {", "if (pixels != 0) {"))),
    Bug("a byte becomes a float before it is weighted", "time", (("if constexpr (is_integer(DTYPE))\n    return multiply_add", "if constexpr (false)\n    return multiply_add"),)),
    Bug("values are mixed one at a time on sm_100", "time", (("#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 1000\n#define", "#if 0\n#define"),), "compute_100"),
)  # fmt: skip


def batches() -> Iterator[Batch]:
    """Few batches that meet every line of the kernel."""
    rng = np.random.default_rng(0)
    normal = {"mean": (3.0, 0.5, -1.0), "std": (0.3, 2.0, 1.1)}
    plain = {"mean": 0.4, "std": 1.3}
    bands = {"mean": (3.0, 0.5, -1.0, 7.0, 2.5), "std": (1.3, 2.0, 1.1, 3.0, 2.2)}
    rows = (
        ("uint8", (5, 16, 16, 3), "HWC", ("float16", "CHW", normal), (0, 0), "int32", "soft"),
        ("uint8", (3, 5, 7, 3), "HWC", ("float16", "CHW", {}), (1, 2), "int64", "pairs"),
        ("uint8", (4, 24, 44, 3), "HWC", ("float16", "HWC", normal), (0, 0), "float32", "soft"),
        ("float16", (4, 4, 16, 16), "CHW", ("float16", "CHW", plain), (0, 0), "int64", "soft"),
        ("float16", (3, 1, 3, 5), "CHW", ("float32", "CHW", {}), (2, 4), "int32", "soft"),
        ("float32", (4, 3, 8, 16), "CHW", ("bfloat16", "CHW", {}), (0, 0), "int64", "soft"),
        ("float32", (4, 3, 7, 9), "CHW", ("float32", "CHW", plain), (4, 4), "int64", "pairs"),
        ("uint8", (4, 3, 16, 16), "CHW", ("uint8", "CHW", {}), (0, 0), "int64", "soft"),
        ("bfloat16", (4, 16, 16, 3), "HWC", ("bfloat16", "HWC", normal), (0, 0), "int32", "soft"),
        ("uint8", (3, 5, 7, 4), "HWC", ("float32", "CHW", {}), (1, 4), "int64", "soft"),
        ("uint8", (3, 2, 16, 16, 3), "FHWC", ("float16", "CFHW", normal), (0, 0), "int64", "soft"),
        ("uint8", (3, 3, 2, 6, 8), "CFHW", ("float32", "FHWC", normal), (0, 0), "int64", "soft"),
        ("float16", (2, 3, 8, 6, 1), "FHWC", ("float16", "FHWC", {}), (0, 0), "int64", "soft"),
        ("uint16", (4, 3, 8, 8), "CHW", ("float32", "CHW", plain), (0, 0), "int64", "soft"),
        ("uint8", (4, 8, 8, 5), "HWC", ("float16", "CHW", bands), (0, 0), "int64", "soft"),
        ("float32", (4, 5, 12, 16), "CHW", ("float32", "HWC", bands), (0, 0), "int64", "soft"),
        ("uint8", (3, 2, 8, 9, 5), "FHWC", ("float32", "FHWC", bands), (0, 0), "int64", "soft"),
        ("uint16", (3, 2, 5, 8, 6), "FCHW", ("bfloat16", "CFHW", bands), (0, 0), "int64", "soft"),
        ("uint8", (3, 4, 7, 9, 5), "FHWC", ("float16", "CFHW", bands), (0, 0), "int64", "soft"),
    )
    for dtype, shape, layout, (out, out_layout, scale), shifts, kind, targets in rows:
        row = 1 + layout.index("H")
        sides = shape[row : row + 2]
        images, plan = pixels(dtype, shape, rng), any_plan(shape[0], *sides, rng)
        values = rng.random((shape[0], 7)) if kind == "float32" else rng.integers(0, 7, shape[0])
        output = OutputFormat(dtype=out, layout=out_layout, **scale)
        labels = values.astype(kind)
        yield Batch(plan, images, output, layout, shifts, labels, targets=targets)
    dense = np.array([[np.inf, 1], [0, np.inf]], np.float32)
    yield Batch(MixPlan([1, 0], [1.0, 0.0]), labels=dense, num_classes=2)


def mask_batches() -> Iterator[MaskBatch]:
    """Masks of 8 and of 64 bits."""
    return (batch for batch in mask_cases() if batch.masks.itemsize in (1, 8) and batch.shift == 0)


def run_all_masks(kernels: PtxKernels) -> None:
    for masks in mask_batches():
        run_masks(kernels, masks)


def bad_labels() -> Iterator[tuple[Batch, tuple[int, int, int]]]:
    """Batches with a class id out of range, and what the kernel reports of it."""
    for bad in (7, -(2**40)):
        plan = MixPlan([1, 0, 2], [0.5, 0.5, 1.0])
        yield Batch(plan, labels=np.array([1, bad, 2])), (2, 7, bad)


def reported(words: list[int]) -> tuple[int, int, int]:
    """Row + 1, num_classes and class id, from the four words of a report."""
    return words[0], words[1], (words[3] << 32) + words[2] % 2**32


def noticed(bug: Bug) -> str | None:
    """What the engine says of a bug: the error's name and first line; None if it says nothing."""
    kernels, every = PtxKernels(bug.architecture, bug.source), list(batches())
    begin = max(bug.begin, 0)
    try:
        if bug.begin == MASKS:
            run_all_masks(kernels)
        for batch in every[begin:] + every[:begin]:
            if any(run(kernels, batch)):
                return "Reported: a good label"
        run_all_masks(kernels)
        for batch, report in bad_labels():
            words = run(kernels, batch)
            if reported(words) != report:
                return f"Reported: {words}"
    except (ptx.PtxError, AssertionError) as error:
        return f"{type(error).__name__}: {str(error).splitlines()[0]}"
    return None
