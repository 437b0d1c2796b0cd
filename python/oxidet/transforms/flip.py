"""Mirroring an image, alone or with its boxes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from oxidet._arrays import as_array, number
from oxidet.detection.flip_bbox import flip_bbox
from oxidet.transforms._image import Image, as_generator
from oxidet.transforms.sample import Sample


def flip(img: NDArray[Any], y_flip: bool = False, x_flip: bool = False) -> Image:
    """A view of ``(C, H, W)`` turned upside down (``y_flip``), left to right (``x_flip``) or both.

    Examples
    --------
    >>> import numpy as np
    >>> from oxidet.transforms import flip
    >>> flip(np.array([[[1, 2], [3, 4]]]), x_flip=True).tolist()
    [[[2, 1], [4, 3]]]
    """
    if np.ndim(img) != 3:
        raise ValueError(f"img: expected 3 dimensions (C, H, W), got shape {np.shape(img)}")
    return as_array(img, "img")[:, :: -1 if y_flip else 1, :: -1 if x_flip else 1]


@dataclass(frozen=True)
class RandomFlip:
    """Flip image and boxes left to right and upside down, each with its probability.

    Edges are continuous: ``x`` becomes ``W - x``, as in ``flip_bbox``.

    >>> import numpy as np
    >>> from oxidet.transforms import RandomFlip, Sample
    >>> bbox = np.array([[2, 1, 8, 5]], np.float32)  # (y_min, x_min, y_max, x_max)
    >>> sample = Sample(np.zeros((3, 10, 20), np.float32), bbox, np.array([0], np.int32))
    >>> RandomFlip(x=1.0)(sample, np.random.default_rng(0)).bbox
    array([[ 2., 15.,  8., 19.]], dtype=float32)
    """

    x: float = 0.5
    """Probability of turning left to right."""
    y: float = 0.0
    """Probability of turning upside down."""

    def __post_init__(self) -> None:
        for name, probability in (("x", self.x), ("y", self.y)):
            if not 0 <= probability <= 1:
                raise ValueError(f"{name}: expected a probability from 0 to 1, got {probability!r}")

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        # Both are drawn whatever the probabilities, so that changing one keeps the other's flips.
        y_draw, x_draw = rng.random(2)
        y_flip, x_flip = bool(y_draw < self.y), bool(x_draw < self.x)
        size = sample.img.shape[1:]
        return sample._replace(
            img=flip(sample.img, y_flip=y_flip, x_flip=x_flip),
            bbox=flip_bbox(sample.bbox, size, y_flip=y_flip, x_flip=x_flip),
        )


def hflip(img: NDArray[Any]) -> Image:
    """A view of ``(C, H, W)`` turned left to right.

    >>> import numpy as np
    >>> from oxidet.transforms import hflip
    >>> hflip(np.array([[[1, 2], [3, 4]]])).tolist()
    [[[2, 1], [4, 3]]]
    """
    return flip(img, x_flip=True)


def vflip(img: NDArray[Any]) -> Image:
    """A view of ``(C, H, W)`` turned upside down."""
    return flip(img, y_flip=True)


@dataclass(frozen=True)
class RandomHorizontalFlip:
    """Turn an image left to right with probability ``p``; ``RandomFlip`` also turns boxes."""

    p: float = 0.5

    def __post_init__(self) -> None:
        number(self.p, "p", 0, 1)

    def __call__(self, img: NDArray[Any], rng: np.random.Generator) -> Image:
        return flip(img, x_flip=bool(as_generator(rng).random() < self.p))


@dataclass(frozen=True)
class RandomVerticalFlip:
    """Turn an image upside down with probability ``p``."""

    p: float = 0.5

    def __post_init__(self) -> None:
        number(self.p, "p", 0, 1)

    def __call__(self, img: NDArray[Any], rng: np.random.Generator) -> Image:
        return flip(img, y_flip=bool(as_generator(rng).random() < self.p))
