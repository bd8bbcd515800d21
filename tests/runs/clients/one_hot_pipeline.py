"""Labels that are one-hot rows when they leave the pipeline."""

import torch
from nvidia.dali import fn, pipeline_def
from nvidia.dali.plugin.pytorch import LastBatchPolicy

from dali_mixup import Mixup, MixupClassificationIterator


@pipeline_def(batch_size=4, num_threads=1, device_id=None, seed=1)
def pipeline(folder):
    encoded, labels = fn.readers.file(
        file_root=folder, random_shuffle=True, pad_last_batch=True, name="Reader"
    )
    return fn.decoders.image(encoded), fn.one_hot(labels, num_classes=14)


def train(folder, model, criterion):
    loader = MixupClassificationIterator(
        pipeline(folder),
        reader_name="Reader",
        last_batch_policy=LastBatchPolicy.PARTIAL,
        auto_reset=True,
        mixup=Mixup(num_classes=None, alpha=1.0),
    )
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    for _ in range(3):
        for (batch,) in loader:
            loss = criterion(model(batch["data"]), batch["label"])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
