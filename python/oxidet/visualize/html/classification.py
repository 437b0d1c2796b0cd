"""Classifications: the picture, and a table of the likeliest classes."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from oxidet import _extras
from oxidet.visualize.draw import displayed_pixels
from oxidet.visualize.html import fragments
from oxidet.visualize.html.fragments import Html

if TYPE_CHECKING:
    from oxidet.classification import Classification

ROWS = 20
WIDTH = 240  # pixels of a picture that has no boxes to read

COLUMNS = (("label", False), ("name", True), ("probability", False), ("", True))


def classification_html(found: Classification) -> str:
    """A self-contained HTML fragment. Names are escaped."""
    rows = [
        (row.label, row.name, f"{row.probability:.3f}", fragments.bar(row.probability))
        for row in found[:ROWS]
    ]
    left = len(found) - ROWS
    more = fragments.paragraph(f"... {left} more", quiet=True) if left > 0 else ""
    return fragments.block(
        fragments.paragraph(Html(f"<strong>{fragments.text(found._summary())}</strong>")),
        fragments.side_by_side(_picture(found), fragments.table(COLUMNS, rows) + more),
    )


def _picture(found: Classification) -> str:
    if found.image is None:
        return ""
    # No Pillow, the file has gone, or it is no image: a table will do.
    with contextlib.suppress(ImportError, OSError, TypeError, ValueError):
        image_module = _extras.require("PIL.Image", extra="images")
        picture = image_module.fromarray(displayed_pixels(found.image))
        return fragments.picture_element(picture, "the classified image", WIDTH)
    return ""
