"""GoogLeNet, Szegedy et al., "Going deeper with convolutions" (arXiv 1409.4842).

An Inception block looks at its input with several sizes of kernel and stacks what they see; cheap
1 x 1 convolutions before the large kernels keep the number of channels small. In training two
auxiliary heads classify from the middle of the network, each with a loss of weight 0.3.

Two forms. :class:`GoogLeNet` is torchvision's, with batch norm instead of local response
normalisation; layer names, initialisation and text are torchvision's, so its checkpoints load.
:class:`GoogLeNetPaper` is the paper's. :class:`NaiveInception` is where the paper begins.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

from oxidet import nn
from oxidet.models._inception import BasicConv2d, transform_input
from oxidet.models.classifier import Classifier
from oxidet.models.registry import register_model
from oxidet.nn import functional as F
from oxidet.nn import init
from oxidet.transforms import ImageClassification

ConvBlock = Callable[..., nn.Module]


class GoogLeNetOutputs(NamedTuple):
    """Logits (N, num_classes) of the network and of its auxiliary heads, the later one first."""

    logits: Any
    aux_logits2: Any
    aux_logits1: Any


class NaiveInception(nn.Module):
    """The block of the paper's figure 2a: 1 x 1, 3 x 3, 5 x 5 and a max pool, side by side.

    Nothing makes the input of the large kernels thinner, and the pool passes all channels on, so
    blocks behind each other grow ever wider: the reason for :class:`Inception`.

    Parameters
    ----------
    in_channels
        Channels of the input.
    ch1x1, ch3x3, ch5x5
        Channels that each convolution adds to the output.
    conv_block
        What makes a convolution, by default with batch norm and ReLU.

    Examples
    --------
    >>> import numpy as np
    >>> from oxidet.models import NaiveInception
    >>> NaiveInception(192, 64, 128, 32).eval()(np.zeros((1, 192, 28, 28))).shape
    (1, 416, 28, 28)
    """

    branch1: nn.Module
    branch2: nn.Module
    branch3: nn.Module
    branch4: nn.MaxPool2d

    def __init__(
        self,
        in_channels: int,
        ch1x1: int,
        ch3x3: int,
        ch5x5: int,
        conv_block: ConvBlock = BasicConv2d,
    ) -> None:
        super().__init__()
        self.branch1 = conv_block(in_channels, ch1x1, kernel_size=1)
        self.branch2 = conv_block(in_channels, ch3x3, kernel_size=3, padding=1)
        self.branch3 = conv_block(in_channels, ch5x5, kernel_size=5, padding=2)
        self.branch4 = nn.MaxPool2d(kernel_size=3, stride=1, padding=1)

    def forward(self, x: Any) -> Any:
        """(N, in_channels, H, W) -> (N, ch1x1 + ch3x3 + ch5x5 + in_channels, H, W)."""
        return F.cat([self.branch1(x), self.branch2(x), self.branch3(x), self.branch4(x)], 1)


class Inception(nn.Module):
    """The block of the paper's figure 2b, with 1 x 1 reductions.

    Parameters
    ----------
    in_channels
        Channels of the input.
    ch1x1, ch3x3, ch5x5, pool_proj
        Channels of the four branches; the output has their sum.
    ch3x3red, ch5x5red
        Channels that the 1 x 1 convolutions before the larger kernels leave.
    conv_block
        What makes a convolution, by default with batch norm and ReLU.
    """

    branch1: nn.Module
    branch2: nn.Sequential
    branch3: nn.Sequential
    branch4: nn.Sequential

    #: Meant to be 5; torchvision has 3 by an old mistake, which its published weights keep.
    third_kernel = 3

    def __init__(
        self,
        in_channels: int,
        ch1x1: int,
        ch3x3red: int,
        ch3x3: int,
        ch5x5red: int,
        ch5x5: int,
        pool_proj: int,
        conv_block: ConvBlock = BasicConv2d,
    ) -> None:
        super().__init__()
        third = self.third_kernel
        self.branch1 = conv_block(in_channels, ch1x1, kernel_size=1)
        self.branch2 = nn.Sequential(
            conv_block(in_channels, ch3x3red, kernel_size=1),
            conv_block(ch3x3red, ch3x3, kernel_size=3, padding=1),
        )
        self.branch3 = nn.Sequential(
            conv_block(in_channels, ch5x5red, kernel_size=1),
            conv_block(ch5x5red, ch5x5, kernel_size=third, padding=third // 2),
        )
        self.branch4 = nn.Sequential(
            nn.MaxPool2d(kernel_size=3, stride=1, padding=1, ceil_mode=True),
            conv_block(in_channels, pool_proj, kernel_size=1),
        )

    def forward(self, x: Any) -> Any:
        """(N, in_channels, H, W) -> (N, ch1x1 + ch3x3 + ch5x5 + pool_proj, H, W)."""
        return F.cat([self.branch1(x), self.branch2(x), self.branch3(x), self.branch4(x)], 1)


class InceptionAux(nn.Module):
    """An auxiliary head: 4 x 4 means, a 1 x 1 convolution, two linear layers."""

    conv: nn.Module
    fc1: nn.Linear
    fc2: nn.Linear
    dropout: nn.Dropout

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        conv_block: ConvBlock = BasicConv2d,
        dropout: float = 0.7,
    ) -> None:
        super().__init__()
        self.conv = conv_block(in_channels, 128, kernel_size=1)
        self.fc1 = nn.Linear(128 * 4 * 4, 1024)
        self.fc2 = nn.Linear(1024, num_classes)
        self.dropout = nn.Dropout(p=dropout)

    def pool(self, x: Any) -> Any:
        """(N, C, H, W) -> (N, C, 4, 4)."""
        return F.adaptive_avg_pool2d(x, (4, 4))

    def forward(self, x: Any) -> Any:
        """(N, in_channels, H, W) -> (N, num_classes)."""
        x = F.flatten(self.conv(self.pool(x)), 1)
        return self.fc2(self.dropout(F.relu(self.fc1(x))))


class GoogLeNet(Classifier):
    """torchvision's GoogLeNet for (N, 3, H, W) images; returns (N, num_classes) logits.

    In training mode, with auxiliary heads, it returns :class:`GoogLeNetOutputs`.

    Parameters
    ----------
    num_classes
        Number of classes.
    aux_logits
        Whether there are auxiliary heads.
    transform_input
        Whether images are normalised with ImageNet's statistics, and to be brought to the scale on
        which the network was trained. torchvision's checkpoint wants that.
    init_weights
        Whether to draw torchvision's initial weights, as by default; else layers keep their own.
    blocks
        Classes of the convolution, Inception and auxiliary blocks.
    dropout, dropout_aux
        Probability with which an input of the last linear layer is dropped in training, in the
        network and in the auxiliary heads.
    """

    conv1: nn.Module
    conv2: nn.Module
    conv3: nn.Module
    inception3a: nn.Module
    inception3b: nn.Module
    maxpool1: nn.Module
    maxpool2: nn.Module
    maxpool3: nn.MaxPool2d
    inception4a: nn.Module
    inception4b: nn.Module
    inception4c: nn.Module
    inception4d: nn.Module
    inception4e: nn.Module
    maxpool4: nn.MaxPool2d
    inception5a: nn.Module
    inception5b: nn.Module
    aux1: nn.Module | None
    aux2: nn.Module | None
    avgpool: nn.AdaptiveAvgPool2d
    dropout: nn.Dropout
    fc: nn.Linear

    def __init__(
        self,
        num_classes: int = 1000,
        aux_logits: bool = True,
        transform_input: bool = False,
        init_weights: bool | None = None,
        blocks: Sequence[ConvBlock] | None = None,
        dropout: float = 0.2,
        dropout_aux: float = 0.7,
    ) -> None:
        super().__init__()
        blocks = (BasicConv2d, Inception, InceptionAux) if blocks is None else blocks
        if len(blocks) != 3:
            raise ValueError(f"blocks: expected three classes, got {len(blocks)}")
        conv, inception, aux = blocks
        self.aux_logits = aux_logits
        self.transform_input = transform_input

        self.conv1 = conv(3, 64, kernel_size=7, stride=2, padding=3)
        self.maxpool1 = nn.MaxPool2d(3, stride=2, ceil_mode=True)
        self.conv2 = conv(64, 64, kernel_size=1)
        self.conv3 = conv(64, 192, kernel_size=3, padding=1)
        self.maxpool2 = nn.MaxPool2d(3, stride=2, ceil_mode=True)

        self.inception3a = inception(192, 64, 96, 128, 16, 32, 32)
        self.inception3b = inception(256, 128, 128, 192, 32, 96, 64)
        self.maxpool3 = nn.MaxPool2d(3, stride=2, ceil_mode=True)

        self.inception4a = inception(480, 192, 96, 208, 16, 48, 64)
        self.inception4b = inception(512, 160, 112, 224, 24, 64, 64)
        self.inception4c = inception(512, 128, 128, 256, 24, 64, 64)
        self.inception4d = inception(512, 112, 144, 288, 32, 64, 64)
        self.inception4e = inception(528, 256, 160, 320, 32, 128, 128)
        self.maxpool4 = nn.MaxPool2d(2, stride=2, ceil_mode=True)

        self.inception5a = inception(832, 256, 160, 320, 32, 128, 128)
        self.inception5b = inception(832, 384, 192, 384, 48, 128, 128)

        self.aux1 = aux(512, num_classes, dropout=dropout_aux) if aux_logits else None
        self.aux2 = aux(528, num_classes, dropout=dropout_aux) if aux_logits else None
        self.avgpool = nn.AdaptiveAvgPool2d((1, 1))
        self.dropout = nn.Dropout(p=dropout)
        self.fc = nn.Linear(1024, num_classes)

        if init_weights is None or init_weights:
            for module in self.modules():
                if isinstance(module, (nn.Conv2d, nn.Linear)):
                    init.trunc_normal_(module.weight, 0.0, 0.01, -2, 2)

    def forward(self, x: Any) -> Any:
        """(N, 3, H, W), H and W at least 15 -> (N, num_classes), or :class:`GoogLeNetOutputs`."""
        if self.transform_input:
            x = transform_input(x)
        heads = (self.aux1, self.aux2) if self.training and self.aux_logits else (None, None)
        x = self.maxpool1(self.conv1(x))
        x = self.maxpool2(self.conv3(self.conv2(x)))
        x = self.maxpool3(self.inception3b(self.inception3a(x)))
        x = self.inception4a(x)
        aux1 = heads[0](x) if heads[0] is not None else None
        x = self.inception4d(self.inception4c(self.inception4b(x)))
        aux2 = heads[1](x) if heads[1] is not None else None
        x = self.maxpool4(self.inception4e(x))
        x = self.inception5b(self.inception5a(x))
        x = self.fc(self.dropout(F.flatten(self.avgpool(x), 1)))
        return GoogLeNetOutputs(x, aux2, aux1) if self.training and self.aux_logits else x


class ConvReLU(nn.Module):
    """The paper's convolution: with bias, then ReLU. Further arguments are those of Conv2d."""

    conv: nn.Conv2d

    def __init__(self, in_channels: int, out_channels: int, **options: Any) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, **options)

    def forward(self, x: Any) -> Any:
        """(N, in_channels, H, W) -> (N, out_channels, H_out, W_out)."""
        return F.relu(self.conv(x))


class PaperInception(Inception):
    """:class:`Inception` with a third branch of 5 x 5, as in the paper."""

    third_kernel = 5


class PaperInceptionAux(InceptionAux):
    """:class:`InceptionAux` on means over 5 x 5 every 3 pixels, as in the paper."""

    def pool(self, x: Any) -> Any:
        """(N, C, 14, 14) -> (N, C, 4, 4)."""
        return F.avg_pool2d(x, kernel_size=5, stride=3)


class GoogLeNetPaper(GoogLeNet):
    """The paper's GoogLeNet for (N, 3, 224, 224) images; returns (N, num_classes) logits.

    Without batch norm; local response normalisation stands behind the first pool and before the
    second, with Caffe's constants, and weights start as in Caffe's file: uniform by the fan-in,
    biases 0.2 and, where logits come out, 0. Images may have another size in evaluation mode, and
    without auxiliary heads: these take 14 x 14 maps only.

    Parameters
    ----------
    num_classes
        Number of classes.
    aux_logits
        Whether there are auxiliary heads, for training mode.
    dropout, dropout_aux
        Probability with which an input of the last linear layer is dropped in training, in the
        network and in the auxiliary heads.
    """

    maxpool1: nn.Module
    maxpool2: nn.Module
    maxpool4: nn.MaxPool2d

    preprocess: ImageClassification = ImageClassification.caffe(224)

    def __init__(
        self,
        num_classes: int = 1000,
        aux_logits: bool = True,
        dropout: float = 0.4,
        dropout_aux: float = 0.7,
    ) -> None:
        super().__init__(
            num_classes,
            aux_logits,
            init_weights=False,
            blocks=(
                ConvReLU,
                partial(PaperInception, conv_block=ConvReLU),
                partial(PaperInceptionAux, conv_block=ConvReLU),
            ),
            dropout=dropout,
            dropout_aux=dropout_aux,
        )
        self.maxpool1 = nn.Sequential(
            nn.MaxPool2d(3, stride=2, ceil_mode=True), nn.LocalResponseNorm(5)
        )
        self.maxpool2 = nn.Sequential(
            nn.LocalResponseNorm(5), nn.MaxPool2d(3, stride=2, ceil_mode=True)
        )
        self.maxpool4 = nn.MaxPool2d(3, stride=2, ceil_mode=True)
        for name, module in self.named_modules():
            if isinstance(module, (nn.Conv2d, nn.Linear)):
                init.caffe_xavier_(module.weight)
                assert module.bias is not None
                init.constant_(module.bias, 0.0 if name.endswith(("fc", "fc2")) else 0.2)


@register_model()
def googlenet(
    num_classes: int = 1000,
    aux_logits: bool = True,
    transform_input: bool = False,
    init_weights: bool | None = None,
    dropout: float = 0.2,
    dropout_aux: float = 0.7,
) -> GoogLeNet:
    """torchvision's GoogLeNet with fresh weights.

    >>> from oxidet.models import googlenet
    >>> sum(p.numel() for p in googlenet(aux_logits=False).parameters())
    6624904
    """
    return GoogLeNet(
        num_classes, aux_logits, transform_input, init_weights, None, dropout, dropout_aux
    )


@register_model()
def googlenet_paper(
    num_classes: int = 1000,
    aux_logits: bool = True,
    dropout: float = 0.4,
    dropout_aux: float = 0.7,
) -> GoogLeNetPaper:
    """The paper's GoogLeNet with fresh weights.

    >>> from oxidet.models import googlenet_paper
    >>> sum(p.numel() for p in googlenet_paper(aux_logits=False).parameters())
    6998552
    """
    return GoogLeNetPaper(num_classes, aux_logits, dropout, dropout_aux)
