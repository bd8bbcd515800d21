"""A loop with Accelerate over a stateful DataLoader, which can stop in the middle of an epoch."""

import torch
from accelerate import Accelerator, DataLoaderConfiguration
from torch.utils.data import DataLoader

from dali_mixup import Mixup, MixupLoader


def train(dataset, model, criterion, state=None, stop_after=None):
    """Return the loader's state after `stop_after` steps, or after all 3 epochs."""
    torch.manual_seed(0)
    accelerator = Accelerator(
        cpu=True,
        dataloader_config=DataLoaderConfiguration(
            use_stateful_dataloader=True, use_seedable_sampler=True, even_batches=False
        ),
    )
    dataloader = DataLoader(dataset, batch_size=4, shuffle=True)
    loader = MixupLoader(accelerator.prepare(dataloader), Mixup(num_classes=14, alpha=1.0))
    model, optimizer = accelerator.prepare(model, torch.optim.SGD(model.parameters(), lr=0.01))
    if state is not None:
        loader.load_state_dict(state)
    steps = 0
    for _ in range(state["epoch"] if state else 0, 3):
        for images, targets in loader:
            loss = criterion(model(images), targets)
            accelerator.backward(loss)
            optimizer.step()
            optimizer.zero_grad()
            steps += 1
            if steps == stop_after:
                return loader.state_dict()
    return loader.state_dict()
