"""Cutting a random part out of an image with its boxes, as SSD does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from oxidet._arrays import F32, integer, number
from oxidet.transforms._boxes import Window, as_sample, cut_boxes
from oxidet.transforms._image import as_generator, as_image, as_range
from oxidet.transforms.sample import Sample

ROUNDS = 50  # draws of an overlap before the image stays whole


@dataclass(frozen=True)
class RandomIoUCrop:
    """Cut out a random part that overlaps an object as much as a draw asks for: SSD's sampler.

    One of ``min_overlaps`` is drawn; 1 or more leaves the image as it is. Then up to ``trials``
    parts are tried, height and width each a share of the image's uniform in ``scale``, the place
    uniform: the first one whose width / height is in ``ratio``, which holds the centre of a box
    and has at least that IoU with one of those is taken. If none is, an overlap is drawn anew.

    Objects whose centre lies outside are gone, as are those of which less than ``min_size`` pixels
    are left; the others are cut at the edges. Of an image without objects, any part will do.

    References
    ----------
    Liu et al., "SSD: Single Shot MultiBox Detector" (2016), section 2.2; torchvision's
    ``RandomIoUCrop``, whose defaults these are.

    Examples
    --------
    >>> import numpy as np
    >>> from oxidet.transforms import RandomIoUCrop, Sample
    >>> bbox = np.array([[20, 30, 60, 90]], np.float32)
    >>> sample = Sample(np.zeros((3, 100, 120), np.float32), bbox, np.array([0], np.int32))
    >>> out = RandomIoUCrop()(sample, np.random.default_rng(0))
    >>> out.img.shape, out.bbox.tolist()
    ((3, 83, 79), [[4.0, 0.0, 44.0, 51.0]])
    """

    scale: tuple[float, float] = (0.3, 1.0)
    ratio: tuple[float, float] = (0.5, 2.0)
    min_overlaps: Sequence[float] = (0.0, 0.1, 0.3, 0.5, 0.7, 0.9, 1.0)
    trials: int = 40
    min_size: float = 1.0

    def __post_init__(self) -> None:
        for name, given, highest in (("scale", self.scale, 1.0), ("ratio", self.ratio, np.inf)):
            low, high = as_range(given, name)
            if not 0 < low <= high <= highest:
                raise ValueError(f"{name}: expected 0 < low <= high <= {highest:g}, got {given!r}")
        if len(self.min_overlaps) == 0:
            raise ValueError("min_overlaps: expected at least one, got none")
        for overlap in self.min_overlaps:
            number(overlap, "min_overlaps", 0)
        integer(self.trials, "trials", 1)
        number(self.min_size, "min_size", 0)

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        sample = as_sample(sample)
        image = as_image(sample.img)
        window = self.draw(image.shape[1], image.shape[2], sample.bbox, as_generator(rng))
        if window is None:
            return sample
        top, left, height, width = window
        cut, stays = cut_boxes(sample.bbox, window, 0.0, self.min_size)
        stays &= _centres_inside(sample.bbox, window)
        image = image[:, top : top + height, left : left + width]
        return sample._replace(img=image, bbox=cut).select(stays)

    def draw(self, height: int, width: int, bbox: F32, rng: np.random.Generator) -> Window | None:
        """Top, left, height and width of the part; None to leave the image whole."""
        boxes = np.asarray(bbox, np.float64)
        for _ in range(ROUNDS):
            overlap = self.min_overlaps[int(rng.integers(len(self.min_overlaps)))]
            if overlap >= 1:
                return None
            for _ in range(self.trials):
                h, w = (int(side * rng.uniform(*self.scale)) for side in (height, width))
                if min(h, w) < 1 or not self.ratio[0] <= w / h <= self.ratio[1]:
                    continue
                top = int(rng.integers(height - h, endpoint=True))
                left = int(rng.integers(width - w, endpoint=True))
                window = top, left, h, w
                if len(boxes) == 0 or self._overlaps(boxes, window, overlap):
                    return window
        return None

    def _overlaps(self, boxes: np.ndarray, window: Window, least: float) -> bool:
        inside = boxes[_centres_inside(boxes, window)]
        if len(inside) == 0:
            return False
        if least == 0:
            return True
        top, left, height, width = window
        low = np.maximum(inside[:, :2], (top, left))
        high = np.minimum(inside[:, 2:], (top + height, left + width))
        shared = (high - low).prod(axis=1)  # positive, as the centre is inside
        areas = (inside[:, 2:] - inside[:, :2]).prod(axis=1)
        return bool((shared >= least * (areas + height * width - shared)).any())


def _centres_inside(boxes: np.ndarray, window: Window) -> np.ndarray:
    top, left, height, width = window
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2
    low, high = np.array((top, left)), np.array((top + height, left + width))
    return np.asarray(((low < centres) & (centres < high)).all(axis=1))
