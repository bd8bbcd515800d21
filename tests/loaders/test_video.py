"""Clips through real DALI pipelines: a folder of videos, or any pipeline that makes frames."""

import itertools

import numpy as np
import pytest
from support.requirements import require

import dali_mixup
from dali_mixup import Mixup, MixupLoader, OutputFormat
from dali_mixup.backends import cpu
from dali_mixup.output import CLIPS

dali = require("nvidia.dali")
torch = require("torch", backend="dali")
plugin = require("nvidia.dali.plugin.pytorch", backend="dali")
require("PIL.Image", backend="dali")

from support.videos import write_video  # noqa: E402

fn = dali.fn
LENGTH, HEIGHT, WIDTH = 12, 32, 48
WHOLE = {"random_area": (1, 1), "random_aspect_ratio": (1.5, 1.5), "mirror_probability": 0}


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    """Three classes of two videos; in each, a frame is as bright as its number says."""
    root = tmp_path_factory.mktemp("videos")
    for number in range(6):
        folder = root / f"class_{number // 2}"
        folder.mkdir(exist_ok=True)
        levels = 20 * np.arange(LENGTH, dtype=np.uint8)[:, None, None, None]
        frames = np.broadcast_to(levels + number, (LENGTH, HEIGHT, WIDTH, 3))
        write_video(folder / f"{number}.avi", frames)
    return root


@pytest.fixture
def pipelines(videos):
    def make(**options):
        defaults = {"batch_size": 2, "frames": 4, "image_size": 24, "device": "cpu"}
        return dali_mixup.video_pipeline(videos, **(defaults | {"num_threads": 2} | options))

    return make


def all_of(pipe, **options):
    """Clips and labels of one epoch."""
    iterator = plugin.DALIGenericIterator(
        pipe, ["data", "label"], reader_name="Reader",
        last_batch_policy=plugin.LastBatchPolicy.PARTIAL, **options,
    )  # fmt: skip
    batches = [(part["data"].clone(), part["label"].clone()) for (part,) in iterator]
    clips, labels = zip(*batches, strict=True)
    return torch.cat(clips), torch.cat(labels).flatten()


@pytest.mark.parametrize(
    ("options", "first"),
    [
        ({}, (0, 4, 8)),
        ({"stride": 3}, (0,)),
        ({"step": 2}, (0, 2, 4, 6, 8)),
        ({"step": 3, "stride": 2}, (0, 3)),
    ],
)
def test_an_epoch_has_every_clip_once_with_its_frames_in_order(pipelines, options, first):
    clips, labels = all_of(pipelines(**WHOLE, **options))

    levels = (clips.float().mean((2, 3, 4)) / 20).floor().int()
    stride = options.get("stride", 1)
    wanted = [[start + stride * k for k in range(4)] for start in first] * 6
    assert sorted(levels.tolist()) == sorted(wanted)
    assert labels.bincount().tolist() == [2 * len(first)] * 3


@pytest.mark.parametrize(("layout", "shape"), [("FHWC", (4, 24, 24, 3)), ("FCHW", (4, 3, 24, 24))])
def test_clips_have_the_layout_that_is_asked_for(pipelines, layout, shape):
    clips, _ = all_of(pipelines(output_layout=layout))

    assert (clips.dtype, clips.shape[1:]) == (torch.uint8, shape)


def test_the_frames_of_a_clip_are_cropped_and_mirrored_alike(tmp_path):
    (tmp_path / "class").mkdir()
    picture = np.random.default_rng(0).integers(0, 256, (8, 12, 3), np.uint8)
    frames = np.broadcast_to(picture.repeat(4, 0).repeat(4, 1), (8, HEIGHT, WIDTH, 3))
    write_video(tmp_path / "class" / "still.avi", np.ascontiguousarray(frames))

    clips, _ = all_of(
        dali_mixup.video_pipeline(tmp_path, 4, 4, 24, "cpu", step=1, num_threads=1, seed=1)
    )

    assert (clips == clips[:, :1]).all()
    assert not (clips[0] == clips[1]).all()


@pytest.mark.parametrize("shards", [1, 2])
def test_shards_share_the_clips(pipelines, shards):
    counts = [
        len(all_of(pipelines(**WHOLE, shard_id=shard, num_shards=shards))[0])
        for shard in range(shards)
    ]

    assert sum(counts) == 18


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"frames": 0}, "frames: expected at least 1, got 0"),
        ({"stride": 0}, "stride: expected at least 1, got 0"),
        ({"step": 0}, "step: expected at least 1, got 0"),
        ({"output_layout": "CFHW"}, "output_layout: expected one of 'FHWC', 'FCHW', got 'CFHW'"),
        ({"device": "cuda"}, "device: expected one of 'gpu', 'cpu'"),
        ({"random_area": (0, 2)}, "random_area: expected"),
        ({"shard_id": 1}, "shard_id: expected"),
    ],
)
def test_bad_settings_are_refused(pipelines, options, message):
    with pytest.raises(ValueError, match=message):
        pipelines(**options)


def test_a_folder_without_videos_is_refused(tmp_path):
    (tmp_path / "class").mkdir()
    for folder in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(FileNotFoundError, match="root: expected"):
            dali_mixup.video_pipeline(folder, 2, 4, 24, "cpu")


def test_the_graph_for_a_gpu_fits_dalis_own_schemas(pipelines, monkeypatch):
    backend = dali.backend
    monkeypatch.setattr(backend, "GetCUDADeviceCount", lambda: 1)

    pipe = pipelines(device="gpu")
    pipe._build_graph()

    for each in pipe._ops:
        each.check_args()
        assert each._op.device == "cpu" or each._op.schema.Name() in backend.RegisteredGPUOps()
    assert pipe._graph_out[0].device == "gpu"


# ---- mixed --------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", ["FHWC", "FCHW"])
def test_an_iterator_mixes_clips_as_the_reference_does(pipelines, layout):
    output = OutputFormat(dtype="float16", layout="CFHW", mean=127.0, std=60.0)
    mixup = Mixup(num_classes=3, cutmix_alpha=1.0, mode="elem", output=output, layout=layout)
    make = lambda: pipelines(output_layout=layout, seed=4)  # noqa: E731
    plain = plugin.DALIGenericIterator(make(), ["data", "label"], reader_name="Reader")
    loader = dali_mixup.MixupGenericIterator(
        make(), ["data", "label"], reader_name="Reader", mixup=mixup, plan_key="plan"
    )

    for (got,), (raw,) in zip(loader, plain, strict=True):
        want, soft = cpu.mix(
            raw["data"].numpy(), raw["label"].numpy(), got["plan"], output,
            layout=layout, num_classes=3, label_smoothing=0.0, targets="soft",
        )  # fmt: skip
        assert got["data"].shape[1:] == (3, 4, 24, 24)
        assert got["data"].numpy().tobytes() == want.tobytes()
        assert got["label"].numpy().tobytes() == soft.tobytes()


@pytest.mark.filterwarnings("ignore:Please set `reader_name`")
def test_a_loader_of_clips_from_another_source_is_wrapped():
    @dali.pipeline_def(batch_size=4, num_threads=1, device_id=None)
    def graph():
        frames = fn.random.uniform(range=(0, 255), shape=(5, 8, 8, 3), dtype=dali.types.UINT8)
        return fn.reshape(frames, layout="FHWC"), fn.random.uniform(
            range=(0, 2), shape=(1,), dtype=dali.types.INT32
        )

    mixup = Mixup(num_classes=3, output=OutputFormat(layout="CFHW", dtype="float32"))
    iterator = plugin.DALIGenericIterator(graph(), ["data", "label"], size=8)

    batches = list(MixupLoader(iterator, mixup))

    assert [part["data"].shape for (part,) in batches] == [(4, 3, 5, 8, 8)] * 2
    assert [part["label"].shape for (part,) in batches] == [(4, 3)] * 2


@pytest.mark.parametrize(("layout", "out"), list(itertools.product(CLIPS, CLIPS)))
def test_torch_tensors_of_clips_are_mixed_as_arrays_are(layout, out):
    sides = {"F": 5, "C": 3, "H": 8, "W": 9}
    clips = np.random.default_rng(0).integers(
        0, 256, (4, *(sides[axis] for axis in layout)), np.uint8
    )
    mixup = Mixup(num_classes=4, layout=layout, output=OutputFormat("bfloat16", out))
    plan = mixup.plan(4, (8, 9))

    of_array, _ = mixup(clips, np.arange(4), plan=plan)
    of_tensor, _ = mixup(torch.from_numpy(clips), torch.arange(4), plan=plan)

    assert of_tensor.view(torch.int16).numpy().tobytes() == of_array.tobytes()
