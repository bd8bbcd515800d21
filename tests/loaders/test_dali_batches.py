"""Masks, bands, 16 bits, values and heads, through real DALI pipelines on a CPU."""

from dataclasses import replace

import numpy as np
import pytest
from support.requirements import require

import dali_mixup
from dali_mixup import Mixup, OutputFormat, dali_checkpoints
from dali_mixup.backends import reference

dali = require("nvidia.dali")
torch = require("torch", backend="dali")
plugin = require("nvidia.dali.plugin.pytorch", backend="dali")

MixupClassificationIterator = dali_mixup.MixupClassificationIterator
MixupGenericIterator = dali_mixup.MixupGenericIterator
fn, types = dali.fn, dali.types
SIZE = 16, 24
BANDS = 13
CUT = {"alpha": 0, "cutmix_alpha": 1.0, "mode": "elem"}


def pipeline(graph, batch_size=4, **options):
    settings = {"batch_size": batch_size, "num_threads": 2, "device_id": None, "seed": 1}
    return dali.pipeline_def(**(settings | options))(graph)()


@pytest.fixture
def image_files(photo_folder):
    return sorted(map(str, photo_folder.glob("*/*.jpg")))


@pytest.fixture
def mask_files(image_files, tmp_path):
    """PNGs of one channel, each of them the green channel of a photograph of the same name."""
    image_module = require("PIL.Image", backend="dali")
    for number, file in enumerate(image_files):
        green = image_module.open(file).getchannel("G")
        green.save(tmp_path / f"mask_{number:02d}.png")
    return sorted(map(str, tmp_path.glob("mask_*.png")))


def test_masks_of_a_second_reader_are_cut_where_the_images_are(image_files, mask_files):
    """Both readers read in the same order; the mask of a photograph is its green channel."""

    def graph():
        encoded, _ = fn.readers.file(files=image_files, name="Reader")
        encoded_masks, _ = fn.readers.file(files=mask_files)
        images = fn.decoders.image(encoded, output_type=types.RGB)
        masks = fn.decoders.image(encoded_masks, output_type=types.GRAY)
        return fn.crop(images, crop=SIZE), fn.crop(masks, crop=SIZE)

    loader = MixupGenericIterator(
        pipeline(graph), ["image", "mask"], reader_name="Reader",
        last_batch_policy=plugin.LastBatchPolicy.PARTIAL,
        mixup=Mixup(num_classes=None, **CUT), mask_key="mask", plan_key="plan",
    )  # fmt: skip

    sizes = []
    for [batch] in loader:
        assert batch["mask"].dtype == torch.uint8
        assert batch["mask"][..., 0].equal(batch["image"][..., 1])
        sizes.append(len(batch["mask"]))
    assert sizes == [4, 4, 4, 2]
    assert batch["plan"].box.any()


@pytest.mark.filterwarnings("ignore:Please set `reader_name`")  # external sources have none
def test_masks_of_an_external_source_keep_their_integers():
    places = np.arange(6 * 8 * 10).reshape(6, 8, 10)

    def graph():
        numbers = fn.external_source(
            lambda info: places[info.idx_in_epoch % 6], batch=False, dtype=types.INT64
        )
        return fn.cast(fn.stack(numbers, axis=2), dtype=types.FLOAT), numbers

    iterator = MixupGenericIterator(
        pipeline(graph, batch_size=6), ["image", "mask"], size=6, auto_reset=True,
        mixup=Mixup(num_classes=None, layout="HWC", **CUT), mask_key="mask",
    )  # fmt: skip

    [batch] = next(iterator)

    assert batch["mask"].dtype == torch.int64
    assert batch["mask"].equal(batch["image"][..., 0].long())


@pytest.fixture
def band_files(tmp_path):
    """Arrays of 13 bands of 16 bits, as of Sentinel-2, with a value each."""
    rng = np.random.default_rng(0)
    arrays = rng.integers(0, 65536, (8, *SIZE, BANDS), np.uint16)
    for number, array in enumerate(arrays):
        np.save(tmp_path / f"scene_{number}.npy", array)
    return arrays, sorted(map(str, tmp_path.glob("scene_*.npy")))


def test_bands_of_16_bits_are_mixed_with_the_values_of_a_regression(band_files):
    arrays, files = band_files
    values = np.linspace(-3, 5, len(files)).astype(np.float32)
    output = OutputFormat(
        "float32", "CHW", mean=tuple(range(1000, 1000 + BANDS)), std=tuple(range(400, 400 + BANDS))
    )

    def graph():
        number = fn.external_source(
            lambda info: np.array([info.idx_in_epoch % 8]), batch=False, dtype=types.INT64
        )
        scenes = fn.readers.numpy(files=files, name="Reader")
        return scenes, fn.cast(number, dtype=types.FLOAT) * (8.0 / 7) - 3.0

    mixup = Mixup(num_classes=None, layout="HWC", output=output, mode="elem")
    iterator = MixupGenericIterator(
        pipeline(graph), ["image", "value"], reader_name="Reader", mixup=mixup, plan_key="plan"
    )

    for step, [batch] in enumerate(iterator):
        own = slice(4 * step, 4 * step + 4)
        plan = batch["plan"]
        want = reference.blend(arrays[own], plan, output, layout="HWC")
        assert batch["image"].numpy().tobytes() == want.tobytes()
        rows = values[own, None]
        lam = plan.lam[:, None]
        np.testing.assert_allclose(
            batch["value"].numpy(), lam * rows + (1 - lam) * rows[plan.partner], atol=1e-5
        )
    assert step == 1


def test_heads_are_outputs_of_a_pipeline(image_files):
    def graph():
        encoded, make = fn.readers.file(
            files=image_files, labels=list(range(len(image_files))), name="Reader"
        )
        images = fn.resize(fn.decoders.image(encoded, output_type=types.RGB), size=SIZE)
        return images, make, make & 1

    iterator = MixupGenericIterator(
        pipeline(graph), ["image", "make", "color"], reader_name="Reader",
        mixup=Mixup(num_classes={"make": 14, "color": 2}, mode="elem"), plan_key="plan",
    )  # fmt: skip

    for [batch] in iterator:
        assert batch["make"].shape[1:] == (14,)
        folded = batch["make"].numpy() @ (np.arange(14)[:, None] % 2 == np.arange(2))
        np.testing.assert_allclose(batch["color"].numpy(), folded, atol=1e-6)


def test_a_schedule_of_alpha_goes_on_after_a_resume(image_files):
    """As in stages of training: other settings in every epoch."""

    def build(checkpoint=None):
        def graph():
            encoded, labels = fn.readers.file(
                files=image_files, labels=list(range(14)), name="Reader", random_shuffle=True
            )
            images = fn.decoders.image(encoded, output_type=types.RGB)
            return fn.resize(images, size=SIZE), labels

        pipe = pipeline(graph, enable_checkpointing=True, **(
            {} if checkpoint is None else {"checkpoint": checkpoint}
        ))  # fmt: skip
        return MixupClassificationIterator(
            pipe, reader_name="Reader", auto_reset=True,
            mixup=Mixup(num_classes=14, alpha=0.1, seed=3),
        )  # fmt: skip

    def copies(iterator):
        return [{key: part.clone() for key, part in batch.items()} for [batch] in iterator]

    loader = build()
    copies(loader)
    loader.mixup = replace(loader.mixup, alpha=0.7, cutmix_alpha=1.0)
    next(iter(loader))
    state = loader.state_dict()
    want = copies(loader)

    [checkpoint] = dali_checkpoints(state)
    resumed = build(checkpoint)
    assert resumed.mixup == loader.mixup  # DALI's own checkpoint holds the change
    resumed.load_state_dict(state)

    assert resumed.mixup == loader.mixup
    for got, wanted in zip(copies(resumed), want, strict=True):
        assert got["data"].equal(wanted["data"])
        assert got["label"].equal(wanted["label"])


def test_an_iterator_without_mixup_takes_none_later(image_files):
    def graph():
        encoded, labels = fn.readers.file(files=image_files, name="Reader")
        images = fn.decoders.image(encoded, output_type=types.RGB)
        return fn.resize(images, size=SIZE), labels

    iterator = MixupClassificationIterator(pipeline(graph), reader_name="Reader")

    assert iterator.mixup is None
    with pytest.raises(ValueError, match="expected an iterator that was made with a Mixup"):
        iterator.mixup = Mixup(num_classes=3)
