"""Images as they are passed: which backend takes them, and in which form."""

from __future__ import annotations

import sys
from functools import lru_cache
from importlib import import_module
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

from dali_mixup.dtypes import dtype_name
from dali_mixup.output import CLIPS, guess_layout

BACKENDS = ("auto", "numpy", "cupy")
LAYOUTS = ("HWC", "CHW", "HW", *CLIPS)

_OF_TENSORS = {"cpu": "torch_cpu", "cuda": "cuda.backend"}
_DEVICES = {"auto": ("'cpu'", "'cuda'"), "numpy": ("'cpu'",), "cupy": ("'cuda'",)}


class Images(NamedTuple):
    """A batch of images that a backend takes.

    Attributes
    ----------
    pixels : torch tensor or numpy array, shape (B, C, H, W) or (B, H, W, C), or with frames
    layout : {"CHW", "HWC", "FHWC", "FCHW", "CFHW"}
        Of `pixels`.
    backend : module
        Its ``mix`` takes `pixels`.
    without_channels : bool
        The images were passed with shape (B, H, W).
    """

    pixels: Any
    layout: str
    backend: Any
    without_channels: bool

    @property
    def batch_size(self) -> int:
        return int(self.pixels.shape[0])

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        row = 1 + self.layout.index("H")
        return tuple(self.pixels.shape[row : row + 2])


def as_images(images: Any, backend: str, layout: str | None) -> Images:
    """Find the backend and the layout of a batch, once; float64 becomes float32.

    Raises
    ------
    TypeError
        `images` is no numpy array and no dense torch tensor, or is on another device than `backend`
        takes.
    ValueError
        The shape is not that of a batch of images, or `layout` is None and does not follow from it.
    """
    if isinstance(images, Images):
        return images
    images, engine = find_backend(images, backend, "images")
    if images.dtype.itemsize == 8 and dtype_name(images) == "float64":
        images = images.astype(np.float32) if isinstance(images, np.ndarray) else images.float()
    without_channels = layout == "HW"
    if without_channels:
        if images.ndim != 3:
            raise ValueError(
                f"images: expected shape (B, H, W) for layout='HW', got {tuple(images.shape)}"
            )
        images, layout = images[:, None], "CHW"
    layout = layout or guess_layout(tuple(images.shape))
    return Images(images, layout, engine, without_channels)


def find_backend(array: Any, backend: str, name: str) -> tuple[Any, Any]:
    """The array without its autograd history, and the backend that takes it.

    Raises
    ------
    TypeError
        It is no numpy array and no dense torch tensor, or is on another device than `backend`
        takes.
    """
    torch = sys.modules.get("torch")
    if isinstance(array, np.ndarray):
        device, module = "cpu", "cpu"
    elif torch is not None and isinstance(array, torch.Tensor):
        device = array.device.type
        module = _OF_TENSORS.get(device, "")
        array = _backend("tensors").as_dense(array, name)
    else:
        raise TypeError(
            f"{name}: expected a numpy array or a torch tensor, got {type(array).__name__}; "
            f"a batch of DALI's dynamic mode becomes one by .torch(); name a loader's {name} by "
            f"{'data_key' if name == 'images' else 'mask_key'}"
        )
    if not module or device != {"numpy": "cpu", "cupy": "cuda"}.get(backend, device):
        raise TypeError(
            f"{name}: expected on {' or '.join(_DEVICES[backend])} for backend={backend!r}, "
            f"got on {device!r}"
        )
    return array, _backend(module)


@lru_cache
def _backend(name: str) -> ModuleType:
    return import_module(f"dali_mixup.backends.{name}")
