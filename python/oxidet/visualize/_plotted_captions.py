"""Captions beside the boxes of a plot, placed whenever it is drawn, at whatever size that is."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np

from oxidet import _extras
from oxidet.visualize._captions import Rect, place
from oxidet.visualize.palette import Colour, text_colour

PADDING = 0.2  # around the letters, for each point of their size


def add_captions(
    ax: Any,
    boxes: Sequence[Any],
    texts: Sequence[Sequence[str]],
    colours: Sequence[Colour],
    *,
    fontsize: float = 8,
    last_first: bool = False,
) -> None:
    """Captions beside boxes (x1, y1, x2, y2), in units of the axes.

    The first boxes (or the last) find the best places; of a box's texts, long to short, the first
    that has room is shown, or none.
    """
    artists = []
    for box, alternatives, colour in zip(boxes, texts, colours, strict=True):
        behind = {"facecolor": _unit(colour), "edgecolor": "none", "pad": PADDING * fontsize}
        artist = ax.text(
            box[0],
            box[1],
            alternatives[0],
            fontsize=fontsize,
            color=_unit(text_colour(colour)),
            bbox=behind,
            parse_math=False,  # a name with two dollar signs is no formula
            zorder=5,
            verticalalignment="bottom",
        )
        artist.set_in_layout(False)
        artists.append(artist)
    order = slice(None, None, -1 if last_first else 1)
    ax.add_artist(_placing()(artists[order], boxes[order], texts[order]))


def _unit(colour: Colour) -> tuple[float, ...]:
    return tuple(channel / 255 for channel in colour)


@functools.cache
def _placing() -> Any:
    """The class of an artist without ink, drawn before the captions, which it moves.

    Made when first needed, as matplotlib is.
    """
    artist: Any = _extras.require("matplotlib.artist", extra="plots").Artist

    class Placing(artist):
        def __init__(self, captions: Any, boxes: Any, texts: Any) -> None:
            super().__init__()
            self.captions, self.boxes, self.texts = captions, boxes, texts
            self.set_zorder(4.9)
            self.set_in_layout(False)

        def draw(self, renderer: Any) -> None:
            _place_all(self.axes, self.captions, self.boxes, self.texts, renderer)

    return Placing


def _place_all(ax: Any, captions: Any, boxes: Any, texts: Any, renderer: Any) -> None:
    frame = ax.get_window_extent(renderer)
    picture = int(frame.width), int(frame.height)
    edges = np.asarray(boxes, np.float64).reshape(-1, 4)
    corners = np.stack([ax.transData.transform(edges[:, pair]) for pair in ([0, 1], [2, 3])])
    (left, low), (right, high) = corners.min(axis=0).T, corners.max(axis=0).T
    # Pixels from the upper left corner of the axes, as `place` counts.
    rects = np.stack([left - frame.x0, frame.y1 - high, right - frame.x0, frame.y1 - low], axis=1)
    rects = np.rint(np.clip(rects, -1e6, 1e6)).astype(int)
    taken: list[Rect] = []
    for caption, rect, alternatives in zip(captions, rects.tolist(), texts, strict=True):
        caption.set_visible(True)  # or it has no extent
        for text in alternatives:
            caption.set_text(text)
            extent = caption.get_window_extent(renderer)
            padding = renderer.points_to_pixels(PADDING * caption.get_fontsize())
            size = int(extent.width + 2 * padding) + 1, int(extent.height + 2 * padding) + 1
            placed = place(rect, size, picture, taken, rects)
            if placed is None:
                continue
            taken.append(placed)
            wanted = frame.x0 + placed[0] + padding, frame.y1 - placed[3] + padding
            at = ax.transData.transform(caption.get_position())
            moved = at[0] + wanted[0] - extent.x0, at[1] + wanted[1] - extent.y0
            caption.set_position(ax.transData.inverted().transform(moved))
            break
        else:
            caption.set_visible(False)
