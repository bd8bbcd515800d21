"""A subclass of DALI's iterator that hands out tuples, as in solo-learn."""

import torch
from nvidia.dali import fn, pipeline_def
from nvidia.dali.plugin.pytorch import LastBatchPolicy

from dali_mixup import Mixup, MixupGenericIterator


@pipeline_def(batch_size=4, num_threads=1, device_id=None, seed=1)
def pipeline(folder):
    encoded, labels = fn.readers.file(
        file_root=folder, random_shuffle=True, pad_last_batch=True, name="Reader"
    )
    return fn.decoders.image(encoded), labels


class ClassificationWrapper(MixupGenericIterator):
    def __next__(self):
        batch = super().__next__()[0]
        return batch["x"], batch["label"]


def train(folder, model, criterion):
    loader = ClassificationWrapper(
        pipeline(folder),
        ["x", "label"],
        reader_name="Reader",
        last_batch_policy=LastBatchPolicy.PARTIAL,
        auto_reset=True,
        mixup=Mixup(num_classes=14, alpha=1.0),
    )
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    for _ in range(3):
        for images, targets in loader:
            loss = criterion(model(images), targets)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
