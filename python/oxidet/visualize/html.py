"""How detections look in a notebook: the picture, and a table beside it."""

from __future__ import annotations

import base64
import html
import io
from typing import TYPE_CHECKING

from oxidet.data.image import read_image

if TYPE_CHECKING:
    from oxidet.detections import Detections

ROWS = 20
WIDTH = 640  # pixels that the picture takes at most on the page
STORED = 2 * WIDTH  # pixels of its longer side at most: notebooks keep what they show


def detections_html(detections: Detections) -> str:
    """A self-contained HTML fragment. Names and paths are escaped."""
    picture = _picture(detections)
    rows = "".join(
        f"<tr><td>{number}</td><td>{html.escape(row.name)}</td><td>{row.score:.3f}</td>"
        + "".join(f"<td>{value:.1f}</td>" for value in row.box)
        + "</tr>"
        for number, row in enumerate(detections[:ROWS])
    )
    more = f"<p>... {len(detections) - ROWS} more</p>" if len(detections) > ROWS else ""
    head = "".join(f"<th>{name}</th>" for name in ("", "name", "score", "x1", "y1", "x2", "y2"))
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>" if rows else ""
    return (
        f"<div><p>{html.escape(detections._summary())}</p>"
        '<div style="display:flex;flex-wrap:wrap;gap:1em;align-items:flex-start">'
        f"{picture}<div>{table}{more}</div></div></div>"
    )


def _picture(detections: Detections) -> str:
    """The annotated image as an ``img`` element; nothing if there is none or none can be drawn."""
    from oxidet.visualize.draw import draw, legible_scale

    image = detections.path if detections.image is None else detections.image
    if image is None:
        return ""
    try:
        pixels = read_image(image)
        picture = draw(pixels, detections, scale=legible_scale(*pixels.shape[1:]))
    except (ImportError, OSError, TypeError, ValueError):
        return ""  # no Pillow, the file has gone, or it is no image: a table will do
    picture.thumbnail((STORED, STORED))
    file = io.BytesIO()
    picture.save(file, format="PNG")
    data = base64.b64encode(file.getvalue()).decode("ascii")
    return (
        f'<img style="max-width:min(100%,{WIDTH}px)" '
        f'alt="annotated image" src="data:image/png;base64,{data}">'
    )
