"""A loop as in timm's train.py, which turns mixup off for the last epochs."""

import torch

from dali_mixup.compat import TimmMixup as Mixup

MIXUP_OFF_EPOCH = 2


def train(dataset, model, criterion):
    loader_train = torch.utils.data.DataLoader(dataset, batch_size=4, shuffle=True)
    mixup_fn = Mixup(mixup_alpha=0.2, num_classes=14, label_smoothing=0.1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    for epoch in range(3):
        if epoch >= MIXUP_OFF_EPOCH:
            mixup_fn.mixup_enabled = False
        for input, target in loader_train:
            input, target = mixup_fn(input, target)
            loss = criterion(model(input), target)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
