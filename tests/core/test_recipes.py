"""Recipes: data that the pipeline, the settings and the optimiser take as they are."""

import numpy as np
import pytest
from support.requirements import require

from dali_mixup import Mixup, OutputFormat
from dali_mixup.advice import UnderfittingWarning
from dali_mixup.recipes import IMAGENET, RECIPES, recipe


@pytest.mark.parametrize(
    ("name", "alpha", "smoothing", "batch_size"),
    [
        ("vit-b16-imagenet", 0.2, 0.1, 4096),
        ("efficientnet-imagenet", 0.4, 0.0, 256),
        ("resnet50-imagenet", 0.2, 0.0, 1024),
    ],
)
def test_a_recipe_makes_its_mixup(name, alpha, smoothing, batch_size):
    found = recipe(name)

    mixup = found.mixup_for(1000)

    assert isinstance(mixup, Mixup)
    assert (mixup.alpha, mixup.label_smoothing) == (alpha, smoothing)
    assert (mixup.num_classes, mixup.output) == (1000, IMAGENET)
    assert found.batch_size == batch_size
    assert found.image_size == 224


@pytest.mark.parametrize(
    ("name", "rate", "for_batch_size"),
    [
        ("vit-b16-imagenet", 1e-4, 256),
        ("efficientnet-imagenet", 0.256, 4096),
        ("resnet50-imagenet", 0.1, 256),
    ],
)
def test_the_learning_rate_is_the_published_one_scaled_to_the_batch(name, rate, for_batch_size):
    found = recipe(name)

    assert found.optimizer["lr"] == pytest.approx(rate * found.batch_size / for_batch_size)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (
            "vit-b16-imagenet",
            {"name": "AdamW", "betas": (0.9, 0.95), "weight_decay": 0.3},
        ),
        (
            "efficientnet-imagenet",
            {"name": "RMSprop", "alpha": 0.9, "momentum": 0.9, "eps": 1e-3, "weight_decay": 1e-5},
        ),
        (
            "resnet50-imagenet",
            {"name": "SGD", "momentum": 0.9, "nesterov": True, "weight_decay": 1e-4},
        ),
    ],
)
def test_the_optimiser_is_the_published_one(name, expected):
    options = dict(recipe(name).optimizer)

    del options["lr"]

    assert options == expected


@pytest.mark.parametrize(
    ("name", "epochs", "expected"),
    [
        ("vit-b16-imagenet", 300, {"name": "cosine", "warmup_epochs": 20, "warmup_factor": 0.01}),
        (
            "efficientnet-imagenet",
            350,
            {
                "name": "exponential",
                "gamma": 0.97,
                "every_epochs": 2.4,
                "warmup_epochs": 5,
                "warmup_factor": 0.1,
            },
        ),
        (
            "resnet50-imagenet",
            200,
            {
                "name": "step",
                "gamma": 0.1,
                "milestones": (60, 120, 180),
                "warmup_epochs": 5,
                "warmup_factor": 0.25,
            },
        ),
    ],
)
def test_the_schedule_is_the_published_one(name, epochs, expected):
    found = recipe(name)

    assert found.epochs == epochs
    assert found.schedule == expected


@pytest.mark.parametrize(
    ("name", "randaugment"),
    [("vit-b16-imagenet", (2, 9)), ("efficientnet-imagenet", None), ("resnet50-imagenet", None)],
)
def test_the_augmentation_is_the_published_one(name, randaugment):
    assert recipe(name).pipeline.get("randaugment") == randaugment


@pytest.mark.parametrize(
    ("channel", "mean", "std"), [(0, 0.485, 0.229), (1, 0.456, 0.224), (2, 0.406, 0.225)]
)
def test_red_green_and_blue_have_imagenets_mean_and_std(channel, mean, std):
    grey = np.full((2, 8, 8, 3), 100, np.uint8)

    images, _ = recipe("resnet50-imagenet").mixup_for(2).for_validation()(grey, np.arange(2))

    assert images.shape == (2, 3, 8, 8)
    assert images[:, channel] == pytest.approx((100 / 255 - mean) / std, abs=1e-5)


def test_what_is_changed_replaces_the_recipes():
    output = OutputFormat(dtype="float16")

    mixup = recipe("vit-b16-imagenet").mixup_for(10, output=output, alpha=0.3, seed=5)

    assert (mixup.alpha, mixup.label_smoothing, mixup.seed) == (0.3, 0.1, 5)
    assert mixup.output == output


def test_a_recipe_warns_as_any_setting_does():
    with pytest.warns(UnderfittingWarning, match=r"alpha=0\.8 beside label_smoothing=0\.1"):
        recipe("vit-b16-imagenet").mixup_for(10, alpha=0.8)


def test_an_unknown_recipe_lists_those_there_are():
    with pytest.raises(ValueError, match=r"expected one of 'vit-b16-imagenet', .* got 'resnet'"):
        recipe("resnet")


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_a_recipe_is_read_only_and_says_where_it_is_from(name):
    found = recipe(name)

    assert found.source
    assert found.reported
    with pytest.raises(TypeError, match="does not support item assignment"):
        found.mixup["alpha"] = 1.0


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_a_recipes_pipeline_and_mixup_go_together(photo_folder, name):
    require("nvidia.dali", backend="dali")
    torch = require("torch")
    from dali_mixup import MixupClassificationIterator, image_pipeline

    found = recipe(name)
    pipe = image_pipeline(photo_folder, 4, 32, "cpu", **found.pipeline)
    loader = MixupClassificationIterator(pipe, reader_name="Reader", mixup=found.mixup_for(3))

    [batch] = next(loader)

    assert batch["data"].shape == (4, 3, 32, 32)
    assert torch.allclose(batch["label"].sum(1), torch.ones(4))


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_a_recipes_optimiser_is_torchs(name):
    torch = require("torch")
    options = dict(recipe(name).optimizer)

    make = getattr(torch.optim, options.pop("name"))

    assert make([torch.nn.Parameter(torch.zeros(1))], **options)
