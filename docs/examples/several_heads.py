"""
Several heads
=============

The labels of all heads are mixed by the plan of their image. Here a head tells what is shown, and
another one whether it lives.
"""

# %%

import matplotlib.pyplot as plt
import numpy as np
from skimage import data
from skimage.transform import resize

from dali_mixup import Mixup

SIDE = 160
HEADS = {"shows": ["astronaut", "cat", "coffee", "rocket"], "is alive": ["no", "yes"]}
photographs = data.astronaut(), data.chelsea(), data.coffee(), data.rocket()
images = np.stack(
    [
        resize(photograph, (SIDE, SIDE), preserve_range=True).astype(np.uint8)
        for photograph in photographs
    ]
)
labels = {"shows": np.arange(4), "is alive": np.array([1, 1, 0, 0])}

mixup = Mixup(
    num_classes={head: len(names) for head, names in HEADS.items()},
    alpha=1.0,
    cutmix_alpha=1.0,
    mode="elem",
    pairing="derangement",
    seed=5,
)
mixed, targets = mixup(images, labels)

# %%
# Each mixed image, and the targets of both heads.

figure, axes = plt.subplots(3, 4, figsize=(9, 6), height_ratios=(3, 2, 1))
for column in range(4):
    axes[0, column].imshow(mixed[column])
    axes[0, column].set_axis_off()
    for row, (head, names) in enumerate(HEADS.items(), 1):
        axes[row, column].barh(names, targets[head][column])
        axes[row, column].set_xlim(0, 1)
        axes[row, column].tick_params(labelsize=8)
    axes[1, column].set_title("shows", fontsize=9)
    axes[2, column].set_title("is alive", fontsize=9)
figure.tight_layout()
