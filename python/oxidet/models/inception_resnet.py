"""Inception-ResNet v1 and v2, Szegedy et al., "Inception-v4, Inception-ResNet and the impact of
residual connections on learning" (arXiv 1602.07261).

Inception blocks that add a fraction of what they compute to their input: without the fraction,
networks this wide do not train. Version 2 has timm's layer names and text, so its checkpoint loads,
and is the network that was released, which differs from the paper's figure 15 in the stem, in the
numbers of blocks, in one more block without ReLU, and in a last 1 x 1 convolution;
``variant="paper"`` is the figure's. Version 1 has the same names.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from oxidet import nn
from oxidet._arrays import choice, integer, number
from oxidet.models._conv_norm_act import ConvNormAct, SelectAdaptivePool2d, set_eps
from oxidet.models.classifier import Classifier
from oxidet.models.inception_v4 import average_and_project, stem
from oxidet.models.registry import register_model
from oxidet.nn import functional as F
from oxidet.nn import init
from oxidet.transforms import ImageClassification

Triple = tuple[int, int, int]


class Mixed_5b(nn.Module):
    """1 x 1, 5 x 5, two 3 x 3, and a pool, side by side."""

    branch0: ConvNormAct
    branch1: nn.Sequential
    branch2: nn.Sequential
    branch3: nn.Sequential

    def __init__(self) -> None:
        super().__init__()
        self.branch0 = ConvNormAct(192, 96, 1)
        self.branch1 = nn.Sequential(ConvNormAct(192, 48, 1), ConvNormAct(48, 64, 5, padding=2))
        self.branch2 = nn.Sequential(
            ConvNormAct(192, 64, 1),
            ConvNormAct(64, 96, 3, padding=1),
            ConvNormAct(96, 96, 3, padding=1),
        )
        self.branch3 = average_and_project(192, 64)

    def forward(self, x: Any) -> Any:
        """(N, 192, H, W) -> (N, 320, H, W)."""
        return F.cat([self.branch0(x), self.branch1(x), self.branch2(x), self.branch3(x)], 1)


class Block35(nn.Module):
    """Adds 1 x 1, 3 x 3 and two 3 x 3 to its input (figures 10 and 16).

    ``widths`` are the channels of the third branch; the first two have 32 throughout.
    """

    branch0: ConvNormAct
    branch1: nn.Sequential
    branch2: nn.Sequential
    conv2d: nn.Conv2d
    act: nn.ReLU

    def __init__(self, channels: int, widths: Triple, scale: float = 0.17) -> None:
        super().__init__()
        a, b, c = widths
        self.scale = scale
        self.branch0 = ConvNormAct(channels, 32, 1)
        self.branch1 = nn.Sequential(
            ConvNormAct(channels, 32, 1), ConvNormAct(32, 32, 3, padding=1)
        )
        self.branch2 = nn.Sequential(
            ConvNormAct(channels, a, 1),
            ConvNormAct(a, b, 3, padding=1),
            ConvNormAct(b, c, 3, padding=1),
        )
        self.conv2d = nn.Conv2d(64 + c, channels, 1)
        self.act = nn.ReLU()

    def forward(self, x: Any) -> Any:
        """(N, channels, H, W); the same out."""
        out = self.conv2d(F.cat([self.branch0(x), self.branch1(x), self.branch2(x)], 1))
        return self.act(out * self.scale + x)


class Mixed_6a(nn.Module):
    """From 35 to 17 pixels: ``widths`` are k, l and m of figure 7, n is 384."""

    branch0: ConvNormAct
    branch1: nn.Sequential
    branch2: nn.MaxPool2d

    def __init__(self, channels: int, widths: Triple) -> None:
        super().__init__()
        k, l, m = widths  # noqa: E741
        self.branch0 = ConvNormAct(channels, 384, 3, stride=2)
        self.branch1 = nn.Sequential(
            ConvNormAct(channels, k, 1),
            ConvNormAct(k, l, 3, padding=1),
            ConvNormAct(l, m, 3, stride=2),
        )
        self.branch2 = nn.MaxPool2d(3, stride=2)

    def forward(self, x: Any) -> Any:
        """(N, channels, H, W) -> (N, 384 + m + channels, (H - 1) // 2, (W - 1) // 2)."""
        return F.cat([self.branch0(x), self.branch1(x), self.branch2(x)], 1)


class Block17(nn.Module):
    """Adds 1 x 1 and, in two parts, 7 x 7 to its input (figures 11 and 17).

    ``widths`` are the channels of the second branch; the first has as many as it ends with.
    """

    branch0: ConvNormAct
    branch1: nn.Sequential
    conv2d: nn.Conv2d
    act: nn.ReLU

    def __init__(self, channels: int, widths: Triple, scale: float = 0.10) -> None:
        super().__init__()
        a, b, c = widths
        self.scale = scale
        self.branch0 = ConvNormAct(channels, c, 1)
        self.branch1 = nn.Sequential(
            ConvNormAct(channels, a, 1),
            ConvNormAct(a, b, (1, 7), padding=(0, 3)),
            ConvNormAct(b, c, (7, 1), padding=(3, 0)),
        )
        self.conv2d = nn.Conv2d(2 * c, channels, 1)
        self.act = nn.ReLU()

    def forward(self, x: Any) -> Any:
        """(N, channels, H, W); the same out."""
        out = self.conv2d(F.cat([self.branch0(x), self.branch1(x)], 1))
        return self.act(out * self.scale + x)


class Mixed_7a(nn.Module):
    """From 17 to 8 pixels (figures 12 and 18): 3 x 3, 3 x 3, two 3 x 3, and a pool.

    ``widths`` are the last channels of the second branch, and the last two of the third.
    """

    branch0: nn.Sequential
    branch1: nn.Sequential
    branch2: nn.Sequential
    branch3: nn.MaxPool2d

    def __init__(self, channels: int, widths: Triple) -> None:
        super().__init__()
        a, b, c = widths
        self.branch0 = nn.Sequential(
            ConvNormAct(channels, 256, 1), ConvNormAct(256, 384, 3, stride=2)
        )
        self.branch1 = nn.Sequential(
            ConvNormAct(channels, 256, 1), ConvNormAct(256, a, 3, stride=2)
        )
        self.branch2 = nn.Sequential(
            ConvNormAct(channels, 256, 1),
            ConvNormAct(256, b, 3, padding=1),
            ConvNormAct(b, c, 3, stride=2),
        )
        self.branch3 = nn.MaxPool2d(3, stride=2)

    def forward(self, x: Any) -> Any:
        """(N, channels, H, W) -> (N, 384 + a + c + channels, (H - 1) // 2, (W - 1) // 2)."""
        return F.cat([self.branch0(x), self.branch1(x), self.branch2(x), self.branch3(x)], 1)


class Block8(nn.Module):
    """Adds 1 x 1 and, in two parts, 3 x 3 to its input (figures 13 and 19).

    ``widths`` are the channels of the second branch; the first has 192. ``no_relu`` leaves the sum
    as it is.
    """

    branch0: ConvNormAct
    branch1: nn.Sequential
    conv2d: nn.Conv2d
    relu: nn.ReLU | None

    def __init__(
        self, channels: int, widths: Triple, scale: float = 0.20, no_relu: bool = False
    ) -> None:
        super().__init__()
        a, b, c = widths
        self.scale = scale
        self.branch0 = ConvNormAct(channels, 192, 1)
        self.branch1 = nn.Sequential(
            ConvNormAct(channels, a, 1),
            ConvNormAct(a, b, (1, 3), padding=(0, 1)),
            ConvNormAct(b, c, (3, 1), padding=(1, 0)),
        )
        self.conv2d = nn.Conv2d(192 + c, channels, 1)
        self.relu = None if no_relu else nn.ReLU()

    def forward(self, x: Any) -> Any:
        """(N, channels, H, W); the same out."""
        out = self.conv2d(F.cat([self.branch0(x), self.branch1(x)], 1))
        out = out * self.scale + x
        return out if self.relu is None else self.relu(out)


class _InceptionResnet(Classifier):
    """A network whose children run one after the other."""

    conv2d_1a: ConvNormAct
    conv2d_2a: ConvNormAct
    conv2d_2b: ConvNormAct
    maxpool_3a: nn.MaxPool2d
    conv2d_3b: ConvNormAct
    conv2d_4a: ConvNormAct

    def _small_stem(self, in_chans: int) -> None:
        """Register what v1 and the released v2 begin with: Inception v3's stem."""
        self.conv2d_1a = ConvNormAct(in_chans, 32, 3, stride=2)
        self.conv2d_2a = ConvNormAct(32, 32, 3)
        self.conv2d_2b = ConvNormAct(32, 64, 3, padding=1)
        self.maxpool_3a = nn.MaxPool2d(3, stride=2)
        self.conv2d_3b = ConvNormAct(64, 80, 1)
        self.conv2d_4a = ConvNormAct(80, 192, 3)

    def forward(self, x: Any) -> Any:
        """(N, C, H, W) -> (N, num_classes)."""
        for layer in self.children():
            x = layer(x)
        return x


class InceptionResnetV1(_InceptionResnet):
    """Inception-ResNet v1 for (N, 3, H, W) images, 299 x 299 in the paper, at least 75 x 75.

    Returns (N, num_classes) logits. Weights start from N(0, 0.1^2) cut off at two deviations.

    Parameters
    ----------
    num_classes
        Number of classes.
    dropout
        Probability with which features before the last layer are dropped in training.
    blocks
        How often each kind of block is repeated.
    final_block
        Whether a last block without ReLU follows, as in known implementations. The paper has none.
    """

    conv2d_4b: ConvNormAct
    repeat_1: nn.Sequential
    mixed_6a: Mixed_6a
    repeat_2: nn.Sequential
    mixed_7a: Mixed_7a
    repeat_3: nn.Sequential
    block8: Block8
    avgpool_1a: SelectAdaptivePool2d
    dropout: nn.Dropout
    fc: nn.Linear

    preprocess: ImageClassification = ImageClassification(299, resize_size=341, mean=0.5, std=0.5)

    def __init__(
        self,
        num_classes: int = 1000,
        dropout: float = 0.2,
        blocks: Sequence[int] = (5, 10, 5),
        final_block: bool = True,
    ) -> None:
        super().__init__()
        if len(blocks) != 3:
            raise ValueError(f"blocks: expected three counts, got {list(blocks)}")
        first, second, third = (integer(count, "blocks", 0) for count in blocks)
        self._small_stem(3)
        self.conv2d_4b = ConvNormAct(192, 256, 3, stride=2)
        self.repeat_1 = nn.Sequential(*(Block35(256, (32, 32, 32)) for _ in range(first)))
        self.mixed_6a = Mixed_6a(256, (192, 192, 256))
        self.repeat_2 = nn.Sequential(*(Block17(896, (128, 128, 128)) for _ in range(second)))
        self.mixed_7a = Mixed_7a(896, (256, 256, 256))
        self.repeat_3 = nn.Sequential(*(Block8(1792, (192, 192, 192)) for _ in range(third)))
        if final_block:
            self.block8 = Block8(1792, (192, 192, 192), scale=1.0, no_relu=True)
        self.avgpool_1a = SelectAdaptivePool2d()
        self.dropout = nn.Dropout(p=dropout)
        self.fc = nn.Linear(1792, num_classes)
        for module in self.modules():
            if isinstance(module, (nn.Conv2d, nn.Linear)):
                init.trunc_normal_(module.weight, std=0.1, a=-0.2, b=0.2)
                if module.bias is not None:
                    init.zeros_(module.bias)


class InceptionResnetV2(_InceptionResnet):
    """Inception-ResNet v2 for (N, in_chans, H, W) images, 299 x 299 in the paper, at least 75 x 75.

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
        ``"avg"`` or ``"max"``: what becomes of the planes of the last layer.
    norm_eps
        What batch norms add to variances.
    variant
        ``"released"``, the network whose weights exist, or ``"paper"``, that of figure 15 with
        Inception v4's stem. Where the figures' widths do not add up, they are made to.
    """

    maxpool_5a: nn.MaxPool2d
    mixed_5b: Mixed_5b
    block8: Block8
    conv2d_7b: ConvNormAct
    stem: nn.Sequential
    global_pool: SelectAdaptivePool2d
    head_drop: nn.Dropout
    classif: nn.Linear
    repeat: nn.Sequential
    mixed_6a: Mixed_6a
    repeat_1: nn.Sequential
    mixed_7a: Mixed_7a
    repeat_2: nn.Sequential

    preprocess: ImageClassification = ImageClassification(
        299, resize_size=333, mean=0.5, std=0.5, interpolation="bicubic"
    )

    def __init__(
        self,
        num_classes: int = 1000,
        in_chans: int = 3,
        drop_rate: float = 0.0,
        global_pool: str = "avg",
        norm_eps: float = 1e-3,
        variant: str = "released",
    ) -> None:
        super().__init__()
        number(norm_eps, "norm_eps", 0)
        if choice(variant, "variant", ("released", "paper")) == "released":
            self._small_stem(in_chans)
            self.maxpool_5a = nn.MaxPool2d(3, stride=2)
            self.mixed_5b = Mixed_5b()
            channels = self._body(320, blocks=(10, 20, 9))
            self.block8 = Block8(channels, (192, 224, 256), scale=1.0, no_relu=True)
            self.conv2d_7b = ConvNormAct(channels, 1536, 1)
            channels = 1536
        else:
            self.stem = nn.Sequential(*stem(in_chans))
            channels = self._body(384, blocks=(5, 10, 5))
        self.global_pool = SelectAdaptivePool2d(global_pool)
        self.head_drop = nn.Dropout(p=drop_rate)
        self.classif = nn.Linear(channels, num_classes)
        set_eps(self, norm_eps)

    def _body(self, channels: int, blocks: Triple) -> int:
        """Register the repeated blocks; the channels that come out."""
        a, b, c = blocks
        self.repeat = nn.Sequential(*(Block35(channels, (32, 48, 64)) for _ in range(a)))
        self.mixed_6a = Mixed_6a(channels, (256, 256, 384))
        channels += 384 + 384
        self.repeat_1 = nn.Sequential(*(Block17(channels, (128, 160, 192)) for _ in range(b)))
        self.mixed_7a = Mixed_7a(channels, (288, 288, 320))
        channels += 384 + 288 + 320
        self.repeat_2 = nn.Sequential(*(Block8(channels, (192, 224, 256)) for _ in range(c)))
        return channels


@register_model()
def inception_resnet_v1(num_classes: int = 1000, **options: Any) -> InceptionResnetV1:
    """Inception-ResNet v1 with fresh weights; ``options`` go to :class:`InceptionResnetV1`.

    >>> from oxidet.models import inception_resnet_v1
    >>> model = inception_resnet_v1(final_block=False)
    >>> sum(p.numel() for p in model.parameters())
    22756328
    """
    return InceptionResnetV1(num_classes, **options)


@register_model()
def inception_resnet_v2(num_classes: int = 1000, **options: Any) -> InceptionResnetV2:
    """Inception-ResNet v2 with fresh weights; ``options`` go to :class:`InceptionResnetV2`.

    >>> from oxidet.models import inception_resnet_v2
    >>> model = inception_resnet_v2(variant="paper")
    >>> sum(p.numel() for p in model.parameters())
    32433928
    """
    return InceptionResnetV2(num_classes, **options)
