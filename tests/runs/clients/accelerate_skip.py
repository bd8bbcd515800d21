"""A loop with Accelerate that resumes by skipping the batches that were seen."""

import torch
from accelerate import Accelerator, DataLoaderConfiguration
from torch.utils.data import DataLoader

from dali_mixup import Mixup, MixupLoader


def train(dataset, model, criterion, state=None, stop_after=None):
    """Return the loader's state after `stop_after` steps, or after all 3 epochs."""
    torch.manual_seed(0)
    accelerator = Accelerator(
        cpu=True,
        dataloader_config=DataLoaderConfiguration(use_seedable_sampler=True, even_batches=False),
    )
    prepared = accelerator.prepare(DataLoader(dataset, batch_size=4, shuffle=True))
    model, optimizer = accelerator.prepare(model, torch.optim.SGD(model.parameters(), lr=0.01))
    mixup = Mixup(num_classes=14, alpha=1.0)
    steps = 0
    for epoch in range(state["epoch"] if state else 0, 3):
        prepared.set_epoch(epoch)
        if state is None:
            loader = MixupLoader(prepared, mixup)
        else:
            rest = accelerator.skip_first_batches(prepared, state["step"])
            loader = MixupLoader(rest, mixup)
            loader.load_state_dict(state)
            state = None
        for images, targets in loader:
            loss = criterion(model(images), targets)
            accelerator.backward(loss)
            optimizer.step()
            optimizer.zero_grad()
            steps += 1
            if steps == stop_after:
                return loader.state_dict()
    return loader.state_dict()
