"""Detections beside the truth in one picture, and many pictures on one sheet."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from oxidet import _extras
from oxidet.visualize._captions import Captions, Rect, caption_font, cut
from oxidet.visualize.draw import displayed_pixels, draw_box, inside, legible_scale
from oxidet.visualize.palette import Colour, label_colour
from oxidet.visualize.themes import sheet_colours

if TYPE_CHECKING:
    from oxidet.detections import Detections

INK: Colour = (32, 32, 32)  # under the dashes of a frame


def annotated(
    image: Any,
    detections: Detections,
    ground_truth: Detections | None = None,
    *,
    difficult: Any = None,
    scale: int | None = None,
    iou_thresh: float = 0.5,
    legend: bool = True,
) -> Any:
    """Draw what was found, and where that differs from what there is, into a copy of an image.

    Found objects have a solid frame in the colour of their class and a caption. Given the truth, a
    missed object has a dashed frame, and captions say what is wrong: ``missed cat``, ``not cat but
    dog 0.72``, ``no cat 0.55`` where nothing is. A legend under the picture names the colours and
    counts the objects, so that a crowded picture can do without captions that find no room.

    Parameters
    ----------
    image
        Anything ``read_image`` takes, or None for the image that the detections carry. It is not
        changed.
    detections
        What was found; filter it first, as by ``detections.filter(min_score=0.5)``.
    ground_truth
        What there is.
    difficult
        (R',) bool: objects of the ground truth that need not be found.
    scale
        Enlarge the picture this many times first; by default until captions can be read.
    iou_thresh
        IoU from which on a detection stands for an object.
    legend
        Whether there is a legend.

    Returns
    -------
    A Pillow image (extra ``images``).

    Examples
    --------
    >>> import numpy as np
    >>> from oxidet import Detections
    >>> from oxidet.visualize import annotated
    >>> found = Detections([[20, 30, 60, 80]], [0], [0.9], class_names=("cat",))
    >>> annotated(np.zeros((90, 120, 3), np.uint8), found, scale=1, legend=False).size
    (120, 90)
    """
    from oxidet.train.matching import match, mistakes

    image_module = _extras.require("PIL.Image", extra="images")
    canvas_module = _extras.require("PIL.ImageDraw", extra="images")
    if image is None:
        image = detections.image if detections.image is not None else detections.path
        if image is None:
            raise ValueError("image: expected an image, as the detections carry none, got None")
    pixels = displayed_pixels(image)
    if scale is None:
        scale = legible_scale(*pixels.shape[:2])
    if scale < 1:
        raise ValueError(f"scale: expected at least 1, got {scale}")
    picture = image_module.fromarray(pixels)
    if scale > 1:
        size = (picture.width * scale, picture.height * scale)
        picture = picture.resize(size, image_module.Resampling.BICUBIC)
    short = min(picture.size)
    width, letters = max(1, round(short / 200)), max(round(short / 36), 11)
    canvas = canvas_module.Draw(picture)

    wrong = invented = np.zeros(len(detections), np.bool_)
    partner = np.full(len(detections), -1)
    missed = np.zeros(0, np.bool_)
    if ground_truth is not None:
        wrong, invented, missed = mistakes(detections, ground_truth, difficult, iou_thresh)
        partner = match(detections, ground_truth, iou_thresh).partner

    order = np.argsort(-detections.scores, kind="stable")
    rects = _rects(detections, scale, picture.size)
    for row in order[::-1]:
        draw_box(canvas, rects[row], width, label_colour(int(detections.labels[row])))
    gone: list[tuple[Rect, int]] = []
    if ground_truth is not None:
        truth_rects = _rects(ground_truth, scale, picture.size)
        gone = [(truth_rects[row], int(row)) for row in np.flatnonzero(missed)]
        for rect, row in gone:
            dashed_box(canvas, rect, width + 1, label_colour(int(ground_truth.labels[row])))

    # Mistakes get their captions first: they are what one looks for.
    captions = Captions(canvas, picture.size, letters, [*rects, *(rect for rect, _ in gone)])
    for rect, row in gone:
        assert ground_truth is not None  # or nothing were missed
        name = ground_truth[row].name
        colour = label_colour(int(ground_truth.labels[row]))
        captions.add(rect, (f"missed {name}", "missed", "-"), colour)
    texts: tuple[str, ...]
    for row in [*order[(wrong | invented)[order]], *order[~(wrong | invented)[order]]]:
        entry = detections[int(row)]
        if wrong[row]:
            assert ground_truth is not None
            actual = ground_truth[int(partner[row])].name
            texts = (f"not {entry.name} but {actual} {entry.score:.2f}", f"is {actual}")
        elif ground_truth is not None and invented[row]:
            texts = (f"no {entry.name} {entry.score:.2f}", f"no {entry.name}", "no")
        else:
            texts = (f"{entry.name} {entry.score:.2f}", f"{entry.score:.2f}")
        captions.add(rects[row], texts, label_colour(entry.label))
    if not legend:
        return picture
    return with_legend(picture, _legend(detections, ground_truth, difficult), letters)


def _rects(boxes: Detections, scale: int, size: tuple[int, int]) -> list[Rect]:
    """Frames within the enlarged picture."""
    corners = np.clip(boxes.boxes * scale, -1, max(size) + 1)
    return [inside(row, size) for row in np.rint(corners).astype(int)]


def dashed_box(canvas: Any, box: Rect, width: int, colour: Colour) -> None:
    """A frame of dashes on a dark line, which shows on any background."""
    x1, y1, x2, y2 = box[0], box[1], box[2] - 1, box[3] - 1
    canvas.rectangle((x1, y1, x2, y2), outline=INK, width=width)
    dash = 4 * width
    for start in range(x1, x2 + 1, 2 * dash):
        end = min(start + dash, x2)
        canvas.rectangle((start, y1, end, y1 + width - 1), fill=colour)
        canvas.rectangle((start, y2 - width + 1, end, y2), fill=colour)
    for start in range(y1, y2 + 1, 2 * dash):
        end = min(start + dash, y2)
        canvas.rectangle((x1, start, x1 + width - 1, end), fill=colour)
        canvas.rectangle((x2 - width + 1, start, x2, end), fill=colour)


def _legend(
    detections: Detections, truth: Detections | None, difficult: NDArray[np.bool_] | None
) -> list[tuple[Colour, str]]:
    """A colour and a text for every class in the picture."""
    labels = detections.labels if truth is None else np.append(detections.labels, truth.labels)
    easy = None if truth is None else np.ones(len(truth), bool)
    if easy is not None and difficult is not None:
        easy &= ~np.asarray(difficult, bool)
    entries = []
    for label in np.unique(labels):
        found = int((detections.labels == label).sum())
        names = detections.class_names or (truth.class_names if truth is not None else None)
        text = f"{names[label] if names else label}: {found} found"
        if truth is not None and easy is not None:
            text += f", {int((truth.labels[easy] == label).sum())} there"
        entries.append((label_colour(int(label)), text))
    return entries


def with_legend(picture: Any, entries: Sequence[tuple[Colour, str]], letters: int) -> Any:
    """The picture above a strip of paper with a line for as many classes as fit into it."""
    image_module = _extras.require("PIL.Image", extra="images")
    canvas_module = _extras.require("PIL.ImageDraw", extra="images")
    if not entries:
        return picture
    paper, ink = sheet_colours()
    line, swatch = round(1.7 * letters), round(0.9 * letters)
    places: list[tuple[int, int]] = []
    x, row = letters, 0
    for _, text in entries:
        width = round(caption_font(letters, text.isascii()).getlength(text)) + 3 * swatch
        if x > letters and x + width > picture.width:
            x, row = letters, row + 1
        places.append((x, row))
        x += width
    sheet = image_module.new("RGB", (picture.width, picture.height + line * (row + 1)), paper)
    sheet.paste(picture)
    canvas = canvas_module.Draw(sheet)
    for (colour, text), (left, row) in zip(entries, places, strict=True):
        middle = picture.height + line * row + line // 2
        box = (left, middle - swatch // 2, left + swatch, middle + swatch - swatch // 2)
        canvas.rectangle(box, fill=colour, outline=ink)
        font = caption_font(letters, text.isascii())
        canvas.text((left + 1.5 * swatch, middle), text, font=font, fill=ink, anchor="lm")
    return sheet


def contact_sheet(
    pictures: Sequence[Any],
    *,
    columns: int = 3,
    width: int = 2400,
    titles: Sequence[str] | None = None,
) -> Any:
    """Pictures in a grid on one sheet.

    Parameters
    ----------
    pictures
        Pillow images, such as :func:`annotated` returns, or anything else ``read_image`` takes.
    columns
        Pictures side by side.
    width
        Of the sheet in pixels.
    titles
        A line over each picture.

    Returns
    -------
    A Pillow image (extra ``images``).

    Raises
    ------
    ValueError
        No pictures, fewer titles than pictures, or a number below 1.
    """
    image_module = _extras.require("PIL.Image", extra="images")
    canvas_module = _extras.require("PIL.ImageDraw", extra="images")
    for name, value in (("columns", columns), ("width", width), ("pictures", len(pictures))):
        if value < 1:
            raise ValueError(f"{name}: expected at least 1, got {value}")
    if titles is not None and len(titles) != len(pictures):
        raise ValueError(f"titles: expected {len(pictures)}, got {len(titles)}")
    columns = min(columns, len(pictures))
    paper, ink = sheet_colours()
    margin = max(4, width // 200)
    side = max(1, (width - margin * (columns + 1)) // columns)
    letters = max(11, side // 40)
    header = 0 if titles is None else round(1.8 * letters)

    tiles = []
    for picture in pictures:
        tile = picture
        if not hasattr(tile, "save"):
            tile = image_module.fromarray(displayed_pixels(tile))
        height = max(1, min(round(tile.height * side / tile.width), 2 * side))
        shrunk = (max(1, min(side, round(tile.width * height / tile.height))), height)
        tiles.append(tile.convert("RGB").resize(shrunk, image_module.Resampling.LANCZOS))
    rows = [tiles[start : start + columns] for start in range(0, len(tiles), columns)]
    heights = [max(tile.height for tile in row) + header + margin for row in rows]
    sheet = image_module.new("RGB", (width, sum(heights) + margin), paper)
    canvas = canvas_module.Draw(sheet)
    top, number = margin, 0
    for row, height in zip(rows, heights, strict=True):
        for column, tile in enumerate(row):
            left = margin + column * (side + margin)
            if titles is not None:
                text = cut(titles[number], letters, side)
                font = caption_font(letters, text.isascii())
                canvas.text((left, top + header / 2), text, font=font, fill=ink, anchor="lm")
            sheet.paste(tile, (left, top + header))
            number += 1
        top += height
    return sheet
