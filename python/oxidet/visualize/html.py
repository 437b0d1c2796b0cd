"""How detections and classifications look in a notebook: the picture, and a table beside it."""

from __future__ import annotations

import base64
import contextlib
import html
import io
from typing import TYPE_CHECKING, Any

import numpy as np

from oxidet import _extras
from oxidet.data.image import read_image

if TYPE_CHECKING:
    from oxidet.classification import Classification
    from oxidet.detections import Detections
    from oxidet.train.evaluate import Evaluation

ROWS = 20
WIDTH = 640  # pixels that the picture takes at most on the page
SMALL = 240  # the same, of a picture that has no boxes to read


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
    return _element(picture, WIDTH, "annotated image")


def _element(picture: Any, width: int, description: str) -> str:
    """A Pillow image as an ``img`` element of at most ``width`` pixels."""
    picture.thumbnail((2 * width, 2 * width))  # notebooks keep what they show
    file = io.BytesIO()
    picture.save(file, format="PNG")
    data = base64.b64encode(file.getvalue()).decode("ascii")
    return (
        f'<img style="max-width:min(100%,{width}px)" '
        f'alt="{description}" src="data:image/png;base64,{data}">'
    )


def classification_html(found: Classification) -> str:
    """A self-contained HTML fragment. Names are escaped."""
    rows = "".join(
        f'<tr><td style="text-align:right">{row.label}</td>'
        f'<td style="text-align:left">{html.escape(row.name)}</td>'
        f'<td style="text-align:right">{row.probability:.3f}</td>'
        '<td><div style="background:currentColor;opacity:.5;height:.7em;'
        f'width:{120 * row.probability:.1f}px"></div></td></tr>'
        for row in found[:ROWS]
    )
    head = '<th>label</th><th style="text-align:left">name</th><th>probability</th><th></th>'
    more = f"<p>... {len(found) - ROWS} more</p>" if len(found) > ROWS else ""
    picture = ""
    if found.image is not None:
        # No Pillow, the file has gone, or it is no image: a table will do.
        with contextlib.suppress(ImportError, OSError, TypeError, ValueError):
            pixels = np.rint(read_image(found.image)).astype(np.uint8).transpose(1, 2, 0)
            shown = _extras.require("PIL.Image", extra="images").fromarray(
                np.ascontiguousarray(pixels)
            )
            picture = _element(shown, SMALL, "classified image")
    return (
        f"<div><p>{html.escape(found._summary())}</p>"
        '<div style="display:flex;flex-wrap:wrap;gap:1em;align-items:flex-start">'
        f"{picture}<div><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>{more}"
        "</div></div></div>"
    )


def evaluation_html(result: Evaluation) -> str:
    """A self-contained HTML fragment. Names are escaped."""
    objects, coco = result.objects_by_class, result.coco_ap
    rows = "".join(
        f'<tr><td style="text-align:left">{html.escape(name)}</td><td>{objects[name]}</td>'
        f"<td>{_figure(value)}</td>{_bar(value)}<td>{_figure(coco[name])}</td></tr>"
        for name, value in result.ap.items()
    )
    names = (result._ap_name(), "", "AP 50:95")
    head = '<th style="text-align:left">class</th><th>objects</th>'
    head += "".join(f"<th>{name}</th>" for name in names)
    figures = "".join(
        f"<tr><td>{name}</td><td>{_figure(value)}</td></tr>"
        for name, value in result.coco_figures.items()
    )
    coco_table = f"<table><caption>COCO</caption><tbody>{figures}</tbody></table>"
    return (
        f"<div><p>mean average precision <b>{_figure(result.mean_ap)}</b> at IoU "
        f"{result.iou_thresh:g}: {result.images} images, {result.objects} objects</p>"
        '<div style="display:flex;flex-wrap:wrap;gap:2em;align-items:flex-start">'
        f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"
        f"{coco_table if figures else ''}</div></div>"
    )


def _figure(value: float) -> str:
    return "-" if np.isnan(value) else f"{value:.3f}"


def _bar(value: float) -> str:
    """A cell with a bar as long as a number from 0 to 1 says, in the colour of the text."""
    width = 0.0 if np.isnan(value) else 120 * value
    return (
        '<td style="width:120px"><div style="background:currentColor;opacity:.5;height:.7em;'
        f'width:{width:.1f}px"></div></td>'
    )
