"""ZFNet, Zeiler and Fergus, "Visualizing and understanding convolutional networks" (1311.2901).

AlexNet after a look at its filters: the first layer's are smaller and closer together (7 x 7, every
2 pixels), and no layer is split over two GPUs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from oxidet import nn
from oxidet.models.alexnet import local_response_norm
from oxidet.models.classifier import Classifier
from oxidet.models.registry import register_model
from oxidet.nn import functional as F
from oxidet.nn import init
from oxidet.transforms import ImageClassification


class ZFNet(Classifier):
    """ZFNet for (N, 3, 224, 224) images; returns (N, num_classes) logits.

    The paper prints the sizes 110, 55, 26, 13 and 6 but no padding; one pixel around the first
    convolution and around the first two pools gives them. Nor does it print the constants of its
    contrast normalisation; AlexNet's stand in. In training it scales every filter whose RMS exceeds
    0.1 back to that: :func:`oxidet.nn.utils.clip_filter_rms_`.

    Parameters
    ----------
    num_classes
        Number of classes.
    dropout
        Probability with which, in training, an output of the first two linear layers is dropped.
    widths
        Channels of the third, fourth and fifth convolution. The paper's larger model has
        (512, 1024, 512).
    """

    features: nn.Sequential
    classifier: nn.Sequential

    preprocess: ImageClassification = ImageClassification.caffe(224, resize_size=256)

    def __init__(
        self,
        num_classes: int = 1000,
        dropout: float = 0.5,
        widths: Sequence[int] = (384, 384, 256),
    ) -> None:
        super().__init__()
        if len(widths) != 3:
            raise ValueError(f"widths: expected three numbers of channels, got {list(widths)}")
        third, fourth, fifth = widths
        self.features = nn.Sequential(
            nn.Conv2d(3, 96, kernel_size=7, stride=2, padding=1),  # 96 x 110 x 110
            nn.ReLU(inplace=True),
            nn.MaxPool2d(kernel_size=3, stride=2, padding=1),  # 96 x 55 x 55
            local_response_norm(),
            nn.Conv2d(96, 256, kernel_size=5, stride=2),  # 256 x 26 x 26
            nn.ReLU(inplace=True),
            nn.MaxPool2d(kernel_size=3, stride=2, padding=1),  # 256 x 13 x 13
            local_response_norm(),
            nn.Conv2d(256, third, kernel_size=3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(third, fourth, kernel_size=3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(fourth, fifth, kernel_size=3, padding=1),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(kernel_size=3, stride=2),  # fifth x 6 x 6
        )
        self.classifier = nn.Sequential(
            nn.Linear(fifth * 6 * 6, 4096),
            nn.ReLU(inplace=True),
            nn.Dropout(p=dropout),
            nn.Linear(4096, 4096),
            nn.ReLU(inplace=True),
            nn.Dropout(p=dropout),
            nn.Linear(4096, num_classes),
        )
        for module in self.modules():
            if isinstance(module, (nn.Conv2d, nn.Linear)):
                init.normal_(module.weight, 0.0, 0.01)
                assert module.bias is not None
                init.zeros_(module.bias)

    def forward(self, x: Any) -> Any:
        """(N, 3, 224, 224) -> (N, num_classes)."""
        return self.classifier(F.flatten(self.features(x), 1))


@register_model()
def zfnet(num_classes: int = 1000, dropout: float = 0.5) -> ZFNet:
    """ZFNet with fresh weights.

    >>> from oxidet.models import zfnet
    >>> sum(p.numel() for p in zfnet().parameters())
    62357608
    """
    return ZFNet(num_classes, dropout)


@register_model()
def zfnet_wide(num_classes: int = 1000, dropout: float = 0.5) -> ZFNet:
    """The paper's larger model, with 512, 1024 and 512 channels in its last three convolutions."""
    return ZFNet(num_classes, dropout, widths=(512, 1024, 512))
