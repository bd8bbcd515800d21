"""Small videos in MJPEG, which DALI decodes on a CPU, written without a video library."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import numpy as np


def write_video(path: Path, frames: np.ndarray, rate: int = 8) -> None:
    """An AVI of JPEGs.

    Parameters
    ----------
    path : Path
    frames : uint8 array, shape (F, H, W, 3)
    rate : int
        Frames a second.
    """
    from PIL import Image

    images = []
    for frame in frames:
        buffer = io.BytesIO()
        Image.fromarray(frame).save(buffer, "JPEG", quality=95, subsampling=0)
        images.append(buffer.getvalue())
    count, height, width = frames.shape[:3]
    largest = max(map(len, images))
    main = struct.pack(
        "<14I", 1_000_000 // rate, largest * rate, 0, 0x10, count, 0, 1, largest, width, height,
        0, 0, 0, 0,
    )  # fmt: skip
    stream = struct.pack(
        "<4s4sIHHIIIIIIII4H", b"vids", b"MJPG", 0, 0, 0, 0, 1, rate, 0, count, largest, 0, 0,
        0, 0, width, height,
    )  # fmt: skip
    form = struct.pack(
        "<IiiHH4sIiiII", 40, width, height, 1, 24, b"MJPG", width * height * 3, 0, 0, 0, 0
    )
    movie = b"".join(chunk(b"00dc", image) for image in images)
    index, offset = b"", 4
    for image in images:
        index += struct.pack("<4sIII", b"00dc", 0x10, offset, len(image))
        offset += 8 + len(image) + len(image) % 2
    header = chunk(b"avih", main) + listed(b"strl", chunk(b"strh", stream) + chunk(b"strf", form))
    content = listed(b"hdrl", header) + listed(b"movi", movie) + chunk(b"idx1", index)
    path.write_bytes(chunk(b"RIFF", b"AVI " + content))


def chunk(name: bytes, content: bytes) -> bytes:
    return name + struct.pack("<I", len(content)) + content + b"\0" * (len(content) % 2)


def listed(name: bytes, content: bytes) -> bytes:
    return chunk(b"LIST", name + content)
