"""
Soft labels in special cases
============================

The weight of a class in a soft label is the fraction of the image that comes from it. This page
shows clipped boxes, pairs of one class, and a ``lam`` of 1.
"""

# %%

import tempfile
from pathlib import Path

import numpy as np
import torch
from pictures import show

from benchmarks.photographs import write_photographs
from dali_mixup import MixPlan, Mixup, validation_pipeline

folder = Path(tempfile.mkdtemp())
write_photographs(folder, per_class=1)
names = sorted(path.name for path in folder.iterdir())

pipe = validation_pipeline(folder, batch_size=8, image_size=160, device="cpu", resize=180)
pipe.build()
images, labels = (torch.tensor(output.as_array()) for output in pipe.run())
images, labels = images[:4], labels[:4]
mixup = Mixup(num_classes=8)

# %%
# A plan can be written by hand. Here each image takes a rectangle from the next one: the left half,
# a corner that the edge of the image has clipped, a thin strip, and nothing. ``lam`` is the share
# of pixels that stayed.

box = np.array([[0, 160, 0, 80], [120, 160, 120, 160], [70, 90, 0, 160], [0, 0, 0, 0]])
area = (box[:, 1] - box[:, 0]) * (box[:, 3] - box[:, 2])
plan = MixPlan(partner=[1, 2, 3, 0], lam=1 - area / 160**2, box=box)

show(*mixup(images, labels, plan=plan), names, "rectangles and their shares")

# %%
# Two images of one class keep all of that class, and a ``lam`` of 1 leaves the image as it is.

same = torch.tensor([0, 0, 2, 3])
plan = MixPlan(partner=[1, 0, 3, 2], lam=[0.6, 0.6, 1.0, 0.25])

show(*mixup(images, same, plan=plan), names, "a pair of one class; lam of 1; lam of 0.25")

# %%
# Label smoothing moves a small weight to every class before mixing. Rows still sum to 1.

_, smoothed = Mixup(num_classes=8, label_smoothing=0.1)(images, labels, plan=plan)
print(smoothed.numpy().round(3))
print("sums:", smoothed.sum(1).numpy())
