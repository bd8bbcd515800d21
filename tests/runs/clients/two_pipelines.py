"""One iterator over a list of pipelines, one per shard of the data."""

import torch
from nvidia.dali import fn, pipeline_def
from nvidia.dali.plugin.pytorch import LastBatchPolicy

from dali_mixup import Mixup, MixupClassificationIterator


@pipeline_def(batch_size=4, num_threads=1, device_id=None, seed=1)
def pipeline(folder, shard_id):
    encoded, labels = fn.readers.file(
        file_root=folder, shard_id=shard_id, num_shards=2, pad_last_batch=True, name="Reader"
    )
    return fn.decoders.image(encoded), labels


def train(folder, model, criterion):
    loader = MixupClassificationIterator(
        [pipeline(folder, shard) for shard in range(2)],
        reader_name="Reader",
        last_batch_policy=LastBatchPolicy.PARTIAL,
        auto_reset=True,
        mixup=Mixup(num_classes=14, alpha=1.0),
    )
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    for _ in range(3):
        for batches in loader:
            for batch in batches:
                loss = criterion(model(batch["data"]), batch["label"])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
