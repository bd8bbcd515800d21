"""
Values of a regression
======================

The value of a mixed image is the mean of the values of its two images, with their weights. Here the
value is the brightness of an image, which a model could be trained to predict.
"""

# %%

import matplotlib.pyplot as plt
import numpy as np
from skimage import data
from skimage.transform import resize

from dali_mixup import Mixup

SIDE = 160
photographs = data.astronaut(), data.chelsea(), data.coffee(), data.rocket()
images = np.stack(
    [
        resize(photograph, (SIDE, SIDE), preserve_range=True).astype(np.uint8)
        for photograph in photographs
    ]
)
brightness = images.mean((1, 2, 3)).astype(np.float32)


def show(images, values, title):
    """A row of images with their values."""
    figure, axes = plt.subplots(1, 4, figsize=(9, 2.8))
    for axis, image, value in zip(axes, images, values, strict=True):
        axis.imshow(image)
        axis.set_title(f"{value:.1f}", fontsize=10)
        axis.set_axis_off()
    figure.suptitle(title, fontsize=10)
    figure.tight_layout()


show(images, brightness, "four images and their values")

# %%
# With ``num_classes=None`` labels that are floats are values.

mixup = Mixup(num_classes=None, alpha=1.0, mode="elem", pairing="derangement", seed=2)
plan = mixup.plan(4, image_size=(SIDE, SIDE))
mixed, targets = mixup(images, brightness, plan=plan)
show(mixed, targets, "mixed, with the targets: lam * own + (1 - lam) * partner")

# %%
# The brightness of a mixed image is the mean of two, with their weights, so the targets are right.
# Differences come from rounding the mixed pixels to integers.

print(np.abs(mixed.mean((1, 2, 3)) - targets).max())
