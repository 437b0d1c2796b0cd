"""How the detectors' own layers start."""

from __future__ import annotations

from oxidet import nn
from oxidet.nn import init


def normal_init(layer: nn.Conv2d | nn.Linear, deviation: float) -> None:
    """Weights from a normal distribution of mean 0, biases 0."""
    init.normal_(layer.weight, 0.0, deviation)
    if layer.bias is not None:
        init.zeros_(layer.bias)
