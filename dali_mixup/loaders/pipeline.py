"""DALI pipelines for image folders: decoding and geometric augmentation, uint8 out.

They do not depend on mixup. Images leave as uint8, a quarter of the bytes of float32; mixing then
normalises, casts and changes the layout in the same pass.
"""

from __future__ import annotations

import math
import os
from typing import Any

try:
    from nvidia.dali import Pipeline, backend, fn, pipeline_def, types
    from nvidia.dali.auto_aug.rand_augment import rand_augment
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
    randaugment: tuple[int, int] | None = None,
    output_layout: str = "HWC",
    **pipeline_options: Any,
) -> Pipeline:
    """Return a training pipeline: random crop, resize, mirror and, optionally, RandAugment.

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
        The seed of shuffling and augmentation. Give each rank its own: ranks with equal seeds crop
        and mirror alike. The shards do not depend on it.
    random_area, random_aspect_ratio : (float, float)
        Ranges of the crop: share of the image's area, in (0, 1], and width over height, above 0.
    mirror_probability : float in [0, 1]
    randaugment : (int, int), optional
        RandAugment with n >= 1 operations of magnitude m, in 0..30.
    output_layout : {"HWC", "CHW"}
        On a CPU "CHW" is faster: DALI transposes faster than numpy.
    **pipeline_options
        Other arguments of ``nvidia.dali.Pipeline``, such as ``enable_checkpointing`` or
        ``prefetch_queue_depth``.

    Returns
    -------
    nvidia.dali.Pipeline
        Each epoch reads every file of the shard once. A short last batch is filled with copies of
        its last sample, which ``last_batch_policy=LastBatchPolicy.PARTIAL`` removes. The outputs
        are images, uint8 RGB of `image_size` x `image_size` pixels on `device`, and labels, int32
        of shape (1,) on the CPU. The reader is named "Reader", for the iterator's
        ``reader_name``. The attribute ``randaugment`` holds the argument, for the iterators'
        warnings.

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
    if randaugment is not None:
        n, m = require_pair("randaugment", randaugment, "(n, m) or None")
        require_int("randaugment's n", n, least=1)
        require_int("randaugment's m", m, least=0, below=31)
        pipeline_options["enable_conditionals"] = True

    def augment(encoded: Any) -> Any:
        images = fn.decoders.image_random_crop(
            encoded,
            device="mixed" if device == "gpu" else "cpu",
            output_type=types.RGB,
            random_area=list(random_area),
            random_aspect_ratio=list(random_aspect_ratio),
            num_attempts=100,
        )
        images = fn.resize(images, size=(image_size, image_size), antialias=True)
        if randaugment is not None:
            images = rand_augment(images, n=n, m=m, shape=(image_size, image_size))
        return fn.crop_mirror_normalize(
            images,
            dtype=types.UINT8,
            output_layout=output_layout,
            mirror=fn.random.coin_flip(probability=mirror_probability),
        )

    pipeline = _pipeline(
        root, device, augment, shuffle=True, shard_id=shard_id, num_shards=num_shards,
        batch_size=batch_size, num_threads=num_threads, device_id=device_id, seed=seed,
        **pipeline_options,
    )  # fmt: skip
    pipeline.randaugment = randaugment  # type: ignore[attr-defined]
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
    batch_size: int,
    shard_id: int,
    num_shards: int,
    num_threads: int,
    device_id: int,
    **options: Any,
) -> Pipeline:
    require_int("batch_size", batch_size, least=1)
    require_int("num_threads", num_threads, least=1)
    require_int("num_shards", num_shards, least=1)
    require_int("shard_id", shard_id, least=0, below=num_shards)
    require_choice("device", device, DEVICES, optional=False)
    if device == "gpu" and backend.GetCUDADeviceCount() == 0:  # type: ignore[attr-defined]
        raise ValueError("device: expected 'cpu' on a machine without a GPU, got 'gpu'")
    folder = os.fspath(root)
    if not os.path.isdir(folder):
        raise FileNotFoundError(f"root: expected a folder with one folder a class, got {folder!r}")

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
            random_shuffle=shuffle,
            shard_id=shard_id,
            num_shards=num_shards,
            pad_last_batch=True,
        )
        return images_from(encoded), labels

    return graph()
