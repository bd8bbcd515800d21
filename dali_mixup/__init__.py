"""Mixup and CutMix for NVIDIA DALI loaders that feed PyTorch."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from dali_mixup.advice import MixupWarning
from dali_mixup.loaders.wrapper import MixupLoader
from dali_mixup.mixup import Mixup
from dali_mixup.output import OutputFormat
from dali_mixup.plan import MixPlan
from dali_mixup.state import dali_checkpoints

if TYPE_CHECKING:
    from dali_mixup.backends.cuda.backend import DevicePlan, check_labels, warm_up
    from dali_mixup.loaders.dali import MixupClassificationIterator, MixupGenericIterator
    from dali_mixup.loaders.nodes import MixupNode
    from dali_mixup.loaders.pipeline import image_pipeline, validation_pipeline
    from dali_mixup.loaders.video import video_pipeline

__version__ = "0.2.0.dev0"
__all__ = [
    "DevicePlan",
    "MixPlan",
    "Mixup",
    "MixupClassificationIterator",
    "MixupGenericIterator",
    "MixupLoader",
    "MixupNode",
    "MixupWarning",
    "OutputFormat",
    "check_labels",
    "dali_checkpoints",
    "image_pipeline",
    "validation_pipeline",
    "video_pipeline",
    "warm_up",
]

_HEAVY = {
    "DevicePlan": "backends.cuda.backend",
    "MixupClassificationIterator": "loaders.dali",
    "MixupGenericIterator": "loaders.dali",
    "MixupNode": "loaders.nodes",
    "check_labels": "backends.cuda.backend",
    "image_pipeline": "loaders.pipeline",
    "validation_pipeline": "loaders.pipeline",
    "video_pipeline": "loaders.video",
    "warm_up": "backends.cuda.backend",
}


def __getattr__(name: str) -> Any:
    """Import what needs DALI, torch or CuPy when it is first asked for."""
    if name in _HEAVY:
        return getattr(import_module(f"dali_mixup.{_HEAVY[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*globals(), *_HEAVY]
