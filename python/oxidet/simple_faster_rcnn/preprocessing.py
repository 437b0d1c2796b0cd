"""From an image to what a detector was trained on: explicit, and stored with the weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import numpy as np

from oxidet._arrays import F32
from oxidet.transforms import Normalize, resize, scaled_size

NORMALIZATIONS: dict[str, Callable[[], Normalize]] = {
    "torchvision": Normalize.torchvision,
    "caffe": Normalize.caffe,
    "chainercv": Normalize.chainercv,
}


@dataclass(frozen=True)
class Preprocessing:
    """Scaling and normalisation of an RGB image (3, H, W) with values 0..255.

    The defaults are simple-faster-rcnn's. Nothing in a checkpoint of that project says which
    normalisation its weights expect: ``"torchvision"``, or ``"caffe"`` for those trained with
    ``caffe_pretrain``.

    Attributes
    ----------
    min_size, max_size
        Length of the short side, and limit of the long side, in pixels.
    rounding
        How a scaled size becomes whole pixels; see ``oxidet.transforms.scaled_size``.
    edge
        What lies beyond the outermost pixels; see ``oxidet.transforms.resize``.
    normalization
        ``"torchvision"``, ``"caffe"`` or ``"chainercv"``; see ``oxidet.transforms.Normalize``.
    """

    min_size: float = 600
    max_size: float = 1000
    rounding: Literal["trunc", "round", "floor", "ceil"] = "round"
    edge: Literal["clamp", "mirror"] = "mirror"
    normalization: Literal["torchvision", "caffe", "chainercv"] = "torchvision"

    def __post_init__(self) -> None:
        if self.normalization not in NORMALIZATIONS:
            raise ValueError(
                f"normalization: expected one of {sorted(NORMALIZATIONS)}, "
                f"got {self.normalization!r}"
            )
        if self.edge not in ("clamp", "mirror"):
            raise ValueError(f"edge: expected 'clamp' or 'mirror', got {self.edge!r}")
        self.size(1, 1)  # refuses sizes and roundings that make none

    def size(self, height: int, width: int) -> tuple[int, int]:
        """Height and width that an image of the given size is scaled to."""
        return scaled_size(height, width, self.min_size, self.max_size, self.rounding)

    def scaled(self, factor: float) -> Preprocessing:
        """The same for networks that see images ``factor`` times as large."""
        if factor == 1:
            return self
        return replace(self, min_size=factor * self.min_size, max_size=factor * self.max_size)

    @property
    def normalizer(self) -> Normalize:
        """The normalisation that ``normalization`` names."""
        return NORMALIZATIONS[self.normalization]()

    def normalize(self, image: F32) -> F32:
        """Normalise (3, H, W) RGB 0..255."""
        return self.normalizer(image)

    def __call__(self, image: F32) -> F32:
        """Scale and normalise one image (3, H, W) RGB 0..255; returns (3, H', W') float32."""
        size = self.size(*image.shape[1:])
        if size != image.shape[1:]:
            image = resize(image, size, edge=self.edge)
        return np.asarray(self.normalize(image), np.float32)

    def to_dict(self) -> dict[str, Any]:
        """The settings as plain values."""
        return asdict(self)
