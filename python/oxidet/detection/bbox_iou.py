"""Intersection over union."""

from __future__ import annotations

from typing import Any

from numpy.typing import ArrayLike, NDArray

from oxidet import _arrays, _core
from oxidet._same_kind import same_kind


@same_kind
def bbox_iou(bbox_a: ArrayLike, bbox_b: ArrayLike) -> NDArray[Any]:
    """Intersection over union of every box of ``bbox_a`` with every box of ``bbox_b``.

    Parameters
    ----------
    bbox_a
        Boxes, (N, 4).
    bbox_b
        Boxes, (K, 4).

    Returns
    -------
    IoUs in [0, 1], (N, K), float32 or float64 as the boxes. The value is the one NumPy computes
    from the definition, to the bit. Touching boxes give 0, an inverted box 0 with everything, two
    boxes without area NaN (0 / 0), a NaN corner NaN. No boxes give an empty array.

    Raises
    ------
    ValueError
        A shape is not (R, 4).
    MemoryError
        The matrix does not fit into memory.

    Notes
    -----
    The order of the corner's axes does not matter as long as both sides agree on it. As
    chainercv's ``bbox_iou``, which raises IndexError on a wrong shape.

    Examples
    --------
    >>> from oxidet.detection import bbox_iou
    >>> bbox_iou([[0, 0, 4, 4], [0, 0, 2, 2]], [[0, 0, 4, 2]])
    array([[0.5],
           [0.5]])
    """
    iou = _core.bbox_iou(bbox_a, bbox_b)
    if iou is None:
        a, b = _arrays.boxes(bbox_a=bbox_a, bbox_b=bbox_b)
        iou = _core.bbox_iou(a, b)
    return _arrays.computed(iou)
