"""
One ``lam`` per batch, per sample or per pair
=============================================

``mode`` sets how many values of ``lam`` are drawn for a batch.
"""

# %%
# Eight photographs, one per class, decoded by a DALI pipeline:

import tempfile
from pathlib import Path

import torch
from pictures import show

from benchmarks.photographs import write_photographs
from dali_mixup import Mixup, validation_pipeline

folder = Path(tempfile.mkdtemp())
write_photographs(folder, per_class=1)
names = sorted(path.name for path in folder.iterdir())

pipe = validation_pipeline(folder, batch_size=8, image_size=160, device="cpu", resize=180)
pipe.build()
images, labels = (torch.tensor(output.as_array()) for output in pipe.run())

# %%
# ``mode="batch"``: one ``lam`` for all samples, as in the mixup paper and by default in timm and
# torchvision.

show(*Mixup(num_classes=8, alpha=1.0, seed=3)(images, labels), names, 'mode="batch"')

# %%
# ``mode="elem"``: one ``lam`` per sample.

show(*Mixup(num_classes=8, alpha=1.0, seed=3, mode="elem")(images, labels), names, 'mode="elem"')

# %%
# ``mode="pair"``: two samples are each other's partners and share one ``lam``. Here the first image
# is mixed with the last one, the second with the last but one, as in timm.

pair = Mixup(num_classes=8, alpha=1.0, seed=3, mode="pair", pairing="flip")
mixed, targets = pair(images, labels)
order = [0, 7, 1, 6]
show(mixed[order], targets[order], names, 'mode="pair", pairing="flip"')

# %%
# The draw can be returned and repeated. A :class:`~dali_mixup.MixPlan` holds the partners, the
# shares and the rectangles of one batch.

plan = pair.plan(len(images))
print(plan.partner)
print(plan.lam.round(3))
