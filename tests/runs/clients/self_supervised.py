"""Two views and no labels: the model predicts one view from the other."""

import torch
from nvidia.dali import fn, pipeline_def
from nvidia.dali.plugin.pytorch import LastBatchPolicy

from dali_mixup import Mixup, MixupGenericIterator


@pipeline_def(batch_size=4, num_threads=1, device_id=None, seed=1)
def pipeline(folder):
    encoded, _ = fn.readers.file(
        file_root=folder, random_shuffle=True, pad_last_batch=True, name="Reader"
    )
    images = fn.decoders.image(encoded)
    return images / 255.0, images / 510.0


def train(folder, model, criterion):
    loader = MixupGenericIterator(
        pipeline(folder),
        ["view_0", "view_1"],
        reader_name="Reader",
        last_batch_policy=LastBatchPolicy.PARTIAL,
        auto_reset=True,
        mixup=Mixup(num_classes=None, alpha=1.0),
        data_key=("view_0", "view_1"),
        label_key=(),
    )
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    for _ in range(3):
        for (batch,) in loader:
            loss = criterion(model(batch["view_0"]), batch["view_1"])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
