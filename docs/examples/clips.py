"""
Video clips
===========

A clip is mixed with one partner, one ``lam`` and one box. The box is at the same place in every
frame.
"""

# %%

import matplotlib.pyplot as plt
import numpy as np
import torch
from skimage import data
from skimage.transform import resize

from dali_mixup import MixPlan, Mixup

FRAMES, SIDE = 6, 96


def clip_of(photograph, shift):
    """A camera that moves over a photograph: uint8, shape (FRAMES, SIDE, SIDE, 3)."""
    large = resize(photograph, (160, 200), preserve_range=True).astype(np.uint8)
    corners = [(20 + shift[0] * t, 40 + shift[1] * t) for t in range(FRAMES)]
    return np.stack([large[y : y + SIDE, x : x + SIDE] for y, x in corners])


clips = torch.from_numpy(
    np.stack([clip_of(data.astronaut(), (4, 8)), clip_of(data.chelsea(), (6, -8))])
)
labels = torch.tensor([0, 1])
mixup = Mixup(num_classes=2, layout="FHWC")


def strip(clips, title):
    """One row of frames for each clip."""
    pixels = clips.permute(0, 2, 1, 3, 4).reshape(len(clips) * SIDE, FRAMES * SIDE, 3)
    figure, axes = plt.subplots(figsize=(9, 3.4))
    axes.imshow(pixels)
    for number in range(1, FRAMES):
        axes.axvline(number * SIDE - 0.5, color="white", linewidth=3)
    axes.set_axis_off()
    axes.set_title(title, fontsize=10)
    figure.tight_layout()


def rows(targets):
    return " and ".join(f"({own:.2f}, {other:.2f})" for own, other in targets)


strip(clips, "two clips, not mixed")

# %%
# Mixup. Both frames of a pair have the same number, and every frame the same weight.

mixed, targets = mixup(clips, labels, plan=MixPlan(partner=[1, 0], lam=[0.6, 0.75]))
strip(mixed, f"mixup: the soft labels are {rows(targets)}")

# %%
# CutMix. The box shows the same part of each frame of the partner, so that the motion inside it
# stays.

box = np.array([[24, 80, 16, 72], [0, 48, 40, 96]])
area = (box[:, 1] - box[:, 0]) * (box[:, 3] - box[:, 2])
plan = MixPlan(partner=[1, 0], lam=1 - area / SIDE**2, box=box)
cut, targets = mixup(clips, labels, plan=plan)
strip(cut, f"CutMix: the soft labels are {rows(targets)}")
