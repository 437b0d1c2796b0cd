"""DenseNet, Huang et al., "Densely connected convolutional networks" (arXiv 1608.06993).

Every layer reads what all layers of its block before it wrote.
"""

from __future__ import annotations

from typing import Any

from oxidet import nn
from oxidet.nn import functional as F


class DenseLayer(nn.Module):
    """(N, C, H, W) -> the ``growth`` channels that this layer adds."""

    def __init__(self, channels: int, growth: int, bottleneck: int) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm2d(channels)
        self.relu1 = nn.ReLU(inplace=True)
        self.conv1 = nn.Conv2d(channels, bottleneck * growth, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(bottleneck * growth)
        self.relu2 = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(bottleneck * growth, growth, 3, padding=1, bias=False)

    def forward(self, x: Any) -> Any:
        """Normalise and clip before each convolution."""
        x = self.conv1(self.relu1(self.norm1(x)))
        return self.conv2(self.relu2(self.norm2(x)))


class DenseBlock(nn.ModuleDict):
    """``layers`` layers, each reading the block's input and all outputs before it."""

    def __init__(self, layers: int, channels: int, growth: int, bottleneck: int) -> None:
        super().__init__(
            {
                f"denselayer{i + 1}": DenseLayer(channels + i * growth, growth, bottleneck)
                for i in range(layers)
            }
        )

    def forward(self, x: Any) -> Any:
        """(N, channels, H, W) -> (N, channels + layers * growth, H, W)."""
        for layer in self.values():
            x = F.cat([x, layer(x)], 1)
        return x


class Transition(nn.Sequential):
    """Half the channels and half the size."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU(inplace=True)
        self.conv = nn.Conv2d(channels, channels // 2, 1, bias=False)
        self.pool = nn.AvgPool2d(kernel_size=2, stride=2)


class DenseNet(nn.Module):
    """(N, 3, H, W) images -> (N, num_classes) logits."""

    def __init__(
        self,
        growth: int,
        blocks: tuple[int, ...],
        channels: int,
        bottleneck: int = 4,
        num_classes: int = 1000,
    ) -> None:
        super().__init__()
        self.features = nn.Sequential()
        self.features.conv0 = nn.Conv2d(3, channels, 7, stride=2, padding=3, bias=False)
        self.features.norm0 = nn.BatchNorm2d(channels)
        self.features.relu0 = nn.ReLU(inplace=True)
        self.features.pool0 = nn.MaxPool2d(kernel_size=3, stride=2, padding=1)
        for i, layers in enumerate(blocks, start=1):
            block = DenseBlock(layers, channels, growth, bottleneck)
            setattr(self.features, f"denseblock{i}", block)
            channels += layers * growth
            if i < len(blocks):
                setattr(self.features, f"transition{i}", Transition(channels))
                channels //= 2
        self.features.norm5 = nn.BatchNorm2d(channels)
        self.classifier = nn.Linear(channels, num_classes)

    def forward(self, x: Any) -> Any:
        """Images to logits."""
        x = F.adaptive_avg_pool2d(F.relu(self.features(x)), (1, 1))
        return self.classifier(F.flatten(x, 1))


def densenet121(num_classes: int = 1000) -> DenseNet:
    """DenseNet-121."""
    return DenseNet(32, (6, 12, 24, 16), 64, num_classes=num_classes)
