"""Draws mixed images with their soft labels as bars, for the gallery."""

import matplotlib.pyplot as plt
import numpy as np

COLOURS = plt.get_cmap("tab10").colors


def show(images, targets, names, title=""):
    """Draw up to four mixed images, each above the classes that its soft label weighs.

    Parameters
    ----------
    images : uint8 tensor, shape (B, H, W, 3)
    targets : float32 tensor, shape (B, num_classes)
    names : sequence of str
        Of the classes.
    title : str
    """
    count = min(4, len(images))
    figure, axes = plt.subplots(
        2, count, figsize=(2.6 * count, 3.6), height_ratios=(3, 1), squeeze=False
    )
    for (above, below), image, row in zip(axes.T, images.numpy(), targets.numpy(), strict=False):
        above.imshow(image)
        above.set_axis_off()
        classes = np.argsort(row)[::-1][:2]
        classes = classes[row[classes] > 0]
        bars = below.barh(
            [names[i] for i in classes], row[classes], color=[COLOURS[i] for i in classes]
        )
        below.bar_label(bars, [f"{row[i]:.2f}" for i in classes], padding=3, fontsize=8)
        below.set(xlim=(0, 1.3), ylim=(1.6, -0.6), xticks=[])
        below.tick_params(left=False, labelsize=8)
        below.spines[:].set_visible(False)
    figure.suptitle(title, fontsize=10)
    figure.tight_layout()
