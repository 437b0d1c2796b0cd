"""Network in Network, Lin et al. (arXiv 1312.4400).

Behind every convolution two of 1 x 1: a small network that looks at all channels of one place. No
linear layers: the last convolution has a map per class, of which the mean is the logit.
"""

from __future__ import annotations

from typing import Any

from oxidet import nn
from oxidet._arrays import choice
from oxidet.models.classifier import Classifier
from oxidet.models.registry import register_model
from oxidet.nn import functional as F
from oxidet.nn import init
from oxidet.transforms import ImageClassification

IMAGENET = ImageClassification.caffe(224)
CIFAR10 = ImageClassification.caffe(32, resize_size=(32, 32), mean=(113.9, 123.0, 125.3))


def mlpconv(
    in_channels: int, out_channels: int, mlp1: int, mlp2: int, kernel_size: int, **options: Any
) -> list[nn.Module]:
    """A convolution and two of 1 x 1, each with its ReLU."""
    return [
        nn.Conv2d(in_channels, out_channels, kernel_size, **options),
        nn.ReLU(inplace=True),
        nn.Conv2d(out_channels, mlp1, kernel_size=1),
        nn.ReLU(inplace=True),
        nn.Conv2d(mlp1, mlp2, kernel_size=1),
        nn.ReLU(inplace=True),
    ]


def imagenet_features(num_classes: int, dropout: float) -> nn.Sequential:
    """The ImageNet network of the paper's first author, for 224 x 224."""
    return nn.Sequential(
        *mlpconv(3, 96, 96, 96, kernel_size=11, stride=4),  # 96 x 54 x 54
        nn.MaxPool2d(kernel_size=3, stride=2, ceil_mode=True),  # 96 x 27 x 27
        *mlpconv(96, 256, 256, 256, kernel_size=5, padding=2),
        nn.MaxPool2d(kernel_size=3, stride=2, ceil_mode=True),  # 256 x 13 x 13
        *mlpconv(256, 384, 384, 384, kernel_size=3, padding=1),
        nn.MaxPool2d(kernel_size=3, stride=2, ceil_mode=True),  # 384 x 6 x 6
        nn.Dropout(p=dropout),
        *mlpconv(384, 1024, 1024, num_classes, kernel_size=3, padding=1),
    )


def cifar10_features(num_classes: int, dropout: float) -> nn.Sequential:
    """The paper's network for CIFAR-10, for 32 x 32. Its second pool takes means."""
    return nn.Sequential(
        *mlpconv(3, 192, 160, 96, kernel_size=5, padding=2),
        nn.MaxPool2d(kernel_size=3, stride=2, ceil_mode=True),  # 96 x 16 x 16
        nn.Dropout(p=dropout),
        *mlpconv(96, 192, 192, 192, kernel_size=5, padding=2),
        nn.AvgPool2d(kernel_size=3, stride=2, ceil_mode=True),  # 192 x 8 x 8
        nn.Dropout(p=dropout),
        *mlpconv(192, 192, 192, num_classes, kernel_size=3, padding=1),
    )


class NiN(Classifier):
    """Network in Network for (N, 3, H, W) images; returns (N, num_classes) logits, none below 0.

    Weights start as in the author's Caffe files: normal, with a standard deviation of 0.05, or
    0.01 in three layers of the ImageNet network, and biases 0.

    Parameters
    ----------
    num_classes
        Number of classes.
    dropout
        Probability with which, in training, an input of a later block is dropped.
    dataset
        ``"imagenet"`` (224 x 224, at least 39) or ``"cifar10"`` (32 x 32).
    """

    features: nn.Sequential
    avgpool: nn.AdaptiveAvgPool2d

    def __init__(
        self, num_classes: int = 1000, dropout: float = 0.5, dataset: str = "imagenet"
    ) -> None:
        super().__init__()
        choice(dataset, "dataset", ("imagenet", "cifar10"))
        make = imagenet_features if dataset == "imagenet" else cifar10_features
        self.preprocess: ImageClassification = IMAGENET if dataset == "imagenet" else CIFAR10
        self.features = make(num_classes, dropout)
        self.avgpool = nn.AdaptiveAvgPool2d((1, 1))
        # The Caffe file's conv1, conv3 and cccp8.
        fine = {0, 6, 11} if dataset == "imagenet" else set()
        convolutions = [module for module in self.features if isinstance(module, nn.Conv2d)]
        for i, module in enumerate(convolutions):
            init.normal_(module.weight, 0.0, 0.01 if i in fine else 0.05)
            assert module.bias is not None
            init.zeros_(module.bias)

    def forward(self, x: Any) -> Any:
        """(N, 3, H, W) -> (N, num_classes)."""
        return F.flatten(self.avgpool(self.features(x)), 1)


@register_model()
def nin(num_classes: int = 1000, dropout: float = 0.5) -> NiN:
    """Network in Network for ImageNet, with fresh weights.

    >>> from oxidet.models import nin
    >>> sum(p.numel() for p in nin().parameters())
    7595176
    """
    return NiN(num_classes, dropout)


@register_model()
def nin_cifar10(num_classes: int = 10, dropout: float = 0.5) -> NiN:
    """Network in Network for CIFAR-10, with fresh weights.

    >>> from oxidet.models import nin_cifar10
    >>> sum(p.numel() for p in nin_cifar10().parameters())
    966986
    """
    return NiN(num_classes, dropout, dataset="cifar10")
