"""Recipes: data that the pipeline, the settings and the optimiser take as they are."""

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
