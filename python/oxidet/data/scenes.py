"""Composed detection scenes: real handwritten digits, scaled, tilted and placed among clutter.

A scene is made back to front: an uneven background, strokes that are no digits, the digits, sensor
noise. Every number in it comes from ``generator(seed, split, index)``, and every digit from the
scans of the scene's own split.

The glyphs. An 8x8 scan is read as samples of a smooth function; cubic convolution continues it to
a fine grid once, and a glyph of any size is that grid sampled bilinearly under an affine map. The
edge of the ink is where the function crosses ``INK_LEVEL``, steepened with the size so that large
digits are about as crisp as small ones.

The boxes are the smallest pixel rectangles around the ink that is seen in the end: pixels more than
half covered by the digit and not more than half covered by a later one.
"""

from __future__ import annotations

import functools
import itertools
import math

import numpy as np
from numpy.typing import NDArray

from oxidet._arrays import F32, pair
from oxidet.data._seeding import generator
from oxidet.data.digits import DIGIT_NAMES, SPLITS, Digits, Split, load_digits

# The glyph grid: FINE points per pixel of the scan, with MARGIN empty pixels around it so that ink
# at the edge of a scan closes smoothly.
FINE, MARGIN = 6, 1.5
INK_LEVEL = 0.47

MAX_TILT = math.radians(8)
MAX_SHEAR = 0.1
MAX_COVERED = 0.15  # share of a digit's ink that later digits may hide
MAX_INSIDE = 0.5  # share of a digit's box that may lie in another's
NEAR = 0.35  # how often a digit is placed beside an earlier one on purpose
ATTEMPTS = 60  # positions tried for a digit before it is left out


class Glyph:
    """A digit placed in the scene: where it lies and what of it is seen."""

    def __init__(self, label: int, top: int, left: int, coverage: F32) -> None:
        self.label = label
        self.top, self.left = top, left
        self.bottom, self.right = top + coverage.shape[0], left + coverage.shape[1]
        self.coverage = coverage  # (h, w), 0..1, how much of each pixel the ink takes
        self.ink = coverage > 0.5
        self.visible = self.ink  # what of the ink is not hidden by later digits
        self.box = tight_box(self.visible, top, left)

    def meets(self, other: Glyph) -> bool:
        return max(self.top, other.top) < min(self.bottom, other.bottom) and max(
            self.left, other.left
        ) < min(self.right, other.right)

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

    Args:
        split: ``"train"``, ``"validation"`` or ``"test"``: whose digits are used.
        size: Height and width of the images.
        length: Number of scenes.
        seed: Which scenes; at least 0.
        digits: Fewest and most digits in a scene. In a small or crowded image, a digit for which
            no place is found is left out.
        heights: Least and greatest height of a digit, in pixels.
        max_iou: Greatest IoU between two boxes of a scene.

    Example (needs scikit-learn)::

        scenes = DigitScenes("test", length=200)
        img, bbox, label, difficult = scenes[0]
    """

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
        palette = _Palette(rng)
        canvas = _background(rng, self.size, palette)
        _draw_clutter(rng, canvas, palette)
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
        fields, points, scans = _glyph_fields(self.split)
        glyphs: list[Glyph] = []
        for _ in range(rng.integers(self.digits[0], self.digits[1] + 1)):
            scan = int(rng.integers(len(scans.labels)))
            # Square roots of areas are what detectors see: small sizes are as common as large ones
            # on a logarithmic scale.
            low, high = (
                math.log(self.heights[0]),
                math.log(min(self.heights[1], min(self.size) - 2)),
            )
            height = round(math.exp(rng.uniform(low, high)))
            coverage = _render(rng, fields[scan], points[scan], height)
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


class _Palette:
    """The colours of one scene: a background, and inks that stand out from it on one side."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.dark_ink = bool(rng.random() < 0.5)
        level = rng.uniform(140, 235) if self.dark_ink else rng.uniform(20, 115)
        self.background = (level + rng.uniform(-18, 18, 3)).astype(np.float32)
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
        """A colour whose grey level lies ``low`` to ``high`` from the background's."""
        contrast = rng.uniform(low, high) * (-1 if self.dark_ink else 1)
        colour = self.background + contrast + rng.uniform(-tint, tint, 3)
        return np.clip(colour, 0, 255).astype(np.float32)


def _background(rng: np.random.Generator, size: tuple[int, int], palette: _Palette) -> F32:
    """Uneven light: a coarse random grid, enlarged smoothly, (3, H, W)."""
    light = rng.standard_normal((4, 5)).astype(np.float32) * np.float32(rng.uniform(2, 12))
    field = _smooth_basis(size[0], 4) @ light @ _smooth_basis(size[1], 5).T
    return field + palette.background[:, None, None]


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


def _draw_clutter(rng: np.random.Generator, canvas: F32, palette: _Palette) -> None:
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


@functools.cache
def _glyph_fields(split: Split) -> tuple[F32, list[NDArray[np.float64]], Digits]:
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


def _render(rng: np.random.Generator, field: F32, points: NDArray[np.float64], height: int) -> F32:
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
    # large digits no steeper than 3, which keeps the greys that half-closed loops consist of.
    coverage: F32 = np.clip((value - INK_LEVEL) * min(0.9 * scale, 3.0) + 0.5, 0, 1)
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
    out: F32 = upper * (1 - v) + lower * v
    return out


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
