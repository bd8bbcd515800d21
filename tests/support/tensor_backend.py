"""The GPU backend with numpy arrays in and out: one test body serves all backends."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import torch

from dali_mixup.backends.cuda import backend as cuda_backend
from dali_mixup.output import BFLOAT16


class TensorBackend:
    """`blend`, `soft_labels` and `mix` on tensors of this device."""

    def __init__(self, device: str) -> None:
        self.device = device

    def blend(self, images, plan, output=None, *, layout="CHW", out=None):
        target = None if out is None else self._tensor(out)
        mixed = cuda_backend.blend(self._tensor(images), plan, output, layout=layout, out=target)
        return self._array(mixed, out)

    def soft_labels(self, labels, plan, num_classes=None, label_smoothing=0.0, out=None):
        target = None if out is None else self._tensor(out)
        soft = cuda_backend.soft_labels(
            self._tensor(labels), plan, num_classes, label_smoothing, out=target
        )
        cuda_backend.check_labels(self.device)
        return self._array(soft, out)

    def mix(self, images, labels, plan, output, **settings):
        mixed, targets = cuda_backend.mix(
            self._tensor(images),
            None if labels is None else self._tensor(labels),
            plan,
            output,
            **settings,
        )
        cuda_backend.check_labels(self.device)
        if isinstance(targets, tuple):
            return self._array(mixed, None), tuple(self._array(part, None) for part in targets)
        return self._array(mixed, None), None if targets is None else self._array(targets, None)

    def mix_labels(self, images, labels, plan, **settings):
        targets = cuda_backend.mix_labels(
            self._tensor(images), self._tensor(labels), plan, **settings
        )
        cuda_backend.check_labels(self.device)
        if isinstance(targets, tuple):
            return tuple(self._array(part, None) for part in targets)
        return self._array(targets, None)

    def mix_masks(self, masks, plan):
        return self._array(cuda_backend.mix_masks(self._tensor(masks), plan), None)

    def _tensor(self, array: Any) -> torch.Tensor:
        array = np.asarray(array)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "The given NumPy array is not writable")
            if array.dtype == BFLOAT16:
                tensor = torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
            else:
                tensor = torch.from_numpy(array)
        return tensor.to(self.device)

    def _array(self, tensor: torch.Tensor, out: Any) -> Any:
        tensor = tensor.cpu()
        if tensor.dtype == torch.bfloat16:
            array = tensor.view(torch.int16).numpy().view(BFLOAT16)
        else:
            array = tensor.numpy()
        if out is None:
            return array
        out[...] = array
        return out
