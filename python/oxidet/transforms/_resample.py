"""Resampling one axis as weighted sums of pixels: which pixels, which weights, how summed.

With antialiasing a filter of the shape of the interpolation is stretched to the step between two
output pixels, so that every input pixel counts; Pillow and torch compute it alike. Without, the
filter keeps the width of an input pixel, and shrinking skips pixels.

uint8 images are summed as Pillow sums them, in integers with 22 fractional bits and rounded to
whole grey levels after either axis: the result is Pillow's to the last bit. Everything else is
summed in float32.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

FRACTION_BITS = 22  # 32 less 8 for the pixel and 2 for the overshoot of a cubic


class Taps(NamedTuple):
    """For each of n output pixels the k input pixels it is made of."""

    pixel: NDArray[np.intp]
    """(n, k)."""
    weight: NDArray[np.float64]
    """(n, k), rows sum to 1."""


def taps(old: int, new: int, interpolation: str, antialias: bool, part: slice) -> Taps:
    """The taps that resample an axis of ``old`` pixels to ``part`` of its ``new`` ones."""
    if interpolation in ("nearest", "nearest-exact"):
        nearest = _nearest(old, new, interpolation)[part]
        return Taps(nearest[:, None], np.ones((len(nearest), 1)))
    radius = 1.0 if interpolation == "bilinear" else 2.0
    centre = (np.arange(part.start, part.stop) + 0.5) * (old / new)
    stretch = max(old / new, 1.0) if antialias else 1.0
    if antialias:
        first = np.maximum((centre - radius * stretch + 0.5).astype(np.intp), 0)
        end = np.minimum((centre + radius * stretch + 0.5).astype(np.intp), old)
        index = first[:, None] + np.arange(int((end - first).max()))
        inside = index < end[:, None]
    else:
        index = np.floor(centre - radius + 0.5).astype(np.intp)[:, None]
        index = index + np.arange(int(2 * radius))
        inside = np.ones(index.shape, bool)
    distance = np.abs(index + 0.5 - centre[:, None]) / stretch
    if interpolation == "bilinear":
        weight = np.maximum(1 - distance, 0)
    else:
        # Keys' cubic; torch's form without antialiasing has the parameter of OpenCV.
        weight = _cubic(distance, -0.5 if antialias else -0.75)
    weight = weight * inside
    # Pixels beyond the edge repeat it (without antialiasing) or weigh nothing (with).
    return Taps(np.clip(index, 0, old - 1), weight / weight.sum(axis=1, keepdims=True))


def _nearest(old: int, new: int, interpolation: str) -> NDArray[np.intp]:
    """Where a position falls between two pixels, rounding decides: so it is rounded as there."""
    if interpolation == "nearest":  # torch: float32, from the left edge of the output pixel
        points = np.arange(new, dtype=np.float32) * (np.float32(old) / np.float32(new))
    else:  # Pillow: from the centre of the first, one step after another
        points = np.full(new, old / new)
        points[0] /= 2
        points = np.cumsum(points)
    return np.minimum(points.astype(np.intp), old - 1)


def _cubic(distance: NDArray[np.float64], a: float) -> NDArray[np.float64]:
    """R. Keys, "Cubic convolution interpolation for digital image processing" (1981), eq. 4."""
    near = ((a + 2) * distance - (a + 3)) * distance**2 + 1
    far = a * (((distance - 5) * distance + 8) * distance - 4)
    return np.where(distance < 1, near, np.where(distance < 2, far, 0.0))


def resample(pixels: NDArray[Any], axis: int, sampled: Taps) -> NDArray[Any]:
    """Resample one axis of an array of float32 or uint8; the type stays."""
    lines = np.ascontiguousarray(np.moveaxis(pixels, axis, 0))
    rest = lines.shape[1:]
    lines = lines.reshape(len(lines), math.prod(rest))
    if sampled.pixel.shape[1] == 1:
        out = lines[sampled.pixel[:, 0]]
    elif lines.dtype == np.uint8:
        fixed = sampled.weight * (1 << FRACTION_BITS)
        # Rounded half away from zero, and started from a half, as in Pillow.
        weight = np.trunc(fixed + np.copysign(0.5, fixed)).astype(np.int32)
        total = np.full((len(weight), lines.shape[1]), 1 << (FRACTION_BITS - 1), np.int32)
        _accumulate(total, lines, sampled.pixel, weight)
        out = np.clip(total >> FRACTION_BITS, 0, 255).astype(np.uint8)
    else:
        out = np.zeros((len(sampled.weight), lines.shape[1]), np.float32)
        _accumulate(out, lines, sampled.pixel, sampled.weight.astype(np.float32))
    return np.moveaxis(out.reshape(len(out), *rest), 0, axis)


def _accumulate(
    total: NDArray[Any], lines: NDArray[Any], index: NDArray[np.intp], weight: NDArray[Any]
) -> None:
    # A tap of all rows at a time, in strips that stay in the cache.
    strip = max(1, 65536 // len(total))
    for begin in range(0, lines.shape[1], strip):
        part = slice(begin, begin + strip)
        here, source = total[:, part], lines[:, part]
        for tap in range(index.shape[1]):
            here += weight[:, tap, None] * source[index[:, tap]]
