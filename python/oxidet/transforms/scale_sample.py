"""Showing objects larger or smaller, with their boxes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from oxidet._arrays import integer, number, pair
from oxidet.detection.resize_bbox import resize_bbox
from oxidet.transforms._boxes import MEAN_COLOUR, Fill, as_sample, canvas, check_fill, cut_boxes
from oxidet.transforms._image import as_generator, as_image, as_range
from oxidet.transforms.resize import resize, resize_part
from oxidet.transforms.sample import Sample
from oxidet.transforms.size import scaled_size


@dataclass(frozen=True)
class ScaleJitter:
    """Scale the image by a random factor and cut it, or fill up, to one size.

    What no longer fits is cut off at a random place; what is left free around a smaller image, put
    at a random place, has the colour ``fill``. So images keep their size, or all get ``size``, and
    can share a batch. With ``(0.1, 2.0)`` and a size of 1024 this is the large scale jitter of
    "Simple Copy-Paste".

    A box stays if at least ``min_visible`` of its area and ``min_size`` pixels of both its sides
    are left.

    References
    ----------
    Ghiasi et al., "Simple Copy-Paste is a Strong Data Augmentation Method" (2021), section 3;
    torchvision's ``ScaleJitter`` and the cropping to a fixed size that follows it there.

    Examples
    --------
    >>> import numpy as np
    >>> from oxidet.transforms import Sample, ScaleJitter
    >>> bbox = np.array([[20, 30, 60, 90]], np.float32)
    >>> sample = Sample(np.zeros((3, 100, 120), np.float32), bbox, np.array([0], np.int32))
    >>> out = ScaleJitter((0.5, 0.5))(sample, np.random.default_rng(0))
    >>> out.img.shape, out.bbox.tolist()
    ((3, 100, 120), [[36.0, 31.0, 56.0, 61.0]])
    """

    scale: tuple[float, float] = (0.5, 2.0)
    """Range of the factor, which is uniform; 1 is the largest image that fits."""
    size: int | Sequence[int] | None = None
    """Height and width of the result; None for those of the image."""
    fill: Fill = MEAN_COLOUR
    """A grey level or a colour, 0 to 255; by default ImageNet's mean."""
    min_visible: float = 0.25
    min_size: float = 1.0

    def __post_init__(self) -> None:
        if not as_range(self.scale, "scale")[0] > 0:
            raise ValueError(f"scale: expected 0 < low <= high, got {self.scale!r}")
        if self.size is not None:
            pair(self.size, "size")
        check_fill(self.fill)
        number(self.min_visible, "min_visible", 0, 1)
        number(self.min_size, "min_size", 0)

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        sample = as_sample(sample)
        image = as_image(sample.img)
        old = image.shape[1], image.shape[2]
        size = old if self.size is None else pair(self.size, "size")
        factor = as_generator(rng).uniform(*self.scale)
        factor *= min(size[0] / old[0], size[1] / old[1])
        new = max(1, int(old[0] * factor)), max(1, int(old[1] * factor))
        # Along each axis: where the result begins in the scaled image, or that in the result.
        spare = [wanted - have for wanted, have in zip(size, new, strict=True)]
        begin = [int(rng.integers(abs(room), endpoint=True)) for room in spare]
        cut = [b if room < 0 else 0 for b, room in zip(begin, spare, strict=True)]
        put = [b if room > 0 else 0 for b, room in zip(begin, spare, strict=True)]
        shown = [min(a, b) for a, b in zip(size, new, strict=True)]
        rows, columns = (slice(b, b + n) for b, n in zip(cut, shown, strict=True))
        part = resize_part(image, new, (rows, columns))
        if part.shape[1:] != size:
            whole = canvas(image, size[0], size[1], self.fill)
            whole[:, put[0] : put[0] + shown[0], put[1] : put[1] + shown[1]] = part
            part = whole
        boxes = resize_bbox(np.asarray(sample.bbox, np.float32), old, new)
        window = cut[0], cut[1], shown[0], shown[1]
        boxes, stays = cut_boxes(boxes, window, self.min_visible, self.min_size)
        boxes += np.array((*put, *put), np.float32)
        scale = sample.scale * new[0] / old[0]
        return sample._replace(img=part, bbox=boxes, scale=scale).select(stays)


@dataclass(frozen=True)
class RandomZoomOut:
    """Put the image at a random place on a larger canvas of one colour, so that objects get small.

    Both sides grow by one factor, uniform in ``side_range``.

    References
    ----------
    Liu et al., "SSD: Single Shot MultiBox Detector" (2016), section 3.6; torchvision's
    ``RandomZoomOut``, whose defaults these are but for the colour, which there is black.

    Examples
    --------
    >>> import numpy as np
    >>> from oxidet.transforms import RandomZoomOut, Sample
    >>> bbox = np.array([[20, 30, 60, 90]], np.float32)
    >>> sample = Sample(np.zeros((3, 100, 120), np.float32), bbox, np.array([0], np.int32))
    >>> out = RandomZoomOut((2, 2), p=1)(sample, np.random.default_rng(0))
    >>> out.img.shape, out.bbox.tolist()
    ((3, 200, 240), [[46.0, 34.0, 86.0, 94.0]])
    """

    side_range: tuple[float, float] = (1.0, 4.0)
    p: float = 0.5
    fill: Fill = MEAN_COLOUR

    def __post_init__(self) -> None:
        if not as_range(self.side_range, "side_range")[0] >= 1:
            raise ValueError(f"side_range: expected 1 <= low <= high, got {self.side_range!r}")
        number(self.p, "p", 0, 1)
        check_fill(self.fill)

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        sample = as_sample(sample)
        # All is drawn whatever p, so that changing it keeps the other numbers.
        draw, y, x = as_generator(rng).random(3)
        factor = rng.uniform(*self.side_range)
        if draw >= self.p:
            return sample
        image = as_image(sample.img)
        height, width = image.shape[1:]
        size = int(height * factor), int(width * factor)
        top, left = int((size[0] - height) * y), int((size[1] - width) * x)
        whole = canvas(image, *size, self.fill)
        whole[:, top : top + height, left : left + width] = image
        shift = np.array((top, left, top, left), np.float32)
        return sample._replace(img=whole, bbox=np.asarray(sample.bbox, np.float32) + shift)


@dataclass(frozen=True)
class RandomShortestSize:
    """Scale the image so that its shorter side has one of several lengths, drawn at random.

    The longer side stays within ``max_size``. As torchvision's ``RandomShortestSize``; sizes are
    rounded down.

    >>> import numpy as np
    >>> from oxidet.transforms import RandomShortestSize, Sample
    >>> bbox = np.array([[20, 30, 60, 90]], np.float32)
    >>> sample = Sample(np.zeros((3, 100, 120), np.float32), bbox, np.array([0], np.int32))
    >>> out = RandomShortestSize((50, 200), 400)(sample, np.random.default_rng(0))
    >>> out.img.shape, out.bbox.tolist()
    ((3, 200, 240), [[40.0, 60.0, 120.0, 180.0]])
    """

    min_size: int | Sequence[int]
    max_size: int = 2**31 - 1

    def __post_init__(self) -> None:
        for size in self._sizes():
            integer(size, "min_size", 1)
        if not self._sizes():
            raise ValueError("min_size: expected at least one, got none")
        integer(self.max_size, "max_size", 1)

    def _sizes(self) -> tuple[int, ...]:
        given = self.min_size
        return (given,) if isinstance(given, (int, np.integer)) else tuple(given)

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        sample = as_sample(sample)
        sizes = self._sizes()
        shorter = sizes[int(as_generator(rng).integers(len(sizes)))]
        old = sample.img.shape[1:]
        new = scaled_size(old[0], old[1], shorter, self.max_size, "floor")
        return sample._replace(
            img=resize(sample.img, new),
            bbox=resize_bbox(np.asarray(sample.bbox, np.float32), old, new),
            scale=sample.scale * new[0] / old[0],
        )
