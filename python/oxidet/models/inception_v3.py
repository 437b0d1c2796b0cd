"""Inception v3, Szegedy et al., "Rethinking the Inception architecture" (arXiv 1512.00567).

Large kernels become stacks of small ones, and n x n becomes 1 x n and n x 1. Layer names,
initialisation and text are torchvision's, so its checkpoint loads. As there, pools inside blocks
count the zeros at the border; the original in TensorFlow does not.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from oxidet import nn
from oxidet.models._inception import BasicConv2d, transform_input
from oxidet.models.classifier import Classifier
from oxidet.models.registry import register_model
from oxidet.nn import functional as F
from oxidet.nn import init
from oxidet.transforms import ImageClassification

Block = Callable[..., nn.Module]

# One row of seven, one column of seven, and the same of three, that keep the size.
ROW7: dict[str, Any] = {"kernel_size": (1, 7), "padding": (0, 3)}
COLUMN7: dict[str, Any] = {"kernel_size": (7, 1), "padding": (3, 0)}
ROW3: dict[str, Any] = {"kernel_size": (1, 3), "padding": (0, 1)}
COLUMN3: dict[str, Any] = {"kernel_size": (3, 1), "padding": (1, 0)}


class InceptionOutputs(NamedTuple):
    """What Inception v3 returns in training: (N, num_classes) logits of both heads."""

    logits: Any
    aux_logits: Any


def pool3x3(x: Any) -> Any:
    """Average of 3 x 3 that keeps the size; zeros beyond the border count."""
    return F.avg_pool2d(x, kernel_size=3, stride=1, padding=1)


class InceptionA(nn.Module):
    """1 x 1, 5 x 5, two 3 x 3, and a pool, side by side (figure 5)."""

    branch1x1: nn.Module
    branch5x5_1: nn.Module
    branch5x5_2: nn.Module
    branch3x3dbl_1: nn.Module
    branch3x3dbl_2: nn.Module
    branch3x3dbl_3: nn.Module
    branch_pool: nn.Module

    def __init__(
        self, in_channels: int, pool_features: int, conv_block: Block = BasicConv2d
    ) -> None:
        super().__init__()
        self.branch1x1 = conv_block(in_channels, 64, kernel_size=1)
        self.branch5x5_1 = conv_block(in_channels, 48, kernel_size=1)
        self.branch5x5_2 = conv_block(48, 64, kernel_size=5, padding=2)
        self.branch3x3dbl_1 = conv_block(in_channels, 64, kernel_size=1)
        self.branch3x3dbl_2 = conv_block(64, 96, kernel_size=3, padding=1)
        self.branch3x3dbl_3 = conv_block(96, 96, kernel_size=3, padding=1)
        self.branch_pool = conv_block(in_channels, pool_features, kernel_size=1)

    def forward(self, x: Any) -> Any:
        """(N, in_channels, H, W) -> (N, 224 + pool_features, H, W)."""
        five = self.branch5x5_2(self.branch5x5_1(x))
        double = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x)))
        return F.cat([self.branch1x1(x), five, double, self.branch_pool(pool3x3(x))], 1)


class InceptionB(nn.Module):
    """From 35 to 17 pixels: 3 x 3, two 3 x 3, and a pool, each with stride 2 (figure 10)."""

    branch3x3: nn.Module
    branch3x3dbl_1: nn.Module
    branch3x3dbl_2: nn.Module
    branch3x3dbl_3: nn.Module

    def __init__(self, in_channels: int, conv_block: Block = BasicConv2d) -> None:
        super().__init__()
        self.branch3x3 = conv_block(in_channels, 384, kernel_size=3, stride=2)
        self.branch3x3dbl_1 = conv_block(in_channels, 64, kernel_size=1)
        self.branch3x3dbl_2 = conv_block(64, 96, kernel_size=3, padding=1)
        self.branch3x3dbl_3 = conv_block(96, 96, kernel_size=3, stride=2)

    def forward(self, x: Any) -> Any:
        """(N, in_channels, H, W) -> (N, 480 + in_channels, (H - 1) // 2, (W - 1) // 2)."""
        double = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x)))
        return F.cat([self.branch3x3(x), double, F.max_pool2d(x, kernel_size=3, stride=2)], 1)


class InceptionC(nn.Module):
    """1 x 1, 7 x 7 as 1 x 7 and 7 x 1, the same twice, and a pool (figure 6)."""

    branch1x1: nn.Module
    branch7x7_1: nn.Module
    branch7x7_2: nn.Module
    branch7x7_3: nn.Module
    branch7x7dbl_1: nn.Module
    branch7x7dbl_2: nn.Module
    branch7x7dbl_3: nn.Module
    branch7x7dbl_4: nn.Module
    branch7x7dbl_5: nn.Module
    branch_pool: nn.Module

    def __init__(
        self, in_channels: int, channels_7x7: int, conv_block: Block = BasicConv2d
    ) -> None:
        super().__init__()
        width = channels_7x7
        self.branch1x1 = conv_block(in_channels, 192, kernel_size=1)
        self.branch7x7_1 = conv_block(in_channels, width, kernel_size=1)
        self.branch7x7_2 = conv_block(width, width, **ROW7)
        self.branch7x7_3 = conv_block(width, 192, **COLUMN7)
        self.branch7x7dbl_1 = conv_block(in_channels, width, kernel_size=1)
        self.branch7x7dbl_2 = conv_block(width, width, **COLUMN7)
        self.branch7x7dbl_3 = conv_block(width, width, **ROW7)
        self.branch7x7dbl_4 = conv_block(width, width, **COLUMN7)
        self.branch7x7dbl_5 = conv_block(width, 192, **ROW7)
        self.branch_pool = conv_block(in_channels, 192, kernel_size=1)

    def forward(self, x: Any) -> Any:
        """(N, in_channels, H, W) -> (N, 768, H, W)."""
        seven = self.branch7x7_3(self.branch7x7_2(self.branch7x7_1(x)))
        double = self.branch7x7dbl_3(self.branch7x7dbl_2(self.branch7x7dbl_1(x)))
        double = self.branch7x7dbl_5(self.branch7x7dbl_4(double))
        return F.cat([self.branch1x1(x), seven, double, self.branch_pool(pool3x3(x))], 1)


class InceptionD(nn.Module):
    """From 17 to 8 pixels: 3 x 3, 7 x 7 and 3 x 3, and a pool, each with stride 2."""

    branch3x3_1: nn.Module
    branch3x3_2: nn.Module
    branch7x7x3_1: nn.Module
    branch7x7x3_2: nn.Module
    branch7x7x3_3: nn.Module
    branch7x7x3_4: nn.Module

    def __init__(self, in_channels: int, conv_block: Block = BasicConv2d) -> None:
        super().__init__()
        self.branch3x3_1 = conv_block(in_channels, 192, kernel_size=1)
        self.branch3x3_2 = conv_block(192, 320, kernel_size=3, stride=2)
        self.branch7x7x3_1 = conv_block(in_channels, 192, kernel_size=1)
        self.branch7x7x3_2 = conv_block(192, 192, **ROW7)
        self.branch7x7x3_3 = conv_block(192, 192, **COLUMN7)
        self.branch7x7x3_4 = conv_block(192, 192, kernel_size=3, stride=2)

    def forward(self, x: Any) -> Any:
        """(N, in_channels, H, W) -> (N, 512 + in_channels, (H - 1) // 2, (W - 1) // 2)."""
        three = self.branch3x3_2(self.branch3x3_1(x))
        seven = self.branch7x7x3_3(self.branch7x7x3_2(self.branch7x7x3_1(x)))
        seven = self.branch7x7x3_4(seven)
        return F.cat([three, seven, F.max_pool2d(x, kernel_size=3, stride=2)], 1)


class InceptionE(nn.Module):
    """1 x 1, 1 x 3 beside 3 x 1, the same behind a 3 x 3, and a pool (figure 7)."""

    branch1x1: nn.Module
    branch3x3_1: nn.Module
    branch3x3_2a: nn.Module
    branch3x3_2b: nn.Module
    branch3x3dbl_1: nn.Module
    branch3x3dbl_2: nn.Module
    branch3x3dbl_3a: nn.Module
    branch3x3dbl_3b: nn.Module
    branch_pool: nn.Module

    def __init__(self, in_channels: int, conv_block: Block = BasicConv2d) -> None:
        super().__init__()
        self.branch1x1 = conv_block(in_channels, 320, kernel_size=1)
        self.branch3x3_1 = conv_block(in_channels, 384, kernel_size=1)
        self.branch3x3_2a = conv_block(384, 384, **ROW3)
        self.branch3x3_2b = conv_block(384, 384, **COLUMN3)
        self.branch3x3dbl_1 = conv_block(in_channels, 448, kernel_size=1)
        self.branch3x3dbl_2 = conv_block(448, 384, kernel_size=3, padding=1)
        self.branch3x3dbl_3a = conv_block(384, 384, **ROW3)
        self.branch3x3dbl_3b = conv_block(384, 384, **COLUMN3)
        self.branch_pool = conv_block(in_channels, 192, kernel_size=1)

    def forward(self, x: Any) -> Any:
        """(N, in_channels, H, W) -> (N, 2048, H, W)."""
        three = self.branch3x3_1(x)
        three = F.cat([self.branch3x3_2a(three), self.branch3x3_2b(three)], 1)
        double = self.branch3x3dbl_2(self.branch3x3dbl_1(x))
        double = F.cat([self.branch3x3dbl_3a(double), self.branch3x3dbl_3b(double)], 1)
        return F.cat([self.branch1x1(x), three, double, self.branch_pool(pool3x3(x))], 1)


class InceptionAux(nn.Module):
    """A second head on features in the middle, for training only (section 4)."""

    conv0: nn.Module
    conv1: nn.Module
    fc: nn.Linear

    def __init__(self, in_channels: int, num_classes: int, conv_block: Block = BasicConv2d) -> None:
        super().__init__()
        self.conv0 = conv_block(in_channels, 128, kernel_size=1)
        self.conv1 = conv_block(128, 768, kernel_size=5)
        self.fc = nn.Linear(768, num_classes)

    def forward(self, x: Any) -> Any:
        """(N, in_channels, H, W), H and W at least 17 -> (N, num_classes)."""
        x = self.conv1(self.conv0(F.avg_pool2d(x, kernel_size=5, stride=3)))
        return self.fc(F.flatten(F.adaptive_avg_pool2d(x, (1, 1)), 1))


BLOCKS: tuple[Block, ...] = (
    BasicConv2d,
    InceptionA,
    InceptionB,
    InceptionC,
    InceptionD,
    InceptionE,
    InceptionAux,
)


class Inception3(Classifier):
    """Inception v3 for (N, 3, H, W) images, 299 x 299 in the paper, at least 75 x 75.

    Returns (N, num_classes) logits; in training with ``aux_logits`` :class:`InceptionOutputs`,
    for which the loss is that of the logits plus 0.4 times that of the auxiliary ones, and H and W
    are at least 299.

    Parameters
    ----------
    num_classes
        Number of classes.
    aux_logits
        Whether to have the auxiliary head. torchvision's checkpoint holds it.
    transform_input
        Whether images come with ImageNet's mean and deviation and are to be brought to [-1, 1],
        which is what torchvision's checkpoint was trained with.
    inception_blocks
        Other classes for the convolution, blocks A to E and the auxiliary head: seven.
    init_weights
        Whether to draw weights from truncated normal distributions (slow, as in torchvision)
        rather than leave what the layers begin with. None means True.
    dropout
        Probability with which the features before the last layer are dropped in training.
    """

    Conv2d_1a_3x3: nn.Module
    Conv2d_2a_3x3: nn.Module
    Conv2d_2b_3x3: nn.Module
    maxpool1: nn.MaxPool2d
    Conv2d_3b_1x1: nn.Module
    Conv2d_4a_3x3: nn.Module
    maxpool2: nn.MaxPool2d
    Mixed_5b: nn.Module
    Mixed_5c: nn.Module
    Mixed_5d: nn.Module
    Mixed_6a: nn.Module
    Mixed_6b: nn.Module
    Mixed_6c: nn.Module
    Mixed_6d: nn.Module
    Mixed_6e: nn.Module
    AuxLogits: nn.Module | None
    Mixed_7a: nn.Module
    Mixed_7b: nn.Module
    Mixed_7c: nn.Module
    avgpool: nn.AdaptiveAvgPool2d
    dropout: nn.Dropout
    fc: nn.Linear

    preprocess: ImageClassification = ImageClassification(299, resize_size=342)
    auxiliary_weight: float = 0.4

    def __init__(
        self,
        num_classes: int = 1000,
        aux_logits: bool = True,
        transform_input: bool = False,
        inception_blocks: Sequence[Block] | None = None,
        init_weights: bool | None = None,
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        blocks = BLOCKS if inception_blocks is None else tuple(inception_blocks)
        if len(blocks) != len(BLOCKS):
            raise ValueError(f"inception_blocks: expected {len(BLOCKS)} classes, got {len(blocks)}")
        conv, block_a, block_b, block_c, block_d, block_e, block_aux = blocks
        self.aux_logits = aux_logits
        self.transform_input = transform_input
        self.Conv2d_1a_3x3 = conv(3, 32, kernel_size=3, stride=2)
        self.Conv2d_2a_3x3 = conv(32, 32, kernel_size=3)
        self.Conv2d_2b_3x3 = conv(32, 64, kernel_size=3, padding=1)
        self.maxpool1 = nn.MaxPool2d(kernel_size=3, stride=2)
        self.Conv2d_3b_1x1 = conv(64, 80, kernel_size=1)
        self.Conv2d_4a_3x3 = conv(80, 192, kernel_size=3)
        self.maxpool2 = nn.MaxPool2d(kernel_size=3, stride=2)
        self.Mixed_5b = block_a(192, pool_features=32)
        self.Mixed_5c = block_a(256, pool_features=64)
        self.Mixed_5d = block_a(288, pool_features=64)
        self.Mixed_6a = block_b(288)
        self.Mixed_6b = block_c(768, channels_7x7=128)
        self.Mixed_6c = block_c(768, channels_7x7=160)
        self.Mixed_6d = block_c(768, channels_7x7=160)
        self.Mixed_6e = block_c(768, channels_7x7=192)
        self.AuxLogits = block_aux(768, num_classes) if aux_logits else None
        self.Mixed_7a = block_d(768)
        self.Mixed_7b = block_e(1280)
        self.Mixed_7c = block_e(2048)
        self.avgpool = nn.AdaptiveAvgPool2d((1, 1))
        self.dropout = nn.Dropout(p=dropout)
        self.fc = nn.Linear(2048, num_classes)
        if init_weights is None or init_weights:
            self._initialize()

    def _initialize(self) -> None:
        for name, module in self.named_modules():
            if isinstance(module, (nn.Conv2d, nn.Linear)):
                # torchvision means to give AuxLogits.conv1 a deviation of 0.01, but does not.
                init.trunc_normal_(module.weight, std=0.001 if name == "AuxLogits.fc" else 0.1)

    def forward(self, x: Any) -> Any:
        """(N, 3, H, W) -> (N, num_classes), in training also the auxiliary logits."""
        if self.transform_input:
            x = transform_input(x)
        x = self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(x)))
        x = self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(self.maxpool1(x)))
        x = self.Mixed_5d(self.Mixed_5c(self.Mixed_5b(self.maxpool2(x))))
        x = self.Mixed_6c(self.Mixed_6b(self.Mixed_6a(x)))
        x = self.Mixed_6e(self.Mixed_6d(x))
        aux = self.AuxLogits(x) if self.training and self.AuxLogits is not None else None
        x = self.Mixed_7c(self.Mixed_7b(self.Mixed_7a(x)))
        x = self.fc(F.flatten(self.dropout(self.avgpool(x)), 1))
        return x if aux is None else InceptionOutputs(x, aux)


@register_model()
def inception_v3(num_classes: int = 1000, **options: Any) -> Inception3:
    """Inception v3 with fresh weights; ``options`` go to :class:`Inception3`.

    >>> from oxidet.models import inception_v3
    >>> sum(p.numel() for p in inception_v3(init_weights=False).parameters())
    27161264
    """
    return Inception3(num_classes, **options)
