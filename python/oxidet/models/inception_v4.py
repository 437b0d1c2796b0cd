"""Inception v4, Szegedy et al., "Inception-v4, Inception-ResNet and the impact of residual
connections on learning" (arXiv 1602.07261).

A branching stem, then three kinds of blocks, each repeated. Layer names and text are timm's, so its
checkpoint loads. The order of 1 x 7 and 7 x 1 is the released network's; the paper's figures draw
some the other way round.
"""

from __future__ import annotations

from typing import Any

from oxidet import nn
from oxidet._arrays import number
from oxidet.models._conv_norm_act import ConvNormAct, SelectAdaptivePool2d, set_eps
from oxidet.models.classifier import Classifier
from oxidet.models.registry import register_model
from oxidet.nn import functional as F
from oxidet.transforms import ImageClassification


def average_and_project(in_channels: int, out_channels: int) -> nn.Sequential:
    """Average of 3 x 3 that keeps the size, of pixels alone, and a 1 x 1 convolution."""
    return nn.Sequential(
        nn.AvgPool2d(3, stride=1, padding=1, count_include_pad=False),
        ConvNormAct(in_channels, out_channels, 1),
    )


class Mixed3a(nn.Module):
    """Half the size, once by a pool and once by a convolution."""

    maxpool: nn.MaxPool2d
    conv: ConvNormAct

    def __init__(self) -> None:
        super().__init__()
        self.maxpool = nn.MaxPool2d(3, stride=2)
        self.conv = ConvNormAct(64, 96, 3, stride=2)

    def forward(self, x: Any) -> Any:
        """(N, 64, H, W) -> (N, 160, (H - 1) // 2, (W - 1) // 2)."""
        return F.cat([self.maxpool(x), self.conv(x)], 1)


class Mixed4a(nn.Module):
    """A short and a long way to 96 channels each."""

    branch0: nn.Sequential
    branch1: nn.Sequential

    def __init__(self) -> None:
        super().__init__()
        self.branch0 = nn.Sequential(ConvNormAct(160, 64, 1), ConvNormAct(64, 96, 3))
        self.branch1 = nn.Sequential(
            ConvNormAct(160, 64, 1),
            ConvNormAct(64, 64, (1, 7), padding=(0, 3)),
            ConvNormAct(64, 64, (7, 1), padding=(3, 0)),
            ConvNormAct(64, 96, 3),
        )

    def forward(self, x: Any) -> Any:
        """(N, 160, H, W) -> (N, 192, H - 2, W - 2)."""
        return F.cat([self.branch0(x), self.branch1(x)], 1)


class Mixed5a(nn.Module):
    """Half the size, once by a convolution and once by a pool."""

    conv: ConvNormAct
    maxpool: nn.MaxPool2d

    def __init__(self) -> None:
        super().__init__()
        self.conv = ConvNormAct(192, 192, 3, stride=2)
        self.maxpool = nn.MaxPool2d(3, stride=2)

    def forward(self, x: Any) -> Any:
        """(N, 192, H, W) -> (N, 384, (H - 1) // 2, (W - 1) // 2)."""
        return F.cat([self.conv(x), self.maxpool(x)], 1)


def stem(in_chans: int = 3) -> list[nn.Module]:
    """From (N, in_chans, 299, 299) to (N, 384, 35, 35) (figure 3)."""
    return [
        ConvNormAct(in_chans, 32, 3, stride=2),
        ConvNormAct(32, 32, 3),
        ConvNormAct(32, 64, 3, padding=1),
        Mixed3a(),
        Mixed4a(),
        Mixed5a(),
    ]


class InceptionA(nn.Module):
    """1 x 1, 3 x 3, two 3 x 3, and a pool, side by side (figure 4)."""

    branch0: ConvNormAct
    branch1: nn.Sequential
    branch2: nn.Sequential
    branch3: nn.Sequential

    def __init__(self) -> None:
        super().__init__()
        self.branch0 = ConvNormAct(384, 96, 1)
        self.branch1 = nn.Sequential(ConvNormAct(384, 64, 1), ConvNormAct(64, 96, 3, padding=1))
        self.branch2 = nn.Sequential(
            ConvNormAct(384, 64, 1),
            ConvNormAct(64, 96, 3, padding=1),
            ConvNormAct(96, 96, 3, padding=1),
        )
        self.branch3 = average_and_project(384, 96)

    def forward(self, x: Any) -> Any:
        """(N, 384, H, W); the same out."""
        return F.cat([self.branch0(x), self.branch1(x), self.branch2(x), self.branch3(x)], 1)


class ReductionA(nn.Module):
    """From 35 to 17 pixels (figure 7 with k = 192, l = 224, m = 256, n = 384)."""

    branch0: ConvNormAct
    branch1: nn.Sequential
    branch2: nn.MaxPool2d

    def __init__(self) -> None:
        super().__init__()
        self.branch0 = ConvNormAct(384, 384, 3, stride=2)
        self.branch1 = nn.Sequential(
            ConvNormAct(384, 192, 1),
            ConvNormAct(192, 224, 3, padding=1),
            ConvNormAct(224, 256, 3, stride=2),
        )
        self.branch2 = nn.MaxPool2d(3, stride=2)

    def forward(self, x: Any) -> Any:
        """(N, 384, H, W) -> (N, 1024, (H - 1) // 2, (W - 1) // 2)."""
        return F.cat([self.branch0(x), self.branch1(x), self.branch2(x)], 1)


class InceptionB(nn.Module):
    """1 x 1, 7 x 7 in two parts, the same twice, and a pool (figure 5)."""

    branch0: ConvNormAct
    branch1: nn.Sequential
    branch2: nn.Sequential
    branch3: nn.Sequential

    def __init__(self) -> None:
        super().__init__()
        self.branch0 = ConvNormAct(1024, 384, 1)
        self.branch1 = nn.Sequential(
            ConvNormAct(1024, 192, 1),
            ConvNormAct(192, 224, (1, 7), padding=(0, 3)),
            ConvNormAct(224, 256, (7, 1), padding=(3, 0)),
        )
        self.branch2 = nn.Sequential(
            ConvNormAct(1024, 192, 1),
            ConvNormAct(192, 192, (7, 1), padding=(3, 0)),
            ConvNormAct(192, 224, (1, 7), padding=(0, 3)),
            ConvNormAct(224, 224, (7, 1), padding=(3, 0)),
            ConvNormAct(224, 256, (1, 7), padding=(0, 3)),
        )
        self.branch3 = average_and_project(1024, 128)

    def forward(self, x: Any) -> Any:
        """(N, 1024, H, W); the same out."""
        return F.cat([self.branch0(x), self.branch1(x), self.branch2(x), self.branch3(x)], 1)


class ReductionB(nn.Module):
    """From 17 to 8 pixels (figure 8)."""

    branch0: nn.Sequential
    branch1: nn.Sequential
    branch2: nn.MaxPool2d

    def __init__(self) -> None:
        super().__init__()
        self.branch0 = nn.Sequential(ConvNormAct(1024, 192, 1), ConvNormAct(192, 192, 3, stride=2))
        self.branch1 = nn.Sequential(
            ConvNormAct(1024, 256, 1),
            ConvNormAct(256, 256, (1, 7), padding=(0, 3)),
            ConvNormAct(256, 320, (7, 1), padding=(3, 0)),
            ConvNormAct(320, 320, 3, stride=2),
        )
        self.branch2 = nn.MaxPool2d(3, stride=2)

    def forward(self, x: Any) -> Any:
        """(N, 1024, H, W) -> (N, 1536, (H - 1) // 2, (W - 1) // 2)."""
        return F.cat([self.branch0(x), self.branch1(x), self.branch2(x)], 1)


class InceptionC(nn.Module):
    """1 x 1, 1 x 3 beside 3 x 1, the same behind a 3 x 3 in two parts, and a pool (figure 6)."""

    branch0: ConvNormAct
    branch1_0: ConvNormAct
    branch1_1a: ConvNormAct
    branch1_1b: ConvNormAct
    branch2_0: ConvNormAct
    branch2_1: ConvNormAct
    branch2_2: ConvNormAct
    branch2_3a: ConvNormAct
    branch2_3b: ConvNormAct
    branch3: nn.Sequential

    def __init__(self) -> None:
        super().__init__()
        self.branch0 = ConvNormAct(1536, 256, 1)
        self.branch1_0 = ConvNormAct(1536, 384, 1)
        self.branch1_1a = ConvNormAct(384, 256, (1, 3), padding=(0, 1))
        self.branch1_1b = ConvNormAct(384, 256, (3, 1), padding=(1, 0))
        self.branch2_0 = ConvNormAct(1536, 384, 1)
        self.branch2_1 = ConvNormAct(384, 448, (3, 1), padding=(1, 0))
        self.branch2_2 = ConvNormAct(448, 512, (1, 3), padding=(0, 1))
        self.branch2_3a = ConvNormAct(512, 256, (1, 3), padding=(0, 1))
        self.branch2_3b = ConvNormAct(512, 256, (3, 1), padding=(1, 0))
        self.branch3 = average_and_project(1536, 256)

    def forward(self, x: Any) -> Any:
        """(N, 1536, H, W); the same out."""
        x1 = self.branch1_0(x)
        x1 = F.cat([self.branch1_1a(x1), self.branch1_1b(x1)], 1)
        x2 = self.branch2_2(self.branch2_1(self.branch2_0(x)))
        x2 = F.cat([self.branch2_3a(x2), self.branch2_3b(x2)], 1)
        return F.cat([self.branch0(x), x1, x2, self.branch3(x)], 1)


class InceptionV4(Classifier):
    """Inception v4 for (N, in_chans, H, W) images, 299 x 299 in the paper, at least 75 x 75.

    Returns (N, num_classes) logits.

    Parameters
    ----------
    num_classes
        Number of classes.
    in_chans
        Channels of the images.
    drop_rate
        Probability with which features before the last layer are dropped in training; the paper
        has 0.2.
    global_pool
        ``"avg"`` or ``"max"``: what becomes of the planes of the last block.
    norm_eps
        What batch norms add to variances.
    """

    features: nn.Sequential
    global_pool: SelectAdaptivePool2d
    head_drop: nn.Dropout
    last_linear: nn.Linear

    preprocess: ImageClassification = ImageClassification(
        299, resize_size=341, mean=0.5, std=0.5, interpolation="bicubic"
    )

    def __init__(
        self,
        num_classes: int = 1000,
        in_chans: int = 3,
        drop_rate: float = 0.0,
        global_pool: str = "avg",
        norm_eps: float = 1e-3,
    ) -> None:
        super().__init__()
        number(norm_eps, "norm_eps", 0)
        self.features = nn.Sequential(
            *stem(in_chans),
            *(InceptionA() for _ in range(4)),
            ReductionA(),
            *(InceptionB() for _ in range(7)),
            ReductionB(),
            *(InceptionC() for _ in range(3)),
        )
        self.global_pool = SelectAdaptivePool2d(global_pool)
        self.head_drop = nn.Dropout(p=drop_rate)
        self.last_linear = nn.Linear(1536, num_classes)
        set_eps(self, norm_eps)

    def forward(self, x: Any) -> Any:
        """(N, in_chans, H, W) -> (N, num_classes)."""
        return self.last_linear(self.head_drop(self.global_pool(self.features(x))))


@register_model()
def inception_v4(num_classes: int = 1000, **options: Any) -> InceptionV4:
    """Inception v4 with fresh weights; ``options`` go to :class:`InceptionV4`.

    >>> from oxidet.models import inception_v4
    >>> sum(p.numel() for p in inception_v4().parameters())
    42679816
    """
    return InceptionV4(num_classes, **options)
