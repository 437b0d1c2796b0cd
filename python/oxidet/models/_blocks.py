"""What several families of Inception networks are made of."""

from __future__ import annotations

from typing import Any

from oxidet import nn
from oxidet._arrays import choice
from oxidet.nn import functional as F

# ImageNet's mean and standard deviation of red, green and blue, values in [0, 1].
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class BasicConv2d(nn.Module):
    """Convolution without bias, batch norm, ReLU, as in torchvision's Inception networks."""

    def __init__(self, in_channels: int, out_channels: int, **options: Any) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, bias=False, **options)
        self.bn = nn.BatchNorm2d(out_channels, eps=0.001)

    def forward(self, x: Any) -> Any:
        """(N, in_channels, H, W) -> (N, out_channels, H', W')."""
        return F.relu(self.bn(self.conv(x)))


class BatchNormAct2d(nn.BatchNorm2d):
    """Batch norm with the activation behind it, as in timm."""

    def __init__(self, num_features: int, eps: float = 1e-5) -> None:
        super().__init__(num_features, eps)
        self.drop = nn.Identity()
        self.act = nn.ReLU(inplace=True)

    def forward(self, input: Any) -> Any:
        """(N, C, H, W); the same out."""
        return self.act(self.drop(super().forward(input)))


class ConvNormAct(nn.Module):
    """Convolution without bias, batch norm, ReLU, as in timm's Inception networks."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Any,
        stride: Any = 1,
        padding: Any = 0,
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(
            in_channels, out_channels, kernel_size, stride=stride, padding=padding, bias=False
        )
        self.bn = BatchNormAct2d(out_channels, eps=0.001)

    def forward(self, x: Any) -> Any:
        """(N, in_channels, H, W) -> (N, out_channels, H', W')."""
        return self.bn(self.conv(x))


class SelectAdaptivePool2d(nn.Module):
    """Mean (``"avg"``) or maximum (``"max"``) of each plane, as in timm."""

    def __init__(self, pool_type: str = "avg") -> None:
        super().__init__()
        self.pool_type = choice(pool_type, "pool_type", ("avg", "max"))

    def forward(self, x: Any) -> Any:
        """(N, C, H, W) -> (N, C)."""
        pool = F.adaptive_avg_pool2d if self.pool_type == "avg" else F.adaptive_max_pool2d
        return F.flatten(pool(x, 1), 1)

    def extra_repr(self) -> str:
        """Arguments in timm's form."""
        return f"pool_type={self.pool_type}, flatten={nn.Flatten()}"


def transform_input(x: Any) -> Any:
    """From ImageNet's mean and deviation to values in [-1, 1], as Google's networks expect.

    (N, 3, H, W) RGB, normalised by :data:`IMAGENET_MEAN` and :data:`IMAGENET_STD`; the same out.
    """
    planes = [
        x[:, c : c + 1] * (std / 0.5) + (mean - 0.5) / 0.5
        for c, (mean, std) in enumerate(zip(IMAGENET_MEAN, IMAGENET_STD, strict=True))
    ]
    return F.cat(planes, 1)
