"""
How to do mixup and CutMix with DALI
====================================

`NVIDIA DALI <https://docs.nvidia.com/deeplearning/dali/>`_ decodes and augments images, on the GPU
or on the CPU, but it has no mixup operator. ``dali-mixup`` mixes the batches that a DALI pipeline
delivers and returns soft labels that match the pixels. This page goes from a folder of images to a
training loop. It runs on a CPU. On a GPU, use ``device="gpu"`` in both pipelines and move the model
to the GPU.
"""

# %%
# The data
# --------
#
# Any folder with one folder of images per class will do. Here, eight photographs are cut into
# parts, one class per photograph.

import tempfile
from pathlib import Path

import torch
from nvidia.dali.plugin.pytorch import LastBatchPolicy
from pictures import show

from benchmarks.photographs import write_photographs
from dali_mixup import (
    Mixup,
    MixupClassificationIterator,
    OutputFormat,
    image_pipeline,
    validation_pipeline,
)

folder = Path(tempfile.mkdtemp())
write_photographs(folder / "train", per_class=16)
write_photographs(folder / "val", per_class=4, seed=1)
names = sorted(path.name for path in (folder / "train").iterdir())

# %%
# A DALI pipeline
# ---------------
#
# :func:`~dali_mixup.image_pipeline` decodes, crops, resizes and flips, and delivers uint8 images.
# Your own pipeline works as well: images first, labels last. Do not normalise in the pipeline.
# Mixing and normalising in one pass is faster, and DALI then moves a quarter of the bytes.


def pipeline():
    return image_pipeline(folder / "train", batch_size=32, image_size=128, device="cpu")


# %%
# mixup
# -----
#
# Replace ``DALIClassificationIterator`` with :class:`~dali_mixup.MixupClassificationIterator` and
# pass it a :class:`~dali_mixup.Mixup`. The arguments of DALI's iterator stay the same.
#
# Each image is blended with another image of the batch, ``lam * own + (1 - lam) * partner``, and
# its label is blended with the same ``lam``. The bars show the soft labels.

loader = MixupClassificationIterator(
    pipeline(), reader_name="Reader", mixup=Mixup(num_classes=8, alpha=1.0)
)
batch = next(loader)[0]

show(batch["data"], batch["label"], names, "mixup, alpha=1.0")

# %%
# The batch has the keys of DALI's iterator. Labels are rows of ``num_classes`` weights.

for key, tensor in batch.items():
    print(f"{key}: {tensor.dtype}, {tuple(tensor.shape)}")

# %%
# A ``lam`` per sample
# --------------------
#
# With ``mode="batch"``, the default, all images of a batch share one ``lam``. With ``mode="elem"``
# each sample draws its own. It is not slower.

loader = MixupClassificationIterator(
    pipeline(), reader_name="Reader", mixup=Mixup(num_classes=8, alpha=1.0, mode="elem")
)
batch = next(loader)[0]

show(batch["data"], batch["label"], names, 'mixup, mode="elem"')

# %%
# CutMix
# ------
#
# CutMix replaces a rectangle of the image with the partner's pixels. The label gets the share of
# pixels that stayed, also where the rectangle was clipped at the edge of the image.

loader = MixupClassificationIterator(
    pipeline(),
    reader_name="Reader",
    mixup=Mixup(num_classes=8, alpha=0.0, cutmix_alpha=1.0, mode="elem"),
)
batch = next(loader)[0]

show(batch["data"], batch["label"], names, "CutMix, cutmix_alpha=1.0")

# %%
# Both
# ----
#
# With both alphas set, ``switch_prob`` is the probability of CutMix, and ``prob`` the probability
# that a batch (or, with ``mode="elem"``, a sample) is mixed at all.

both = Mixup(num_classes=8, alpha=0.4, cutmix_alpha=1.0, switch_prob=0.5, mode="elem")
loader = MixupClassificationIterator(pipeline(), reader_name="Reader", mixup=both)
batch = next(loader)[0]

show(batch["data"], batch["label"], names, "mixup and CutMix")

# %%
# A training loop
# ---------------
#
# For training, let the same pass normalise, cast and change the layout. ``mean`` and ``std`` are in
# the units of the incoming pixels, 0 to 255 for uint8. Validation is normalised in the same way
# but not mixed: pass :meth:`mixup.for_validation() <dali_mixup.Mixup.for_validation>`.

mixup = Mixup(
    num_classes=8,
    alpha=0.2,
    output=OutputFormat(dtype="float32", layout="CHW", mean=127.5, std=64.0),
)
options = {
    "reader_name": "Reader",
    "auto_reset": True,
    "last_batch_policy": LastBatchPolicy.PARTIAL,
}
loader = MixupClassificationIterator(pipeline(), mixup=mixup, **options)
validation = MixupClassificationIterator(
    validation_pipeline(folder / "val", 32, 128, "cpu", resize=146),
    mixup=mixup.for_validation(),
    **options,
)

model = torch.nn.Sequential(
    torch.nn.Conv2d(3, 32, 5, stride=4),
    torch.nn.ReLU(),
    torch.nn.Conv2d(32, 64, 5, stride=4),
    torch.nn.ReLU(),
    torch.nn.AdaptiveAvgPool2d(1),
    torch.nn.Flatten(),
    torch.nn.Linear(64, 8),
)
optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)

# %%
# ``nn.CrossEntropyLoss`` takes soft labels as they are. The accuracy is measured on the validation
# images: on mixed images it has little meaning.

for epoch in range(5):
    for (batch,) in loader:
        loss = torch.nn.functional.cross_entropy(model(batch["data"]), batch["label"])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    right = seen = 0
    with torch.no_grad():
        for (batch,) in validation:
            right += (model(batch["data"]).argmax(1) == batch["label"].argmax(1)).sum().item()
            seen += len(batch["label"])
    print(f"epoch {epoch}: loss {loss.item():.2f}, validation accuracy {right / seen:.2f}")

# %%
# Why not inside the pipeline?
# ----------------------------
#
# It is possible to mix in DALI's graph, with ``fn.permute_batch`` or ``fn.python_function``. But
# DALI trims the last batch of an epoch (``LastBatchPolicy.PARTIAL``) after the graph has run. A
# partner that was drawn in the graph may not be among the samples that are delivered. DALI also
# runs ahead: a setting such as "no mixup in the last epochs" would arrive some batches late.
# ``dali-mixup`` mixes what is delivered, when it is delivered.
#
# What to watch for
# -----------------
#
# * Labels are float rows. Remove ``.squeeze().long()`` after the loader.
# * Use label smoothing in ``Mixup`` or in the loss, not in both.
# * Create the ``Mixup`` and the loader once, before the loop over epochs.
# * Start with ``alpha=0.2``. Above 0.5, together with label smoothing and strong augmentation,
#   small networks underfit.
