"""Non-maximum suppression, over all boxes or class by class."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from oxidet import _core
from oxidet._arrays import as_array, number
from oxidet.ops._boxes import as_boxes

Array = NDArray[Any]


def _checked(boxes: Any, scores: Any, iou_threshold: float) -> tuple[Array, Array, float]:
    """Boxes as contiguous float32 or float64 (R, 4), scores as float64 (R,), the threshold."""
    rows = as_boxes(boxes, "boxes")
    if rows.ndim != 2:
        raise ValueError(f"boxes: expected shape (R, 4), got {rows.shape}")
    if rows.dtype != np.float64:
        rows = rows.astype(np.float32, copy=False)
    values = as_array(scores, "scores")
    if values.shape != (len(rows),):
        raise ValueError(f"scores: expected shape ({len(rows)},), got {values.shape}")
    threshold = number(iou_threshold, "iou_threshold")
    if math.isnan(threshold):
        raise ValueError("iou_threshold: expected a number, got nan")
    return (
        np.ascontiguousarray(rows),
        np.ascontiguousarray(values, dtype=np.float64),
        threshold,
    )


def nms(boxes: Any, scores: Any, iou_threshold: float) -> NDArray[np.int64]:
    """Non-maximum suppression, as ``torchvision.ops.nms``.

    Goes through the boxes by descending score and keeps a box unless its intersection over union
    with one already kept is greater than ``iou_threshold`` (equal is not enough). The IoU has the
    precision of the boxes and is compared in float64, as torchvision does. Equal scores go by
    ascending index, NaN scores come first; a NaN IoU suppresses nothing.

    Parameters
    ----------
    boxes
        (R, 4) float32 or float64; other types are computed in float32.
    scores
        (R,) numbers.
    iou_threshold
        Largest overlap two kept boxes may have.

    Returns
    -------
    int64 indices of the kept boxes, by descending score.

    Raises
    ------
    ValueError
        If a shape is wrong or the threshold is NaN.

    Examples
    --------
    >>> from oxidet import ops
    >>> boxes = [[0.0, 0.0, 4.0, 4.0], [0.0, 1.0, 4.0, 5.0], [8.0, 0.0, 12.0, 4.0]]
    >>> ops.nms(boxes, [0.7, 0.9, 0.8], 0.5)
    array([1, 2])
    """
    rows, values, threshold = _checked(boxes, scores, iou_threshold)
    kernel = _core.nms_f64 if rows.dtype == np.float64 else _core.nms_f32
    return kernel(rows, values, threshold, False, False, None)


def batched_nms(boxes: Any, scores: Any, idxs: Any, iou_threshold: float) -> NDArray[np.int64]:
    """Non-maximum suppression inside each category, as ``torchvision.ops.batched_nms``.

    Categories never suppress each other. Each is treated by itself: torchvision shifts the boxes
    of different categories apart instead, which rounds large coordinates and fails for infinite
    or negative ones; where that matters, results differ.

    Parameters
    ----------
    boxes, scores, iou_threshold
        As in :func:`nms`.
    idxs
        (R,) integers, the category of each box.

    Returns
    -------
    int64 indices of the kept boxes, by descending score, equal scores by ascending index.

    Raises
    ------
    ValueError
        If a shape is wrong or the threshold is NaN.

    Examples
    --------
    >>> from oxidet import ops
    >>> boxes = [[0.0, 0.0, 4.0, 4.0], [0.0, 1.0, 4.0, 5.0], [0.0, 0.0, 4.0, 4.0]]
    >>> ops.batched_nms(boxes, [0.7, 0.9, 0.8], [0, 0, 1], 0.5)
    array([1, 2])
    """
    rows, values, threshold = _checked(boxes, scores, iou_threshold)
    categories = as_array(idxs, "idxs")
    if categories.shape != values.shape:
        raise ValueError(f"idxs: expected shape {values.shape}, got {categories.shape}")
    if categories.dtype.kind == "f" and categories.size:
        raise TypeError(f"idxs: expected integers, got dtype {categories.dtype}")
    categories = np.ascontiguousarray(categories, dtype=np.int64)
    kernel = _core.batched_nms_f64 if rows.dtype == np.float64 else _core.batched_nms_f32
    return kernel(rows, values, categories, threshold, False, False)
