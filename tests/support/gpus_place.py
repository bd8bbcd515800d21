"""Lets the CUDA backend run on CPU tensors, with something else in the place of a launch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from dali_mixup.backends.cuda import backend as cuda_backend
from dali_mixup.backends.cuda import device
from dali_mixup.backends.cuda.launch import PLAN_CAPACITY, Launch

Run = Callable[[Launch, tuple[Any, ...], torch.device], None]


def take_the_gpus_place(monkeypatch: pytest.MonkeyPatch, run: Run) -> None:
    """Replace what needs a GPU. `run` takes what ``device.run`` takes."""
    monkeypatch.setattr(device, "DEVICE_TYPE", "cpu")
    monkeypatch.setattr(device, "run", run)
    monkeypatch.setattr(device, "pinned", torch.clone)
    monkeypatch.setattr(device, "plan_capacity", lambda: PLAN_CAPACITY)
    monkeypatch.setattr(device, "is_capturing", lambda device: False)
    monkeypatch.setattr(device, "index_of", lambda device: 0)
    monkeypatch.setattr(device, "synchronize", lambda device: None)
    # a real GPU's report must be memory that it can write
    monkeypatch.setattr(cuda_backend, "_reports", {})
