"""Pictures of truth and detections side by side."""

from __future__ import annotations

from typing import Any

from oxidet import _extras
from oxidet.detections import Detections
from oxidet.visualize import draw

SCALE = 3  # scenes are small; captions need room
MARGIN, HEADER, FONT_SIZE = 12, 40, 26  # pixels
PAPER, INK = (255, 255, 255), (32, 32, 32)


def side_by_side(image: Any, truth: Detections, found: Detections, titles: tuple[str, str]) -> Any:
    """A Pillow image: what there is on the left, what was found, with scores, on the right."""
    image_module = _extras.require("PIL.Image", extra="images")
    canvas_module = _extras.require("PIL.ImageDraw", extra="images")
    font = _extras.require("PIL.ImageFont", extra="images").load_default(FONT_SIZE)
    panels = [
        draw(image, truth, scores=False, scale=SCALE),
        draw(image, found, scale=SCALE),
    ]
    width, height = panels[0].size
    sheet = image_module.new("RGB", (2 * width + 3 * MARGIN, height + HEADER + MARGIN), PAPER)
    canvas = canvas_module.Draw(sheet)
    for index, (title, panel) in enumerate(zip(titles, panels, strict=True)):
        left = MARGIN + index * (width + MARGIN)
        canvas.text((left, HEADER / 2), title, font=font, fill=INK, anchor="lm")
        sheet.paste(panel, (left, HEADER))
    return sheet
