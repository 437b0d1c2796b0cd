"""A ResNet as one writes it while reading the paper, in oxidet.nn alone.

    python examples/resnet_from_scratch.py [--depth 50] [--weights resnet50.pth]

prints the network, and with a checkpoint of torchvision's what it makes of it. The blocks here call
their shortcut ``shortcut`` and always have one (an empty ``Sequential`` is the identity), where
torchvision has ``downsample`` or nothing; apart from that the names are the same, and so a key map
of one word loads torchvision's files.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any, ClassVar

from oxidet import nn, weights


class BasicBlock(nn.Module):
    """Two 3 x 3 convolutions beside a shortcut."""

    expansion: ClassVar[int] = 1

    def __init__(self, in_channels: int, channels: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.shortcut = make_shortcut(in_channels, channels, stride)

    def forward(self, x: Any) -> Any:
        """(N, in_channels, H, W) -> (N, channels, H / stride, W / stride)."""
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        return self.relu(out + self.shortcut(x))


class Bottleneck(nn.Module):
    """1 x 1 to few channels, 3 x 3, 1 x 1 to four times as many, beside a shortcut."""

    expansion: ClassVar[int] = 4

    def __init__(self, in_channels: int, channels: int, stride: int = 1) -> None:
        super().__init__()
        out_channels = channels * self.expansion
        self.conv1 = nn.Conv2d(in_channels, channels, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, stride=stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.conv3 = nn.Conv2d(channels, out_channels, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(out_channels)
        self.relu = nn.ReLU(inplace=True)
        self.shortcut = make_shortcut(in_channels, out_channels, stride)

    def forward(self, x: Any) -> Any:
        """(N, in_channels, H, W) -> (N, 4 * channels, H / stride, W / stride)."""
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.relu(self.bn2(self.conv2(out)))
        out = self.bn3(self.conv3(out))
        return self.relu(out + self.shortcut(x))


def make_shortcut(in_channels: int, out_channels: int, stride: int) -> nn.Sequential:
    """The identity where the shape stays, otherwise a 1 x 1 convolution with batch norm."""
    if stride == 1 and in_channels == out_channels:
        return nn.Sequential()
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, 1, stride=stride, bias=False),
        nn.BatchNorm2d(out_channels),
    )


class ResNet(nn.Module):
    """(N, 3, H, W) images -> (N, num_classes) logits."""

    compiled = True  # in evaluation mode one fused program instead of layer after layer

    def __init__(
        self,
        block: type[BasicBlock] | type[Bottleneck],
        num_blocks: tuple[int, ...],
        num_classes: int = 1000,
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(kernel_size=3, stride=2, padding=1)
        channels = 64
        for i, (count, width) in enumerate(zip(num_blocks, (64, 128, 256, 512), strict=True)):
            blocks = []
            for j in range(count):
                blocks.append(block(channels, width, stride=2 if i > 0 and j == 0 else 1))
                channels = width * block.expansion
            setattr(self, f"layer{i + 1}", nn.Sequential(*blocks))
        self.avgpool = nn.AdaptiveAvgPool2d((1, 1))
        self.fc = nn.Linear(channels, num_classes)

    def forward(self, x: Any) -> Any:
        """Images to logits."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        x = self.avgpool(x)
        return self.fc(nn.functional.flatten(x, 1))


NETWORKS: dict[int, tuple[type[BasicBlock] | type[Bottleneck], tuple[int, ...]]] = {
    18: (BasicBlock, (2, 2, 2, 2)),
    34: (BasicBlock, (3, 4, 6, 3)),
    50: (Bottleneck, (3, 4, 6, 3)),
    101: (Bottleneck, (3, 4, 23, 3)),
    152: (Bottleneck, (3, 8, 36, 3)),
}


def resnet(depth: int, num_classes: int = 1000) -> ResNet:
    """The paper's network of ``depth`` layers: 18, 34, 50, 101 or 152."""
    return ResNet(*NETWORKS[depth], num_classes)


def from_torchvision(state_dict: Mapping[str, Any]) -> dict[str, Any]:
    """torchvision's keys as this file has them."""
    return {key.replace("downsample.", "shortcut."): value for key, value in state_dict.items()}


def to_torchvision(state_dict: Mapping[str, Any]) -> dict[str, Any]:
    """The keys of this file as torchvision has them."""
    return {key.replace("shortcut.", "downsample."): value for key, value in state_dict.items()}


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Print a ResNet written from scratch.")
    parser.add_argument("--depth", type=int, choices=NETWORKS, default=50)
    parser.add_argument("--weights", metavar="FILE", help="torchvision's .pth for this depth")
    options = parser.parse_args(arguments)
    model = resnet(options.depth)
    print(model)
    if options.weights:
        print(model.load_state_dict(from_torchvision(weights.load(options.weights))))


if __name__ == "__main__":
    main()
