"""Recipes for vision transformers."""

from __future__ import annotations

from dali_mixup.recipes.definition import Recipe

DEIT_MIXING = {"alpha": 0.8, "cutmix_alpha": 1.0, "label_smoothing": 0.1, "pairing": "flip"}
DEIT_AUGMENTATION = {
    "augment": "timm-randaugment",
    "randaugment": (2, 27),
    "random_erasing": 0.25,
}
TIMM_DIFFERS = (
    "the noise of RandAugment's magnitude, bicubic interpolation; moved images are filled with grey"
)

TRANSFORMERS = (
    Recipe(
        name="deit-s",
        model="timm:deit_small_patch16_224",
        source="Touvron et al., DeiT, ICML 2021; the defaults and the command for DeiT-small of "
        "github.com/facebookresearch/deit",
        reported="79.9 % top-1 on ImageNet-1K",
        left_out=f"averaged weights, which DeiT keeps; {TIMM_DIFFERS}; the copies of an image are "
        "in one batch of one process, DeiT's are on different GPUs",
        image_size=224,
        batch_size=1024,
        epochs=300,
        pipeline={**DEIT_AUGMENTATION, "repeated_augmentation": 3},
        mixup=DEIT_MIXING,
        model_options={"drop_path_rate": 0.1},
        optimizer={"name": "AdamW", "lr": 1e-3, "weight_decay": 0.05},
        schedule={
            "name": "cosine",
            "min_factor": 0.01,
            "warmup_epochs": 5,
            "warmup_factor": 0.001,
        },
    ),
    Recipe(
        name="deit3-b",
        model="timm:deit3_base_patch16_224",
        source="Touvron et al., DeiT III, ECCV 2022; README_revenge.md of "
        "github.com/facebookresearch/deit, the command for ViT-B on ImageNet-1K",
        reported="83.8 % top-1 on ImageNet-1K after 20 more epochs at 224 pixels",
        left_out="the 20 epochs at 224 pixels; averaged weights; bicubic interpolation; colour "
        "jitter in a fixed order, with contrast around mid-grey; the copies of an image are in one "
        "batch of one process; stochastic depth rises to 0.2, and is 0.2 in every block there",
        image_size=192,
        batch_size=2048,
        epochs=800,
        pipeline={"augment": "3-augment", "color_jitter": 0.3, "repeated_augmentation": 3},
        mixup={"alpha": 0.8, "cutmix_alpha": 1.0, "pairing": "flip"},
        loss={"name": "mixup_binary_cross_entropy", "threshold": 0.0},
        model_options={"drop_path_rate": 0.2, "init_values": 1e-4},
        optimizer={"name": "Lamb", "lr": 3e-3, "weight_decay": 0.05},
        schedule={
            "name": "cosine",
            "min_factor": 1e-5 / 3e-3,
            "warmup_epochs": 5,
            "warmup_factor": 1e-6 / 3e-3,
        },
    ),
    Recipe(
        name="swin-t",
        model="timm:swin_tiny_patch4_window7_224",
        source="Liu et al., Swin Transformer, ICCV 2021; config.py and swin_tiny_patch4_window7_224"
        ".yaml of github.com/microsoft/Swin-Transformer, 8 x 128 images",
        reported="81.2 % top-1 on ImageNet-1K",
        left_out=TIMM_DIFFERS,
        image_size=224,
        batch_size=1024,
        epochs=300,
        pipeline=DEIT_AUGMENTATION,
        mixup=DEIT_MIXING,
        model_options={"drop_path_rate": 0.2},
        optimizer={"name": "AdamW", "lr": 1e-3, "weight_decay": 0.05},
        clip_grad_norm=5.0,
        schedule={
            "name": "cosine",
            "min_factor": 0.01,
            "warmup_epochs": 20,
            "warmup_factor": 0.001,
        },
    ),
    Recipe(
        name="mae-vit-b-finetune",
        model="timm:vit_base_patch16_224.mae",
        source="He et al., Masked Autoencoders, CVPR 2022; FINETUNE.md and main_finetune.py of "
        "github.com/facebookresearch/mae, ViT-Base",
        reported="83.6 % top-1 on ImageNet-1K, from weights of MAE's pre-training",
        left_out=f"{TIMM_DIFFERS}; without --pretrained the trainer begins with random weights",
        image_size=224,
        batch_size=1024,
        epochs=100,
        pipeline=DEIT_AUGMENTATION,
        mixup=DEIT_MIXING,
        model_options={"drop_path_rate": 0.1, "global_pool": "avg"},
        optimizer={"name": "AdamW", "lr": 2e-3, "weight_decay": 0.05},
        layer_decay=0.65,
        schedule={
            "name": "cosine",
            "min_factor": 1e-6 / 2e-3,
            "warmup_epochs": 5,
            "warmup_factor": 0.0,
        },
    ),
    Recipe(
        name="torchvision-vit-b16",
        model="vit_b_16",
        source="references/classification/README.md of github.com/pytorch/vision, 8 x 512 images",
        reported="81.1 % top-1 on ImageNet-1K",
        left_out="averaged weights; weight decay of biases and norms; moved images are filled with "
        "grey, torchvision's with black; the copies of an image are "
        "in one batch of one process",
        image_size=224,
        batch_size=4096,
        epochs=300,
        pipeline={"augment": "randaugment", "randaugment": (2, 9), "repeated_augmentation": 3},
        mixup={
            "alpha": 0.2,
            "cutmix_alpha": 1.0,
            "label_smoothing": 0.11,
            "pairing": "roll",
        },
        optimizer={"name": "AdamW", "lr": 3e-3, "weight_decay": 0.3},
        clip_grad_norm=1.0,
        schedule={"name": "cosine", "warmup_epochs": 30, "warmup_factor": 0.033},
    ),
    Recipe(
        name="vit-b16-imagenet",
        model="vit_b_16",
        source="optimiser and schedule: He et al., Masked Autoencoders, CVPR 2022, A.2 (ViT-B from "
        "scratch); not published: RandAugment (2, 9) and mixup alone with alpha 0.2",
        reported="82.3 % top-1 on ImageNet-1K, there with alpha 0.8 and CutMix",
        left_out="CutMix, stochastic depth and averaged weights, which the source has",
        image_size=224,
        batch_size=4096,
        epochs=300,
        pipeline={"augment": "randaugment", "randaugment": (2, 9)},
        mixup={"alpha": 0.2, "label_smoothing": 0.1},
        optimizer={"name": "AdamW", "lr": 1.6e-3, "betas": (0.9, 0.95), "weight_decay": 0.3},
        schedule={"name": "cosine", "warmup_epochs": 20, "warmup_factor": 0.01},
    ),
)
