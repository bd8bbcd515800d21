"""Recipes for convolutional networks."""

from __future__ import annotations

from dali_mixup.recipes.definition import Recipe

CONVOLUTIONAL = (
    Recipe(
        name="torchvision-convnext-tiny",
        model="convnext_tiny",
        source="references/classification/README.md of github.com/pytorch/vision, 8 x 128 images",
        reported="82.5 % top-1 on ImageNet-1K, measured at 224 pixels",
        left_out="averaged weights; weight decay of biases; torchvision erases with the mean "
        "colour, here with noise, and fills what it moves with black, here with grey; the copies "
        "of an image are in one batch of one process",
        image_size=176,
        batch_size=1024,
        epochs=600,
        pipeline={
            "augment": "trivialaugment",
            "random_erasing": 0.1,
            "repeated_augmentation": 4,
        },
        mixup={
            "alpha": 0.2,
            "cutmix_alpha": 1.0,
            "label_smoothing": 0.1,
            "pairing": "roll",
        },
        optimizer={"name": "AdamW", "lr": 1e-3, "weight_decay": 0.05},
        schedule={"name": "cosine", "warmup_epochs": 5, "warmup_factor": 0.01},
    ),
    Recipe(
        name="resnet50-rsb-a2",
        model="timm:resnet50",
        source="Wightman et al., ResNet strikes back, 2021, procedure A2; learning rate, decay and "
        "schedule as in mmpretrain's resnet50_8xb256-rsb-a2-300e, threshold 0.2 as in ML-Decoder's "
        "command for A2",
        reported="79.8 % top-1 on ImageNet-1K (timm's resnet50.a2_in1k)",
        left_out="the noise of RandAugment's magnitude, bicubic interpolation; moved images are "
        "filled with grey; posterize keeps 1 bit, timm 2; the copies of an image are in one batch "
        "of one process",
        image_size=224,
        batch_size=2048,
        epochs=300,
        pipeline={
            "augment": "timm-randaugment",
            "randaugment": (2, 21),
            "repeated_augmentation": 3,
        },
        mixup={"alpha": 0.1, "cutmix_alpha": 1.0, "pairing": "flip"},
        loss={"name": "mixup_binary_cross_entropy", "threshold": 0.2},
        model_options={"drop_path_rate": 0.05},
        optimizer={"name": "Lamb", "lr": 5e-3, "weight_decay": 0.02},
        schedule={
            "name": "cosine",
            "min_factor": 1e-6 / 5e-3,
            "warmup_epochs": 5,
            "warmup_factor": 1e-4,
        },
    ),
    Recipe(
        name="efficientnet-imagenet",
        model="efficientnet_b0",
        source="optimiser and schedule: Tan and Le, EfficientNet, ICML 2019, 5.2, its rate of "
        "0.256 for 4,096 images scaled to 256; not published: alpha 0.4",
        reported="nothing for these settings",
        left_out="AutoAugment, which the source has; stochastic depth and dropout are those of "
        "torchvision's model",
        image_size=224,
        batch_size=256,
        epochs=350,
        mixup={"alpha": 0.4},
        optimizer={
            "name": "RMSprop",
            "lr": 0.016,
            "alpha": 0.9,
            "momentum": 0.9,
            "eps": 1e-3,
            "weight_decay": 1e-5,
        },
        schedule={
            "name": "exponential",
            "gamma": 0.97,
            "every_epochs": 2.4,
            "warmup_epochs": 5,
            "warmup_factor": 0.1,
        },
    ),
    Recipe(
        name="resnet50-imagenet",
        model="resnet50",
        source="Zhang et al., mixup, ICLR 2018, 3.1",
        reported="22.1 % top-1 error after 200 epochs with alpha 0.2",
        left_out="nothing that is known",
        image_size=224,
        batch_size=1024,
        epochs=200,
        mixup={"alpha": 0.2},
        optimizer={
            "name": "SGD",
            "lr": 0.4,
            "momentum": 0.9,
            "nesterov": True,
            "weight_decay": 1e-4,
        },
        schedule={
            "name": "step",
            "gamma": 0.1,
            "milestones": (60, 120, 180),
            "warmup_epochs": 5,
            "warmup_factor": 0.25,
        },
    ),
)
