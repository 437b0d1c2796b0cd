"""Handwritten digits at any size, from scans of 8x8 pixels.

A scan is read as samples of a smooth function; cubic convolution continues it to a fine grid once,
and a glyph is that grid sampled bilinearly under an affine map. The edge of the ink is where the
function crosses ``INK_LEVEL``, steepened with the size so that large digits are about as crisp as
small ones.
"""

from __future__ import annotations

import functools
import math

import numpy as np
from numpy.typing import NDArray

from oxidet._arrays import F32
from oxidet.data.digits import Digits, Split, load_digits

# The grid: FINE points per pixel of the scan, with MARGIN empty pixels around it so that ink at the
# edge of a scan closes smoothly.
FINE, MARGIN = 6, 1.5
INK_LEVEL = 0.45

MAX_TILT = math.radians(8)
MAX_SHEAR = 0.1


@functools.cache
def glyph_fields(split: Split) -> tuple[F32, list[NDArray[np.float64]], Digits]:
    """The scans of a split on the fine grid, and where on it each has ink.

    Fields are (N, S, S), about 0..1; a scan's ink points are (P, 2), (y, x) in pixels of the scan
    from its centre.
    """
    scans = load_digits(split)
    positions = np.arange(-MARGIN, 8 + MARGIN + 1e-9, 1 / FINE)
    basis = _cubic_basis(positions)
    # The scans' ink reaches 16 only in the middle of broad strokes; scaled by each scan's own
    # maximum all have full ink somewhere.
    images = scans.images / scans.images.max(axis=(1, 2), keepdims=True)
    fields = (basis @ images @ basis.T).astype(np.float32)
    points = [positions[np.argwhere(field > INK_LEVEL)] - 4.0 for field in fields]
    return fields, points, scans


def _cubic_basis(positions: NDArray[np.float64]) -> F32:
    """Weights (P, 8) of cubic convolution (Keys 1981, a = -1/2) at positions on a scan's axis, its
    edges at 0 and 8; beyond lies paper."""
    distance = np.abs(positions[:, None] - (np.arange(8) + 0.5))
    near = 1.5 * distance**3 - 2.5 * distance**2 + 1
    far = -0.5 * distance**3 + 2.5 * distance**2 - 4 * distance + 2
    weights = np.where(distance <= 1, near, np.where(distance < 2, far, 0))
    return weights.astype(np.float32)


def render(rng: np.random.Generator, field: F32, points: NDArray[np.float64], height: int) -> F32:
    """Coverage (h, w) of a digit tilted and sheared at random, its ink ``height`` pixels high."""
    tilt, shear = rng.uniform(-MAX_TILT, MAX_TILT), rng.uniform(-MAX_SHEAR, MAX_SHEAR)
    cos, sin = math.cos(tilt), math.sin(tilt)
    # (y, x) of the scan -> (y, x) of the picture, before scaling.
    turn = np.array([[cos, sin], [-sin, cos]]) @ np.array([[1.0, 0.0], [shear, 1.0]])
    turned = points @ turn.T
    low, high = turned.min(axis=0), turned.max(axis=0)
    scale = height / (high[0] - low[0] + 1 / FINE)  # the last ink point is one grid step wide
    width = max(1, math.ceil((high[1] - low[1] + 1 / FINE) * scale))

    # Where the centre of each pixel of the picture lies on the fine grid.
    inverse = np.linalg.inv(turn) / scale
    y = (np.arange(height) + 0.5) - 0.5 * height
    x = (np.arange(width) + 0.5) - 0.5 * width
    middle = np.linalg.inv(turn) @ ((low + high) / 2)
    grid_y = (inverse[0, 0] * y[:, None] + inverse[0, 1] * x + middle[0] + 4 + MARGIN) * FINE
    grid_x = (inverse[1, 0] * y[:, None] + inverse[1, 1] * x + middle[1] + 4 + MARGIN) * FINE
    value = _bilinear(field, grid_y, grid_x)
    # A stroke's edge rises by about 1 per scan pixel; this makes it one picture pixel wide. In
    # large digits no steeper than 2, which keeps the greys that half-closed loops consist of.
    coverage: F32 = np.clip((value - INK_LEVEL) * min(0.8 * scale, 2.0) + 0.5, 0, 1)
    return coverage


def _bilinear(field: F32, y: NDArray[np.float64], x: NDArray[np.float64]) -> F32:
    last = field.shape[0] - 1.001
    y, x = np.clip(y, 0, last), np.clip(x, 0, last)
    row, column = y.astype(np.int64), x.astype(np.int64)
    v, u = (y - row).astype(np.float32), (x - column).astype(np.float32)
    flat, at = field.reshape(-1), row * field.shape[1] + column
    upper = flat[at] * (1 - u) + flat[at + 1] * u
    at += field.shape[1]
    lower = flat[at] * (1 - u) + flat[at + 1] * u
    return np.asarray(upper * (1 - v) + lower * v, np.float32)
