"""Drawing detections into a copy of the picture, readable at any size."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from oxidet import _extras
from oxidet._atomic import atomic_write
from oxidet.detections import Detections
from oxidet.visualize._captions import Captions, Rect
from oxidet.visualize.palette import Colour, label_colour, text_colour

LEGIBLE = 400  # pixels of a short side, from which on captions can be read
LARGEST = 4000  # pixels of a long side, beyond which nothing is enlarged
CAPTIONED = 300  # boxes that captions are looked for, which takes longer the more there are


def draw(
    image: Any,
    detections: Detections,
    *,
    labels: bool = True,
    scores: bool = True,
    scale: int = 1,
    line_width: int | None = None,
    font_size: int | None = None,
    palette: Sequence[Colour] | None = None,
) -> Any:
    """Draw boxes with captions into a copy of an image.

    Higher scores are drawn on top. A caption stands outside its box's top left corner if it fits
    there, else elsewhere beside or in the box; always inside the picture, and never on another
    caption: where boxes crowd, the surest keep theirs, the next are shortened, the last have none.
    No more than the 300 surest have one.
    Names beyond ASCII need the font DejaVu Sans, which comes with matplotlib (extra ``plots``) if
    the system has none.

    Parameters
    ----------
    image
        Anything ``read_image`` takes, or None for the image that the detections carry. It is not
        changed.
    detections
        What to draw, in pixels of the image.
    labels
        Whether captions give the class name.
    scores
        Whether captions give the score, with two decimals, as in ``cat: 0.93``.
    scale
        Enlarge the picture this many times first, so that captions in a small one are small beside
        it.
    line_width
        In pixels; by default it grows with the picture.
    font_size
        In pixels; by default it grows with the picture.
    palette
        RGB colours by label, repeated; by default one that works for any colour vision.

    Returns
    -------
    A Pillow image (extra ``images``), which notebooks show; ``numpy.asarray`` makes it an
    ``(H, W, 3)`` uint8 array.

    Raises
    ------
    ValueError
        No image, a ``scale`` below 1, an empty ``palette``.
    ImportError
        Pillow is missing.

    Examples
    --------
    >>> import numpy as np
    >>> from oxidet import Detections
    >>> from oxidet.visualize import draw
    >>> picture = np.zeros((90, 120, 3), np.uint8)
    >>> draw(picture, Detections([[20, 30, 60, 80]], [0], [0.9], class_names=("cat",))).size
    (120, 90)
    """
    image_module = _extras.require("PIL.Image", extra="images")
    canvas_module = _extras.require("PIL.ImageDraw", extra="images")
    if image is None:
        image = detections.image if detections.image is not None else detections.path
        if image is None:
            raise ValueError("image: expected an image, as the detections carry none, got None")
    if scale < 1:
        raise ValueError(f"scale: expected at least 1, got {scale}")
    if palette is not None and len(palette) == 0:
        raise ValueError("palette: expected at least one colour, got none")
    picture = image_module.fromarray(displayed_pixels(image))
    if scale > 1:
        size = (picture.width * scale, picture.height * scale)
        picture = picture.resize(size, image_module.Resampling.BICUBIC)

    short = min(picture.size)
    width = max(1, round(short / 240)) if line_width is None else line_width
    letters = max(round(short / 32), 11) if font_size is None else font_size
    canvas = canvas_module.Draw(picture)
    ascending = np.argsort(detections.scores, kind="stable")
    # Clipped, as a box may lie further out than an integer reaches.
    rects = np.rint(np.clip(detections.boxes * scale, -1, max(picture.size) + 1)).astype(int)
    colours = [
        label_colour(k) if palette is None else palette[k % len(palette)]
        for k in detections.labels.tolist()
    ]
    frames = [inside(rect, picture.size) for rect in rects.tolist()]
    for row in ascending.tolist():
        draw_box(canvas, frames[row], width, colours[row])

    surest = ascending[::-1][:CAPTIONED]
    captions = Captions(canvas, picture.size, letters, [frames[row] for row in surest])
    for row in surest:  # they find the best place
        found = detections[int(row)]
        parts = [
            text
            for text, wanted in ((found.name, labels), (f"{found.score:.2f}", scores))
            if wanted
        ]
        if parts:
            captions.add(frames[row], (": ".join(parts), parts[0]), colours[row])
    return picture


def save_png(path: str | os.PathLike[str], image: Any, *, quick: bool = False) -> None:
    """Write an image to a PNG file that is either complete or not there.

    ``image`` is a Pillow image, such as ``draw`` returns, or anything else ``read_image`` takes.
    ``quick=True``, for many pictures, compresses little and does not wait for the disk, so that a
    power failure may undo it.
    Needs the extra ``images``. OSError where the file cannot be written; a file that was there
    before is then still intact.
    """
    picture = image
    if not hasattr(image, "save"):
        image_module = _extras.require("PIL.Image", extra="images")
        picture = image_module.fromarray(displayed_pixels(image))
    with atomic_write(path, durable=not quick) as file:
        picture.save(file, format="PNG", **({"compress_level": 1} if quick else {}))


def legible_scale(height: int, width: int) -> int:
    """The ``scale`` of ``draw`` with which captions in a picture of this size can be read.

    Pictures are enlarged to a short side of 400 pixels, but to no long side beyond 4000.
    """
    return max(1, min(-(-LEGIBLE // min(height, width)), LARGEST // max(height, width)))


def displayed_pixels(image: Any) -> NDArray[np.uint8]:
    """(H, W, 3) uint8 RGB of whatever ``read_image`` takes."""
    from oxidet.data.image import read_image  # oxidet.data's boxes come with vis_bbox

    pixels = np.rint(read_image(image)).astype(np.uint8)
    return np.ascontiguousarray(pixels.transpose(1, 2, 0))


def inside(rect: Any, size: tuple[int, int]) -> Rect:
    """Edges (x1, y1, x2, y2) as a rectangle of at least one pixel within the picture."""
    x1, y1, x2, y2 = map(int, rect)
    x1, y1 = min(max(x1, 0), size[0] - 1), min(max(y1, 0), size[1] - 1)
    return x1, y1, min(max(x2, x1 + 1), size[0]), min(max(y2, y1 + 1), size[1])


def draw_box(canvas: Any, box: Rect, width: int, colour: Colour) -> None:
    """The frame lies on the box's edge, inwards; a broad one has a thin contrasting line around."""
    x1, y1, x2, y2 = box
    if width > 1:
        line = max(1, round(width / 6))
        around = (x1 - line, y1 - line, x2 + line - 1, y2 + line - 1)
        canvas.rectangle(around, outline=text_colour(colour), width=line)
    canvas.rectangle((x1, y1, x2 - 1, y2 - 1), outline=colour, width=width)
