"""Finds the CUDA source: inside the package where it is installed, beside it in a checkout.

It is read from nowhere else: what runs on the GPU comes with the package.
"""

from __future__ import annotations

from pathlib import Path


def read_kernel(name: str) -> str:
    """The text of ``kernels/<name>``.

    Raises
    ------
    FileNotFoundError
        The package was built without it.
    """
    package = Path(__file__).resolve().parents[2]
    for folder in (package / "kernels", package.parent / "kernels"):
        if (folder / name).is_file():
            return (folder / name).read_text(encoding="utf-8")
    raise FileNotFoundError(
        f"{name}: expected in {package / 'kernels'}; this installation lacks it, install it anew"
    )
