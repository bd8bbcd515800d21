"""Classes that are numbered from 1. The pipeline subtracts the 1, before labels are mixed."""

from collections import Counter

import torch
from nvidia.dali import fn, pipeline_def
from nvidia.dali.plugin.pytorch import LastBatchPolicy

from dali_mixup import Mixup, MixupGenericIterator


@pipeline_def(batch_size=4, num_threads=1, device_id=None, seed=1)
def pipeline(files, first_class):
    encoded, labels = fn.readers.file(
        files=files,
        labels=list(range(1, len(files) + 1)),
        random_shuffle=True,
        pad_last_batch=True,
        name="Reader",
    )
    return fn.decoders.image(encoded), labels - first_class


def train(folder, model, criterion, first_class=1):
    files = sorted(map(str, folder.glob("*/*.png")))
    loader = MixupGenericIterator(
        pipeline(files, first_class),
        ["image", "label"],
        reader_name="Reader",
        last_batch_policy=LastBatchPolicy.PARTIAL,
        auto_reset=True,
        mixup=Mixup(num_classes=len(files), alpha=1.0),
        target_key="target",
    )
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    images_of_class = Counter()
    for _ in range(3):
        for (batch,) in loader:
            loss = criterion(model(batch["image"]), batch["target"])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            images_of_class.update(batch["label"].squeeze(-1).tolist())
    return images_of_class
