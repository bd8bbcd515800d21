"""Every specialisation of the kernel that a launch can ask for."""

from __future__ import annotations

from collections.abc import Iterator

from dali_mixup.backends.cuda.launch import (
    ANY,
    flat_unroll,
    kernel_name,
    mask_kernel_name,
    transpose_name,
)

DTYPES = ("uint8", "uint16", "float16", "bfloat16", "float32")
OUT_DTYPES = ("uint8", "float16", "bfloat16", "float32")
SIZE = {"uint8": 1, "uint16": 2, "float16": 2, "bfloat16": 2, "float32": 4}
LAYOUTS = (("CHW", "CHW"), ("HWC", "CHW"), ("CHW", "HWC"))


def conversions() -> Iterator[tuple[str, str]]:
    for in_dtype in DTYPES:
        for out_dtype in OUT_DTYPES:
            if out_dtype != "uint8" or in_dtype == "uint8":
                yield in_dtype, out_dtype


def specializations(
    plan: str, in_dtypes: tuple[str, ...] = DTYPES, frames: str = "STILLS"
) -> Iterator[str]:
    for in_dtype, out_dtype in conversions():
        if in_dtype not in in_dtypes:
            continue
        widths = [pixels for pixels in (16, 8, 4, 2, 1) if pixels * SIZE[out_dtype] <= 16]
        for pixels in widths:
            for in_layout, out_layout in LAYOUTS:
                for channels in (1, 3, 4):
                    yield kernel_name(
                        in_dtype, in_layout, out_dtype, out_layout,
                        channels, 1, pixels, 1, frames, plan,
                    )  # fmt: skip
            for period in (1, 3, 4):
                unroll = flat_unroll(SIZE[in_dtype], period)
                yield kernel_name(
                    in_dtype, "CHW", out_dtype, "CHW", 1, period, pixels, unroll, frames, plan
                )


def of_any_channels(plan: str, in_dtypes: tuple[str, ...] = DTYPES) -> Iterator[str]:
    """Of numbers of channels other than 1, 3 and 4."""
    for in_dtype, out_dtype in conversions():
        if in_dtype in in_dtypes:
            for pixels in (16, 8, 4, 2, 1):
                for period, frames in ((1, "PLANES"), (ANY, "STILLS"), (ANY, "CLIPS")):
                    if pixels * SIZE[out_dtype] <= 16:
                        yield kernel_name(
                            in_dtype, "CHW", out_dtype, "CHW", 1, period, pixels, 1, frames, plan
                        )
            for layout in ("CHW", "HWC"):
                for count in (1, 8 // SIZE[out_dtype]):
                    yield transpose_name(in_dtype, out_dtype, layout, count, plan)


def of_masks(plan: str) -> Iterator[str]:
    for size, periods in ((1, (1,)), (2, (1,)), (4, (1, 2))):
        for period in periods:
            for pixels in (16, 8, 4, 2, 1):
                if period <= pixels and pixels * size <= 16:
                    yield mask_kernel_name(f"uint{8 * size}", period, pixels, plan)


def some_of_clips(plan: str, in_dtypes: tuple[str, ...] = DTYPES) -> Iterator[str]:
    """Of clips, those of one pixel a thread, and of most of them with 3 channels."""
    for kernel in specializations(plan, in_dtypes, "CLIPS"):
        _, _, out_dtype, _, channels, period, pixels, *_ = kernel.split(", ")
        widest = int(pixels) == 16 // SIZE[out_dtype.lower()] and "3" in (channels, period)
        if pixels == "1" or widest:
            yield kernel
