"""Mixing in the collate function of a DataLoader, in its workers."""

import torch
from torch.utils.data import DataLoader, default_collate

from dali_mixup import Mixup

mixup = Mixup(num_classes=14, alpha=1.0)


def collate(samples):
    images, labels = default_collate(samples)
    return mixup(images, labels)


def train(dataset, model, criterion, persistent_workers=False):
    loader = DataLoader(
        dataset,
        batch_size=4,
        shuffle=True,
        num_workers=2,
        collate_fn=collate,
        persistent_workers=persistent_workers,
    )
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    for _ in range(3):
        for images, targets in loader:
            loss = criterion(model(images), targets)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
