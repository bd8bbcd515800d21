"""The pipelines for image folders: what they deliver, from what, and what they refuse."""

import ast
import sys
import warnings
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
from support.requirements import require

import dali_mixup
from dali_mixup.recipes import RECIPES

require("nvidia.dali")
torch = require("torch", backend="dali")
plugin = require("nvidia.dali.plugin.pytorch", backend="dali")
Image = require("PIL.Image", backend="dali")

PARTIAL = plugin.LastBatchPolicy.PARTIAL
KINDS = ("image_pipeline", "validation_pipeline")
WHOLE_PHOTO = {
    "random_area": (1, 1),
    "random_aspect_ratio": (4 / 3, 4 / 3),
    "mirror_probability": 0,
}


@pytest.fixture
def pipelines(photo_folder):
    """Makes one of the two pipelines over the photographs, small and on the CPU."""

    def make(kind="image_pipeline", folder=photo_folder, **options):
        if kind == "validation_pipeline":
            options = {"resize": 28, **options}
        options = {"batch_size": 4, "image_size": 24, "device": "cpu", "num_threads": 2, **options}
        return getattr(dali_mixup, kind)(folder, **options)

    return make


def epoch_of(pipe):
    """All the images and labels that one pass delivers."""
    batches = [
        (part["data"].clone(), part["label"].clone())
        for (part,) in plugin.DALIClassificationIterator(
            pipe, reader_name="Reader", last_batch_policy=PARTIAL
        )
    ]
    images, labels = zip(*batches, strict=True)
    return torch.cat(images), torch.cat(labels)


def as_bytes(images):
    return sorted(image.numpy().tobytes() for image in images)


@pytest.mark.parametrize("kind", KINDS)
def test_a_pass_delivers_every_photo_as_bytes_with_its_folders_number(pipelines, kind):
    images, labels = epoch_of(pipelines(kind))

    assert images.dtype == torch.uint8
    assert images.shape == (14, 24, 24, 3)
    assert labels.dtype == torch.int32
    assert labels.shape == (14, 1)
    assert labels.flatten().bincount().tolist() == [5, 5, 4]


@pytest.mark.parametrize("kind", KINDS)
def test_the_pixels_of_a_photo_survive(pipelines, kind):
    images, _ = epoch_of(pipelines(kind))

    spread = images.float().std(dim=(1, 2))

    assert len(set(as_bytes(images))) == 14
    assert spread.min() > 1


@pytest.mark.parametrize(
    ("kind", "options", "box"),
    [
        ("image_pipeline", WHOLE_PHOTO, (0, 0, 64, 48)),
        ("validation_pipeline", {"resize": 24}, (8, 0, 56, 48)),
    ],
    ids=KINDS,
)
def test_colours_are_red_green_and_blue(pipelines, photo_folder, kind, options, box):
    photo = require("PIL.Image", backend="dali").open
    paths = photo_folder.glob("*/*.jpg")
    means = np.array([np.asarray(photo(path).crop(box)).mean((0, 1)) for path in paths])

    images, _ = epoch_of(pipelines(kind, **options))

    distance = np.abs(images.numpy().mean((1, 2))[:, None] - means).max(2)
    assert (distance < 2).sum(0).tolist() == [1] * 14


@pytest.mark.parametrize("kind", KINDS)
def test_the_iterators_that_mix_take_the_pipeline_by_its_readers_name(pipelines, kind):
    mixup = dali_mixup.Mixup(num_classes=3)

    iterator = dali_mixup.MixupClassificationIterator(
        pipelines(kind), reader_name="Reader", last_batch_policy=PARTIAL, mixup=mixup
    )

    shapes = [(tuple(part["data"].shape), tuple(part["label"].shape)) for (part,) in iterator]
    assert shapes == [((4, 24, 24, 3), (4, 3))] * 3 + [((2, 24, 24, 3), (2, 3))]


@pytest.mark.parametrize(
    ("kind", "options"), [("image_pipeline", WHOLE_PHOTO), ("validation_pipeline", {})]
)
def test_shards_cover_the_photos_exactly(pipelines, kind, options):
    shards = [
        epoch_of(pipelines(kind, shard_id=shard, num_shards=3, **options))[0] for shard in range(3)
    ]

    whole, _ = epoch_of(pipelines(kind, **options))

    assert sorted(map(len, shards)) == [4, 5, 5]
    assert as_bytes(torch.cat(shards)) == as_bytes(whole)


def test_folders_are_numbered_in_the_order_of_their_names(tmp_path, photo_folder, pipelines):
    photos = sorted(photo_folder.glob("*/*.jpg"))[:3]
    for name, photo in zip("cab", photos, strict=True):
        (tmp_path / name).mkdir()
        (tmp_path / name / "photo.jpg").write_bytes(photo.read_bytes())
    unsorted, _ = epoch_of(pipelines("validation_pipeline"))

    images, labels = epoch_of(pipelines("validation_pipeline", folder=tmp_path))

    assert labels.flatten().tolist() == [0, 1, 2]
    assert torch.equal(images, unsorted[[1, 2, 0]])


def test_a_folder_may_be_given_as_text(photo_folder, pipelines):
    as_path = epoch_of(pipelines("validation_pipeline"))

    as_text = epoch_of(pipelines("validation_pipeline", folder=str(photo_folder)))

    assert torch.equal(as_text[0], as_path[0])


@pytest.mark.parametrize("options", [{}, {"seed": 3}, {"seed": 3, "augment": "randaugment"}])
def test_the_same_seed_delivers_the_same_bytes(pipelines, options):
    first, again = (epoch_of(pipelines(**options)) for _ in range(2))

    assert torch.equal(first[0], again[0])
    assert torch.equal(first[1], again[1])


def test_another_seed_delivers_other_crops_in_the_same_order(pipelines):
    (images, labels), (other_images, other_labels) = (
        epoch_of(pipelines(seed=seed)) for seed in (3, 4)
    )

    assert not set(as_bytes(images)) & set(as_bytes(other_images))
    assert labels.tolist() == other_labels.tolist()


@pytest.fixture(scope="module")
def numbered_images(tmp_path_factory):
    """More images than DALI's buffer for shuffling holds; the colour of each is its number."""
    folder = tmp_path_factory.mktemp("numbered")
    (folder / "class").mkdir()
    for number in range(3000):
        colour = number // 256, number % 256, 0
        Image.new("RGB", (2, 2), colour).save(folder / "class" / f"{number:04}.bmp")
    return folder


def test_each_epoch_has_another_order_and_the_ranks_share_the_images(numbered_images):
    orders = []
    for rank in range(2):
        pipe = dali_mixup.image_pipeline(
            numbered_images, 100, 2, "cpu", shard_id=rank, num_shards=2, seed=rank
        )
        iterator = plugin.DALIClassificationIterator(pipe, reader_name="Reader", auto_reset=True)
        orders.append([
            np.concatenate([batch["data"][:, 0, 0, :2].numpy() @ [256, 1] for (batch,) in iterator])
            for _ in range(2)
        ])  # fmt: skip

    for first, second in zip(*orders, strict=True):
        assert sorted([*first, *second]) == list(range(3000))
    for first, second in orders:
        # Neighbours in one epoch are no neighbours in the next.
        common = sorted({*first} & {*second})
        places = [[list(order).index(number) for number in common] for order in (first, second)]
        assert abs(np.corrcoef(places)[0, 1]) < 0.2


def test_the_next_epoch_has_other_crops(pipelines):
    iterator = plugin.DALIClassificationIterator(
        pipelines(batch_size=7), reader_name="Reader", auto_reset=True
    )

    first, second = ([part["data"].clone() for (part,) in iterator] for _ in range(2))

    assert not set(as_bytes(torch.cat(first))) & set(as_bytes(torch.cat(second)))


def test_crops_have_the_area_that_was_asked_for(pipelines):
    whole, _ = epoch_of(pipelines(**WHOLE_PHOTO))
    narrow, _ = epoch_of(pipelines(**{**WHOLE_PHOTO, "random_area": (0.02, 0.05)}))

    def spread(images):
        return images.float().std(dim=(1, 2)).mean()

    assert spread(narrow) < spread(whole) / 2


def test_every_photo_can_be_mirrored(pipelines):
    plain, mirrored = (
        epoch_of(pipelines(**{**WHOLE_PHOTO, "mirror_probability": share}))[0] for share in (0, 1)
    )

    assert torch.equal(mirrored, plain.flip(2))


@pytest.mark.parametrize(
    "options",
    [
        {"augment": "randaugment"},
        {"augment": "timm-randaugment", "randaugment": (2, 27)},
        {"augment": "trivialaugment"},
        {"augment": "3-augment"},
        {"color_jitter": 0.4},
        {"random_erasing": 1.0},
    ],
    ids=str,
)
def test_augmentation_changes_pixels_and_nothing_else(pipelines, options):
    plain, labels = epoch_of(pipelines())

    augmented, same_labels = epoch_of(pipelines(**options))

    assert augmented.shape == plain.shape
    assert augmented.dtype == torch.uint8
    assert torch.equal(labels, same_labels)
    assert not torch.equal(augmented, plain)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({}, {"n": 2, "m": 9, "shape": (24, 24)}),
        ({"randaugment": (3, 17)}, {"n": 3, "m": 17, "shape": (24, 24)}),
    ],
)
def test_randaugment_gets_its_number_and_its_magnitude(pipelines, monkeypatch, options, told):
    got = {}
    module = import_module("dali_mixup.loaders.augmentation")
    monkeypatch.setattr(module, "rand_augment", lambda images, **how: got.update(how) or images)

    pipelines(augment="randaugment", **options)

    assert got == told


ENHANCE = {"Color": "color", "Brightness": "brightness", "Contrast": "contrast"}
TIMMS = ENHANCE | {
    "Sharpness": "sharpness", "Rotate": "rotate", "ShearX": "shear_x", "ShearY": "shear_y",
    "TranslateXRel": "translate_x", "TranslateYRel": "translate_y", "Posterize": "posterize",
    "Solarize": "solarize", "SolarizeAdd": "solarize_add", "AutoContrast": "auto_contrast",
    "Equalize": "equalize", "Invert": "invert",
}  # fmt: skip


def test_timms_randaugment_has_timms_operations_and_strength(monkeypatch):
    timm = require("timm.data.auto_augment", "timm")
    monkeypatch.setattr(timm, "_randomly_negate", lambda value: value)
    module = import_module("dali_mixup.loaders.augmentation")

    ours = {found.name: found for found in module.timm_operations()}

    assert len(module.timm_operations()) == 30  # 15 of them "identity"
    assert set(ours) == {"identity", *TIMMS.values()}
    for theirs in timm._RAND_INCREASING_TRANSFORMS:
        name = theirs.removesuffix("Increasing")
        if (level := timm.LEVEL_TO_ARG[theirs]) is None:
            continue
        strongest = level(10, {"translate_pct": 0.45})[0] - (name in {*ENHANCE, "Sharpness"})
        assert ours[TIMMS[name]].mag_range[1] == pytest.approx(strongest), name
        assert ours[TIMMS[name]].randomly_negate == (name not in list(TIMMS)[9:]), name


def test_names_that_dali_deprecates_itself_are_not_the_users_concern(pipelines, monkeypatch):
    module = import_module("dali_mixup.loaders.augmentation")

    def loud(images, **_):
        warnings.warn("nvidia.dali.fn.experimental.filter is now deprecated", stacklevel=2)
        warnings.warn("something else", stacklevel=2)
        return images

    monkeypatch.setattr(module, "rand_augment", loud)

    with pytest.warns(UserWarning, match="something else") as said:
        pipelines(augment="randaugment")

    assert len(said) == 1


def test_3_augment_is_grey_solarised_or_blurred(pipelines):
    plain, _ = epoch_of(pipelines(batch_size=14, **WHOLE_PHOTO))
    plain = plain.float()

    kinds = set()
    for seed in range(3):
        augmented, _ = epoch_of(
            pipelines(batch_size=14, augment="3-augment", seed=seed, **WHOLE_PHOTO)
        )
        for image in augmented.float():
            grey = (image.amax(2) - image.amin(2)).max() <= 2
            solarised = torch.where(plain >= 128, 255 - plain, plain)
            inverted = (solarised - image).abs().amax((1, 2, 3)).min() <= 1
            kinds.add("grey" if grey else "solarised" if inverted else "blurred")

    assert kinds == {"grey", "solarised", "blurred"}


@pytest.mark.parametrize("strength", [0.4, 3.0])
def test_colour_jitter_draws_brightness_up_to_its_strength(pipelines, monkeypatch, strength):
    ranges = []
    fn = import_module("dali_mixup.loaders.augmentation").fn
    uniform = fn.random.uniform
    monkeypatch.setattr(
        fn.random, "uniform", lambda **how: ranges.append(how["range"]) or uniform(**how)
    )

    pipelines(color_jitter=strength)

    assert ranges == [[max(0.0, 1 - strength), 1 + strength]] * 3


def test_random_erasing_replaces_one_rectangle_of_its_size_by_noise(pipelines):
    options = {"batch_size": 14, "image_size": 96, **WHOLE_PHOTO}
    plain, _ = epoch_of(pipelines(**options))
    smooth = (plain.float().diff(dim=2).abs().amax(3) > 60).float().mean((1, 2))
    assert smooth.max() < 0.05

    images, _ = epoch_of(pipelines(random_erasing=1.0, **options))

    for image in images:
        untouched = (image == plain).all(3).float().mean((1, 2)).max()
        erased = ~(image == plain[(image == plain).all(3).float().mean((1, 2)).argmax()]).all(2)
        rows, columns = erased.any(1).nonzero().flatten(), erased.any(0).nonzero().flatten()
        height, width = (int(along[-1] - along[0]) + 1 for along in (rows, columns))
        assert 0.015 < height * width / 96**2 < 0.36
        assert 0.25 < height / width < 4 or 96 in (height, width)
        assert untouched == pytest.approx(1 - height * width / 96**2, abs=0.01)
        hole = image[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].float()
        assert hole.std((0, 1)).min() > 40


def test_random_erasing_touches_its_share_of_the_images(pipelines):
    options = {"batch_size": 14, "image_size": 32, **WHOLE_PHOTO}
    plain, _ = epoch_of(pipelines(**options))
    originals = set(as_bytes(plain))

    images = [
        image for seed in range(30)
        for image in as_bytes(epoch_of(pipelines(random_erasing=0.25, seed=seed, **options))[0])
    ]  # fmt: skip

    assert np.mean([image not in originals for image in images]) == pytest.approx(0.25, abs=0.08)


@pytest.mark.parametrize("batch_size", [6, 7])
def test_repeated_augmentation_delivers_copies_of_fewer_photos(pipelines, batch_size):
    options = {"batch_size": batch_size, **WHOLE_PHOTO}
    pipe = pipelines(repeated_augmentation=3, **options)
    mirrored = pipelines(repeated_augmentation=3, **options | {"mirror_probability": 0.5})

    images, labels = epoch_of(pipe)

    assert len(images) == len(labels) == 14
    whole = [image.numpy().tobytes() for image in images[: 14 // batch_size * batch_size]]
    for at in range(0, len(whole), batch_size):
        batch = whole[at : at + batch_size]
        distinct = -(-batch_size // 3)
        assert len(set(batch)) == distinct
        assert batch == [batch[place % distinct] for place in range(batch_size)]
    assert len(set(as_bytes(epoch_of(mirrored)[0]))) > len(set(as_bytes(images)))


def test_repeated_augmentation_sees_other_photos_in_the_next_epoch(pipelines):
    pipe = pipelines(batch_size=14, repeated_augmentation=7, **WHOLE_PHOTO)
    iterator = plugin.DALIClassificationIterator(pipe, reader_name="Reader", auto_reset=True)

    seen = [set(as_bytes(next(iter(iterator))[0]["data"])) for _ in range(8)]

    assert all(len(photos) == 2 for photos in seen)
    assert len(set().union(*seen)) > 4


def test_copies_have_their_own_labels(pipelines, photo_folder):
    plain, labels = epoch_of(pipelines(**WHOLE_PHOTO))
    label_of = {
        image.numpy().tobytes(): int(label) for image, label in zip(plain, labels, strict=True)
    }

    images, labels = epoch_of(pipelines(batch_size=6, repeated_augmentation=3, **WHOLE_PHOTO))

    assert [label_of[image.numpy().tobytes()] for image in images] == labels.flatten().tolist()


def test_validation_goes_in_the_files_order_and_is_the_same_each_time(pipelines):
    first, labels = epoch_of(pipelines("validation_pipeline"))
    again, _ = epoch_of(pipelines("validation_pipeline", batch_size=14, num_threads=1))

    assert labels.flatten().tolist() == [0] * 5 + [1] * 5 + [2] * 4
    assert torch.equal(first, again)


def test_validation_takes_the_centre_of_the_shorter_side(pipelines):
    larger, _ = epoch_of(pipelines("validation_pipeline", resize=28, image_size=28))

    centre, _ = epoch_of(pipelines("validation_pipeline", resize=28, image_size=24))

    assert torch.equal(centre, larger[:, 2:-2, 2:-2])


@pytest.mark.parametrize("kind", KINDS)
def test_more_options_go_to_dalis_pipeline(pipelines, kind):
    pipe = pipelines(kind, exec_dynamic=False, prefetch_queue_depth=3)

    assert pipe.exec_dynamic is False
    assert pipe.prefetch_queue_depth == 3
    assert pipe.device_id is None


@pytest.mark.parametrize("kind", KINDS)
def test_a_folder_that_is_not_there_is_refused(pipelines, tmp_path, kind):
    with pytest.raises(FileNotFoundError, match=r"root: expected a folder .*, got '.*nowhere'"):
        pipelines(kind, folder=tmp_path / "nowhere")


def test_a_centre_larger_than_the_resized_image_is_refused(pipelines):
    message = "resize: expected at least image_size, 32 pixels, got 24"

    with pytest.raises(ValueError, match=message):
        pipelines("validation_pipeline", image_size=32, resize=24)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"image_size": -5}, ValueError, "image_size: expected at least 1, got -5"),
        ({"image_size": 24.0}, TypeError, "image_size: expected an int, got 24.0"),
        ({"batch_size": 0}, ValueError, "batch_size: expected at least 1, got 0"),
        ({"num_threads": 0}, ValueError, "num_threads: expected at least 1, got 0"),
        ({"num_shards": 0}, ValueError, "num_shards: expected at least 1, got 0"),
        ({"shard_id": -1}, ValueError, "shard_id: expected at least 0, got -1"),
        ({"shard_id": 2, "num_shards": 2}, ValueError, "shard_id: expected less than 2, got 2"),
    ],
    ids=str,
)
def test_sizes_and_counts_outside_their_range_are_refused(pipelines, kind, options, error, message):
    with pytest.raises(error, match=message):
        pipelines(kind, **options)


@pytest.mark.parametrize(
    ("option", "value", "error", "message"),
    [
        ("seed", -1, ValueError, "expected at least 0, got -1"),
        ("mirror_probability", 2, ValueError, r"expected a value in \[0, 1\], got 2"),
        ("mirror_probability", float("nan"), ValueError, r"expected a value in \[0, 1\], got nan"),
        ("mirror_probability", "0.5", TypeError, "expected a number, got '0.5'"),
        ("random_area", (0, 0), ValueError, r"expected a value in \(0, 1\], got 0"),
        ("random_area", (0.5, 1.5), ValueError, r"expected a value in \(0, 1\], got 1.5"),
        ("random_area", (0.9, 0.1), ValueError, r"expected the smaller number first, got \(0.9"),
        ("random_area", 0.5, TypeError, "expected a pair of numbers, got 0.5"),
        ("random_area", (0.1, 0.2, 0.3), TypeError, r"expected a pair of numbers, got \(0.1"),
        ("random_area", ("a", 1), TypeError, "expected a number, got 'a'"),
        ("random_aspect_ratio", (0, 1), ValueError, r"expected a value in \(0, inf\), got 0"),
        ("random_aspect_ratio", (1, float("inf")), ValueError, r"in \(0, inf\), got inf"),
        ("random_aspect_ratio", (2, 1), ValueError, "expected the smaller number first, got"),
        ("augment", "autoaugment", ValueError, "expected one of 'randaugment', .* got 'autoa"),
        ("augment", 9, ValueError, "expected one of 'randaugment', .* got 9"),
        ("color_jitter", -0.1, ValueError, r"expected a value in \[0, inf\), got -0.1"),
        ("color_jitter", (0.4, 0.4), TypeError, r"expected a number, got \(0.4"),
        ("random_erasing", 1.5, ValueError, r"expected a value in \[0, 1\], got 1.5"),
        ("repeated_augmentation", 0, ValueError, "expected at least 1, got 0"),
        ("repeated_augmentation", 5, ValueError, "expected at most batch_size, 4, got 5"),
        ("repeated_augmentation", 1.5, TypeError, "expected an int, got 1.5"),
        ("randaugment", (2, 9), ValueError, "augment='randaugment' .* got augment=None"),
        ("randaugment", 9, TypeError, r"expected \(n, m\) or None, got 9"),
        ("randaugment", (2, 9, 1), TypeError, r"expected \(n, m\) or None, got \(2, 9, 1\)"),
        ("randaugment", (0, 9), ValueError, "'s n: expected at least 1, got 0"),
        ("randaugment", (2, 9.5), TypeError, "'s m: expected an int, got 9.5"),
        ("randaugment", (2, -1), ValueError, "'s m: expected at least 0, got -1"),
        ("randaugment", (2, 31), ValueError, "'s m: expected less than 31, got 31"),
    ],
)
def test_settings_of_the_augmentation_outside_their_range_are_refused(
    pipelines, option, value, error, message
):
    with pytest.raises(error, match=f"^{option}.*{message}"):
        pipelines(**{option: value})


@pytest.mark.parametrize(
    ("resize", "error", "message"),
    [
        (-1, ValueError, "resize: expected at least 1, got -1"),
        (28.5, TypeError, "resize: expected an int, got 28.5"),
    ],
)
def test_a_shorter_side_that_is_no_number_of_pixels_is_refused(pipelines, resize, error, message):
    with pytest.raises(error, match=message):
        pipelines("validation_pipeline", resize=resize)


@pytest.mark.parametrize("kind", KINDS)
def test_an_image_that_shrinks_is_averaged(tmp_path, pipelines, kind):
    lines = np.zeros((256, 256, 3), np.uint8)
    lines[:, ::8] = 255
    (tmp_path / "lines").mkdir()
    require("PIL.Image", backend="dali").fromarray(lines).save(tmp_path / "lines" / "photo.png")
    whole = {"random_area": (1, 1), "random_aspect_ratio": (1, 1)}
    options = {"image_pipeline": whole, "validation_pipeline": {"resize": 32}}[kind]

    images, _ = epoch_of(pipelines(kind, folder=tmp_path, image_size=32, batch_size=1, **options))

    assert images.float().mean() == pytest.approx(255 / 8, abs=2)
    assert images.max() < 100


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("device", ["cuda", "mixed", None])
def test_a_device_that_dali_does_not_have_is_refused(pipelines, kind, device):
    with pytest.raises(ValueError, match=f"device: expected one of 'gpu', 'cpu', got {device!r}"):
        pipelines(kind, device=device)


def test_the_pipelines_know_nothing_of_mixup():
    source = Path(import_module("dali_mixup.loaders.pipeline").__file__).read_text()

    imported = {
        node.module for node in ast.walk(ast.parse(source)) if isinstance(node, ast.ImportFrom)
    }

    assert {name for name in imported if name.startswith("dali_mixup")} <= {
        "dali_mixup.checks",
        "dali_mixup.loaders",
    }


@pytest.mark.parametrize(
    ("module", "missing"),
    [
        ("pipeline", "nvidia.dali"),
        ("pipeline", "nvidia.dali.auto_aug.rand_augment"),
        ("video", "nvidia.dali"),
    ],
)
def test_what_is_missing_is_named_with_what_to_install(monkeypatch, module, missing):
    monkeypatch.setitem(sys.modules, missing, None)
    for name in ("pipeline", "augmentation", "video"):
        monkeypatch.delitem(sys.modules, f"dali_mixup.loaders.{name}", raising=False)
    monkeypatch.delattr("dali_mixup.loaders.augmentation", raising=False)

    with pytest.raises(ModuleNotFoundError, match="needs NVIDIA DALI") as raised:
        import_module(f"dali_mixup.loaders.{module}")

    assert f"{missing!r} is missing: pip install 'dali-mixup[cuda12]'" in str(raised.value)
    assert raised.value.name == missing


@pytest.mark.parametrize("kind", KINDS)
def test_a_gpu_that_is_not_there_is_named(pipelines, kind, monkeypatch):
    backend = import_module("nvidia.dali.backend")
    monkeypatch.setattr(backend, "GetCUDADeviceCount", lambda: 0)

    with pytest.raises(ValueError, match="expected 'cpu' on a machine without a GPU, got 'gpu'"):
        pipelines(kind, device="gpu")


GRAPHS = [
    *(("image_pipeline", RECIPES[name].pipeline) for name in sorted(RECIPES)),
    ("image_pipeline", {"augment": "timm-randaugment", "output_layout": "CHW"}),
    ("image_pipeline", {"augment": "trivialaugment", "color_jitter": 0.3}),
    ("validation_pipeline", {}),
    ("validation_pipeline", {"resize": 40, "output_layout": "CHW"}),
]


@pytest.mark.parametrize(("kind", "options"), GRAPHS)
def test_the_graph_for_a_gpu_fits_dalis_own_schemas(pipelines, monkeypatch, kind, options):
    """DALI makes the operators of a graph without a GPU; nothing runs."""
    backend = import_module("nvidia.dali.backend")
    monkeypatch.setattr(backend, "GetCUDADeviceCount", lambda: 1)
    registered = {
        "cpu": backend.RegisteredCPUOps(),
        "gpu": backend.RegisteredGPUOps(),
        "mixed": backend.RegisteredMixedOps(),
    }

    pipe = pipelines(kind, device="gpu", **options)
    pipe._build_graph()

    assert pipe.device_id == 0
    for each in pipe._ops:
        each.check_args()
        schema, device = each._op.schema, each._op.device
        assert schema.Name() in registered[device]
        for number in range(each.spec.NumRegularInput()):
            given = each.spec.InputDevice(number)
            wanted = schema.GetInputDevice(number, given, device)
            assert given == ("cpu" if wanted == "mixed" else wanted)
    assert [node.device for node in pipe._graph_out] == ["gpu", "cpu"]
    names = {each._op.schema.Name() for each in pipe._ops if each._op.device != "cpu"}
    assert ("Erase" in names) == ("random_erasing" in options)
