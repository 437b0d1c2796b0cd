"""What becomes of a sample when a part of its image is taken, or it is put on a canvas."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from oxidet._arrays import F32, as_array, number
from oxidet.transforms._image import WHITE, Image
from oxidet.transforms.normalize import IMAGENET_MEAN
from oxidet.transforms.sample import Sample

Window = tuple[int, int, int, int]
"""Top, left, height and width in pixels."""
Fill = float | Sequence[float]

# What most networks see as zero.
MEAN_COLOUR = tuple(255 * mean for mean in IMAGENET_MEAN)


def cut_boxes(
    bbox: F32, window: Window, min_visible: float, min_size: float
) -> tuple[F32, NDArray[np.bool_]]:
    """The boxes in coordinates of the window, cut at its edges, and which of them stay.

    A box stays if the part within the window is at least ``min_visible`` of its area and
    ``min_size`` pixels high and wide, and has a size at all.
    """
    boxes = np.asarray(bbox, np.float32)
    top, left, height, width = window
    moved = boxes - np.array((top, left, top, left), np.float32)
    cut = np.clip(moved, 0, np.array((height, width, height, width), np.float32))
    sides = cut[:, 2:] - cut[:, :2]
    whole = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)
    stays = (sides > 0).all(axis=1) & (sides >= min_size).all(axis=1)
    return cut, stays & (sides.prod(axis=1) >= min_visible * whole)


def canvas(img: Image, height: int, width: int, fill: Fill) -> Image:
    """An image of one colour, (C, height, width), in the type of ``img``, channels last."""
    colour = as_array(fill, "fill")
    if colour.shape not in ((), (1,), (len(img),)):
        raise ValueError(
            f"fill: expected a number, or one for each of {len(img)} channels, got {fill!r}"
        )
    out = np.empty((height, width, len(img)), img.dtype)
    out[...] = colour
    return out.transpose(2, 0, 1)


def check_fill(fill: Any) -> None:
    """Refuse colours that no image has, when a transform is made."""
    for value in fill if isinstance(fill, (tuple, list)) else (fill,):
        number(value, "fill", 0, WHITE)


def as_sample(sample: Sample | tuple[Any, ...]) -> Sample:
    """A data set's plain tuple as a sample."""
    return sample if isinstance(sample, Sample) else Sample(*sample)
