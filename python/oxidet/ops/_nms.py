"""Non-maximum suppression, over all boxes or class by class."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from oxidet import _core
from oxidet._arrays import as_array, computed, is_double, numbers, threshold_number
from oxidet._same_kind import same_kind
from oxidet.ops._boxes import as_boxes

Array = NDArray[Any]


def ready_boxes(value: Any, argument: str) -> Array:
    """Boxes as a contiguous (R, 4) array: float64 as they are, all others as float32."""
    rows = as_boxes(value, argument)
    if rows.ndim != 2:
        raise ValueError(f"{argument}: expected shape (R, 4), got {rows.shape}")
    return np.asarray(rows, np.float64 if is_double(rows) else np.float32, order="C")


def ready_scores(value: Any, argument: str, length: int) -> Array:
    """Scores as a contiguous array of ``length``: float32 as they are, all others as float64."""
    scores = numbers(value, argument, length)
    single = scores.dtype.kind == "f" and scores.dtype.itemsize == 4
    return np.asarray(scores, np.float32 if single else np.float64, order="C")


def ready_categories(value: Any, argument: str, length: int) -> NDArray[np.int64]:
    """Categories as a contiguous int64 array of ``length``."""
    categories = as_array(value, argument)
    if categories.shape != (length,):
        raise ValueError(f"{argument}: expected shape ({length},), got {categories.shape}")
    if categories.dtype.kind == "f" and categories.size:
        raise TypeError(f"{argument}: expected integers, got dtype {categories.dtype}")
    return np.asarray(categories, np.int64, order="C")


def _whole(value: Any, argument: str) -> Array:
    """Floats that are whole numbers as integers; anything else as it is."""
    array = as_array(value, argument)
    if array.dtype.kind != "f":
        return array
    array = array.astype(np.float64)
    whole = (array == np.rint(array)) & (np.abs(array) < 2.0**63)  # false for NaN
    if not whole.all():
        got = array[~whole][0]
        raise ValueError(f"{argument}: expected whole numbers, got {got}")
    return array.astype(np.int64)


@same_kind
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
    threshold = threshold_number(iou_threshold, "iou_threshold")
    kept = _core.nms(boxes, scores, threshold, False, False, None)
    if kept is None:
        rows = ready_boxes(boxes, "boxes")
        values = ready_scores(scores, "scores", len(rows))
        kept = _core.nms(rows, values, threshold, False, False, None)
    return computed(kept)


@same_kind
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
        (R,) whole numbers of any type, the category of each box: floats, too, since labels often
        are a column of a detector's output.

    Returns
    -------
    int64 indices of the kept boxes, by descending score, equal scores by ascending index.

    Raises
    ------
    ValueError
        If a shape is wrong, a category is no whole number or the threshold is NaN.

    Examples
    --------
    >>> from oxidet import ops
    >>> boxes = [[0.0, 0.0, 4.0, 4.0], [0.0, 1.0, 4.0, 5.0], [0.0, 0.0, 4.0, 4.0]]
    >>> ops.batched_nms(boxes, [0.7, 0.9, 0.8], [0, 0, 1], 0.5)
    array([1, 2])
    """
    threshold = threshold_number(iou_threshold, "iou_threshold")
    kept = _core.batched_nms(boxes, scores, idxs, threshold)
    if kept is None:
        rows = ready_boxes(boxes, "boxes")
        values = ready_scores(scores, "scores", len(rows))
        categories = ready_categories(_whole(idxs, "idxs"), "idxs", len(rows))
        kept = _core.batched_nms(rows, values, categories, threshold)
    return computed(kept)
