"""VGG, Simonyan and Zisserman, "Very deep convolutional networks" (arXiv 1409.1556).

Stacks of 3 x 3 convolutions between 2 x 2 max pools, then three fully connected layers. Layer
names, initialisation and text are torchvision's, so its checkpoints load.
"""

from __future__ import annotations

from typing import Any

from oxidet import nn
from oxidet._arrays import choice
from oxidet.models.classifier import Classifier
from oxidet.models.registry import register_model
from oxidet.nn import functional as F
from oxidet.nn import init

# Output channels of each 3 x 3 convolution, stage by stage; a 2 x 2 max pool ends each stage.
# The keys are the paper's configurations.
CONFIGURATIONS: dict[str, tuple[tuple[int, ...], ...]] = {
    "A": ((64,), (128,), (256,) * 2, (512,) * 2, (512,) * 2),
    "B": ((64,) * 2, (128,) * 2, (256,) * 2, (512,) * 2, (512,) * 2),
    "D": ((64,) * 2, (128,) * 2, (256,) * 3, (512,) * 3, (512,) * 3),
    "E": ((64,) * 2, (128,) * 2, (256,) * 4, (512,) * 4, (512,) * 4),
}


def make_features(configuration: str, batch_norm: bool = False) -> nn.Sequential:
    """The convolutional part of a VGG, with torchvision's indices."""
    choice(configuration, "configuration", tuple(CONFIGURATIONS))
    layers: list[nn.Module] = []
    channels = 3
    for stage in CONFIGURATIONS[configuration]:
        for width in stage:
            layers.append(nn.Conv2d(channels, width, 3, padding=1))
            if batch_norm:
                layers.append(nn.BatchNorm2d(width))
            layers.append(nn.ReLU(inplace=True))
            channels = width
        layers.append(nn.MaxPool2d(kernel_size=2, stride=2))
    return nn.Sequential(*layers)


def initialize(module: nn.Module) -> None:
    """torchvision's initial weights of one layer: Kaiming normal (fan out), or N(0, 0.01)."""
    if isinstance(module, nn.Conv2d):
        init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    elif isinstance(module, nn.Linear):
        init.normal_(module.weight, 0.0, 0.01)
    if isinstance(module, (nn.Conv2d, nn.Linear)) and module.bias is not None:
        init.zeros_(module.bias)


class VGG(Classifier):
    """A VGG network for (N, 3, H, W) images; returns (N, num_classes) logits.

    Parameters
    ----------
    features
        The convolutional part, ending in 512 channels; see :func:`make_features`.
    num_classes
        Number of classes.
    dropout
        Probability with which the first two fully connected layers drop an output in training.
    """

    def __init__(self, features: nn.Module, num_classes: int = 1000, dropout: float = 0.5) -> None:
        super().__init__()
        self.features = features
        self.avgpool = nn.AdaptiveAvgPool2d((7, 7))
        self.classifier = nn.Sequential(
            nn.Linear(512 * 7 * 7, 4096),
            nn.ReLU(True),
            nn.Dropout(p=dropout),
            nn.Linear(4096, 4096),
            nn.ReLU(True),
            nn.Dropout(p=dropout),
            nn.Linear(4096, num_classes),
        )
        self.apply(initialize)

    def forward(self, x: Any) -> Any:
        """(N, 3, H, W), H and W at least 32 -> (N, num_classes)."""
        return self.classifier(F.flatten(self.avgpool(self.features(x)), 1))


@register_model()
def vgg11(num_classes: int = 1000, dropout: float = 0.5) -> VGG:
    """VGG-11, configuration A, with fresh weights."""
    return VGG(make_features("A"), num_classes, dropout)


@register_model()
def vgg13(num_classes: int = 1000, dropout: float = 0.5) -> VGG:
    """VGG-13, configuration B, with fresh weights."""
    return VGG(make_features("B"), num_classes, dropout)


@register_model()
def vgg16(num_classes: int = 1000, dropout: float = 0.5) -> VGG:
    """VGG-16, configuration D, with fresh weights.

    >>> from oxidet.models import vgg16
    >>> sum(p.numel() for p in vgg16().parameters())
    138357544
    """
    return VGG(make_features("D"), num_classes, dropout)


@register_model()
def vgg19(num_classes: int = 1000, dropout: float = 0.5) -> VGG:
    """VGG-19, configuration E, with fresh weights."""
    return VGG(make_features("E"), num_classes, dropout)
