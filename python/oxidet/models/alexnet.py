"""AlexNet, Krizhevsky et al., "ImageNet classification with deep convolutional networks" (2012).

Two forms. :class:`AlexNet` is torchvision's, after "One weird trick for parallelizing convolutional
neural networks" (arXiv 1404.5997); layer names and text are torchvision's, so its checkpoints load.
:class:`AlexNet2012` is the first paper's network. That ran on two GPUs, each with half of the
channels, which met in the third convolution only: groups of 2 everywhere else.
"""

from __future__ import annotations

from typing import Any

from oxidet import nn
from oxidet.models.classifier import Classifier
from oxidet.models.registry import register_model
from oxidet.nn import functional as F
from oxidet.nn import init
from oxidet.transforms import ImageClassification


class AlexNet(Classifier):
    """torchvision's AlexNet for (N, 3, H, W) images; returns (N, num_classes) logits.

    Parameters
    ----------
    num_classes
        Number of classes.
    dropout
        Probability with which, in training, an input of the first two linear layers is dropped.
    """

    features: nn.Sequential
    avgpool: nn.AdaptiveAvgPool2d
    classifier: nn.Sequential

    def __init__(self, num_classes: int = 1000, dropout: float = 0.5) -> None:
        super().__init__()
        self.features = nn.Sequential(  # for 224 x 224:
            nn.Conv2d(3, 64, kernel_size=11, stride=4, padding=2),  # 64 x 55 x 55
            nn.ReLU(inplace=True),
            nn.MaxPool2d(kernel_size=3, stride=2),  # 64 x 27 x 27
            nn.Conv2d(64, 192, kernel_size=5, padding=2),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(kernel_size=3, stride=2),  # 192 x 13 x 13
            nn.Conv2d(192, 384, kernel_size=3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(384, 256, kernel_size=3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(256, 256, kernel_size=3, padding=1),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(kernel_size=3, stride=2),  # 256 x 6 x 6
        )
        self.avgpool = nn.AdaptiveAvgPool2d((6, 6))
        self.classifier = nn.Sequential(
            nn.Dropout(p=dropout),
            nn.Linear(256 * 6 * 6, 4096),
            nn.ReLU(inplace=True),
            nn.Dropout(p=dropout),
            nn.Linear(4096, 4096),
            nn.ReLU(inplace=True),
            nn.Linear(4096, num_classes),
        )

    def forward(self, x: Any) -> Any:
        """(N, 3, H, W), H and W at least 63 -> (N, num_classes)."""
        return self.classifier(F.flatten(self.avgpool(self.features(x)), 1))


def local_response_norm() -> nn.LocalResponseNorm:
    """The paper's normalisation over 5 neighbouring channels, with its constants.

    The paper's alpha of 1e-4 multiplies the sum of the squares, the layer's their mean.
    """
    return nn.LocalResponseNorm(5, alpha=5e-4, beta=0.75, k=2.0)


class AlexNet2012(Classifier):
    """The network of the 2012 paper for (N, 3, 227, 227) images; returns (N, num_classes) logits.

    The paper says 224 x 224, from which its 55 x 55 outputs cannot come; 227 x 227 it is. Its two
    GPUs normalised their halves of the channels apart from each other; here, as in later versions
    in one piece, the halves are neighbours.

    Parameters
    ----------
    num_classes
        Number of classes.
    dropout
        Probability with which, in training, an output of the first two linear layers is dropped.
    """

    features: nn.Sequential
    classifier: nn.Sequential

    preprocess: ImageClassification = ImageClassification.caffe(227)

    def __init__(self, num_classes: int = 1000, dropout: float = 0.5) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 96, kernel_size=11, stride=4),  # 96 x 55 x 55
            nn.ReLU(inplace=True),
            local_response_norm(),
            nn.MaxPool2d(kernel_size=3, stride=2),  # 96 x 27 x 27
            nn.Conv2d(96, 256, kernel_size=5, padding=2, groups=2),
            nn.ReLU(inplace=True),
            local_response_norm(),
            nn.MaxPool2d(kernel_size=3, stride=2),  # 256 x 13 x 13
            nn.Conv2d(256, 384, kernel_size=3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(384, 384, kernel_size=3, padding=1, groups=2),
            nn.ReLU(inplace=True),
            nn.Conv2d(384, 256, kernel_size=3, padding=1, groups=2),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(kernel_size=3, stride=2),  # 256 x 6 x 6
        )
        self.classifier = nn.Sequential(
            nn.Linear(256 * 6 * 6, 4096),
            nn.ReLU(inplace=True),
            nn.Dropout(p=dropout),
            nn.Linear(4096, 4096),
            nn.ReLU(inplace=True),
            nn.Dropout(p=dropout),
            nn.Linear(4096, num_classes),
        )
        layers = [m for m in self.modules() if isinstance(m, (nn.Conv2d, nn.Linear))]
        # Biases of 1 give the ReLUs behind them positive inputs to start with.
        positive = {1, 3, 4, 5, 6}  # conv2, conv4, conv5, fc6, fc7
        for i, layer in enumerate(layers):
            init.normal_(layer.weight, 0.0, 0.01)
            assert layer.bias is not None
            init.constant_(layer.bias, float(i in positive))

    def forward(self, x: Any) -> Any:
        """(N, 3, 227, 227) -> (N, num_classes)."""
        return self.classifier(F.flatten(self.features(x), 1))


@register_model()
def alexnet(num_classes: int = 1000, dropout: float = 0.5) -> AlexNet:
    """torchvision's AlexNet with fresh weights.

    >>> from oxidet.models import alexnet
    >>> sum(p.numel() for p in alexnet().parameters())
    61100840
    """
    return AlexNet(num_classes, dropout)


@register_model()
def alexnet_2012(num_classes: int = 1000, dropout: float = 0.5) -> AlexNet2012:
    """The AlexNet of the 2012 paper, in one piece, with fresh weights.

    >>> from oxidet.models import alexnet_2012
    >>> sum(p.numel() for p in alexnet_2012().parameters())
    60965224
    """
    return AlexNet2012(num_classes, dropout)
