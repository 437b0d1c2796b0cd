"""What timm's Inception networks share, with its names and its text."""

from __future__ import annotations

from typing import Any

from oxidet import nn
from oxidet._arrays import choice
from oxidet.nn import functional as F


class BatchNormAct2d(nn.BatchNorm2d):
    """Batch norm with the activation behind it, as in timm."""

    drop: nn.Identity
    act: nn.ReLU

    def __init__(self, num_features: int, eps: float = 1e-5) -> None:
        super().__init__(num_features, eps)
        self.drop = nn.Identity()
        self.act = nn.ReLU(inplace=True)

    def forward(self, input: Any) -> Any:
        """(N, C, H, W); the same out."""
        return self.act(self.drop(super().forward(input)))


class ConvNormAct(nn.Module):
    """Convolution without bias, batch norm, ReLU, as in timm's Inception networks."""

    conv: nn.Conv2d
    bn: BatchNormAct2d

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

    pool_type: str

    def __init__(self, global_pool: str = "avg") -> None:
        super().__init__()
        self.pool_type = choice(global_pool, "global_pool", ("avg", "max"))

    def forward(self, x: Any) -> Any:
        """(N, C, H, W) -> (N, C)."""
        pool = F.adaptive_avg_pool2d if self.pool_type == "avg" else F.adaptive_max_pool2d
        return F.flatten(pool(x, 1), 1)

    def extra_repr(self) -> str:
        """Arguments in timm's form."""
        return f"pool_type={self.pool_type}, flatten={nn.Flatten()}"


def set_eps(network: nn.Module, eps: float) -> None:
    """Let all batch norms of a network add ``eps`` to variances."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eps = eps
