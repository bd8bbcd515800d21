"""The GPU backend: torch tensors in and out, kernels/mixup.cu in one launch.

torch allocates every output, and the launch goes to torch's current stream of the images' device.
There is no upload (the plan is a launch parameter) and no synchronisation. Labels on the GPU are
checked there: a class id out of range makes its row NaN, and the error is raised on a later batch.
"""

from __future__ import annotations

from functools import lru_cache
from threading import Lock
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

try:
    from dali_mixup.backends.cuda import device as gpu
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        f"images on a GPU need CuPy, and {error.name!r} is missing: "
        "pip install 'dali-mixup[cuda12]' (or [cuda13])",
        name=error.name,
    ) from error

from dali_mixup.backends.cuda.launch import (
    DENSE_ROWS,
    INT32_IDS,
    INT64_IDS,
    REPORT,
    LabelArguments,
    Launch,
    batch_parameters,
    image_launch,
    label_launch,
    mask_launch,
    mask_parameters,
    plan_parameters,
    values_per_channel,
)
from dali_mixup.backends.labels import LabelForm, bad_label, class_ids, label_form, no_pairs
from dali_mixup.backends.masks import mask_shape
from dali_mixup.backends.tensors import as_dense, is_channels_last, keep_channels_last
from dali_mixup.dtypes import dtype_name
from dali_mixup.output import Conversion, OutputFormat
from dali_mixup.plan import MixPlan, unmixed


class DevicePlan:
    """A plan in GPU memory, for CUDA graphs. A captured launch reads it on every replay.

    Parameters
    ----------
    plan : MixPlan
    device : torch.device or str
        The GPU of the images.

    Raises
    ------
    RuntimeError
        A CUDA graph is captured. Make the plan before the capture.
    """

    def __init__(self, plan: MixPlan, device: torch.device | str) -> None:
        self.plan = plan
        host = _pinned(plan, torch.device(device))
        self.samples = torch.empty_like(host, device=device)
        self.samples.copy_(host, non_blocking=True)

    def __len__(self) -> int:
        return len(self.plan)

    def require_fit(self, batch_size: int, height: int, width: int) -> None:
        """:meth:`MixPlan.require_fit` of the plan it holds."""
        self.plan.require_fit(batch_size, height, width)

    def update(self, plan: MixPlan) -> None:
        """Replace the plan by one of the same length, on the current stream.

        Parameters
        ----------
        plan : MixPlan

        Raises
        ------
        ValueError
            `plan` has another length.
        RuntimeError
            A CUDA graph is captured. Update the plan before each replay of the graph.
        """
        if len(plan) != len(self.plan):
            raise ValueError(f"plan: expected {len(self.plan)} samples, got {len(plan)}")
        self.plan = plan
        self.samples.copy_(_pinned(plan, self.samples.device), non_blocking=True)


def blend(
    images: torch.Tensor,
    plan: MixPlan | DevicePlan,
    output: OutputFormat | None = None,
    *,
    layout: str = "CHW",
    out: torch.Tensor | None = None,
) -> torch.Tensor:
    """:func:`dali_mixup.backends.reference.blend` for CUDA tensors.

    Parameters and errors are those of the reference. Images in channels_last memory are read
    without a copy; other strided views are copied once.

    Parameters
    ----------
    images : tensor on a GPU
    plan : MixPlan or DevicePlan
    output : OutputFormat, optional
    layout : {"CHW", "HWC", "FHWC", "FCHW", "CFHW"}
    out : tensor, optional

    Returns
    -------
    tensor

    Raises
    ------
    RuntimeError
        A :class:`dali_mixup.MixPlan` is passed while a CUDA graph is captured, which would store it
        in the graph for ever. Pass a :class:`dali_mixup.DevicePlan`.
    """
    _require_cuda(images, "images")
    images, form = _prepare(images, plan, output or OutputFormat(), layout)
    memory = _memory_for(form, images) if out is None else _checked_output(out, form, images)
    _launch_images(images, memory, form, plan, LabelArguments())
    return memory.permute(0, 3, 1, 2) if form.channels_last else memory


def soft_labels(
    labels: torch.Tensor,
    plan: MixPlan | DevicePlan,
    num_classes: int | None = None,
    label_smoothing: float = 0.0,
    out: torch.Tensor | None = None,
) -> torch.Tensor:
    """:func:`dali_mixup.backends.reference.soft_labels` for CUDA tensors.

    A class id out of range makes its row NaN. The error is raised by a later call, or by
    :func:`dali_mixup.check_labels`.

    Parameters
    ----------
    labels : tensor on a GPU
    plan : MixPlan or DevicePlan
    num_classes : int, optional
    label_smoothing : float
    out : tensor, optional

    Returns
    -------
    tensor
    """
    _require_cuda(labels, "labels")
    raise_reported()
    report = _report(gpu.index_of(labels.device))
    form = _label_form(labels, len(plan), num_classes)
    if form.num_classes is None:
        raise ValueError("num_classes: expected an int beside class ids, got None")
    shape = (len(plan), form.num_classes)
    if out is None:
        out = torch.empty(shape, dtype=torch.float32, device=labels.device)
    elif (
        tuple(out.shape) != shape
        or out.dtype != torch.float32
        or out.device != labels.device
        or not out.is_contiguous()
    ):
        raise ValueError(
            f"out: expected contiguous float32 {shape} on {labels.device}, got {_describe(out)}"
        )
    labels = _as_the_kernel_reads(labels, ids=form.ids)
    _require_apart(out, labels, "labels")
    arguments = LabelArguments(
        _LABEL_KIND[labels.dtype], labels.data_ptr(), out.data_ptr(), 0,
        report.address, form.num_classes, label_smoothing,
    )  # fmt: skip
    _launch_labels(arguments, plan, labels.device)
    return out


def mix(
    images: torch.Tensor,
    labels: torch.Tensor | None,
    plan: MixPlan | DevicePlan,
    output: OutputFormat,
    *,
    layout: str,
    num_classes: int,
    label_smoothing: float,
    targets: str,
) -> tuple[torch.Tensor, Any]:
    """:func:`dali_mixup.backends.reference.mix` for CUDA tensors, in one launch.

    Labels on the CPU are checked there and then go to the images' device.

    Raises
    ------
    RuntimeError
        While a CUDA graph is captured: `plan` is a :class:`dali_mixup.MixPlan`, or `labels` are on
        the CPU. The graph would keep the plan, or copy from memory that is freed before it runs.
    """
    _require_cuda(images, "images")
    images, form = _prepare(images, plan, output, layout)
    memory = _memory_for(form, images)
    mixed = memory.permute(0, 3, 1, 2) if form.channels_last else memory
    if labels is None:
        _launch_images(images, memory, form, plan, LabelArguments())
        return mixed, None

    labels = _labels_for(images, labels, form.batch, num_classes, targets)
    arguments, target = _targets_of(labels, num_classes, label_smoothing, targets)
    _launch_images(images, memory, form, plan, arguments)
    return mixed, target


def mix_labels(
    images: torch.Tensor,
    labels: torch.Tensor,
    plan: MixPlan | DevicePlan,
    *,
    num_classes: int,
    label_smoothing: float,
    targets: str,
) -> Any:
    """:func:`mix` of labels alone, to the device of the images, in a launch of its own.

    Raises
    ------
    RuntimeError
        As for :func:`mix`.
    """
    labels = _labels_for(images, labels, len(plan), num_classes, targets)
    arguments, target = _targets_of(labels, num_classes, label_smoothing, targets)
    _launch_labels(arguments, plan, images.device)
    return target


def mix_masks(masks: torch.Tensor, plan: MixPlan | DevicePlan) -> torch.Tensor:
    """:func:`dali_mixup.backends.reference.mix_masks` for CUDA tensors, in one launch.

    Parameters
    ----------
    masks : tensor on a GPU
    plan : MixPlan or DevicePlan

    Returns
    -------
    tensor

    Raises
    ------
    RuntimeError
        A :class:`dali_mixup.MixPlan` is passed while a CUDA graph is captured.
    """
    _require_cuda(masks, "masks")
    shape = mask_shape(tuple(masks.shape), dtype_name(masks), plan)
    masks = _contiguous(masks)
    out = torch.empty_like(masks)
    source, target = masks.data_ptr(), out.data_ptr()
    launch = mask_launch(
        shape, masks.element_size(), source % 16, target % 16, by_pointer=_by_pointer(plan)
    )
    if 0 not in launch.grid:
        _run(launch, mask_parameters(shape, source, target), plan, masks.device)
    return out


def check_labels(device: torch.device | str | int | None = None) -> None:
    """Wait for a GPU and raise an error if a label of its last batches was out of range.

    Parameters
    ----------
    device : torch.device, str or int, optional
        None: the current GPU.

    Raises
    ------
    ValueError
        A class id was out of range. It is named with its row.
    """
    gpu.synchronize(device)
    _report(gpu.index_of(device)).raise_if_bad()


def raise_reported() -> None:
    """Raise the error of an earlier batch, on any GPU, as far as it is known without waiting.

    Raises
    ------
    ValueError
        A class id was out of range. It is named with its row and with the batch's `num_classes`.
    """
    for report in list(_reports.values()):
        report.raise_if_bad()


def warm_up(
    shape: tuple[int, ...],
    dtype: torch.dtype = torch.uint8,
    output: OutputFormat | None = None,
    *,
    layout: str = "HWC",
    num_classes: int,
    device: torch.device | str = "cuda",
) -> None:
    """Compile and load the kernel for one kind of batch, so that no training step waits for it.

    Without this call the kernel is compiled when such a batch is first mixed, which is not possible
    while a CUDA graph is captured.

    Parameters
    ----------
    shape : (int, ...)
        Of the images.
    dtype : torch.dtype
        Of the images.
    output : OutputFormat, optional
    layout : {"HWC", "CHW", "FHWC", "FCHW", "CFHW"}
        Of the images.
    num_classes : int
    device : torch.device or str
    """
    images = torch.zeros(shape, dtype=dtype, device=device)
    labels = torch.zeros(shape[0], dtype=torch.int32, device=device)
    plan = unmixed(shape[0])
    for by_value_or_pointer in (plan, DevicePlan(plan, device)):
        mix(
            images, labels, by_value_or_pointer, output or OutputFormat(),
            layout=layout, num_classes=num_classes, label_smoothing=0.0, targets="soft",
        )  # fmt: skip
    gpu.synchronize(device)


class _Report:
    """Pinned memory into which the kernel writes a bad label."""

    def __init__(self) -> None:
        self._memory = gpu.pinned(torch.zeros(2, dtype=torch.int64))
        self.address = self._memory.data_ptr()
        self._label: NDArray[np.void] = self._memory.numpy().view(REPORT)

    def raise_if_bad(self) -> None:
        row_and_one, num_classes, label = self._label[0].tolist()
        if row_and_one:
            self._label["row_and_one"] = 0
            raise bad_label(row_and_one - 1, label, num_classes, earlier=True)


_reports: dict[int, _Report] = {}
_reports_lock = Lock()


def _report(device_index: int) -> _Report:
    with _reports_lock:  # a second one of a device would be freed while the kernel writes to it
        if device_index not in _reports:
            _reports[device_index] = _Report()
        return _reports[device_index]


def _launch_images(
    images: torch.Tensor,
    out: torch.Tensor,
    form: Conversion,
    plan: MixPlan | DevicePlan,
    labels: LabelArguments,
) -> None:
    source, target = images.data_ptr(), out.data_ptr()
    launch = image_launch(
        form,
        source % 16,
        target % 16,
        with_labels=bool(labels.form),
        by_pointer=_by_pointer(plan),
    )
    if 0 not in launch.grid:
        per_channel = values_per_channel(form)
        table = None if per_channel is None else _table(per_channel, images.device)
        address = 0 if table is None else table.data_ptr()
        batch = batch_parameters(form, source, target, labels, address)
        _run(launch, batch, plan, images.device)


@lru_cache(maxsize=64)
def _table(
    per_channel: tuple[tuple[float, ...], tuple[float, ...]], device: torch.device
) -> torch.Tensor:
    """Means and 1 / std in a GPU's memory, copied there once."""
    if gpu.is_capturing(device):
        raise RuntimeError(
            "output: expected its mean and std on the GPU before a CUDA graph is captured, got "
            f"those of {len(per_channel[0])} channels for the first time; call warm_up before"
        )
    return torch.tensor(per_channel, dtype=torch.float32).to(device)


def _launch_labels(
    arguments: LabelArguments, plan: MixPlan | DevicePlan, device: torch.device
) -> None:
    if len(plan):
        launch = label_launch(len(plan), by_pointer=_by_pointer(plan))
        _run(launch, batch_parameters(None, 0, 0, arguments), plan, device)


def _targets_of(
    labels: torch.Tensor, num_classes: int, label_smoothing: float, targets: str
) -> tuple[LabelArguments, Any]:
    """Memory for the targets of labels on a GPU, and the kernel's arguments."""
    size, device = len(labels), labels.device
    if targets == "pairs":
        pair = torch.empty((2, size), dtype=torch.int64, device=device)
        soft = torch.empty(size, dtype=torch.float32, device=device)
        target: Any = (pair[0], pair[1], soft)
        pair_address = pair.data_ptr()
    else:
        soft = torch.empty((size, num_classes), dtype=torch.float32, device=device)
        target, pair_address = soft, 0
    arguments = LabelArguments(
        _LABEL_KIND[labels.dtype], labels.data_ptr(), soft.data_ptr(), pair_address,
        _report(gpu.index_of(device)).address, num_classes, label_smoothing,
    )  # fmt: skip
    return arguments, target


def _run(
    launch: Launch, batch: bytearray, plan: MixPlan | DevicePlan, device: torch.device
) -> None:
    if isinstance(plan, MixPlan):
        if gpu.is_capturing(device):
            raise RuntimeError(
                "plan: expected a DevicePlan while a CUDA graph is captured, got a MixPlan, which "
                "would be frozen in the graph; give dali_mixup.DevicePlan(plan, device)"
            )
        if _by_pointer(plan):
            plan = DevicePlan(plan, device)
    elif plan.samples.device != device:
        raise ValueError(f"plan: expected on {device}, got on {plan.samples.device}")
    if isinstance(plan, DevicePlan):
        samples: NDArray[Any] = np.array([plan.samples.data_ptr()], np.uint64)
    else:
        samples = plan_parameters(plan)
    gpu.run(launch, (batch, samples), device)


def _by_pointer(plan: MixPlan | DevicePlan) -> bool:
    return isinstance(plan, DevicePlan) or len(plan) > gpu.plan_capacity()


def _pinned(plan: MixPlan, device: torch.device) -> torch.Tensor:
    if gpu.is_capturing(device):
        raise RuntimeError(
            "plan: expected a DevicePlan to be made and updated outside of the capture of a CUDA "
            "graph, which would copy from memory that is freed before the graph runs; make it "
            "before the capture, and call update() before each replay"
        )
    return gpu.pinned(torch.from_numpy(plan_parameters(plan).view(np.uint8)))


# ---- tensors ------------------------------------------------------------------------------------

_LABEL_KIND = {torch.int32: INT32_IDS, torch.int64: INT64_IDS, torch.float32: DENSE_ROWS}


def _prepare(
    images: torch.Tensor, plan: MixPlan | DevicePlan, output: OutputFormat, layout: str
) -> tuple[torch.Tensor, Conversion]:
    """The images in memory that the kernel can read, and their conversion."""
    interleaved = is_channels_last(images, layout)
    if interleaved:
        output = keep_channels_last(output)
    form = output.resolve(tuple(images.shape), dtype_name(images), layout)
    plan.require_fit(form.batch, form.height, form.width)
    if interleaved:
        return images, form._replace(in_layout="HWC")
    return _contiguous(images), form


def _contiguous(tensor: torch.Tensor) -> torch.Tensor:
    """A dense tensor; torch copies no strided uint16, uint32 and uint64."""
    if tensor.is_contiguous():
        return tensor
    bits = {2: torch.int16, 4: torch.int32, 8: torch.int64}.get(tensor.element_size(), tensor.dtype)
    return tensor.view(bits).contiguous().view(tensor.dtype)


def _memory_for(form: Conversion, images: torch.Tensor) -> torch.Tensor:
    dtype = getattr(torch, form.out_dtype)
    return torch.empty(form.memory_shape, dtype=dtype, device=images.device)


def _checked_output(out: torch.Tensor, form: Conversion, images: torch.Tensor) -> torch.Tensor:
    """`out` in the order of its memory."""
    memory = out.permute(0, 2, 3, 1) if form.channels_last and out.ndim == 4 else out
    if (
        tuple(out.shape) != form.out_shape
        or dtype_name(out) != form.out_dtype
        or out.device != images.device
        or not memory.is_contiguous()
    ):
        raise ValueError(
            f"out: expected {form.out_dtype} {form.out_shape}, contiguous "
            f"{form.memory_layout}, on {images.device}, got {_describe(out)}"
        )
    _require_apart(memory, images, "images")
    return memory


def _require_apart(out: torch.Tensor, source: torch.Tensor, name: str) -> None:
    """Both are dense."""
    first, second = sorted((out, source), key=torch.Tensor.data_ptr)
    if second.data_ptr() < first.data_ptr() + first.nbytes:
        raise ValueError(f"out: expected memory of its own, got memory that the {name} share")


def _labels_for(
    images: torch.Tensor, labels: torch.Tensor, batch_size: int, num_classes: int, targets: str
) -> torch.Tensor:
    """The labels on the images' device; those that come from the CPU are checked there."""
    if not isinstance(labels, torch.Tensor):
        raise TypeError(f"labels: expected a torch tensor, got {type(labels).__name__}")
    labels = as_dense(labels, "labels")
    ids = _label_form(labels, batch_size, num_classes).ids
    if targets == "pairs" and not ids:
        raise no_pairs(tuple(labels.shape))
    if labels.device != images.device:
        if labels.device.type != "cpu":
            raise TypeError(f"labels: expected on {images.device} or the CPU, got {labels.device}")
        if gpu.is_capturing(images.device):
            raise RuntimeError(
                f"labels: expected on {images.device} while a CUDA graph is captured, got them on "
                "the CPU; the graph would copy from memory that is freed before it runs. Move them "
                "before the capture"
            )
        if ids:
            class_ids(labels.numpy(), num_classes)
        labels = gpu.pinned(labels).to(images.device, non_blocking=True)
    return _as_the_kernel_reads(labels, ids=ids)


def _label_form(labels: torch.Tensor, batch_size: int, num_classes: int | None) -> LabelForm:
    kind = "f" if labels.is_floating_point() else "b" if labels.dtype == torch.bool else "i"
    return label_form(tuple(labels.shape), kind, batch_size, num_classes)


def _as_the_kernel_reads(labels: torch.Tensor, *, ids: bool) -> torch.Tensor:
    if ids:
        known = labels.dtype in (torch.int32, torch.int64)
        return labels.contiguous() if known else labels.long()
    return labels.float().contiguous()


def _require_cuda(tensor: Any, name: str) -> None:
    if not isinstance(tensor, torch.Tensor) or tensor.device.type != gpu.DEVICE_TYPE:
        got = f"{tensor.device}" if isinstance(tensor, torch.Tensor) else type(tensor).__name__
        raise TypeError(f"{name}: expected a torch tensor on a GPU, got {got}")
    as_dense(tensor, name)


def _describe(tensor: torch.Tensor) -> str:
    return f"{dtype_name(tensor)} {tuple(tensor.shape)} on {tensor.device}"
