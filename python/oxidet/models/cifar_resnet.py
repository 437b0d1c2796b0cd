"""The small residual networks of He et al. (arXiv 1512.03385), section 4.2, and plain ones.

Made for the 32 x 32 pixels of CIFAR-10: a 3 x 3 convolution, then three stages of n blocks with 16,
32 and 64 channels at full, half and quarter size; 6n + 2 layers. With them the paper shows that
plain networks get worse when they get deeper, also on the images they were trained on, and that
residual ones do not.
"""

from __future__ import annotations

from typing import Any

from oxidet import nn
from oxidet._arrays import integer
from oxidet.models.classifier import Classifier
from oxidet.models.registry import register_model
from oxidet.models.resnet import BasicBlock, PlainBlock, conv3x3, initialize, make_layer
from oxidet.nn import functional as F
from oxidet.transforms import ImageClassification


class CifarResNet(Classifier):
    """A small residual network for (N, in_channels, H, W) images, 32 x 32 in the paper.

    Returns (N, num_classes) logits. Any size of image will do.

    Parameters
    ----------
    depth
        Layers with weights on the longest path: 6n + 2, so 8, 14, 20, 32, 44, 56, 110, ...
    num_classes
        Number of classes.
    shortcut
        ``"A"``, the paper's choice here, ``"B"`` or ``"C"``; see
        :func:`oxidet.models.resnet.make_shortcut`.
    residual
        Whether there are shortcuts at all.
    in_channels
        Channels of the images.
    width
        Channels of the first stage; the others have two and four times as many.

    Examples
    --------
    >>> from oxidet.models import CifarResNet
    >>> sum(p.numel() for p in CifarResNet(20).parameters())
    269722
    """

    conv1: nn.Conv2d
    bn1: nn.BatchNorm2d
    relu: nn.ReLU
    layer1: nn.Sequential
    layer2: nn.Sequential
    layer3: nn.Sequential
    avgpool: nn.AdaptiveAvgPool2d
    fc: nn.Linear

    # Mean and deviation of the training images of CIFAR-10.
    preprocess: ImageClassification = ImageClassification(
        32, resize_size=32, mean=(0.4914, 0.4822, 0.4465), std=(0.2470, 0.2435, 0.2616)
    )

    def __init__(
        self,
        depth: int,
        num_classes: int = 10,
        shortcut: str = "A",
        residual: bool = True,
        in_channels: int = 3,
        width: int = 16,
    ) -> None:
        super().__init__()
        integer(depth, "depth", 8)
        if depth % 6 != 2:
            raise ValueError(f"depth: expected 6n + 2, such as 20, 32, 44 or 56, got {depth}")
        blocks = depth // 6
        block = BasicBlock if residual else PlainBlock
        self.conv1 = conv3x3(in_channels, width)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.layer1 = make_layer(block, width, width, blocks, shortcut=shortcut)
        self.layer2 = make_layer(block, width, 2 * width, blocks, 2, shortcut=shortcut)
        self.layer3 = make_layer(block, 2 * width, 4 * width, blocks, 2, shortcut=shortcut)
        self.avgpool = nn.AdaptiveAvgPool2d((1, 1))
        self.fc = nn.Linear(4 * width, num_classes)
        initialize(self)

    def forward(self, x: Any) -> Any:
        """(N, in_channels, H, W) -> (N, num_classes)."""
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.fc(F.flatten(self.avgpool(x), 1))


@register_model()
def resnet20_cifar10(num_classes: int = 10, **options: Any) -> CifarResNet:
    """The paper's ResNet-20 for CIFAR-10 with fresh weights."""
    return CifarResNet(20, num_classes, **options)


@register_model()
def resnet32_cifar10(num_classes: int = 10, **options: Any) -> CifarResNet:
    """The paper's ResNet-32 for CIFAR-10 with fresh weights."""
    return CifarResNet(32, num_classes, **options)


@register_model()
def resnet44_cifar10(num_classes: int = 10, **options: Any) -> CifarResNet:
    """The paper's ResNet-44 for CIFAR-10 with fresh weights."""
    return CifarResNet(44, num_classes, **options)


@register_model()
def resnet56_cifar10(num_classes: int = 10, **options: Any) -> CifarResNet:
    """The paper's ResNet-56 for CIFAR-10 with fresh weights."""
    return CifarResNet(56, num_classes, **options)


@register_model()
def resnet110_cifar10(num_classes: int = 10, **options: Any) -> CifarResNet:
    """The paper's ResNet-110 for CIFAR-10 with fresh weights."""
    return CifarResNet(110, num_classes, **options)


@register_model()
def plain20_cifar10(num_classes: int = 10, **options: Any) -> CifarResNet:
    """The paper's plain network of 20 layers for CIFAR-10 with fresh weights."""
    return CifarResNet(20, num_classes, residual=False, **options)


@register_model()
def plain32_cifar10(num_classes: int = 10, **options: Any) -> CifarResNet:
    """The paper's plain network of 32 layers for CIFAR-10 with fresh weights."""
    return CifarResNet(32, num_classes, residual=False, **options)


@register_model()
def plain44_cifar10(num_classes: int = 10, **options: Any) -> CifarResNet:
    """The paper's plain network of 44 layers for CIFAR-10 with fresh weights."""
    return CifarResNet(44, num_classes, residual=False, **options)


@register_model()
def plain56_cifar10(num_classes: int = 10, **options: Any) -> CifarResNet:
    """The paper's plain network of 56 layers for CIFAR-10 with fresh weights."""
    return CifarResNet(56, num_classes, residual=False, **options)
