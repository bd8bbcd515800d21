"""A thread that fills a queue, from a loader that is built anew in each epoch."""

import queue
import threading

import torch
from nvidia.dali import fn, pipeline_def
from nvidia.dali.plugin.pytorch import DALIClassificationIterator, LastBatchPolicy

from dali_mixup import Mixup, MixupLoader

END = object()


@pipeline_def(batch_size=4, num_threads=1, device_id=None)
def pipeline(folder):
    encoded, labels = fn.readers.file(
        file_root=folder, random_shuffle=True, pad_last_batch=True, name="Reader"
    )
    return fn.decoders.image(encoded), labels


def batches_ahead(loader):
    """The loader's batches, fetched by a thread."""
    fetched = queue.Queue(maxsize=2)

    def fetch():
        try:
            for batch in loader:
                fetched.put(batch)
        finally:
            fetched.put(END)

    threading.Thread(target=fetch, daemon=True).start()
    return iter(fetched.get, END)


def train(folder, model, criterion):
    mixup = Mixup(num_classes=14, alpha=1.0)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    for epoch in range(3):
        iterator = DALIClassificationIterator(
            pipeline(folder, seed=epoch),
            reader_name="Reader",
            last_batch_policy=LastBatchPolicy.PARTIAL,
        )
        for (batch,) in batches_ahead(MixupLoader(iterator, mixup)):
            loss = criterion(model(batch["data"]), batch["label"])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
