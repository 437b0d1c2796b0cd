"""What the layers over RoI operators share: options that are checked once and shown."""

from __future__ import annotations

from typing import Any

from oxidet._arrays import pair, threshold_number
from oxidet.nn.module import Module


class RoILayer(Module):
    """A RoI operator with fixed options."""

    def __init__(self, output_size: Any, spatial_scale: float) -> None:
        super().__init__()
        pair(output_size, "output_size")
        threshold_number(spatial_scale, "spatial_scale")
        self.output_size = output_size
        self.spatial_scale = spatial_scale

    def extra_repr(self) -> str:
        """Arguments in torchvision's form."""
        return f"output_size={self.output_size}, spatial_scale={self.spatial_scale}"
