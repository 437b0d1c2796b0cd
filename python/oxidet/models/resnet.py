"""ResNet, He et al., "Deep residual learning for image recognition" (arXiv 1512.03385).

Blocks add their input to what they compute. Layer names, initialisation and text are
torchvision's, so its checkpoints load; like there, the stride of a bottleneck is in its 3 x 3
("v1.5"). The family also has the wider bottlenecks of "Wide residual networks" (1605.07146), the
grouped ones of ResNeXt (1611.05431), and the paper's nets without shortcuts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

from oxidet import nn
from oxidet._arrays import choice, integer, listed
from oxidet.models.classifier import Classifier
from oxidet.models.registry import register_model
from oxidet.nn import functional as F
from oxidet.nn import init

NormLayer = Callable[[int], nn.Module]


def conv3x3(
    in_channels: int, out_channels: int, stride: int = 1, groups: int = 1, dilation: int = 1
) -> nn.Conv2d:
    """A 3 x 3 convolution that keeps the size (at stride 1), without bias."""
    return nn.Conv2d(
        in_channels,
        out_channels,
        3,
        stride=stride,
        padding=dilation,
        dilation=dilation,
        groups=groups,
        bias=False,
    )


def conv1x1(in_channels: int, out_channels: int, stride: int = 1) -> nn.Conv2d:
    """A 1 x 1 convolution without bias."""
    return nn.Conv2d(in_channels, out_channels, 1, stride=stride, bias=False)


class BasicBlock(nn.Module):
    """Two 3 x 3 convolutions and a shortcut (ResNet-18 and -34)."""

    expansion: ClassVar[int] = 1
    conv1: nn.Conv2d
    bn1: nn.Module
    relu: nn.ReLU
    conv2: nn.Conv2d
    bn2: nn.Module

    def __init__(
        self,
        inplanes: int,
        planes: int,
        stride: int = 1,
        downsample: nn.Module | None = None,
        groups: int = 1,
        base_width: int = 64,
        dilation: int = 1,
        norm_layer: NormLayer = nn.BatchNorm2d,
    ) -> None:
        super().__init__()
        if (groups, base_width, dilation) != (1, 64, 1):
            raise ValueError(
                "groups, base_width, dilation: expected 1, 64 and 1 for a BasicBlock, got "
                f"{groups}, {base_width} and {dilation}"
            )
        self.conv1 = conv3x3(inplanes, planes, stride)
        self.bn1 = norm_layer(planes)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = conv3x3(planes, planes)
        self.bn2 = norm_layer(planes)
        self.downsample = downsample

    def forward(self, x: Any) -> Any:
        """(N, inplanes, H, W) -> (N, planes, H / stride, W / stride)."""
        identity = x if self.downsample is None else self.downsample(x)
        out = self.relu(self.bn1(self.conv1(x)))
        return self.relu(self.bn2(self.conv2(out)) + identity)


class PlainBlock(BasicBlock):
    """Two 3 x 3 convolutions without a shortcut, for the paper's comparison."""

    def forward(self, x: Any) -> Any:
        """(N, inplanes, H, W) -> (N, planes, H / stride, W / stride)."""
        out = self.relu(self.bn1(self.conv1(x)))
        return self.relu(self.bn2(self.conv2(out)))


class Bottleneck(nn.Module):
    """1 x 1 to fewer channels, 3 x 3, 1 x 1 to four times as many, and a shortcut.

    ``base_width`` and ``groups`` make the 3 x 3 wider and grouped. ``stride_1x1`` has the stride
    in the first convolution, as the paper, and not in the second.
    """

    expansion: ClassVar[int] = 4
    conv1: nn.Conv2d
    bn1: nn.Module
    conv2: nn.Conv2d
    bn2: nn.Module
    conv3: nn.Conv2d
    bn3: nn.Module
    relu: nn.ReLU

    def __init__(
        self,
        inplanes: int,
        planes: int,
        stride: int = 1,
        downsample: nn.Module | None = None,
        groups: int = 1,
        base_width: int = 64,
        dilation: int = 1,
        norm_layer: NormLayer = nn.BatchNorm2d,
        stride_1x1: bool = False,
    ) -> None:
        super().__init__()
        width = int(planes * base_width / 64) * groups
        first, second = (stride, 1) if stride_1x1 else (1, stride)
        self.conv1 = conv1x1(inplanes, width, first)
        self.bn1 = norm_layer(width)
        self.conv2 = conv3x3(width, width, second, groups, dilation)
        self.bn2 = norm_layer(width)
        self.conv3 = conv1x1(width, planes * self.expansion)
        self.bn3 = norm_layer(planes * self.expansion)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = downsample

    def forward(self, x: Any) -> Any:
        """(N, inplanes, H, W) -> (N, 4 * planes, H / stride, W / stride)."""
        identity = x if self.downsample is None else self.downsample(x)
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.relu(self.bn2(self.conv2(out)))
        return self.relu(self.bn3(self.conv3(out)) + identity)


class PadShortcut(nn.Module):
    """Option A of a shortcut: every stride-th pixel, and channels of zeros. No parameters."""

    extra: int

    _mode_matters = False

    def __init__(self, inplanes: int, outplanes: int, stride: int = 1) -> None:
        super().__init__()
        self.extra = outplanes - inplanes
        self.stride = stride

    def forward(self, x: Any) -> Any:
        """(N, inplanes, H, W) -> (N, outplanes, H / stride, W / stride)."""
        if self.stride != 1:
            x = F.max_pool2d(x, kernel_size=1, stride=self.stride)
        return F.pad(x, (0, 0, 0, 0, 0, self.extra))

    def extra_repr(self) -> str:
        """Channels added, and stride."""
        return f"extra={self.extra}, stride={self.stride}"


def make_shortcut(
    inplanes: int,
    outplanes: int,
    stride: int = 1,
    option: str = "B",
    norm_layer: NormLayer = nn.BatchNorm2d,
) -> nn.Module | None:
    """What a block does to the input that it adds; None where it takes it as it is.

    The paper's options (section 4.1): ``"A"`` pads with zeros and ``"B"`` projects where the shape
    changes, ``"C"`` projects everywhere.
    """
    choice(option, "shortcut", ("A", "B", "C"))
    if option != "C" and stride == 1 and inplanes == outplanes:
        return None
    if option == "A":
        return PadShortcut(inplanes, outplanes, stride)
    return nn.Sequential(conv1x1(inplanes, outplanes, stride), norm_layer(outplanes))


def make_layer(
    block: type[BasicBlock] | type[Bottleneck],
    inplanes: int,
    planes: int,
    blocks: int,
    stride: int = 1,
    *,
    shortcut: str = "B",
    dilations: tuple[int, int] = (1, 1),
    norm_layer: NormLayer = nn.BatchNorm2d,
    **options: Any,
) -> nn.Sequential:
    """One stage: ``blocks`` blocks, the first with the stride.

    ``dilations`` are that of the first block and of the others; ``options`` go to all of them.
    """
    outplanes = planes * block.expansion
    layers = []
    for i in range(blocks):
        downsample = None
        if not issubclass(block, PlainBlock):
            downsample = make_shortcut(inplanes, outplanes, stride, shortcut, norm_layer)
        dilation = dilations[min(i, 1)]
        layers.append(
            block(
                inplanes,
                planes,
                stride,
                downsample,
                dilation=dilation,
                norm_layer=norm_layer,
                **options,
            )
        )
        inplanes, stride = outplanes, 1
    return nn.Sequential(*layers)


def initialize(network: nn.Module, zero_init_residual: bool = False) -> None:
    """torchvision's initial weights of a residual network: Kaiming normal, fan out."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        elif zero_init_residual and isinstance(module, (BasicBlock, Bottleneck)):
            last = module.bn3 if isinstance(module, Bottleneck) else module.bn2
            if getattr(last, "weight", None) is not None:
                init.zeros_(last.weight)


class ResNet(Classifier):
    """A residual network for (N, 3, H, W) images; returns (N, num_classes) logits.

    Parameters
    ----------
    block
        :class:`BasicBlock`, :class:`Bottleneck` or :class:`PlainBlock`.
    layers
        Number of blocks in each of the four stages.
    num_classes
        Number of classes.
    zero_init_residual
        Start the last batch norm of every block at weight 0, so that blocks start as identities.
    groups, width_per_group
        Groups of the 3 x 3 convolutions of bottlenecks, and channels of each group in the first
        stage.
    replace_stride_with_dilation
        For each of the last three stages, whether to dilate instead of halving the size.
        Bottlenecks only.
    norm_layer
        Builds what normalises a number of channels; None means :class:`oxidet.nn.BatchNorm2d`.
    shortcut
        ``"A"``, ``"B"`` or ``"C"``; see :func:`make_shortcut`.
    stride_1x1
        Whether a bottleneck's stride is in its first 1 x 1 (the paper, "v1") and not in its 3 x 3.
    """

    conv1: nn.Conv2d
    bn1: nn.Module
    relu: nn.ReLU
    maxpool: nn.MaxPool2d
    avgpool: nn.AdaptiveAvgPool2d
    fc: nn.Linear

    def __init__(
        self,
        block: type[BasicBlock] | type[Bottleneck],
        layers: Sequence[int],
        num_classes: int = 1000,
        zero_init_residual: bool = False,
        groups: int = 1,
        width_per_group: int = 64,
        replace_stride_with_dilation: Sequence[bool] | None = None,
        norm_layer: NormLayer | None = None,
        shortcut: str = "B",
        stride_1x1: bool = False,
    ) -> None:
        super().__init__()
        if not isinstance(block, type) or not hasattr(block, "expansion"):
            raise TypeError(f"block: expected BasicBlock, Bottleneck or PlainBlock, got {block!r}")
        counts = listed(layers, "layers", "four block counts")
        if len(counts) != 4:
            raise ValueError(f"layers: expected four block counts, got {counts}")
        dilate = [False] * 3
        if replace_stride_with_dilation is not None:
            argument = "replace_stride_with_dilation"
            dilate = listed(replace_stride_with_dilation, argument, "three booleans")
            if len(dilate) != 3:
                raise ValueError(f"{argument}: expected three booleans, got {dilate}")
        if zero_init_residual and issubclass(block, PlainBlock):
            raise ValueError("zero_init_residual: expected False for blocks without a shortcut")
        norm = nn.BatchNorm2d if norm_layer is None else norm_layer
        options: dict[str, Any] = {"groups": groups, "base_width": width_per_group}
        if stride_1x1:
            if not issubclass(block, Bottleneck):
                raise ValueError("stride_1x1: expected False for blocks without a 1 x 1")
            options["stride_1x1"] = True
        self.conv1 = nn.Conv2d(3, 64, 7, stride=2, padding=3, bias=False)
        self.bn1 = norm(64)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(kernel_size=3, stride=2, padding=1)
        inplanes, dilation = 64, 1
        for i, count in enumerate(counts):
            blocks = integer(count, "layers", 1)
            planes, before = 64 * 2**i, dilation
            stride = 1 if i == 0 or dilate[i - 1] else 2
            if i > 0 and dilate[i - 1]:
                dilation *= 2
            stage = make_layer(
                block,
                inplanes,
                planes,
                blocks,
                stride,
                shortcut=shortcut,
                dilations=(before, dilation),
                norm_layer=norm,
                **options,
            )
            self.add_module(f"layer{i + 1}", stage)
            inplanes = planes * block.expansion
        self.avgpool = nn.AdaptiveAvgPool2d((1, 1))
        self.fc = nn.Linear(inplanes, num_classes)
        initialize(self, zero_init_residual)

    def forward(self, x: Any) -> Any:
        """(N, 3, H, W) -> (N, num_classes)."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.fc(F.flatten(self.avgpool(x), 1))


@register_model()
def resnet18(num_classes: int = 1000, **options: Any) -> ResNet:
    """ResNet-18 with fresh weights; ``options`` go to :class:`ResNet`.

    >>> from oxidet.models import resnet18
    >>> sum(p.numel() for p in resnet18().parameters())
    11689512
    """
    return ResNet(BasicBlock, [2, 2, 2, 2], num_classes, **options)


@register_model()
def resnet34(num_classes: int = 1000, **options: Any) -> ResNet:
    """ResNet-34 with fresh weights."""
    return ResNet(BasicBlock, [3, 4, 6, 3], num_classes, **options)


@register_model()
def resnet50(num_classes: int = 1000, **options: Any) -> ResNet:
    """ResNet-50 with fresh weights."""
    return ResNet(Bottleneck, [3, 4, 6, 3], num_classes, **options)


@register_model()
def resnet101(num_classes: int = 1000, **options: Any) -> ResNet:
    """ResNet-101 with fresh weights."""
    return ResNet(Bottleneck, [3, 4, 23, 3], num_classes, **options)


@register_model()
def resnet152(num_classes: int = 1000, **options: Any) -> ResNet:
    """ResNet-152 with fresh weights."""
    return ResNet(Bottleneck, [3, 8, 36, 3], num_classes, **options)


@register_model()
def wide_resnet50_2(num_classes: int = 1000, **options: Any) -> ResNet:
    """ResNet-50 with 3 x 3 twice as wide, with fresh weights."""
    return ResNet(Bottleneck, [3, 4, 6, 3], num_classes, width_per_group=128, **options)


@register_model()
def wide_resnet101_2(num_classes: int = 1000, **options: Any) -> ResNet:
    """ResNet-101 with 3 x 3 twice as wide, with fresh weights."""
    return ResNet(Bottleneck, [3, 4, 23, 3], num_classes, width_per_group=128, **options)


@register_model()
def resnext50_32x4d(num_classes: int = 1000, **options: Any) -> ResNet:
    """ResNeXt-50, 32 groups of 4 channels, with fresh weights."""
    return ResNet(Bottleneck, [3, 4, 6, 3], num_classes, groups=32, width_per_group=4, **options)


@register_model()
def resnext101_32x8d(num_classes: int = 1000, **options: Any) -> ResNet:
    """ResNeXt-101, 32 groups of 8 channels, with fresh weights."""
    return ResNet(Bottleneck, [3, 4, 23, 3], num_classes, groups=32, width_per_group=8, **options)


@register_model()
def resnext101_64x4d(num_classes: int = 1000, **options: Any) -> ResNet:
    """ResNeXt-101, 64 groups of 4 channels, with fresh weights."""
    return ResNet(Bottleneck, [3, 4, 23, 3], num_classes, groups=64, width_per_group=4, **options)


@register_model()
def plain18(num_classes: int = 1000, **options: Any) -> ResNet:
    """ResNet-18 without shortcuts, with fresh weights."""
    return ResNet(PlainBlock, [2, 2, 2, 2], num_classes, **options)


@register_model()
def plain34(num_classes: int = 1000, **options: Any) -> ResNet:
    """ResNet-34 without shortcuts, with fresh weights."""
    return ResNet(PlainBlock, [3, 4, 6, 3], num_classes, **options)
