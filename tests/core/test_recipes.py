"""Recipes: data that the pipeline, the settings and the optimiser take as they are."""

import numpy as np
import pytest
from support.requirements import require

from dali_mixup import Mixup, OutputFormat
from dali_mixup.recipes import IMAGENET, RECIPES, recipe


def adamw(weight_decay, **more):
    return {"name": "AdamW", "weight_decay": weight_decay, **more}


def lamb(weight_decay):
    return {"name": "Lamb", "weight_decay": weight_decay}


def cosine(warmup_epochs, warmup_factor, min_factor=0.0):
    return {
        "name": "cosine",
        "warmup_epochs": warmup_epochs,
        "warmup_factor": pytest.approx(warmup_factor),
        "min_factor": pytest.approx(min_factor),
    }


RMSPROP = {"name": "RMSprop", "alpha": 0.9, "momentum": 0.9, "eps": 1e-3, "weight_decay": 1e-5}
SGD = {"name": "SGD", "momentum": 0.9, "nesterov": True, "weight_decay": 1e-4}
TIMM_9 = {"augment": "timm-randaugment", "randaugment": (2, 27), "random_erasing": 0.25}
TIMM_7 = {"augment": "timm-randaugment", "randaugment": (2, 21), "repeated_augmentation": 3}
RA = {"augment": "randaugment", "randaugment": (2, 9)}
BCE = "mixup_binary_cross_entropy"

# What the sources say; the rate as they give it and for how many images, and the rate at the first
# step and at the end as they give them, over that rate.
PUBLISHED = {
    "deit-s": {
        "mixing": (0.8, 1.0, 0.1, "flip"), "images": (224, 1024, 300), "rate": (5e-4, 512),
        "optimizer": adamw(0.05), "schedule": cosine(5, 1e-6 / 1e-3, 1e-5 / 1e-3),
        "pipeline": TIMM_9 | {"repeated_augmentation": 3}, "drop_path": 0.1,
    },
    "deit3-b": {
        "mixing": (0.8, 1.0, 0.0, "flip"), "images": (192, 2048, 800), "rate": (3e-3, 2048),
        "optimizer": lamb(0.05), "schedule": cosine(5, 1e-6 / 3e-3, 1e-5 / 3e-3),
        "pipeline": {"augment": "3-augment", "color_jitter": 0.3, "repeated_augmentation": 3},
        "drop_path": 0.2, "loss": {"name": BCE, "threshold": 0.0},
    },
    "resnet50-rsb-a2": {
        "mixing": (0.1, 1.0, 0.0, "flip"), "images": (224, 2048, 300), "rate": (5e-3, 2048),
        "optimizer": lamb(0.02), "schedule": cosine(5, 1e-4, 1e-6 / 5e-3),
        "pipeline": TIMM_7, "drop_path": 0.05, "loss": {"name": BCE, "threshold": 0.2},
    },
    "torchvision-convnext-tiny": {
        "mixing": (0.2, 1.0, 0.1, "roll"), "images": (176, 8 * 128, 600), "rate": (1e-3, 1024),
        "optimizer": adamw(0.05), "schedule": cosine(5, 0.01),
        "pipeline": {
            "augment": "trivialaugment", "random_erasing": 0.1, "repeated_augmentation": 4,
        },
    },
    "torchvision-vit-b16": {
        "mixing": (0.2, 1.0, 0.11, "roll"), "images": (224, 8 * 512, 300), "rate": (3e-3, 4096),
        "optimizer": adamw(0.3), "schedule": cosine(30, 0.033),
        "pipeline": RA | {"repeated_augmentation": 3}, "clip": 1.0,
    },
    "swin-t": {
        "mixing": (0.8, 1.0, 0.1, "flip"), "images": (224, 8 * 128, 300), "rate": (5e-4, 512),
        "optimizer": adamw(0.05), "schedule": cosine(20, 5e-7 / 5e-4, 5e-6 / 5e-4),
        "pipeline": TIMM_9, "drop_path": 0.2, "clip": 5.0,
    },
    "mae-vit-b-finetune": {
        "mixing": (0.8, 1.0, 0.1, "flip"), "images": (224, 4 * 8 * 32, 100), "rate": (5e-4, 256),
        "optimizer": adamw(0.05), "schedule": cosine(5, 0.0, 1e-6 / 2e-3),
        "pipeline": TIMM_9, "drop_path": 0.1, "layer_decay": 0.65,
    },
    "vit-b16-imagenet": {
        "mixing": (0.2, 0.0, 0.1, "permutation"), "images": (224, 4096, 300), "rate": (1e-4, 256),
        "optimizer": adamw(0.3, betas=(0.9, 0.95)), "schedule": cosine(20, 0.01), "pipeline": RA,
    },
    "efficientnet-imagenet": {
        "mixing": (0.4, 0.0, 0.0, "permutation"), "images": (224, 256, 350), "rate": (0.256, 4096),
        "optimizer": RMSPROP, "pipeline": {}, "schedule": {
            "name": "exponential", "gamma": 0.97, "every_epochs": 2.4, "warmup_epochs": 5,
            "warmup_factor": 0.1, "min_factor": 0.0,
        },
    },
    "resnet50-imagenet": {
        "mixing": (0.2, 0.0, 0.0, "permutation"), "images": (224, 1024, 200), "rate": (0.1, 256),
        "optimizer": SGD, "pipeline": {}, "schedule": {
            "name": "step", "gamma": 0.1, "milestones": (60, 120, 180), "warmup_epochs": 5,
            "warmup_factor": 0.25, "min_factor": 0.0,
        },
    },
}  # fmt: skip


@pytest.mark.parametrize("name", sorted(PUBLISHED.keys() | RECIPES.keys()))
def test_a_recipe_is_what_was_published(name):
    found, published = recipe(name), PUBLISHED[name]
    mixup = found.mixup_for(1000)
    optimizer = dict(found.optimizer)
    rate, for_images = published["rate"]

    assert isinstance(mixup, Mixup)
    assert (mixup.num_classes, mixup.output) == (1000, IMAGENET)
    mixing = (mixup.alpha, mixup.cutmix_alpha, mixup.label_smoothing, mixup.pairing)
    assert mixing == published["mixing"]
    assert (mixup.prob, mixup.switch_prob, mixup.mode) == (1.0, 0.5, "batch")
    assert (found.image_size, found.batch_size, found.epochs) == published["images"]
    assert optimizer.pop("lr") == pytest.approx(rate * found.batch_size / for_images)
    assert optimizer == published["optimizer"]
    assert {"min_factor": 0.0, **found.schedule} == published["schedule"]
    assert found.pipeline == published["pipeline"]
    assert found.model_options.get("drop_path_rate", 0.0) == published.get("drop_path", 0.0)
    assert found.loss == published.get("loss", {"name": "mixup_cross_entropy"})
    assert found.clip_grad_norm == published.get("clip")
    assert found.layer_decay == published.get("layer_decay")


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


def test_an_unknown_recipe_lists_those_there_are():
    with pytest.raises(ValueError, match=r"expected one of 'deit-s', .* got 'resnet'"):
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
    mixup = found.mixup_for(3)
    loader = MixupClassificationIterator(pipe, reader_name="Reader", mixup=mixup)  # without advice

    [batch] = next(loader)

    assert batch["data"].shape == (4, 3, 32, 32)
    assert torch.allclose(batch["label"].sum(1), torch.ones(4))
