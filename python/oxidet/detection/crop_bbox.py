"""Boxes of a cropped image."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from oxidet import _arrays
from oxidet._same_kind import same_kind


@same_kind
def crop_bbox(
    bbox: ArrayLike,
    y_slice: slice | None = None,
    x_slice: slice | None = None,
    allow_outside_center: bool = True,
    return_param: bool = False,
) -> Any:
    """Boxes after the image was cropped: cut to the area, moved, dropped where nothing is left.

    Parameters
    ----------
    bbox
        Boxes, (R, 4).
    y_slice
        Rows that stay; None, or a bound of None, for no limit.
    x_slice
        Columns that stay.
    allow_outside_center
        Whether a box whose centre lies outside the area may stay.
    return_param
        Also return which boxes stayed and which were cut.

    Returns
    -------
    The remaining boxes, a new array of the same dtype; with ``return_param`` a pair of it and a
    dict of ``index`` (rows of ``bbox`` that stayed) and ``truncated_index`` (rows of the result
    that were cut).

    Raises
    ------
    ValueError
        ``bbox`` is not (R, 4), or a bound NaN.

    Notes
    -----
    As chainercv's ``crop_bbox``.

    Examples
    --------
    >>> from oxidet.detection import crop_bbox
    >>> crop_bbox([[0, 0, 10, 10], [20, 0, 30, 10]], y_slice=slice(5, 20))
    array([[ 0,  0,  5, 10]])
    """
    original = _arrays.box_shape(_arrays.as_array(bbox, "bbox"), "bbox")
    (top, bottom), (left, right) = _bounds(y_slice, "y_slice"), _bounds(x_slice, "x_slice")
    start, stop = np.array((top, left)), np.array((bottom, right))
    cut = original.copy()
    with np.errstate(all="ignore"):  # infinite boxes, and what the type of the boxes cannot hold
        cut[:, :2] = np.maximum(original[:, :2], start)
        cut[:, 2:] = np.minimum(original[:, 2:], stop)
        truncated = (original != cut).any(axis=1)
        cut[:, :2] = cut[:, :2] - start
        cut[:, 2:] = cut[:, 2:] - start
        stays = (cut[:, :2] < cut[:, 2:]).all(axis=1)
        if not _arrays.flag(allow_outside_center, "allow_outside_center"):
            centre = (original[:, :2] + original[:, 2:]) / 2
            stays &= ((start <= centre) & (centre < stop)).all(axis=1)
    if not _arrays.flag(return_param, "return_param"):
        return cut[stays]
    return cut[stays], {
        "index": np.flatnonzero(stays),
        "truncated_index": np.flatnonzero(truncated[stays]),
    }


def _bounds(bounds: slice | None, argument: str) -> tuple[float, float]:
    if bounds is None:
        return 0, np.inf
    if not isinstance(bounds, slice):
        raise TypeError(f"{argument}: expected a slice or None, got {type(bounds).__name__}")
    start, stop = bounds.start, bounds.stop
    return (
        0 if start is None else _arrays.threshold_number(start, f"{argument}.start"),
        np.inf if stop is None else _arrays.threshold_number(stop, f"{argument}.stop"),
    )
