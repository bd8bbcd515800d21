"""DALI pipelines for image folders: decoding and augmentation, uint8 out.

They do not depend on mixup. Images leave as uint8, a quarter of the bytes of float32; mixing then
normalises, casts and changes the layout in the same pass.
"""

from __future__ import annotations

import math
import os
from typing import Any

try:
    from nvidia.dali import Pipeline, backend, fn, pipeline_def, types

    from dali_mixup.loaders import augmentation
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        f"dali_mixup.loaders.pipeline needs NVIDIA DALI, and {error.name!r} is missing: "
        "pip install 'dali-mixup[cuda12]' (or [cuda13], or [cpu] for a machine without a GPU)",
        name=error.name,
    ) from error

from dali_mixup.checks import (
    require_choice,
    require_int,
    require_pair,
    require_range,
    require_real,
)

READER_NAME = "Reader"
DEVICES = ("gpu", "cpu")


def image_pipeline(
    root: str | os.PathLike[str],
    batch_size: int,
    image_size: int = 224,
    device: str = "gpu",
    *,
    shard_id: int = 0,
    num_shards: int = 1,
    num_threads: int = 4,
    device_id: int = 0,
    seed: int = 0,
    random_area: tuple[float, float] = (0.08, 1.0),
    random_aspect_ratio: tuple[float, float] = (3 / 4, 4 / 3),
    mirror_probability: float = 0.5,
    augment: str | None = None,
    randaugment: tuple[int, int] | None = None,
    color_jitter: float = 0.0,
    random_erasing: float = 0.0,
    repeated_augmentation: int = 1,
    output_layout: str = "HWC",
    **pipeline_options: Any,
) -> Pipeline:
    """Return a training pipeline: random crop, resize, mirror and, optionally, more augmentation.

    The order is crop and resize, `augment`, `color_jitter`, `random_erasing`, mirror.

    Parameters
    ----------
    root : path
        A folder with one folder of images per class. Class ids follow the sorted folder names.
    batch_size : int >= 1
    image_size : int >= 1
        Height and width of the output in pixels.
    device : {"gpu", "cpu"}
        "gpu" decodes with nvJPEG and augments on the GPU; "cpu" needs no GPU.
    shard_id, num_shards : int
        The part of the data that this process reads, `shard_id` in [0, `num_shards`).
    num_threads : int >= 1
        The number of DALI's CPU threads.
    device_id : int
        The index of the GPU.
    seed : int >= 0
        The seed of augmentation. Give each rank its own: ranks with equal seeds crop and mirror
        alike. The order of the files does not depend on it: DALI shuffles all files anew for each
        epoch, and each rank reads its part of them.
    random_area, random_aspect_ratio : (float, float)
        Ranges of the crop: share of the image's area, in (0, 1], and width over height, above 0.
    mirror_probability : float in [0, 1]
    augment : {"randaugment", "timm-randaugment", "trivialaugment", "3-augment"}, optional
        "randaugment": DALI's ``rand_augment``; torchvision's has the same operations and scale.
        "timm-randaugment": timm's 15 operations, each applied with probability 0.5, without noise
        of the magnitude; its magnitude 9 of 10 is 27 here. "trivialaugment": DALI's
        ``trivial_augment_wide``. "3-augment": grey, solarised at 128 or blurred by a sigma of 0.1
        to 2 pixels (Touvron et al., DeiT III, 2022).
    randaugment : (int, int), optional
        For the first two of `augment`: n >= 1 operations of magnitude m, in 0..30. None is (2, 9),
        with "timm-randaugment" (2, 27), which is timm's m9.
    color_jitter : float >= 0
        Brightness, contrast and saturation are multiplied by factors drawn from
        [max(0, 1 - color_jitter), 1 + color_jitter].
    random_erasing : float in [0, 1]
        The share of images in which a rectangle is replaced by noise with ImageNet's mean and
        standard deviation: 2 to 33 % of the area, aspect ratio 0.3 to 3.3 (Zhong et al., 2020;
        timm's ``remode="pixel"``).
    repeated_augmentation : int >= 1
        Each batch holds so many differently augmented copies of ``batch_size /
        repeated_augmentation`` images (Hoffer et al., 2020). An epoch keeps its length, so that it
        sees a random part of the files. timm's ``RepeatAugSampler`` has the copies
        on different ranks, here they are in one batch.
    output_layout : {"HWC", "CHW"}
        On a CPU "CHW" is faster: DALI transposes faster than numpy.
    **pipeline_options
        Other arguments of ``nvidia.dali.Pipeline``, such as ``enable_checkpointing`` or
        ``prefetch_queue_depth``.

    Returns
    -------
    nvidia.dali.Pipeline
        Each epoch reads every file of the shard once (see `repeated_augmentation`). A short last
        batch is filled with copies of its last sample. ``LastBatchPolicy.PARTIAL`` removes the
        copies, and ``LastBatchPolicy.DROP`` the batch. Files of formats that DALI does not decode
        are left out. The outputs
        are images, uint8 RGB of `image_size` x `image_size` pixels on `device`, and labels, int32
        of shape (1,) on the CPU. The reader is named "Reader", for the iterator's
        ``reader_name``. The attribute ``strong_augmentation`` names `augment` or `color_jitter`,
        for the iterators' warnings.

    Raises
    ------
    TypeError
        An argument is not of the type above.
    ValueError
        An argument is outside its range above, or there is no GPU.
    FileNotFoundError
        The folder does not exist.
    """
    require_int("image_size", image_size, least=1)
    require_int("seed", seed, least=0)
    require_range("random_area", random_area, "(0, 1]", lambda v: 0 < v <= 1)
    require_range(
        "random_aspect_ratio", random_aspect_ratio, "(0, inf)", lambda v: 0 < v < math.inf
    )
    require_real("mirror_probability", mirror_probability, "[0, 1]", lambda v: 0 <= v <= 1)
    require_choice("output_layout", output_layout, ("HWC", "CHW"), optional=False)
    require_choice("augment", augment, augmentation.AUGMENTATIONS)
    if randaugment is not None:
        n, m = require_pair("randaugment", randaugment, "(n, m) or None")
        require_int("randaugment's n", n, least=1)
        require_int("randaugment's m", m, least=0, below=31)
        if augment not in augmentation.STRENGTH:
            raise ValueError(
                "randaugment: expected augment='randaugment' or 'timm-randaugment' beside it, got "
                f"augment={augment!r}"
            )
    require_real("color_jitter", color_jitter, "[0, inf)", lambda v: 0 <= v < math.inf)
    require_real("random_erasing", random_erasing, "[0, 1]", lambda v: 0 <= v <= 1)
    if augment or random_erasing:
        pipeline_options["enable_conditionals"] = True

    def augmented(encoded: Any) -> Any:
        images = fn.decoders.image_random_crop(
            encoded,
            device="mixed" if device == "gpu" else "cpu",
            output_type=types.RGB,
            random_area=list(random_area),
            random_aspect_ratio=list(random_aspect_ratio),
            num_attempts=100,
        )
        images = fn.resize(images, size=(image_size, image_size), antialias=True)
        if augment is not None:
            images = augmentation.augmented(images, augment, randaugment, image_size)
        if color_jitter:
            images = augmentation.color_jittered(images, color_jitter)
        if random_erasing:
            images = augmentation.randomly_erased(images, random_erasing)
        return fn.crop_mirror_normalize(
            images,
            dtype=types.UINT8,
            output_layout=output_layout,
            mirror=fn.random.coin_flip(probability=mirror_probability),
        )

    pipeline = _pipeline(
        root, device, augmented, shuffle=True, repeated_augmentation=repeated_augmentation,
        shard_id=shard_id, num_shards=num_shards,
        batch_size=batch_size, num_threads=num_threads, device_id=device_id, seed=seed,
        **pipeline_options,
    )  # fmt: skip
    jitter = f"color_jitter={color_jitter}" if color_jitter else None
    pipeline.strong_augmentation = augment or jitter  # type: ignore[attr-defined]
    return pipeline


def validation_pipeline(
    root: str | os.PathLike[str],
    batch_size: int,
    image_size: int = 224,
    device: str = "gpu",
    *,
    resize: int = 256,
    shard_id: int = 0,
    num_shards: int = 1,
    num_threads: int = 4,
    device_id: int = 0,
    **pipeline_options: Any,
) -> Pipeline:
    """Return a validation pipeline: resize, then crop the centre, without randomness.

    Images come in the order of the files.

    Parameters
    ----------
    root, batch_size, image_size, device, shard_id, num_shards, num_threads, device_id
        As for :func:`image_pipeline`.
    resize : int >= image_size
        The length of the shorter side, in pixels, before the centre is cropped.
    **pipeline_options
        Other arguments of ``nvidia.dali.Pipeline``.

    Returns
    -------
    nvidia.dali.Pipeline
        Outputs as those of :func:`image_pipeline`.

    Raises
    ------
    TypeError, ValueError, FileNotFoundError
        As :func:`image_pipeline`, or `resize` is below `image_size`.
    """
    require_int("image_size", image_size, least=1)
    require_int("resize", resize, least=1)
    if resize < image_size:
        raise ValueError(f"resize: expected at least image_size, {image_size} pixels, got {resize}")

    def crop(encoded: Any) -> Any:
        images = fn.decoders.image(
            encoded, device="mixed" if device == "gpu" else "cpu", output_type=types.RGB
        )
        images = fn.resize(images, resize_shorter=resize, antialias=True)
        return fn.crop(images, crop=(image_size, image_size))

    return _pipeline(
        root, device, crop, shuffle=False, shard_id=shard_id, num_shards=num_shards,
        batch_size=batch_size, num_threads=num_threads, device_id=device_id, **pipeline_options,
    )  # fmt: skip


def _pipeline(
    root: str | os.PathLike[str],
    device: str,
    images_from: Any,
    *,
    shuffle: bool,
    repeated_augmentation: int = 1,
    batch_size: int,
    shard_id: int,
    num_shards: int,
    num_threads: int,
    device_id: int,
    **options: Any,
) -> Pipeline:
    require_machine(device, batch_size, num_threads, shard_id, num_shards)
    if require_int("repeated_augmentation", repeated_augmentation, least=1) > batch_size:
        raise ValueError(
            f"repeated_augmentation: expected at most batch_size, {batch_size}, got "
            f"{repeated_augmentation}"
        )
    folder = require_folder(root)

    @pipeline_def(
        batch_size=batch_size,
        num_threads=num_threads,
        device_id=device_id if device == "gpu" else None,
        **options,
    )
    def graph() -> Any:
        encoded, labels = fn.readers.file(
            file_root=folder,
            name=READER_NAME,
            shuffle_after_epoch=shuffle,
            shard_id=shard_id,
            num_shards=num_shards,
            pad_last_batch=True,
        )
        if repeated_augmentation > 1:
            distinct = -(-batch_size // repeated_augmentation)
            order = [place % distinct for place in range(batch_size)]
            encoded, labels = (fn.permute_batch(part, indices=order) for part in (encoded, labels))
        return images_from(encoded), labels

    with augmentation.dalis_own_names():
        return graph()


def require_machine(
    device: str, batch_size: int, num_threads: int, shard_id: int, num_shards: int
) -> None:
    """Raise TypeError or ValueError unless a pipeline can run with these settings here."""
    require_int("batch_size", batch_size, least=1)
    require_int("num_threads", num_threads, least=1)
    require_int("num_shards", num_shards, least=1)
    require_int("shard_id", shard_id, least=0, below=num_shards)
    require_choice("device", device, DEVICES, optional=False)
    if device == "gpu" and backend.GetCUDADeviceCount() == 0:  # type: ignore[attr-defined]
        raise ValueError("device: expected 'cpu' on a machine without a GPU, got 'gpu'")


def require_folder(root: str | os.PathLike[str]) -> str:
    """The folder's path; FileNotFoundError where there is none."""
    folder = os.fspath(root)
    if not os.path.isdir(folder):
        raise FileNotFoundError(f"root: expected a folder with one folder a class, got {folder!r}")
    return folder
