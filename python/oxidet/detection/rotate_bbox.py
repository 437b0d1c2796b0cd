"""Boxes of a rotated image."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from oxidet import _arrays
from oxidet._same_kind import same_kind


@same_kind
def rotate_bbox(bbox: ArrayLike, angle: float, size: tuple[float, float]) -> NDArray[Any]:
    """Boxes after the image was rotated counter-clockwise by a multiple of 90 degrees.

    Parameters
    ----------
    bbox
        Boxes, (R, 4).
    angle
        Degrees, a multiple of 90, of any sign.
    size
        (height, width) of the image before.

    Returns
    -------
    Boxes of the same dtype, (R, 4); the same array for a multiple of 360.

    Raises
    ------
    ValueError
        ``bbox`` is not (R, 4), or ``angle`` not a multiple of 90.

    Notes
    -----
    As chainercv's ``rotate_bbox``.

    Examples
    --------
    >>> from oxidet.detection import rotate_bbox
    >>> rotate_bbox([[1, 2, 3, 5]], 90, (10, 20))
    array([[15,  1, 18,  3]])
    """
    boxes = _arrays.box_shape(_arrays.as_array(bbox, "bbox"), "bbox")
    height, width = _arrays.real_pair(size, "size")
    if _arrays.number(angle, "angle") % 90 != 0:
        raise ValueError(f"angle: expected a multiple of 90, got {angle!r}")
    y_min, x_min, y_max, x_max = boxes.T
    turns = int(angle // 90) % 4
    if turns == 0:
        return boxes
    with np.errstate(all="ignore"):  # infinite boxes, and what the type of the boxes cannot hold
        columns = {
            1: (width - x_max, y_min, width - x_min, y_max),
            2: (height - y_max, width - x_max, height - y_min, width - x_min),
            3: (x_min, height - y_max, x_max, height - y_min),
        }[turns]
        return np.stack(columns, axis=1).astype(boxes.dtype, copy=False)
