"""Captions beside boxes: where they go, so that none covers another."""

from __future__ import annotations

import contextlib
import functools
import importlib.util
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from oxidet import _extras
from oxidet.visualize.palette import Colour, text_colour

Rect = tuple[int, int, int, int]


class Captions:
    """The captions of one picture; the first ones find the best places."""

    def __init__(
        self, canvas: Any, picture: tuple[int, int], letters: int, boxes: Sequence[Rect] = ()
    ) -> None:
        """``boxes`` are all that have content better not hidden."""
        self.canvas = canvas
        self.picture = picture
        self.letters = letters
        self.boxes = np.asarray(boxes, np.int64).reshape(-1, 4)
        self.taken: list[Rect] = []
        self._taken = np.zeros((0, 4), np.int64)  # the same, for place

    def add(self, box: Rect, texts: Sequence[str], colour: Colour) -> bool:
        """Write the first of some texts, long to short, that has room beside or in a box.

        Whether there was any; otherwise nothing is written.
        """
        for whole in texts:
            text = cut(whole, self.letters, self.picture[0] - 4)
            font = caption_font(self.letters, text.isascii())
            left, top, right, bottom = self.canvas.textbbox((0, 0), text, font=font)
            if right == left:
                continue  # not a letter has room
            padding = max(1, round((bottom - top) / 5))
            size = (right - left + 2 * padding, bottom - top + 2 * padding)
            rect = place(box, size, self.picture, self._taken, self.boxes)
            if rect is None:
                continue
            self.taken.append(rect)
            self._taken = np.append(self._taken, [rect], axis=0)
            self.canvas.rectangle((rect[0], rect[1], rect[2] - 1, rect[3] - 1), fill=colour)
            origin = (rect[0] + padding - left, rect[1] + padding - top)
            self.canvas.text(origin, text, font=font, fill=text_colour(colour))
            return True
        return False


def place(
    box: Rect,
    size: tuple[int, int],
    picture: tuple[int, int],
    taken: Any,
    boxes: Any = (),
) -> Rect | None:
    """Where a caption goes: of some places by its box, moved into the picture, that which hides
    least of what is in this box and in others, and none of the captions, ``taken``; None if all of
    them do.

    A twentieth of the caption's area may be hidden for a better place.
    """
    if size[0] > picture[0] or size[1] > picture[1]:
        return None
    others = np.asarray(boxes).reshape(-1, 4)
    corners = np.array(list(_candidates(box, size)), np.int64)
    corners = np.clip(corners, 0, (picture[0] - size[0], picture[1] - size[1]))
    rects = np.concatenate([corners, corners + size], axis=1)
    best: tuple[float, Rect] | None = None
    for rect in rects[_apart(rects, np.asarray(taken, np.int64).reshape(-1, 4))].tolist():
        cost = shared_area(rect, box) + _shared_areas(rect, others)
        if 20 * cost <= size[0] * size[1]:
            return tuple(rect)
        if best is None or cost < best[0]:
            best = cost, tuple(rect)
    return None if best is None else best[1]


def _candidates(box: Rect, size: tuple[int, int]) -> Iterator[tuple[int, int]]:
    """Top left corners, the best first."""
    (x1, y1, x2, y2), (width, height) = box, size
    yield x1, y1 - height  # above, flush left
    yield x2 - width, y1 - height  # above, flush right
    yield x1, y2  # below
    yield x2 - width, y2
    yield x2, y1  # to the right
    yield x1 - width, y1
    yield x2, y2 - height
    yield x1 - width, y2 - height
    yield x1, y1  # inside
    yield x1, y2 - height
    yield x2 - width, y1
    yield x2 - width, y2 - height
    yield (x1 + x2 - width) // 2, (y1 + y2 - height) // 2


def shared_area(a: Rect, b: Rect) -> int:
    """Pixels that two rectangles have in common."""
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    return max(width, 0) * max(height, 0)


def _apart(rects: NDArray[np.int64], others: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which rectangles have no pixel in common with any of several."""
    low = np.maximum(rects[:, None, :2], others[:, :2])
    high = np.minimum(rects[:, None, 2:], others[:, 2:])
    wide, tall = np.moveaxis(low < high, 2, 0)
    return ~np.asarray((wide & tall).any(axis=1))


def _shared_areas(a: Rect, others: NDArray[np.int64]) -> float:
    """Pixels that a rectangle has in common with each of several, added up."""
    low, high = np.maximum(others[:, :2], a[:2]), np.minimum(others[:, 2:], a[2:])
    return float(np.maximum(high - low, 0).prod(axis=1).sum())


def cut(text: str, letters: int, width: int) -> str:
    """A text, or as much of it as fits into some pixels, with dots; nothing if no letter does."""
    font = caption_font(letters, text.isascii())
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(f"{text}...") > width:
        text = text[:-1]
    return f"{text}..." if text else ""


@functools.lru_cache(maxsize=16)
def caption_font(size: int, ascii_only: bool = True) -> Any:
    """Pillow's own font, which has letters of ASCII alone, or DejaVu Sans, which has most of the
    alphabets, from the system or from matplotlib, where one of them is installed."""
    fonts = _extras.require("PIL.ImageFont", extra="images")
    if not ascii_only:
        candidates = ["DejaVuSans.ttf"]
        matplotlib = importlib.util.find_spec("matplotlib")
        if matplotlib is not None and matplotlib.origin is not None:
            folder = Path(matplotlib.origin).parent / "mpl-data" / "fonts" / "ttf"
            candidates.append(str(folder / "DejaVuSans.ttf"))
        for candidate in candidates:
            with contextlib.suppress(OSError):
                return fonts.truetype(candidate, size)
    return fonts.load_default(size)
