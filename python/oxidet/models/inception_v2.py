"""Inception v2, Ioffe and Szegedy, "Batch normalization" (arXiv 1502.03167), also BN-Inception.

GoogLeNet with batch norm behind every convolution, two 3 x 3 kernels in place of a 5 x 5, means
instead of maxima in most blocks, and blocks of stride 2 instead of pools between the stages.
"""

from __future__ import annotations

from typing import Any

from oxidet import nn
from oxidet._arrays import choice
from oxidet.models._inception import BasicConv2d
from oxidet.models.classifier import Classifier
from oxidet.models.registry import register_model
from oxidet.nn import functional as F
from oxidet.nn import init
from oxidet.transforms import ImageClassification

# name: (1 x 1, (reduction, 3 x 3), (reduction, 3 x 3 twice), projection of the pool). A block
# without a 1 x 1 branch has stride 2, and its pool passes all channels on.
Block = tuple[int, tuple[int, int], tuple[int, int], int]
BLOCKS: dict[str, Block] = {
    "inception3a": (64, (64, 64), (64, 96), 32),
    "inception3b": (64, (64, 96), (64, 96), 64),
    "inception3c": (0, (128, 160), (64, 96), 0),
    "inception4a": (224, (64, 96), (96, 128), 128),
    "inception4b": (192, (96, 128), (96, 128), 128),
    "inception4c": (160, (128, 160), (128, 160), 128),
    "inception4d": (96, (128, 192), (160, 192), 128),
    "inception4e": (0, (128, 192), (192, 256), 0),
    "inception5a": (352, (192, 320), (160, 224), 128),
    "inception5b": (352, (192, 320), (192, 224), 128),
}
# The table of the paper prints projections of 128 here, and a total without room for them; Slim
# follows the total.
SLIM_PROJECTIONS = {"inception4c": 96, "inception4d": 96}
SLIM = ImageClassification(224, mean=0.5, std=0.5)
CAFFE = ImageClassification.caffe(224, resize_size=256, mean=(104, 117, 128))
# The one block whose 3 x 3 pool of stride 1 takes maxima.
MAX_POOLED = "inception5b"


class SeparableConv2d(nn.Module):
    """Slim's first layer: some filters for each channel alone, a 1 x 1 over them, norm and ReLU."""

    depthwise: nn.Conv2d
    conv: nn.Conv2d
    bn: nn.BatchNorm2d

    def __init__(
        self, in_channels: int, out_channels: int, multiplier: int, *, eps: float, **options: Any
    ) -> None:
        super().__init__()
        width = in_channels * multiplier
        self.depthwise = nn.Conv2d(in_channels, width, groups=in_channels, bias=False, **options)
        self.conv = nn.Conv2d(width, out_channels, kernel_size=1, bias=False)
        self.bn = nn.BatchNorm2d(out_channels, eps=eps)

    def forward(self, x: Any) -> Any:
        """(N, in_channels, H, W) -> (N, out_channels, H_out, W_out)."""
        return F.relu(self.bn(self.conv(self.depthwise(x))))


class HalvingPool(nn.Module):
    """Maxima of 3 x 3 pixels every 2: one for every second pixel, as a convolution of stride 2 has.

    Along an even side the last window hangs over the end; along an odd one it hangs over both.
    """

    _mode_matters = False

    def forward(self, x: Any) -> Any:
        """(N, C, H, W) -> (N, C, H / 2, W / 2), rounded up."""
        odd = (x.shape[2] % 2, x.shape[3] % 2)
        return F.max_pool2d(x, kernel_size=3, stride=2, padding=odd, ceil_mode=True)


class InceptionV2Block(nn.Module):
    """A block of stride 1: 1 x 1, one 3 x 3, two 3 x 3, and a projected pool.

    ``options`` are those of the convolution blocks.
    """

    branch1: BasicConv2d
    branch2: nn.Sequential
    branch3: nn.Sequential
    branch4: nn.Sequential
    out_channels: int

    def __init__(self, in_channels: int, block: Block, pool: nn.Module, **options: Any) -> None:
        super().__init__()
        width, (reduce2, width2), (reduce3, width3), projection = block
        self.branch1 = BasicConv2d(in_channels, width, kernel_size=1, **options)
        self.branch2 = nn.Sequential(
            BasicConv2d(in_channels, reduce2, kernel_size=1, **options),
            BasicConv2d(reduce2, width2, kernel_size=3, padding=1, **options),
        )
        self.branch3 = nn.Sequential(
            BasicConv2d(in_channels, reduce3, kernel_size=1, **options),
            BasicConv2d(reduce3, width3, kernel_size=3, padding=1, **options),
            BasicConv2d(width3, width3, kernel_size=3, padding=1, **options),
        )
        self.branch4 = nn.Sequential(
            pool, BasicConv2d(in_channels, projection, kernel_size=1, **options)
        )
        self.out_channels = width + width2 + width3 + projection

    def forward(self, x: Any) -> Any:
        """(N, in_channels, H, W) -> (N, out_channels, H, W)."""
        return F.cat([self.branch1(x), self.branch2(x), self.branch3(x), self.branch4(x)], 1)


class InceptionV2Reduction(nn.Module):
    """A block of stride 2: 3 x 3, two 3 x 3, and a max pool, each halving the image."""

    branch2: nn.Sequential
    branch3: nn.Sequential
    branch4: HalvingPool
    out_channels: int

    def __init__(self, in_channels: int, block: Block, **options: Any) -> None:
        super().__init__()
        _, (reduce2, width2), (reduce3, width3), _ = block
        self.branch2 = nn.Sequential(
            BasicConv2d(in_channels, reduce2, kernel_size=1, **options),
            BasicConv2d(reduce2, width2, kernel_size=3, stride=2, padding=1, **options),
        )
        self.branch3 = nn.Sequential(
            BasicConv2d(in_channels, reduce3, kernel_size=1, **options),
            BasicConv2d(reduce3, width3, kernel_size=3, padding=1, **options),
            BasicConv2d(width3, width3, kernel_size=3, stride=2, padding=1, **options),
        )
        self.branch4 = HalvingPool()
        self.out_channels = width2 + width3 + in_channels

    def forward(self, x: Any) -> Any:
        """(N, in_channels, H, W) -> (N, out_channels, H / 2, W / 2), rounded up."""
        return F.cat([self.branch2(x), self.branch3(x), self.branch4(x)], 1)


class InceptionV2(Classifier):
    """Inception v2 for (N, 3, H, W) images; returns (N, num_classes) logits.

    Parameters
    ----------
    num_classes
        Number of classes.
    dropout
        Probability with which, in training, an input of the linear layer is dropped.
    variant
        ``"slim"``, TensorFlow-Slim's: pools leave padding out of their means, eps 0.001; or
        ``"caffe"``, the Caffe port's: wider projections in two blocks, pools count padding as
        zeros, eps 1e-5.
    separable_stem
        Whether the first convolution is a depthwise and a 1 x 1 one, as in Slim's checkpoint.
    conv_bias
        Whether convolutions have a bias, as in the converted checkpoint of the Caffe port.
    """

    maxpool1: nn.MaxPool2d
    conv2: BasicConv2d
    conv3: BasicConv2d
    maxpool2: nn.MaxPool2d
    avgpool: nn.AdaptiveAvgPool2d
    dropout: nn.Dropout
    fc: nn.Linear

    def __init__(
        self,
        num_classes: int = 1000,
        dropout: float = 0.2,
        variant: str = "slim",
        separable_stem: bool = False,
        conv_bias: bool = False,
    ) -> None:
        super().__init__()
        choice(variant, "variant", ("slim", "caffe"))
        slim = variant == "slim"
        self.preprocess: ImageClassification = SLIM if slim else CAFFE
        eps = 0.001 if slim else 1e-5
        options: dict[str, Any] = {"eps": eps, "bias": conv_bias}

        self.conv1: nn.Module
        if separable_stem:
            self.conv1 = SeparableConv2d(3, 64, 8, eps=eps, kernel_size=7, stride=2, padding=3)
        else:
            self.conv1 = BasicConv2d(3, 64, kernel_size=7, stride=2, padding=3, **options)
        self.maxpool1 = nn.MaxPool2d(3, stride=2, ceil_mode=True)
        self.conv2 = BasicConv2d(64, 64, kernel_size=1, **options)
        self.conv3 = BasicConv2d(64, 192, kernel_size=3, padding=1, **options)
        self.maxpool2 = nn.MaxPool2d(3, stride=2, ceil_mode=True)
        channels = 192
        for name, block in BLOCKS.items():
            if slim and name in SLIM_PROJECTIONS:
                block = (*block[:3], SLIM_PROJECTIONS[name])
            layer: InceptionV2Block | InceptionV2Reduction
            if block[0] == 0:
                layer = InceptionV2Reduction(channels, block, **options)
            elif name == MAX_POOLED:
                pool = nn.MaxPool2d(3, stride=1, padding=1)
                layer = InceptionV2Block(channels, block, pool, **options)
            else:
                means = nn.AvgPool2d(3, stride=1, padding=1, count_include_pad=not slim)
                layer = InceptionV2Block(channels, block, means, **options)
            self.add_module(name, layer)
            channels = layer.out_channels
        self.avgpool = nn.AdaptiveAvgPool2d((1, 1))
        self.dropout = nn.Dropout(p=dropout)
        self.fc = nn.Linear(channels, num_classes)
        for name, module in self.named_modules():
            if isinstance(module, (nn.Conv2d, nn.Linear)):
                initialize(name, module, separable_stem)

    def forward(self, x: Any) -> Any:
        """(N, 3, H, W), H and W at least 7 -> (N, num_classes)."""
        x = self.maxpool1(self.conv1(x))
        x = self.maxpool2(self.conv3(self.conv2(x)))
        for name in BLOCKS:
            x = self.get_submodule(name)(x)
        return self.fc(self.dropout(F.flatten(self.avgpool(x), 1)))


def initialize(name: str, layer: nn.Conv2d | nn.Linear, separable_stem: bool) -> None:
    """Slim's initial weights of one layer, by its place in the network."""
    std: float | None = None
    if separable_stem and name.startswith("conv1."):
        std = 1.0
    elif name.endswith(("branch2.0.conv", "branch3.0.conv")):
        std = 0.09
    elif name.endswith("branch4.1.conv") or name == "conv2.conv":
        std = 0.1
    if std is None:
        init.variance_scaling_(layer.weight)
    else:
        init.trunc_normal_(layer.weight, 0.0, std, -2 * std, 2 * std)
    if layer.bias is not None:
        init.zeros_(layer.bias)


@register_model()
def inception_v2(
    num_classes: int = 1000,
    dropout: float = 0.2,
    variant: str = "slim",
    separable_stem: bool = False,
    conv_bias: bool = False,
) -> InceptionV2:
    """Inception v2 with fresh weights; see :class:`InceptionV2`.

    >>> from oxidet.models import inception_v2
    >>> sum(p.numel() for p in inception_v2().parameters())
    11194984
    """
    return InceptionV2(num_classes, dropout, variant, separable_stem, conv_bias)
