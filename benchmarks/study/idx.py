"""Files in the idx format, in which MNIST and Fashion-MNIST come."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np


def read_idx(path: Path) -> np.ndarray:
    """An array of bytes, from the file as it is or compressed, with .gz at its end.

    Raises
    ------
    FileNotFoundError
        There is no such file.
    ValueError
        It is no idx file of bytes, or it is cut short.
    """
    compressed = path.with_name(f"{path.name}.gz")
    if not path.exists() and not compressed.exists():
        raise FileNotFoundError(
            f"{path}: expected this file, or the same with .gz; install the Debian package "
            "dataset-fashion-mnist, or give --idx FOLDER with Fashion-MNIST's four files"
        )
    data = path.read_bytes() if path.exists() else gzip.decompress(compressed.read_bytes())
    if data[:3] != b"\0\0\x08":
        raise ValueError(f"{path}: expected an idx file of bytes, got one that begins {data[:4]!r}")
    axes = data[3]
    shape = tuple(np.frombuffer(data, ">u4", axes, offset=4).tolist())
    pixels = np.frombuffer(data, np.uint8, offset=4 + 4 * axes)
    if pixels.size != np.prod(shape):
        raise ValueError(f"{path}: expected {np.prod(shape)} bytes of {shape}, got {pixels.size}")
    return pixels.reshape(shape)
