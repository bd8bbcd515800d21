"""DALI pipelines for image folders: decode and geometric augmentation, uint8 out.

They know nothing of mixup. Pixels leave as uint8, four times fewer bytes than float32; whoever
mixes them normalises, casts and lays them out in the same pass.
"""

from __future__ import annotations

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

from dali_mixup.checks import require_choice, require_int

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
    """A training pipeline: random crop, resize, mirror and, if wanted, RandAugment.

    Parameters
    ----------
    root : path
        A folder with one folder of images a class; class ids follow the folders' sorted names.
    batch_size : int
    image_size : int
        Height and width of the output in pixels.
    device : {"gpu", "cpu"}
        "gpu" decodes with nvJPEG and augments on the GPU; "cpu" needs no GPU.
    shard_id, num_shards : int
        This rank's part of the data.
    num_threads : int
        DALI's CPU threads.
    device_id : int
        The GPU.
    seed : int
        Of the shuffling and the augmentation. Ranks with one seed would crop and mirror alike; with
        a seed each their parts stay apart all the same.
    random_area, random_aspect_ratio : (float, float)
        Of the crop: share of the image's area, width over height.
    mirror_probability : float in [0, 1]
    randaugment : (n, m), optional
        RandAugment with n operations of magnitude m, in 0..30.
    output_layout : {"HWC", "CHW"}
        "CHW" is the faster one on a CPU, where DALI transposes for less than mixing does.
    **pipeline_options
        More for ``nvidia.dali.Pipeline``, such as ``enable_checkpointing`` or
        ``prefetch_queue_depth``.

    Returns
    -------
    nvidia.dali.Pipeline
        Every epoch reads every file of the shard once; a last batch that is short is filled with
        copies of its last sample, which ``last_batch_policy=LastBatchPolicy.PARTIAL`` leaves out.
        Outputs: images, uint8 RGB of `image_size` x `image_size` pixels on `device`, and labels,
        int32 (1,) on the CPU. Its reader is named "Reader", for the iterator's ``reader_name``;
        its attribute ``randaugment`` is the argument, for the iterators' advice.

    Raises
    ------
    FileNotFoundError, ValueError
        No such folder; an unknown device, or a GPU that is not there.
    """

    require_choice("output_layout", output_layout, ("HWC", "CHW"), optional=False)
    if randaugment is not None:
        n, m = randaugment
        require_int("randaugment's n", n, least=1)
        require_int("randaugment's m", m, least=0)
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
    """A validation pipeline: the shorter side to `resize` pixels, then the centre; no randomness.

    Parameters, outputs and errors as :func:`image_pipeline`, in the files' order.
    """
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
    shard_id: int,
    num_shards: int,
    device_id: int,
    **options: Any,
) -> Pipeline:
    require_choice("device", device, DEVICES, optional=False)
    if device == "gpu" and backend.GetCUDADeviceCount() == 0:  # type: ignore[attr-defined]
        raise ValueError("device: expected 'cpu' on a machine without a GPU, got 'gpu'")
    folder = os.fspath(root)
    if not os.path.isdir(folder):
        raise FileNotFoundError(f"root: expected a folder with one folder a class, got {folder!r}")

    @pipeline_def(device_id=device_id if device == "gpu" else None, **options)
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
