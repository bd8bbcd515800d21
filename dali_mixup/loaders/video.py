"""A DALI pipeline for folders of videos: clips, uint8 out. It does not depend on mixup."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

try:
    from nvidia.dali import Pipeline, fn, pipeline_def, types
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        f"dali_mixup.loaders.video needs NVIDIA DALI, and {error.name!r} is missing: "
        "pip install 'dali-mixup[cuda12]' (or [cuda13], or [cpu] for a machine without a GPU)",
        name=error.name,
    ) from error

from dali_mixup.checks import require_choice, require_int, require_range, require_real
from dali_mixup.loaders.pipeline import READER_NAME, require_folder, require_machine

LAYOUTS = ("FHWC", "FCHW")


def video_pipeline(
    root: str | os.PathLike[str],
    batch_size: int,
    frames: int,
    image_size: int = 224,
    device: str = "gpu",
    *,
    stride: int = 1,
    step: int | None = None,
    shard_id: int = 0,
    num_shards: int = 1,
    num_threads: int = 4,
    device_id: int = 0,
    seed: int = 0,
    random_area: tuple[float, float] = (0.08, 1.0),
    random_aspect_ratio: tuple[float, float] = (3 / 4, 4 / 3),
    mirror_probability: float = 0.5,
    output_layout: str = "FHWC",
    **pipeline_options: Any,
) -> Pipeline:
    """Return a training pipeline for videos: clips, randomly cropped, resized and mirrored.

    All frames of a clip are cropped and mirrored alike. The reader is DALI's
    ``fn.experimental.readers.video``. On a CPU, DALI 2.4 decodes MJPEG, VP8 and VP9 in any
    container, and neither H.264 nor HEVC. A file that DALI cannot decode is left out; DALI names
    the codec on the standard error stream.

    Parameters
    ----------
    root : path
        A folder with one folder of videos per class. Class ids follow the sorted folder names.
    batch_size : int >= 1
        The number of clips.
    frames : int >= 1
        Of a clip.
    image_size : int >= 1
        Height and width of the output in pixels.
    device : {"gpu", "cpu"}
        Where videos are decoded and augmented.
    stride : int >= 1
        The distance of a clip's frames in the video; 2 takes every second frame. A clip begins
        where at least ``frames * stride`` frames are left.
    step : int >= 1, optional
        The distance of the first frames of two clips in a video. None: clips do not overlap.
    shard_id, num_shards, num_threads, device_id
        As for :func:`image_pipeline`.
    seed : int >= 0
        The seed of shuffling and augmentation. DALI's reader shuffles all clips once, and then
        within 1,024 of them.
    random_area, random_aspect_ratio, mirror_probability
        As for :func:`image_pipeline`.
    output_layout : {"FHWC", "FCHW"}
        :class:`OutputFormat` makes CFHW, which PyTorch's video models take, while mixing.
    **pipeline_options
        Other arguments of ``nvidia.dali.Pipeline``.

    Returns
    -------
    nvidia.dali.Pipeline
        Each epoch reads every clip of the shard once. The outputs are clips, uint8 RGB of shape
        (frames, image_size, image_size, 3) or as `output_layout` says, on `device`, and labels,
        int32 of shape (1,). The reader is named "Reader", for the iterator's ``reader_name``.

    Raises
    ------
    TypeError, ValueError
        An argument is outside its range above, or there is no GPU.
    FileNotFoundError
        The folder does not exist, or holds no file in a folder of a class.
    """
    for name, value in {"frames": frames, "image_size": image_size, "stride": stride}.items():
        require_int(name, value, least=1)
    if step is not None:
        require_int("step", step, least=1)
    require_int("seed", seed, least=0)
    require_range("random_area", random_area, "(0, 1]", lambda v: 0 < v <= 1)
    require_range(
        "random_aspect_ratio", random_aspect_ratio, "(0, inf)", lambda v: 0 < v < math.inf
    )
    require_real("mirror_probability", mirror_probability, "[0, 1]", lambda v: 0 <= v <= 1)
    require_choice("output_layout", output_layout, LAYOUTS, optional=False)
    require_machine(device, batch_size, num_threads, shard_id, num_shards)
    files, labels = _files_and_labels(root)

    @pipeline_def(
        batch_size=batch_size,
        num_threads=num_threads,
        device_id=device_id if device == "gpu" else None,
        seed=seed,
        **pipeline_options,
    )
    def graph() -> Any:
        clips, class_ids = fn.experimental.readers.video(  # type: ignore[misc]
            device=device,
            filenames=files,
            labels=labels,
            sequence_length=frames,
            stride=stride,
            step=-1 if step is None else step,
            name=READER_NAME,
            random_shuffle=True,
            shard_id=shard_id,
            num_shards=num_shards,
            pad_last_batch=True,
        )
        clips = fn.random_resized_crop(
            clips,
            size=(image_size, image_size),
            random_area=list(random_area),
            random_aspect_ratio=list(random_aspect_ratio),
            num_attempts=100,
            antialias=True,
        )
        clips = fn.crop_mirror_normalize(
            clips,
            dtype=types.UINT8,
            output_layout=output_layout,
            mirror=fn.random.coin_flip(probability=mirror_probability),
        )
        return clips, class_ids

    return graph()


def _files_and_labels(root: str | os.PathLike[str]) -> tuple[list[str], list[int]]:
    """The files of the class folders, and the class id of each."""
    folders = [path for path in sorted(Path(require_folder(root)).iterdir()) if path.is_dir()]
    found = [
        (str(file), label)
        for label, folder in enumerate(folders)
        for file in sorted(folder.iterdir())
        if file.is_file()
    ]
    if not found:
        raise FileNotFoundError(
            f"root: expected videos in one folder a class, got {os.fspath(root)!r} without any"
        )
    files, labels = zip(*found, strict=True)
    return list(files), list(labels)
