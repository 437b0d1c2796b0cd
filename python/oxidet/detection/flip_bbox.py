"""Boxes of a flipped image."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from oxidet import _arrays
from oxidet._same_kind import same_kind


@same_kind
def flip_bbox(
    bbox: ArrayLike, size: tuple[float, float], y_flip: bool = False, x_flip: bool = False
) -> NDArray[Any]:
    """Boxes after the image was flipped.

    Edges are continuous: ``y`` becomes ``height - y``.

    Parameters
    ----------
    bbox
        Boxes, (R, 4).
    size
        (height, width) of the image.
    y_flip
        Whether top and bottom changed places.
    x_flip
        Whether left and right changed places.

    Returns
    -------
    A new array of the same dtype, (R, 4).

    Raises
    ------
    ValueError
        ``bbox`` is not (R, 4).

    Notes
    -----
    As chainercv's ``flip_bbox``.

    Examples
    --------
    >>> from oxidet.detection import flip_bbox
    >>> flip_bbox([[1, 2, 3, 5]], (10, 20), x_flip=True)
    array([[ 1, 15,  3, 18]])
    """
    flipped = _arrays.box_shape(_arrays.as_array(bbox, "bbox"), "bbox").copy()
    height, width = _arrays.real_pair(size, "size")
    with np.errstate(all="ignore"):  # infinite boxes, and what the type of the boxes cannot hold
        if _arrays.flag(y_flip, "y_flip"):
            flipped[:, 0::2] = height - flipped[:, 2::-2]
        if _arrays.flag(x_flip, "x_flip"):
            flipped[:, 1::2] = width - flipped[:, 3::-2]
    return flipped
