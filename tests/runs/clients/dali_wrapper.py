"""A generator around DALI's iterator that resets it, as in NVIDIA's examples."""

import torch
from nvidia.dali import fn, pipeline_def, types
from nvidia.dali.plugin.pytorch import DALIClassificationIterator, LastBatchPolicy

from dali_mixup.compat import MixUpWrapper


@pipeline_def(batch_size=4, num_threads=1, device_id=None, seed=1)
def pipeline(folder):
    encoded, labels = fn.readers.file(
        file_root=folder, random_shuffle=True, pad_last_batch=True, name="Reader"
    )
    images = fn.decoders.image(encoded)
    images = fn.crop_mirror_normalize(
        images, dtype=types.FLOAT, output_layout="CHW", mean=[127.5] * 3, std=[127.5] * 3
    )
    return images, labels


class DALIWrapper:
    def __init__(self, iterator):
        self.iterator = iterator

    @staticmethod
    def gen_wrapper(iterator):
        for data in iterator:
            yield data[0]["data"], data[0]["label"].squeeze(-1).long()
        iterator.reset()

    def __iter__(self):
        return DALIWrapper.gen_wrapper(self.iterator)


def train(folder, model, criterion):
    iterator = DALIClassificationIterator(
        pipeline(folder), reader_name="Reader", last_batch_policy=LastBatchPolicy.PARTIAL
    )
    train_loader = MixUpWrapper(1.0, DALIWrapper(iterator), num_classes=14)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    for _ in range(3):
        for images, targets in train_loader:
            loss = criterion(model(images), targets)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
