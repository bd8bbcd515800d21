"""
The augmentation of the recipes
===============================

:func:`~dali_mixup.image_pipeline` has the augmentation of the published trainings in
:mod:`dali_mixup.recipes`. This page shows it without mixing, so that each operation is visible.
"""

# %%
# Eight photographs, one per class. The crop is the whole image here; a training also crops at
# random and mirrors.

import tempfile
from pathlib import Path

import matplotlib.pyplot as plt

from benchmarks.photographs import write_photographs
from dali_mixup import image_pipeline
from dali_mixup.recipes import recipe

folder = Path(tempfile.mkdtemp())
write_photographs(folder, per_class=1)
whole = {"random_area": (1, 1), "random_aspect_ratio": (1, 1), "mirror_probability": 0}


def show(title, batches=2, **options):
    """Draw the first batches of a pipeline with these options."""
    pipe = image_pipeline(folder, 8, 112, "cpu", seed=1, **whole, **options)
    pipe.build()
    figure, axes = plt.subplots(batches, 8, figsize=(9, 1.2 * batches + 0.3), squeeze=False)
    for row in axes:
        images, _ = pipe.run()
        for axis, image in zip(row, images.as_array(), strict=True):
            axis.imshow(image)
            axis.set_axis_off()
    figure.suptitle(title, fontsize=9)
    figure.tight_layout(pad=0.3)


# %%
# RandAugment as timm has it, with magnitude 9 of 10 (27 of 30 here), and rectangles of noise:

options = dict(recipe("swin-t").pipeline)
print(options)
show("swin-t, mae-vit-b-finetune", **options)

# %%
# The same with repeated augmentation: the batch holds three copies of each of three images.

options = dict(recipe("deit-s").pipeline)
print(options)
show("deit-s", **options)

# %%
# 3-Augment (grey, solarised or blurred) and colour jitter:

options = dict(recipe("deit3-b").pipeline)
print(options)
show("deit3-b", **options)

# %%
# RandAugment as timm has it, with magnitude 7 of 10, without erasing:

options = dict(recipe("resnet50-rsb-a2").pipeline)
print(options)
show("resnet50-rsb-a2", **options)

# %%
# TrivialAugment: one operation per image, of a random strength.

options = dict(recipe("torchvision-convnext-tiny").pipeline)
print(options)
show("torchvision-convnext-tiny", **options)

# %%
# RandAugment as DALI and torchvision have it: two operations with magnitude 9 of 30.

options = dict(recipe("torchvision-vit-b16").pipeline)
print(options)
show("torchvision-vit-b16", **options)
