"""DALI behind a torch DataLoader, by dali_proxy."""

import numpy as np
import torch
from nvidia.dali import fn, pipeline_def, types
from nvidia.dali.plugin.pytorch.experimental import proxy as dali_proxy

from dali_mixup import Mixup, MixupLoader


@pipeline_def(batch_size=4, num_threads=1, device_id=None, prefetch_queue_depth=2)
def pipeline():
    paths = fn.external_source(name="images", no_copy=True)
    return fn.decoders.image(fn.io.file.read(paths), device="cpu", output_type=types.RGB)


class Files(torch.utils.data.Dataset):
    def __init__(self, folder, transform):
        self.files = sorted(folder.glob("*/*.png"))
        self.transform = transform

    def __len__(self):
        return len(self.files)

    def __getitem__(self, index):
        path = np.frombuffer(str(self.files[index]).encode(), np.int8)
        return self.transform(path), int(self.files[index].parent.name)


def train(folder, model, criterion):
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    with dali_proxy.DALIServer(pipeline()) as server:
        loader = MixupLoader(
            dali_proxy.DataLoader(
                server, Files(folder, server.proxy), batch_size=4, shuffle=True, num_workers=1
            ),
            Mixup(num_classes=14, alpha=1.0),
        )
        for _ in range(3):
            for images, targets in loader:
                loss = criterion(model(images), targets)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
