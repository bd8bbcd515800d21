"""float16 images in HWC, padded to 4 channels for tensor cores, as in NVIDIA's ResNet."""

import torch
from nvidia.dali import fn, pipeline_def, types
from nvidia.dali.plugin.pytorch import LastBatchPolicy

from dali_mixup import Mixup, MixupClassificationIterator


@pipeline_def(batch_size=4, num_threads=1, device_id=None, seed=1)
def pipeline(folder):
    encoded, labels = fn.readers.file(
        file_root=folder, random_shuffle=True, pad_last_batch=True, name="Reader"
    )
    images = fn.crop_mirror_normalize(
        fn.decoders.image(encoded),
        dtype=types.FLOAT16,
        output_layout="HWC",
        pad_output=True,
        mean=[0.485 * 255, 0.456 * 255, 0.406 * 255],
        std=[0.229 * 255, 0.224 * 255, 0.225 * 255],
    )
    return images, labels


def train(folder, model, criterion):
    loader = MixupClassificationIterator(
        pipeline(folder),
        reader_name="Reader",
        last_batch_policy=LastBatchPolicy.PARTIAL,
        auto_reset=True,
        mixup=Mixup(num_classes=14, alpha=1.0),
    )
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    for _ in range(3):
        for (batch,) in loader:
            loss = criterion(model(batch["data"]), batch["label"])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
