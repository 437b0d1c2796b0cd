"""chainercv's plot of an image with boxes, on matplotlib."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from oxidet import _extras
from oxidet._arrays import boxes as as_boxes
from oxidet._arrays import names as as_names
from oxidet.visualize._networks import as_axes
from oxidet.visualize._plotted_captions import add_captions
from oxidet.visualize.draw import displayed_pixels
from oxidet.visualize.palette import Colour, text_colour

RED = (255, 0, 0)


def vis_image(img: Any, ax: Any = None) -> Any:
    """Show an image in matplotlib axes and return them.

    Parameters
    ----------
    img
        ``(3, H, W)``, RGB, 0..255, or anything else ``read_image`` takes. None shows nothing.
    ax
        Axes to draw into; by default those of a new figure.
    """
    if ax is None:
        pyplot = _extras.require("matplotlib.pyplot", extra="plots")
        ax = pyplot.figure(layout="constrained").add_subplot()
    as_axes(ax)
    if img is not None:
        pixels = displayed_pixels(img)
        height, width = pixels.shape[:2]
        # From edge to edge, as coordinates of boxes count.
        ax.imshow(pixels, extent=(0, width, height, 0))
    ax.set_xlabel("x (pixels)")
    ax.set_ylabel("y (pixels)")
    return ax


def vis_bbox(
    img: Any,
    bbox: Any,
    label: Any = None,
    score: Any = None,
    label_names: Sequence[str] | None = None,
    instance_colors: Any = None,
    alpha: float = 1.0,
    linewidth: float = 3.0,
    sort_by_score: bool = True,
    ax: Any = None,
) -> Any:
    """Plot boxes over an image with matplotlib (extra ``plots``) and return the axes.

    A caption reads ``name: score``, with two decimals, as far as the two are given. It stands at a
    box's top left corner if it fits there, else elsewhere beside or in the box: always inside the
    axes, and never on another caption. Where boxes crowd, those drawn last keep theirs.

    Parameters
    ----------
    img
        ``(3, H, W)``, RGB, 0..255; None plots the boxes alone.
    bbox
        ``(R, 4)``, ``(y_min, x_min, y_max, x_max)`` in pixels.
    label
        ``(R,)`` integers from 0, or None.
    score
        ``(R,)``, or None.
    label_names
        Names in label order, or None: then labels are not written.
    instance_colors
        ``(M, 3)`` RGB 0..255, one for each box, repeated if there are fewer; by default red. So are
        the captions.
    alpha
        Opacity of the frames, 0 to 1.
    linewidth
        Of the frames, in points.
    sort_by_score
        Whether boxes of higher score are drawn over those of lower score.
    ax
        Axes to draw into; by default those of a new figure.

    Raises
    ------
    ValueError
        ``bbox`` has another shape, ``label`` or ``score`` another length, or a label has no name.

    References
    ----------
    chainercv, ``vis_bbox``.
    """
    [boxes] = as_boxes(bbox=bbox)
    for name, column in (("label", label), ("score", score)):
        if column is not None and len(column) != len(boxes):
            raise ValueError(f"{name}: expected length {len(boxes)} as bbox, got {len(column)}")
    if label_names is not None:
        label_names = as_names(label_names, "label_names")
    if label is not None and label_names is not None:
        for value in label:
            if not 0 <= value < len(label_names):
                raise ValueError(f"label: expected 0 to {len(label_names) - 1}, got {value}")
    colours = np.asarray([RED] if instance_colors is None else instance_colors, np.float64)
    if colours.ndim != 2 or colours.shape[1] != 3 or len(colours) == 0:
        raise ValueError(f"instance_colors: expected shape (M, 3), got {colours.shape}")

    ax = vis_image(img, ax=ax)
    effects = _extras.require("matplotlib.patheffects", extra="plots")
    rectangle = _extras.require("matplotlib.patches", extra="plots").Rectangle
    order = np.arange(len(boxes))
    if sort_by_score and score is not None:
        order = np.argsort(np.asarray(score), kind="stable")
    captions: list[tuple[Any, tuple[str, ...], Colour]] = []
    for row in order:
        y1, x1, y2, x2 = (float(v) for v in boxes[row])
        r, g, b = (round(float(v)) for v in colours[row % len(colours)])
        colour = r / 255, g / 255, b / 255
        around = effects.withStroke(linewidth=linewidth + 1, foreground=_outline((r, g, b)))
        ax.add_patch(
            rectangle(
                (x1, y1),
                x2 - x1,
                y2 - y1,
                fill=False,
                edgecolor=colour,
                linewidth=linewidth,
                alpha=alpha,
                path_effects=[around] if linewidth > 1 else None,
            )
        )
        parts = []
        if label is not None and label_names is not None:
            parts.append(str(label_names[label[row]]))
        if score is not None:
            parts.append(f"{score[row]:.2f}")
        if parts:
            captions.append(((x1, y1, x2, y2), (": ".join(parts), parts[0]), (r, g, b)))
    if captions:
        boxes_xy, texts, behind = zip(*captions, strict=True)
        add_captions(ax, boxes_xy, texts, behind, last_first=True)
    if img is None and len(boxes):
        ax.autoscale_view()
        if not ax.yaxis_inverted():
            ax.invert_yaxis()
    return ax


def _outline(colour: Colour) -> tuple[float, ...]:
    """What a frame of a colour has around it, so that it shows on any picture."""
    return tuple(channel / 255 for channel in text_colour(colour))
