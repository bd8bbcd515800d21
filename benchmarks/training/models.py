"""Three small classifiers in plain torch, and torchvision's and timm's by name."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import torch
from torch import nn

import dali_mixup.cli.peers  # noqa: F401  lets torchvision load beside a CPU build of torch
from dali_mixup.recipes import IMAGENET


class SmallCNN(nn.Sequential):
    """Four 3 x 3 convolutions of 24 to 64 channels with batch norm, then mean pooling."""

    def __init__(self, num_classes: int) -> None:
        layers: list[nn.Module] = []
        for inputs, outputs, stride in ((3, 24, 1), (24, 48, 2), (48, 48, 1), (48, 64, 2)):
            layers += [
                nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False),
                nn.BatchNorm2d(outputs),
                nn.ReLU(inplace=True),
            ]
        super().__init__(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, num_classes))


class SmallResNet(nn.Sequential):
    """Three residual blocks of 24 to 96 channels, at a half to an eighth of the image's side."""

    def __init__(self, num_classes: int) -> None:
        super().__init__(
            nn.Conv2d(3, 24, 3, 2, 1, bias=False),
            nn.BatchNorm2d(24),
            nn.ReLU(inplace=True),
            ResidualBlock(24, 24, 1),
            ResidualBlock(24, 48, 2),
            ResidualBlock(48, 96, 2),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(96, num_classes),
        )


class ResidualBlock(nn.Module):
    """Two 3 x 3 convolutions with batch norm beside a connection around them."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.branch = nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(inplace=True),
            nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False),
            nn.BatchNorm2d(outputs),
        )
        self.around: nn.Module = nn.Identity()
        if stride > 1 or inputs != outputs:
            self.around = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)
            )

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.branch(images) + self.around(images))


class SmallViT(nn.Module):
    """16 patches, three transformer blocks of width 64 with 4 heads, then mean pooling."""

    def __init__(self, num_classes: int, image_size: int, width: int = 64) -> None:
        super().__init__()
        side = image_size // 4
        self.patches = nn.Conv2d(3, width, side, stride=side)
        self.positions = nn.Parameter(0.02 * torch.randn(16, width))
        block = nn.TransformerEncoderLayer(
            width, nhead=4, dim_feedforward=4 * width, dropout=0.0,
            activation="gelu", batch_first=True, norm_first=True,
        )  # fmt: skip
        self.blocks = nn.TransformerEncoder(block, num_layers=3, enable_nested_tensor=False)
        self.head = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, num_classes))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        tokens = self.patches(images).flatten(2).transpose(1, 2) + self.positions
        return self.head(self.blocks(tokens).mean(1))


def build_model(
    name: str, num_classes: int, image_size: int, *, pretrained: bool = False, **options: Any
) -> nn.Module:
    """ "small_cnn", "small_resnet", "small_vit", a torchvision name, or "timm:" and a timm name."""
    if pretrained and not name.startswith("timm:"):
        raise ValueError(f"pretrained: expected a model of timm, 'timm:...', got {name!r}")
    if name == "small_cnn":
        return SmallCNN(num_classes)
    if name == "small_resnet":
        return SmallResNet(num_classes)
    if name == "small_vit":
        return SmallViT(num_classes, image_size)
    if name.startswith("timm:"):
        timm, name = import_module("timm"), name.removeprefix("timm:")
        size = {"img_size": image_size} if timm.get_pretrained_cfg(name).fixed_input_size else {}
        return timm.create_model(
            name, pretrained=pretrained, num_classes=num_classes, **size, **options
        )
    size = {"image_size": image_size} if name.startswith("vit_") else {}
    models = import_module("torchvision.models")
    return models.get_model(name, num_classes=num_classes, **size, **options)


def pixels_of(name: str, *, pretrained: bool) -> dict[str, Any]:
    """``mean`` and ``std`` in 0 to 255: those of a model's pretrained weights, or ImageNet's."""
    if not pretrained:
        return {"mean": IMAGENET.mean, "std": IMAGENET.std}
    config = import_module("timm").get_pretrained_cfg(name.removeprefix("timm:"))
    return {key: tuple(255 * v for v in getattr(config, key)) for key in ("mean", "std")}
