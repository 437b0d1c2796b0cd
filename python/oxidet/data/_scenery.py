"""What a digit scene consists of besides digits: colours, uneven light, stray strokes."""

from __future__ import annotations

import functools
import math

import numpy as np
from numpy.typing import NDArray

from oxidet._arrays import F32


class Palette:
    """The colours of one scene: paper, and inks that stand out from it on one side."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.dark_ink = bool(rng.random() < 0.5)
        level = rng.uniform(140, 235) if self.dark_ink else rng.uniform(20, 115)
        self.paper = (level + rng.uniform(-18, 18, 3)).astype(np.float32)
        self._inks: list[F32] = []

    def ink(self, rng: np.random.Generator) -> F32:
        """A digit's colour: of three drawn, the one least like those before it, so that strokes
        that cross can be told apart."""
        drawn = [self._away(rng, 85, 180, tint=45) for _ in range(3)]
        others = np.array(self._inks)
        if self._inks:
            drawn.sort(key=lambda colour: float(np.abs(others - colour).sum(axis=1).min()))
        self._inks.append(drawn[-1])
        return drawn[-1]

    def stroke(self, rng: np.random.Generator) -> F32:
        return self._away(rng, 25, 70, tint=20)

    def _away(self, rng: np.random.Generator, low: float, high: float, tint: float) -> F32:
        """A colour whose grey level lies ``low`` to ``high`` from the paper's."""
        contrast = rng.uniform(low, high) * (-1 if self.dark_ink else 1)
        colour = self.paper + contrast + rng.uniform(-tint, tint, 3)
        return np.clip(colour, 0, 255).astype(np.float32)


def background(rng: np.random.Generator, size: tuple[int, int], palette: Palette) -> F32:
    """Uneven light: a coarse random grid, enlarged smoothly, (3, H, W)."""
    light = rng.standard_normal((4, 5)).astype(np.float32) * np.float32(rng.uniform(2, 12))
    field = _smooth_basis(size[0], 4) @ light @ _smooth_basis(size[1], 5).T
    return field + palette.paper[:, None, None]


@functools.lru_cache(maxsize=16)
def _smooth_basis(length: int, knots: int) -> F32:
    """(length, knots) weights of linear interpolation with eased steps between the knots."""
    position = np.linspace(0, knots - 1, length)
    lower = np.minimum(position.astype(int), knots - 2)
    t = position - lower
    t = t * t * (3 - 2 * t)
    basis = np.zeros((length, knots), np.float32)
    basis[np.arange(length), lower] = 1 - t
    basis[np.arange(length), lower + 1] = t
    return basis


def draw_clutter(rng: np.random.Generator, canvas: F32, palette: Palette) -> None:
    """Two to six long, faint, curved strokes that are no digits."""
    height, width = canvas.shape[1:]
    for _ in range(rng.integers(2, 7)):
        # A quadratic Bezier curve that starts and ends anywhere, longer than any digit.
        ends = rng.uniform(-0.1, 1.1, (2, 2)) * (height, width)
        span = ends[1] - ends[0]
        length = math.hypot(*span)
        least = 0.45 * min(height, width)
        if length < least:
            ends[1] = ends[0] + span * (least / max(length, 1e-6))
        control = ends.mean(axis=0) + rng.normal(0, 0.25 * least, 2)
        count = int(1.5 * max(length, least)) + 2
        t = np.linspace(0, 1, count)[:, None]
        curve = (1 - t) ** 2 * ends[0] + 2 * t * (1 - t) * control + t**2 * ends[1]
        _stamp(canvas, curve, rng.uniform(0.6, 1.5), palette.stroke(rng))


def _stamp(canvas: F32, curve: NDArray[np.float64], radius: float, colour: F32) -> None:
    """Draw a curve, given as points closer than a pixel, with an antialiased round pen."""
    height, width = canvas.shape[1:]
    reach = math.ceil(radius + 0.5)
    offsets = np.arange(-reach, reach + 1)
    centre = np.rint(curve).astype(np.int64)
    away = (offsets[:, None] - (curve - centre)[:, None, :]).astype(np.float32) ** 2
    distance = np.sqrt(away[:, :, None, 0] + away[:, None, :, 1])
    cover = np.clip(np.float32(radius + 0.5) - distance, 0, 1)
    y = np.broadcast_to((centre[:, :1] + offsets)[:, :, None], cover.shape)
    x = np.broadcast_to((centre[:, 1:] + offsets)[:, None, :], cover.shape)
    keep = (cover > 0) & (y >= 0) & (y < height) & (x >= 0) & (x < width)
    index, cover = (y * width + x)[keep], cover[keep]
    # The largest cover of a pixel counts: written in ascending order, the last write is it. Pixels
    # that occur more than once are then blended more than once from the same values.
    order = np.argsort(cover)
    alpha = np.zeros(height * width, np.float32)
    alpha[index[order]] = cover[order]
    flat = canvas.reshape(3, -1)
    behind = flat[:, index]
    flat[:, index] = behind + alpha[index] * (colour[:, None] - behind)
