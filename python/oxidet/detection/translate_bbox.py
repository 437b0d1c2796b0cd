"""Boxes of a padded or cropped image."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from oxidet import _arrays
from oxidet._same_kind import same_kind


@same_kind
def translate_bbox(bbox: ArrayLike, y_offset: float = 0, x_offset: float = 0) -> NDArray[Any]:
    """Boxes moved by an offset, as when an image is padded at the top and the left.

    Parameters
    ----------
    bbox
        Boxes, (R, 4).
    y_offset
        Added to both y.
    x_offset
        Added to both x.

    Returns
    -------
    A new array of the same dtype, (R, 4).

    Raises
    ------
    ValueError
        ``bbox`` is not (R, 4).

    Notes
    -----
    As chainercv's ``translate_bbox``.

    Examples
    --------
    >>> from oxidet.detection import translate_bbox
    >>> translate_bbox([[1, 2, 3, 4]], y_offset=10, x_offset=-1)
    array([[11,  1, 13,  3]])
    """
    moved = _arrays.box_shape(_arrays.as_array(bbox, "bbox"), "bbox").copy()
    down, right = _arrays.number(y_offset, "y_offset"), _arrays.number(x_offset, "x_offset")
    with np.errstate(all="ignore"):  # infinite boxes, and what the type of the boxes cannot hold
        # Two columns and one number: a sum in the type of the boxes.
        moved[:, 0::2] = moved[:, 0::2] + down
        moved[:, 1::2] = moved[:, 1::2] + right
    return moved
