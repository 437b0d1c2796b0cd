"""Rotated boxes (cx, cy, w, h, angle): overlap and suppression."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from oxidet import _core
from oxidet._arrays import as_array, threshold_number
from oxidet._same_kind import same_kind
from oxidet.ops._nms import ready_scores

Array = NDArray[Any]


def _rotated(value: Any, argument: str) -> Array:
    array = as_array(value, argument)
    if array.ndim != 2 or array.shape[1] != 5:
        raise ValueError(f"{argument}: expected shape (R, 5), got {array.shape}")
    return array


@same_kind
def rotated_box_iou(boxes1: Any, boxes2: Any) -> Array:
    """Intersection over union of every pair of rotated boxes.

    The values of ``torchvision.ops.box_iou`` with ``fmt="cxcywhr"``, computed in float64 by
    clipping one rectangle at the edges of the other.

    Parameters
    ----------
    boxes1, boxes2
        (N, 5) and (M, 5): centre, width, height and angle in degrees, counter-clockwise with the y
        axis downwards.

    Returns
    -------
    (N, M): float64 if either input is float64, else float32. 0 where a width or height is not
    above 0, NaN where a number is NaN or infinite.

    Raises
    ------
    ValueError
        For another shape.
    MemoryError
        If the matrix does not fit into memory.

    Examples
    --------
    >>> from oxidet import ops
    >>> ops.rotated_box_iou([[0.0, 0.0, 6.0, 2.0, 0.0]], [[0.0, 0.0, 6.0, 2.0, 90.0]])
    array([[0.2]])
    """
    a, b = _rotated(boxes1, "boxes1"), _rotated(boxes2, "boxes2")
    wide = any(array.dtype.kind == "f" and array.dtype.itemsize == 8 for array in (a, b))
    a, b = (np.asarray(array, np.float64, order="C") for array in (a, b))
    return _core.rotated_box_iou(a, b).astype(np.float64 if wide else np.float32, copy=False)


@same_kind
def rotated_nms(boxes: Any, scores: Any, iou_threshold: float) -> NDArray[np.int64]:
    """Non-maximum suppression of rotated boxes.

    As :func:`nms`, with the overlap of :func:`rotated_box_iou`, in float64: a box is dropped if its
    IoU with a better one that was kept is greater than ``iou_threshold``.

    Parameters
    ----------
    boxes
        (R, 5): centre, width, height and angle in degrees.
    scores
        (R,). NaN ranks first, equal scores by ascending index.
    iou_threshold
        Largest overlap two kept boxes may have.

    Returns
    -------
    int64 indices of the kept boxes, by descending score. A NaN IoU suppresses nothing.

    Raises
    ------
    ValueError
        If a shape is wrong or the threshold is NaN.

    Examples
    --------
    >>> from oxidet import ops
    >>> boxes = [[0.0, 0, 6, 2, 30], [0, 0, 6, 2, 35], [0, 0, 6, 2, 120]]
    >>> ops.rotated_nms(boxes, [0.7, 0.9, 0.8], 0.5)
    array([1, 2])
    """
    rows = np.asarray(_rotated(boxes, "boxes"), np.float64, order="C")
    values = ready_scores(scores, "scores", len(rows)).astype(np.float64, copy=False)
    return _core.rotated_nms(rows, values, threshold_number(iou_threshold, "iou_threshold"))
