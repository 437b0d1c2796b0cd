"""What the layers over RoI operators share: options that are checked once and shown."""

from __future__ import annotations

from typing import Any, ClassVar

from oxidet._arrays import integer, pair, threshold_number
from oxidet._same_kind import same_kind
from oxidet.nn.module import Module
from oxidet.nn.primitive import Primitive
from oxidet.ops._regions import pooled


def checked_sampling_ratio(value: Any) -> int:
    """Samples of a bin on each axis; 0 and every negative number mean the same."""
    return max(integer(value, "sampling_ratio", maximum=2**16), 0)


class RoILayer(Module):
    """A RoI operator with fixed options."""

    _operator: ClassVar[Primitive]

    def __init__(self, output_size: Any, spatial_scale: float) -> None:
        super().__init__()
        pair(output_size, "output_size")
        threshold_number(spatial_scale, "spatial_scale")
        self.output_size = output_size
        self.spatial_scale = spatial_scale

    def _options(self) -> dict[str, Any]:
        """Options of the operator beyond the two that all have."""
        return {}

    @same_kind
    def forward(self, input: Any, rois: Any) -> Any:
        """(N, C, H, W) features and (R, 5) regions -> (R, K, rows, columns).

        K is C, of position-sensitive operators C / (rows * columns).
        """
        size, scale = self.output_size, self.spatial_scale
        return pooled(self._operator, input, rois, "rois", size, scale, **self._options())

    def extra_repr(self) -> str:
        """Arguments in torchvision's form."""
        return f"output_size={self.output_size}, spatial_scale={self.spatial_scale}"
