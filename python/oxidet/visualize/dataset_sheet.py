"""A look at labelled images: some of them with their boxes on one sheet."""

from __future__ import annotations

from typing import Any

import numpy as np

from oxidet import _extras
from oxidet._arrays import integer
from oxidet.visualize._captions import Captions
from oxidet.visualize.annotated import contact_sheet, dashed_box, with_legend
from oxidet.visualize.draw import displayed_pixels, draw_box, inside
from oxidet.visualize.palette import PALETTE, label_colour


def dataset_sheet(dataset: Any, images: int = 12, *, columns: int = 4, width: int = 1600) -> Any:
    """Draw some images of a data set with their boxes, coloured by class, on one sheet.

    The images are spread over the data set, and every class is among them if they are enough;
    those that cannot be read are passed over. Objects marked difficult, and crowds, have dashed
    frames. The legend counts all objects of the data set. With more classes than colours, boxes
    have captions too.

    Parameters
    ----------
    dataset
        A data set such as :class:`oxidet.data.VOCBboxDataset`: ``annotation(i)``,
        ``image_path(i)`` and ``class_names``.
    images
        How many to show, at most.
    columns
        Pictures side by side.
    width
        Of the sheet in pixels.

    Returns
    -------
    A Pillow image (extra ``images``).

    Raises
    ------
    ValueError
        No image can be read, or a number is below 1.
    TypeError
        ``dataset`` lacks one of the three.
    """
    for name in ("annotation", "image_path", "class_names"):
        if not hasattr(dataset, name):
            got = type(dataset).__name__
            raise TypeError(f"dataset: expected one with {name}, such as VOCBboxDataset, got {got}")
    integer(images, "images", 1)
    integer(columns, "columns", 1)
    integer(width, "width", 1)
    labels = [_labels(dataset, index) for index in range(len(dataset))]
    counts = np.bincount(np.concatenate([np.zeros(0, int), *labels]), minlength=1)
    side = max(1, width // min(columns, images))
    tiles: list[tuple[int, Any]] = []
    shown: set[int] = set()
    for index in _spread(labels, counts):
        if len(tiles) == images:
            break
        try:
            tile = _tile(dataset, index, side)
        except (ValueError, OSError):
            continue
        tiles.append((index, tile))
        shown.update(labels[index].tolist())
    if not tiles:
        raise ValueError("dataset: expected an image that can be read, got none")
    tiles.sort(key=lambda tile: tile[0])
    titles = [str(dataset.image_path(index).name) for index, _ in tiles]
    sheet = contact_sheet([tile for _, tile in tiles], columns=columns, width=width, titles=titles)
    legend = [
        (label_colour(label), f"{dataset.class_names[label]}: {counts[label]}")
        for label in sorted(shown)
    ]
    return with_legend(sheet, legend, max(11, side // 22))


def _labels(dataset: Any, index: int) -> Any:
    try:
        return np.asarray(dataset.annotation(index).label, np.int64)
    except (ValueError, OSError):
        return np.zeros(0, np.int64)


def _spread(labels: list[Any], counts: Any) -> list[int]:
    """All images in the order in which to show them: first one for each class, the rarest class
    first, then in growing steps through the rest."""
    order: dict[int, None] = {}
    covered: set[int] = set()
    for label in sorted(np.flatnonzero(counts), key=lambda k: (counts[k], k)):
        if label in covered:
            continue
        having = [index for index, row in enumerate(labels) if label in row]
        # The one that shows most other classes as well.
        best = max(having, key=lambda index: (len(set(labels[index]) - covered), -index))
        order[best] = None
        covered.update(labels[best].tolist())
    count, step = len(labels), len(labels)
    while step > 0:  # every nth, then those in the middle between, and so on
        order.update(dict.fromkeys(range(step // 2, count, step)))
        step = step // 2 if step > 1 else 0
    order.update(dict.fromkeys(range(count)))
    return list(order)


def _tile(dataset: Any, index: int, side: int) -> Any:
    """One image, ``side`` pixels wide, with its boxes."""
    image_module = _extras.require("PIL.Image", extra="images")
    canvas_module = _extras.require("PIL.ImageDraw", extra="images")
    annotation = dataset.annotation(index)
    picture = image_module.fromarray(displayed_pixels(dataset.image_path(index)))
    scale = side / picture.width
    if picture.height * scale > 2 * side:
        scale = 2 * side / picture.height
    size = max(1, round(picture.width * scale)), max(1, round(picture.height * scale))
    picture = picture.resize(size, image_module.Resampling.LANCZOS)
    canvas = canvas_module.Draw(picture)
    line = max(1, side // 130)
    corners = np.clip(annotation.bbox[:, [1, 0, 3, 2]] * scale, -1, max(size) + 1)
    rects = [inside(row, size) for row in np.rint(corners).astype(int)]
    areas = (corners[:, 2:] - corners[:, :2]).prod(axis=1)
    order = np.argsort(-areas, kind="stable")  # small ones on top
    for row in order:
        colour = label_colour(int(annotation.label[row]))
        if annotation.difficult[row] or annotation.crowd[row]:
            dashed_box(canvas, rects[row], line, colour)
        else:
            draw_box(canvas, rects[row], line, colour)
    if len(dataset.class_names) > len(PALETTE):
        captions = Captions(canvas, size, max(11, side // 36), rects)
        for row in order:
            label = int(annotation.label[row])
            captions.add(rects[row], (dataset.class_names[label],), label_colour(label))
    return picture
