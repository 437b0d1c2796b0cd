"""Composed detection scenes: real handwritten digits, scaled, tilted and placed among clutter.

A scene is made back to front: an uneven background, strokes that are no digits, the digits, sensor
noise. Every number in it comes from ``generator(seed, split, index)``, and every digit from the
scans of the scene's own split.

The boxes are the smallest pixel rectangles around the ink that is seen in the end: pixels more than
half covered by the digit and not more than half covered by a later one.
"""

from __future__ import annotations

import itertools
import math

import numpy as np
from numpy.typing import NDArray

from oxidet._arrays import F32, pair
from oxidet.data._glyphs import glyph_fields, render
from oxidet.data._scenery import Palette, background, draw_clutter
from oxidet.data._seeding import generator
from oxidet.data.digits import DIGIT_NAMES, SPLITS, Split

MAX_COVERED = 0.1  # share of a digit's ink that later digits may hide
MAX_INSIDE = 0.5  # share of a digit's box that may lie in another's
NEAR = 0.35  # how often a digit is placed beside an earlier one on purpose
ATTEMPTS = 60  # positions tried for a digit before it is left out


class Glyph:
    """A digit placed in the scene: where it lies and what of it is seen."""

    left: int
    top: int
    bottom: int
    right: int
    ink: NDArray[np.bool_]
    visible: NDArray[np.bool_]
    box: tuple[int, int, int, int]

    def __init__(self, label: int, top: int, left: int, coverage: F32) -> None:
        self.label = label
        self.top, self.left = top, left
        self.bottom, self.right = top + coverage.shape[0], left + coverage.shape[1]
        self.coverage = coverage  # (h, w), 0..1, how much of each pixel the ink takes
        self.ink = coverage > 0.5
        self.visible = self.ink  # what of the ink is not hidden by later digits
        self.box = tight_box(self.visible, top, left)

    def meets(self, other: Glyph) -> bool:
        rows = min(self.bottom, other.bottom) - max(self.top, other.top)
        columns = min(self.right, other.right) - max(self.left, other.left)
        return rows > 0 and columns > 0

    def visible_under(self, later: Glyph) -> NDArray[np.bool_]:
        """What of the visible ink a digit drawn later would leave visible."""
        top, bottom = max(self.top, later.top), min(self.bottom, later.bottom)
        left, right = max(self.left, later.left), min(self.right, later.right)
        visible = self.visible.copy()
        visible[top - self.top : bottom - self.top, left - self.left : right - self.left] &= ~(
            later.ink[top - later.top : bottom - later.top, left - later.left : right - later.left]
        )
        return visible


def tight_box(mask: NDArray[np.bool_], top: int, left: int) -> tuple[int, int, int, int]:
    """(y_min, x_min, y_max, x_max), in pixel edges, of a mask whose corner lies at (top, left)."""
    rows = np.flatnonzero(mask.any(axis=1))
    columns = np.flatnonzero(mask.any(axis=0))
    return (
        top + int(rows[0]),
        left + int(columns[0]),
        top + int(rows[-1]) + 1,
        left + int(columns[-1]) + 1,
    )


class DigitScenes:
    """Scenes of 2 to 8 handwritten digits with boxes, endless and reproducible.

    ``scenes[i]`` is ``(img, bbox, label, difficult)`` in the form of ``VOCBboxDataset``:

    ========= ========= ======= ====================================================
    img       (3, H, W) float32 RGB, whole numbers 0..255 (saving as PNG is lossless)
    bbox      (R, 4)    float32 (y_min, x_min, y_max, x_max), tight around visible ink
    label     (R,)      int32   the digit, 0 to 9
    difficult (R,)      bool    all False
    ========= ========= ======= ====================================================

    A scene depends on ``(split, seed, index)`` and the arguments below, not on ``length``: a
    longer data set begins with the shorter one's scenes. Needs the extra ``digits``.

    Parameters
    ----------
    split
        ``"train"``, ``"validation"`` or ``"test"``: whose digits are used.
    size
        Height and width of the images.
    length
        Number of scenes.
    seed
        Which scenes; at least 0.
    digits
        Fewest and most digits in a scene. In a small or crowded image, a digit for which no place
        is found is left out.
    heights
        Least and greatest height of a digit, in pixels.
    max_iou
        Greatest IoU between two boxes of a scene.

    Examples
    --------
    Needs scikit-learn::

        scenes = DigitScenes("test", length=200)
        img, bbox, label, difficult = scenes[0]
    """

    size: tuple[int, int]
    digits: tuple[int, int]
    heights: tuple[int, int]

    class_names = DIGIT_NAMES

    def __init__(
        self,
        split: Split = "train",
        size: tuple[int, int] = (192, 256),
        length: int = 200,
        seed: int = 0,
        *,
        digits: tuple[int, int] = (2, 8),
        heights: tuple[int, int] = (16, 56),
        max_iou: float = 0.3,
    ) -> None:
        if split not in SPLITS:
            raise ValueError(f"split: expected one of {list(SPLITS)}, got {split!r}")
        if length < 0 or seed < 0:
            raise ValueError(f"length and seed: expected at least 0, got {length} and {seed}")
        self.split = split
        self.size = pair(size, "size")
        self.length = length
        self.seed = seed
        self.digits = pair(digits, "digits")
        self.heights = pair(heights, "heights", minimum=8)
        self.max_iou = max_iou
        for name, (low, high) in (("digits", self.digits), ("heights", self.heights)):
            if low > high:
                raise ValueError(f"{name}: expected least before greatest, got {(low, high)}")
        if min(self.size) < 2 * self.heights[0]:
            raise ValueError(
                f"size: expected at least {2 * self.heights[0]} pixels, twice the least height of "
                f"a digit, got {self.size}"
            )

    def __len__(self) -> int:
        return self.length

    def __repr__(self) -> str:
        height, width = self.size
        return (
            f"DigitScenes({self.split!r}, {height}x{width}, length={self.length}, seed={self.seed})"
        )

    def __getitem__(self, index: int) -> tuple[F32, F32, NDArray[np.int32], NDArray[np.bool_]]:
        if not -self.length <= index < self.length:
            raise IndexError(f"index: expected less than {self.length} scenes, got {index}")
        rng = generator(self.seed, SPLITS.index(self.split), index % self.length)
        palette = Palette(rng)
        canvas = background(rng, self.size, palette)
        draw_clutter(rng, canvas, palette)
        glyphs = self._place_digits(rng)
        for glyph in glyphs:
            _blend(canvas, glyph, palette.ink(rng))
        grain = rng.standard_normal(self.size, dtype=np.float32)
        canvas += grain * np.float32(rng.uniform(2, 9))
        img = np.rint(np.clip(canvas, 0, 255, out=canvas), out=canvas)
        return (
            img,
            np.array([glyph.box for glyph in glyphs], np.float32).reshape(-1, 4),
            np.array([glyph.label for glyph in glyphs], np.int32),
            np.zeros(len(glyphs), np.bool_),
        )

    def _place_digits(self, rng: np.random.Generator) -> list[Glyph]:
        fields, points, scans = glyph_fields(self.split)
        glyphs: list[Glyph] = []
        for _ in range(rng.integers(self.digits[0], self.digits[1] + 1)):
            scan = int(rng.integers(len(scans.labels)))
            # Even on a logarithmic scale: as many from 16 to 30 pixels as from 30 to 56.
            low, high = self.heights[0], min(self.heights[1], min(self.size) - 2)
            height = round(low * (high / low) ** rng.random())
            coverage = render(rng, fields[scan], points[scan], height)
            for _ in range(ATTEMPTS):
                glyph = self._try_place(rng, glyphs, int(scans.labels[scan]), coverage)
                if glyph is not None and _admit(glyphs, glyph, self.heights[0], self.max_iou):
                    glyphs.append(glyph)
                    break
        return glyphs

    def _try_place(
        self, rng: np.random.Generator, glyphs: list[Glyph], label: int, coverage: F32
    ) -> Glyph | None:
        """A position anywhere in the image, or beside an earlier digit."""
        room = (self.size[0] - coverage.shape[0], self.size[1] - coverage.shape[1])
        if min(room) < 0:
            return None
        top, left = int(rng.integers(room[0] + 1)), int(rng.integers(room[1] + 1))
        if glyphs and rng.random() < NEAR:
            other = glyphs[int(rng.integers(len(glyphs)))]
            angle = rng.uniform(0, 2 * math.pi)
            distance = rng.uniform(0.25, 0.6)
            height, width = coverage.shape
            y = (other.top + other.bottom - height) / 2
            x = (other.left + other.right - width) / 2
            y += math.sin(angle) * distance * (other.bottom - other.top + height)
            x += math.cos(angle) * distance * (other.right - other.left + width)
            top, left = min(max(round(y), 0), room[0]), min(max(round(x), 0), room[1])
        return Glyph(label, top, left, coverage)


def _admit(glyphs: list[Glyph], new: Glyph, min_height: int, max_iou: float) -> bool:
    """Whether a new digit may join; if so, what it hides is taken from the earlier ones."""
    hidden = []
    boxes = [new.box]
    for glyph in glyphs:
        box = glyph.box
        if glyph.meets(new):
            visible = glyph.visible_under(new)
            if np.count_nonzero(visible) < (1 - MAX_COVERED) * np.count_nonzero(glyph.ink):
                return False
            box = tight_box(visible, glyph.top, glyph.left)
            if box[2] - box[0] < min_height:
                return False
            hidden.append((glyph, visible, box))
        boxes.append(box)
    if any(_crowded(a, b, max_iou) for a, b in itertools.combinations(boxes, 2)):
        return False
    for glyph, visible, box in hidden:
        glyph.visible, glyph.box = visible, box
    return True


def _crowded(a: tuple[int, int, int, int], b: tuple[int, int, int, int], max_iou: float) -> bool:
    """Whether two boxes have too much in common, of their union or of the smaller one."""
    height = min(a[2], b[2]) - max(a[0], b[0])
    width = min(a[3], b[3]) - max(a[1], b[1])
    if height <= 0 or width <= 0:
        return False
    shared = height * width
    areas = (a[2] - a[0]) * (a[3] - a[1]), (b[2] - b[0]) * (b[3] - b[1])
    return shared > max_iou * (sum(areas) - shared) or shared > MAX_INSIDE * min(areas)


def _blend(canvas: F32, glyph: Glyph, ink: F32) -> None:
    region = canvas[:, glyph.top : glyph.bottom, glyph.left : glyph.right]
    region += glyph.coverage * (ink[:, None, None] - region)
