"""SSD's distortion of colours, for images alone or with their boxes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from oxidet._arrays import number
from oxidet.transforms._image import Image, as_generator, as_image, as_range
from oxidet.transforms.color import (
    adjust_brightness,
    adjust_contrast,
    adjust_hue,
    adjust_saturation,
)
from oxidet.transforms.sample import Sample

Range = tuple[float, float]


@dataclass(frozen=True)
class RandomPhotometricDistort:
    """Change brightness, contrast, saturation and hue and exchange channels, each by chance.

    Each happens with probability ``p``, by a factor (of the hue: a turn) uniform in its range, in
    the order brightness, contrast, saturation, hue, channels; contrast comes after the hue instead
    in half of all cases. Takes an image or a sample, whose boxes stay as they are.

    References
    ----------
    Howard, "Some Improvements on Deep Convolutional Neural Network Based Image Classification"
    (2013), as used by SSD; torchvision's ``RandomPhotometricDistort``, whose defaults these are.

    Examples
    --------
    >>> import numpy as np
    >>> from oxidet.transforms import RandomPhotometricDistort
    >>> image = np.full((3, 1, 1), 100, np.float32)
    >>> image[0] = 200
    >>> distorted = RandomPhotometricDistort()(image, np.random.default_rng(0))
    >>> [round(float(v), 1) for v in distorted.ravel()]
    [219.8, 125.0, 91.5]
    """

    brightness: Range = (0.875, 1.125)
    contrast: Range = (0.5, 1.5)
    saturation: Range = (0.5, 1.5)
    hue: Range = (-0.05, 0.05)
    p: float = 0.5

    def __post_init__(self) -> None:
        for name in ("brightness", "contrast", "saturation", "hue"):
            low, high = as_range(getattr(self, name), name)
            limits = (-0.5, 0.5) if name == "hue" else (0.0, np.inf)
            if not limits[0] <= low <= high <= limits[1]:
                raise ValueError(
                    f"{name}: expected a range within {limits}, got {getattr(self, name)!r}"
                )
        number(self.p, "p", 0, 1)

    def __call__(self, sample: Any, rng: np.random.Generator) -> Any:
        if isinstance(sample, Sample):
            return sample._replace(img=self._distort(sample.img, as_generator(rng)))
        return self._distort(as_image(sample), as_generator(rng))

    def _distort(self, image: Image, rng: np.random.Generator) -> Image:
        # All are drawn whatever happens, so that changing one keeps the others' numbers.
        happens = rng.random(5) < self.p
        contrast_last = rng.random() < 0.5
        factors = [
            rng.uniform(*each)
            for each in (self.brightness, self.contrast, self.saturation, self.hue)
        ]
        channels = rng.permutation(3)
        steps = [
            (happens[0], adjust_brightness, factors[0]),
            (happens[1] and not contrast_last, adjust_contrast, factors[1]),
            (happens[2], adjust_saturation, factors[2]),
            (happens[3], adjust_hue, factors[3]),
            (happens[1] and contrast_last, adjust_contrast, factors[1]),
        ]
        for wanted, adjust, factor in steps:
            if wanted:
                image = adjust(image, factor)
        return image[channels] if happens[4] and len(image) == 3 else image
