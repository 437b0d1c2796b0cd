"""LeNet-5, LeCun et al., "Gradient-based learning applied to document recognition" (1998).

The form of most tutorials: every map of C3 sees all six maps of S2, and S2 and S4 are plain
averages. 61,706 parameters for a 1 x 32 x 32 input.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from oxidet import nn
from oxidet.models.classifier import Classifier
from oxidet.models.registry import register_model
from oxidet.nn import functional as F


class LeNet5(Classifier):
    """LeNet-5 for (N, 1, 32, 32) images; returns (N, num_classes) logits.

    Parameters
    ----------
    num_classes
        Number of classes, 10 for digits.
    activation
        ``"tanh"`` (as the paper, up to its scaling) or ``"sigmoid"``.

    >>> from oxidet.models import LeNet5
    >>> sum(p.numel() for p in LeNet5().parameters())
    61706
    """

    def __init__(self, num_classes: int = 10, activation: str = "tanh") -> None:
        super().__init__()
        squash: dict[str, type[nn.Module]] = {"tanh": nn.Tanh, "sigmoid": nn.Sigmoid}
        if activation not in squash:
            raise ValueError(f"activation: expected 'tanh' or 'sigmoid', got {activation!r}")
        act = squash[activation]
        self.features = nn.Sequential(
            nn.Conv2d(1, 6, 5),  # C1: 6 x 28 x 28
            act(),
            nn.AvgPool2d(2),  # S2: 6 x 14 x 14
            nn.Conv2d(6, 16, 5),  # C3: 16 x 10 x 10
            act(),
            nn.AvgPool2d(2),  # S4: 16 x 5 x 5
            nn.Conv2d(16, 120, 5),  # C5: 120 x 1 x 1
            act(),
        )
        self.classifier = nn.Sequential(nn.Linear(120, 84), act(), nn.Linear(84, num_classes))

    def forward(self, x: Any) -> Any:
        """(N, 1, 32, 32) -> (N, num_classes)."""
        shape = np.shape(x)
        if len(shape) != 4 or shape[1:] != (1, 32, 32):
            raise ValueError(f"x: expected shape (N, 1, 32, 32), got {shape}")
        return self.classifier(F.flatten(self.features(x), 1))


@register_model()
def lenet5(num_classes: int = 10, activation: str = "tanh") -> LeNet5:
    """LeNet-5 with fresh weights; see :class:`LeNet5`."""
    return LeNet5(num_classes, activation)
