"""Boxes of a resized image."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from oxidet import _arrays
from oxidet._same_kind import same_kind


@same_kind
def resize_bbox(
    bbox: ArrayLike, in_size: tuple[float, float], out_size: tuple[float, float]
) -> NDArray[Any]:
    """Boxes after the image was resized.

    Parameters
    ----------
    bbox
        Boxes, (R, 4).
    in_size
        (height, width) before.
    out_size
        (height, width) after.

    Returns
    -------
    A new array of the same dtype, (R, 4).

    Raises
    ------
    ValueError
        ``bbox`` is not (R, 4), ``in_size`` not positive, or ``out_size`` negative.

    Notes
    -----
    As chainercv's ``resize_bbox``.

    Examples
    --------
    >>> import numpy as np
    >>> from oxidet.detection import resize_bbox
    >>> resize_bbox(np.array([[1.0, 2.0, 3.0, 4.0]]), (10, 20), (20, 60))
    array([[ 2.,  6.,  6., 12.]])
    """
    resized = _arrays.box_shape(_arrays.as_array(bbox, "bbox"), "bbox").copy()
    in_height, in_width = _arrays.real_pair(in_size, "in_size")
    out_height, out_width = _arrays.real_pair(out_size, "out_size")
    if in_height <= 0 or in_width <= 0:
        raise ValueError(f"in_size: expected positive numbers, got {in_size!r}")
    if out_height < 0 or out_width < 0:
        raise ValueError(f"out_size: expected numbers of at least 0, got {out_size!r}")
    with np.errstate(all="ignore"):  # infinite boxes, and what the type of the boxes cannot hold
        resized[:, 0::2] = out_height / in_height * resized[:, 0::2]
        resized[:, 1::2] = out_width / in_width * resized[:, 1::2]
    return resized
