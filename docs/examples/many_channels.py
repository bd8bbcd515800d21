"""
Many channels
=============

All channels of an image are mixed by the same plan. Here an image has six, of which three at a time
are shown in red, green and blue.
"""

# %%

import matplotlib.pyplot as plt
import numpy as np
from skimage import data, filters
from skimage.color import rgb2gray
from skimage.transform import resize

from dali_mixup import MixPlan, Mixup, OutputFormat

SIDE = 160


def bands(photograph):
    """Six bands of 16 bits: red, green, blue, brightness, edges and a blurred brightness."""
    image = resize(photograph, (SIDE, SIDE))
    gray = rgb2gray(image)
    more = gray, filters.sobel(gray) * 3, filters.gaussian(gray, 4)
    return (np.dstack([image, *more]).clip(0, 1) * 65535).astype(np.uint16)


scenes = np.stack([bands(data.astronaut()), bands(data.coffee())])
mixup = Mixup(num_classes=2, layout="HWC", output=OutputFormat(dtype="float32"))


def show(scenes, title):
    """Bands 1 to 3, and bands 4 to 6, of both scenes."""
    figure, axes = plt.subplots(1, 4, figsize=(9, 2.6))
    pictures = [(scene, first) for scene in scenes for first in (0, 3)]
    for axis, (scene, first) in zip(axes, pictures, strict=True):
        axis.imshow(np.asarray(scene[..., first : first + 3], np.float32) / 65535)
        axis.set_title(f"bands {first + 1} to {first + 3}", fontsize=9)
        axis.set_axis_off()
    figure.suptitle(title, fontsize=10)
    figure.tight_layout()


show(scenes, "two scenes of six bands, uint16")

# %%
# Mixup, to float32 without normalisation.

mixed, _ = mixup(scenes, np.array([0, 1]), plan=MixPlan(partner=[1, 0], lam=[0.6, 0.7]))
show(mixed, "mixup: 0.6 and 0.7 of the own scene, in every band")

# %%
# CutMix. The box is the same in every band.

box = np.array([[30, 130, 20, 110], [0, 80, 60, 160]])
area = (box[:, 1] - box[:, 0]) * (box[:, 3] - box[:, 2])
plan = MixPlan(partner=[1, 0], lam=1 - area / SIDE**2, box=box)
cut, _ = mixup(scenes, np.array([0, 1]), plan=plan)
show(cut, "CutMix: the same box in every band")
