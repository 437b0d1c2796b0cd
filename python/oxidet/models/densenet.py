"""DenseNet, Huang et al., "Densely connected convolutional networks" (arXiv 1608.06993).

Every layer reads what all layers of its block before it wrote, and adds a few channels. Layer
names, initialisation and text are torchvision's, so its checkpoints load.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any

from oxidet import nn
from oxidet._arrays import integer, listed, number
from oxidet.models.classifier import Classifier
from oxidet.models.registry import register_model
from oxidet.nn import functional as F
from oxidet.nn import init


class _DenseLayer(nn.Module):
    """Batch norm and ReLU before each of a 1 x 1 and a 3 x 3 convolution ("DenseNet-B")."""

    def __init__(self, channels: int, growth_rate: int, bn_size: int, drop_rate: float) -> None:
        super().__init__()
        width = bn_size * growth_rate
        self.norm1 = nn.BatchNorm2d(channels)
        self.relu1 = nn.ReLU(inplace=True)
        self.conv1 = nn.Conv2d(channels, width, kernel_size=1, bias=False)
        self.norm2 = nn.BatchNorm2d(width)
        self.relu2 = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(width, growth_rate, kernel_size=3, padding=1, bias=False)
        self.drop_rate = drop_rate

    def forward(self, x: Any) -> Any:
        """(N, channels, H, W) -> (N, growth_rate, H, W), the channels that this layer adds."""
        x = self.conv1(self.relu1(self.norm1(x)))
        x = self.conv2(self.relu2(self.norm2(x)))
        return F.dropout(x, self.drop_rate, self.training)


class _DenseBlock(nn.ModuleDict):
    """Layers of which each reads the block's input and all outputs before it."""

    def __init__(
        self, layers: int, channels: int, growth_rate: int, bn_size: int, drop_rate: float
    ) -> None:
        super().__init__()
        for i in range(layers):
            layer = _DenseLayer(channels + i * growth_rate, growth_rate, bn_size, drop_rate)
            self[f"denselayer{i + 1}"] = layer

    def forward(self, x: Any) -> Any:
        """(N, channels, H, W) -> (N, channels + layers * growth_rate, H, W)."""
        for layer in self.values():
            x = F.cat([x, layer(x)], 1)
        return x


class _Transition(nn.Sequential):
    """Half the channels and half the size, between two blocks."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU(inplace=True)
        self.conv = nn.Conv2d(channels, channels // 2, kernel_size=1, bias=False)
        self.pool = nn.AvgPool2d(kernel_size=2, stride=2)


class DenseNet(Classifier):
    """A densely connected network ("DenseNet-BC") for (N, 3, H, W) images, at least 29 x 29.

    Returns (N, num_classes) logits. Checkpoints with torchvision's names load, also those of its
    old files, where ``norm1`` is ``norm.1``.

    Parameters
    ----------
    growth_rate
        Channels that each layer adds (k in the paper).
    block_config
        Number of layers of each block.
    num_init_features
        Channels of the first convolution.
    bn_size
        Channels between the two convolutions of a layer, in multiples of ``growth_rate``.
    drop_rate
        Probability with which the output of a layer is dropped in training.
    num_classes
        Number of classes.
    memory_efficient
        Accepted because torchvision has it, where training then computes concatenations a second
        time instead of keeping them. Here training keeps them either way; results are the same.
    """

    features: nn.Sequential
    classifier: nn.Linear

    def __init__(
        self,
        growth_rate: int = 32,
        block_config: Sequence[int] = (6, 12, 24, 16),
        num_init_features: int = 64,
        bn_size: int = 4,
        drop_rate: float = 0,
        num_classes: int = 1000,
        memory_efficient: bool = False,
    ) -> None:
        super().__init__()
        number(drop_rate, "drop_rate", 0, 1)
        channels = num_init_features
        self.features = nn.Sequential(
            OrderedDict(
                conv0=nn.Conv2d(3, channels, kernel_size=7, stride=2, padding=3, bias=False),
                norm0=nn.BatchNorm2d(channels),
                relu0=nn.ReLU(inplace=True),
                pool0=nn.MaxPool2d(kernel_size=3, stride=2, padding=1),
            )
        )
        counts = listed(block_config, "block_config", "numbers of layers")
        for i, count in enumerate(counts, start=1):
            layers = integer(count, "block_config", 1)
            block = _DenseBlock(layers, channels, growth_rate, bn_size, drop_rate)
            self.features.add_module(f"denseblock{i}", block)
            channels += layers * growth_rate
            if i < len(counts):
                self.features.add_module(f"transition{i}", _Transition(channels))
                channels //= 2
        self.features.add_module("norm5", nn.BatchNorm2d(channels))
        self.classifier = nn.Linear(channels, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                init.kaiming_normal_(module.weight)
        if self.classifier.bias is not None:
            init.zeros_(self.classifier.bias)

    def forward(self, x: Any) -> Any:
        """(N, 3, H, W) -> (N, num_classes)."""
        x = F.adaptive_avg_pool2d(F.relu(self.features(x)), (1, 1))
        return self.classifier(F.flatten(x, 1))

    def _adapt_state_dict(self, state_dict: Mapping[str, Any], prefix: str) -> Mapping[str, Any]:
        old = re.compile(rf"({re.escape(prefix)}.*denselayer\d+\.(?:norm|conv))\.([12]\.\w+)")
        return {old.sub(r"\1\2", key): value for key, value in state_dict.items()}


@register_model()
def densenet121(num_classes: int = 1000, **options: Any) -> DenseNet:
    """DenseNet-121 with fresh weights; ``options`` go to :class:`DenseNet`.

    >>> from oxidet.models import densenet121
    >>> sum(p.numel() for p in densenet121().parameters())
    7978856
    """
    return DenseNet(32, (6, 12, 24, 16), 64, num_classes=num_classes, **options)


@register_model()
def densenet161(num_classes: int = 1000, **options: Any) -> DenseNet:
    """DenseNet-161 with fresh weights; ``options`` go to :class:`DenseNet`."""
    return DenseNet(48, (6, 12, 36, 24), 96, num_classes=num_classes, **options)


@register_model()
def densenet169(num_classes: int = 1000, **options: Any) -> DenseNet:
    """DenseNet-169 with fresh weights; ``options`` go to :class:`DenseNet`."""
    return DenseNet(32, (6, 12, 32, 32), 64, num_classes=num_classes, **options)


@register_model()
def densenet201(num_classes: int = 1000, **options: Any) -> DenseNet:
    """DenseNet-201 with fresh weights; ``options`` go to :class:`DenseNet`."""
    return DenseNet(32, (6, 12, 48, 32), 64, num_classes=num_classes, **options)
