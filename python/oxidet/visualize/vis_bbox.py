"""chainercv's plot of an image with boxes, on matplotlib."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from oxidet import _extras
from oxidet._arrays import boxes as as_boxes
from oxidet._arrays import names as as_names
from oxidet.visualize._networks import as_axes
from oxidet.visualize.draw import displayed_pixels

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
        ax = _extras.require("matplotlib.pyplot", extra="plots").figure().add_subplot()
    as_axes(ax)
    if img is not None:
        ax.imshow(displayed_pixels(img))
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

    A caption at a box's top left corner reads ``name: score``, with two decimals, as far as the
    two are given.

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
        ``(M, 3)`` RGB 0..255, one for each box, repeated if there are fewer; by default red.
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
    rectangle = _extras.require("matplotlib.patches", extra="plots").Rectangle
    order = np.arange(len(boxes))
    if sort_by_score and score is not None:
        order = np.argsort(np.asarray(score), kind="stable")
    for row in order:
        y1, x1, y2, x2 = boxes[row]
        colour = tuple(colours[row % len(colours)] / 255)
        ax.add_patch(
            rectangle(
                (x1, y1),
                x2 - x1,
                y2 - y1,
                fill=False,
                edgecolor=colour,
                linewidth=linewidth,
                alpha=alpha,
            )
        )
        caption = []
        if label is not None and label_names is not None:
            caption.append(str(label_names[label[row]]))
        if score is not None:
            caption.append(f"{score[row]:.2f}")
        if caption:
            behind = {"facecolor": "white", "edgecolor": "none", "alpha": 0.7, "pad": 2}
            # A name with two dollar signs is no formula.
            ax.text(x1, y1, ": ".join(caption), style="italic", bbox=behind, parse_math=False)
    if img is None and len(boxes):
        ax.autoscale_view()
        if not ax.yaxis_inverted():
            ax.invert_yaxis()
    return ax
