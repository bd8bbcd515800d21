"""A Python source that feeds the pipeline with batches of encoded images and uint8 labels."""

import numpy as np
import torch
from nvidia.dali import fn, pipeline_def

from dali_mixup import Mixup, MixupGenericIterator


class Batches:
    def __init__(self, folder, batch_size):
        self.files = sorted(folder.glob("*/*.png"))
        self.batch_size = batch_size

    def __iter__(self):
        self.order = np.random.default_rng(0).permutation(len(self.files)).tolist()
        return self

    def __next__(self):
        if not self.order:
            raise StopIteration
        batch, self.order = self.order[: self.batch_size], self.order[self.batch_size :]
        files = [self.files[index] for index in batch]
        encoded = [np.fromfile(file, np.uint8) for file in files]
        return encoded, [np.array([int(file.parent.name)], np.uint8) for file in files]


@pipeline_def(batch_size=4, num_threads=1, device_id=None)
def pipeline(batches):
    encoded, labels = fn.external_source(batches, num_outputs=2, cycle="raise")
    return fn.decoders.image(encoded), labels


def train(folder, model, criterion):
    loader = MixupGenericIterator(
        pipeline(Batches(folder, batch_size=4)),
        ["image", "label"],
        auto_reset=True,
        mixup=Mixup(num_classes=14, alpha=1.0),
    )
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    for _ in range(3):
        for (batch,) in loader:
            loss = criterion(model(batch["image"]), batch["label"])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
