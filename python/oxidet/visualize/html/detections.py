"""Detections: the picture, how many there are of each class, and a table."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

from oxidet import _extras
from oxidet.visualize.draw import displayed_pixels, draw, legible_scale
from oxidet.visualize.html import fragments
from oxidet.visualize.html.fragments import Html

if TYPE_CHECKING:
    from oxidet.detections import Detections

ROWS = 10  # that one sees at once
MOST_ROWS = 200  # that there are at all
MOST_CLASSES = 20
MOST_BOXES = 300  # in the picture
LINE, LETTERS = 2, 13  # pixels of the page

COLUMNS = (
    ("", False), ("name", True), ("score", False), ("", True),
    ("x1", False), ("y1", False), ("x2", False), ("y2", False), ("area", False),
)  # fmt: skip


def detections_html(detections: Detections) -> str:
    """A self-contained HTML fragment. Names and paths are escaped."""
    first = _table(detections, range(min(len(detections), ROWS)))
    rest = range(ROWS, min(len(detections), MOST_ROWS))
    more = ""
    if rest:
        left = len(detections) - MOST_ROWS
        end = fragments.paragraph(f"and {left} that are not shown", quiet=True) if left > 0 else ""
        more = fragments.folded(
            f"... {len(detections) - ROWS} more", _table(detections, rest) + end
        )
    return fragments.block(
        fragments.paragraph(Html(f"<strong>{fragments.text(detections._summary())}</strong>")),
        fragments.paragraph(_counts(detections)) if len(detections) else "",
        fragments.side_by_side(_picture(detections), first + more),
    )


def _counts(detections: Detections) -> Html:
    """Each class in its colour, the most frequent first."""
    counts: dict[int, int] = {}
    for label in detections.labels.tolist():
        counts[label] = counts.get(label, 0) + 1
    ranked = sorted(counts, key=lambda label: (-counts[label], label))
    chips = [
        fragments.chip(
            label,
            Html(f"{fragments.text(detections._name(label))}: <strong>{counts[label]}</strong>"),
        )
        for label in ranked[:MOST_CLASSES]
    ]
    if len(ranked) > MOST_CLASSES:
        left = ranked[MOST_CLASSES:]
        chips.append(
            Html(f"and {sum(counts[label] for label in left)} of {len(left)} other classes")
        )
    return Html(" ".join(chips))


def _table(detections: Detections, rows: Sequence[int]) -> str:
    if not rows:
        return ""
    areas = detections.areas
    lines = []
    for number in rows:
        row = detections[number]
        name = Html(f"{fragments.swatch(row.label)}{fragments.text(row.name)}")
        numbers = [f"{value:.1f}" for value in row.box] + [f"{areas[number]:.0f}"]
        lines.append(
            (number, name, f"{row.score:.3f}", fragments.bar(row.score, spare=True), *numbers)
        )
    return fragments.table(COLUMNS, lines)


def _picture(detections: Detections) -> str:
    """The annotated image as an ``img`` element; nothing if there is none or none can be drawn."""
    image = detections.path if detections.image is None else detections.image
    if image is None:
        return ""
    # No Pillow, the file has gone, or it is no image: a table will do.
    with contextlib.suppress(ImportError, OSError, TypeError, ValueError):
        image_module = _extras.require("PIL.Image", extra="images")
        small = image_module.fromarray(displayed_pixels(image))
        whole = small.width
        small.thumbnail((2 * fragments.WIDTH, 2 * fragments.WIDTH))  # before it is drawn into
        best = detections.top(MOST_BOXES) if len(detections) > MOST_BOXES else detections
        shown = best.replace(boxes=best.boxes * (small.width / whole))
        scale = legible_scale(small.height, small.width)
        zoom = max(scale * small.width / fragments.WIDTH, 1.0)  # of a pixel on the page
        picture = draw(
            small,  # an array of it may be too narrow to tell its channels
            shown,
            scale=scale,
            line_width=round(LINE * zoom),
            font_size=round(LETTERS * zoom),
        )
        element = fragments.picture_element(picture, f"the image with {best._summary()}")
        if len(best) == len(detections):
            return element
        line = f"the {len(best)} of highest score of {len(detections)}"
        return element + fragments.paragraph(line, quiet=True)
    return ""
