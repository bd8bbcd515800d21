"""Mixup and CutMix for NVIDIA DALI loaders that feed PyTorch."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from dali_mixup.loader import MixupLoader
from dali_mixup.mixup import Mixup
from dali_mixup.output import OutputFormat
from dali_mixup.plan import MixPlan
from dali_mixup.state import dali_checkpoints

if TYPE_CHECKING:
    from dali_mixup.iterators import MixupClassificationIterator, MixupGenericIterator
    from dali_mixup.pipeline import image_pipeline, validation_pipeline

__version__ = "0.1.0"
__all__ = [
    "MixPlan",
    "Mixup",
    "MixupClassificationIterator",
    "MixupGenericIterator",
    "MixupLoader",
    "OutputFormat",
    "dali_checkpoints",
    "image_pipeline",
    "validation_pipeline",
]

_NEEDS_DALI = {
    "MixupClassificationIterator": "iterators",
    "MixupGenericIterator": "iterators",
    "image_pipeline": "pipeline",
    "validation_pipeline": "pipeline",
}


def __getattr__(name: str) -> Any:
    """What needs DALI is imported when it is first asked for."""
    if name in _NEEDS_DALI:
        return getattr(import_module(f"dali_mixup.{_NEEDS_DALI[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*globals(), *_NEEDS_DALI]
