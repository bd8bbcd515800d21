"""
Images and their masks
======================

CutMix takes a box from the partner, of the image and of its mask. The classes of the mask stay as
they are.
"""

# %%

import matplotlib.pyplot as plt
import numpy as np
from skimage import data, filters, morphology
from skimage.color import rgb2gray
from skimage.transform import resize

from dali_mixup import Mixup

SIDE = 160
CLASSES = ["darkest", "dark", "bright", "brightest"]
COLORS = plt.get_cmap("viridis", 4)


def scene(photograph):
    """A photograph and a mask of the classes of its brightness, made by thresholds."""
    image = resize(photograph, (SIDE, SIDE), preserve_range=True).astype(np.uint8)
    gray = filters.gaussian(rgb2gray(image), 2)
    mask = np.digitize(gray, filters.threshold_multiotsu(gray, classes=4))
    return image, morphology.opening(mask.astype(np.uint8), morphology.disk(3))


scenes = [scene(photograph) for photograph in (data.astronaut(), data.chelsea(), data.coffee())]
images = np.stack([image for image, _ in scenes])
masks = np.stack([mask for _, mask in scenes])


def show(images, masks, title):
    """A row of images above a row of masks."""
    figure, axes = plt.subplots(2, len(images), figsize=(8, 5), layout="constrained")
    for column, (image, mask) in enumerate(zip(images, masks, strict=True)):
        axes[0, column].imshow(image)
        shown = axes[1, column].imshow(mask, cmap=COLORS, vmin=-0.5, vmax=3.5)
    for axis in axes.flat:
        axis.set_axis_off()
    bar = figure.colorbar(shown, ax=axes, ticks=range(4), shrink=0.6)
    bar.set_ticklabels(CLASSES)
    figure.suptitle(title, fontsize=10)


show(images, masks, "three images and their masks")

# %%
# ``Mixup(alpha=0, cutmix_alpha=1.0)`` draws plans of boxes, in ``mode="elem"`` one for each image.

mixup = Mixup(
    num_classes=None, alpha=0, cutmix_alpha=1.0, mode="elem", pairing="derangement", seed=3
)
plan = mixup.plan(3, image_size=(SIDE, SIDE))

cut, _ = mixup(images, None, plan=plan)
show(cut, mixup.mix_masks(masks, plan), "CutMix, with the same boxes in images and masks")
