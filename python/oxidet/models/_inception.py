"""What the Inception networks share: their convolution block and their view of ImageNet's scale."""

from __future__ import annotations

from typing import Any

from oxidet import nn
from oxidet.nn import functional as F

#: Mean and standard deviation of ImageNet's red, green and blue, of values in [0, 1].
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class BasicConv2d(nn.Module):
    """Convolution without bias, batch norm, ReLU.

    Parameters
    ----------
    in_channels, out_channels
        Channels of the convolution.
    eps
        Of the batch norm; torchvision's Inception networks have 0.001.
    options
        Further arguments of :class:`oxidet.nn.Conv2d`.
    """

    conv: nn.Conv2d
    bn: nn.BatchNorm2d

    def __init__(
        self, in_channels: int, out_channels: int, *, eps: float = 0.001, **options: Any
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, **{"bias": False, **options})
        self.bn = nn.BatchNorm2d(out_channels, eps=eps)

    def forward(self, x: Any) -> Any:
        """(N, in_channels, H, W) -> (N, out_channels, H_out, W_out)."""
        return F.relu(self.bn(self.conv(x)))


def transform_input(x: Any) -> Any:
    """Images normalised with ImageNet's statistics, as TensorFlow's networks want them.

    Those were trained on ``(value - 0.5) / 0.5``, each value in [0, 1]; so each channel is put back
    on that scale and normalised anew. (N, 3, H, W) -> (N, 3, H, W).

    >>> import numpy as np
    >>> from oxidet.models._inception import transform_input
    >>> transform_input(np.ones((1, 3, 1, 1), np.float32)).round(3).ravel()
    array([0.428, 0.36 , 0.262], dtype=float32)
    """
    return F.cat(
        [
            x[:, c : c + 1] * (std / 0.5) + (mean - 0.5) / 0.5
            for c, (mean, std) in enumerate(zip(IMAGENET_MEAN, IMAGENET_STD, strict=True))
        ],
        1,
    )
