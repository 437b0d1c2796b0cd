"""Suppression that lowers scores: Soft-NMS and Matrix NMS."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from oxidet import _core
from oxidet._arrays import choice, number, threshold_number
from oxidet._same_kind import same_kind
from oxidet.ops._nms import ready_boxes, ready_categories, ready_scores

Array = NDArray[Any]
Method = Literal["linear", "gaussian"]


def _wide(boxes: Any, scores: Any) -> tuple[Array, Array, type]:
    """Boxes and scores in float64, and the type that the lowered scores have."""
    rows = ready_boxes(boxes, "boxes")
    values = ready_scores(scores, "scores", len(rows))
    return rows.astype(np.float64), values.astype(np.float64), values.dtype.type


def _sigma(value: float) -> float:
    sigma = number(value, "sigma", 0)
    if sigma == 0:
        raise ValueError(f"sigma: expected a number above 0, got {value!r}")
    return sigma


@same_kind
def soft_nms(
    boxes: Any,
    scores: Any,
    iou_threshold: float = 0.5,
    sigma: float = 0.5,
    score_threshold: float = 0.001,
    *,
    method: Method = "gaussian",
) -> tuple[NDArray[np.int64], Array]:
    """Soft-NMS: boxes that overlap a better one lose score instead of being dropped.

    Again and again the box of the highest score is taken out, and the scores of those left are
    multiplied by a number that falls with their IoU with it (Bodla et al., "Soft-NMS - Improving
    Object Detection With One Line of Code", 2017): "linear", by ``1 - IoU`` where the IoU is
    greater than ``iou_threshold``; "gaussian", by ``exp(-IoU**2 / sigma)``. Ends when no score is
    above ``score_threshold``.

    Parameters
    ----------
    boxes
        (R, 4).
    scores
        (R,). NaN is above no threshold. Equal scores go by ascending index.
    iou_threshold
        For "linear": overlap without effect.
    sigma
        For "gaussian": above 0; the smaller, the more an overlap costs.
    score_threshold
        Boxes must keep more score than this.
    method
        "gaussian" or "linear".

    Returns
    -------
    int64 indices of the boxes in the order they were taken, which is that of their lowered
    scores, and these scores: float32 if ``scores`` is float32, else float64. Computed in float64.
    An IoU that is NaN lowers nothing.

    Raises
    ------
    ValueError
        If a shape is wrong, a threshold is NaN, ``sigma`` not above 0 or ``method`` unknown.

    Examples
    --------
    >>> from oxidet import ops
    >>> boxes = [[0.0, 0.0, 4.0, 4.0], [0.0, 1.0, 4.0, 5.0], [8.0, 0.0, 12.0, 4.0]]
    >>> kept, scores = ops.soft_nms(boxes, [0.9, 0.8, 0.7])
    >>> kept, scores.round(4)
    (array([0, 2, 1]), array([0.9   , 0.7   , 0.3894]))
    """
    choice(method, "method", ("gaussian", "linear"))
    threshold = threshold_number(iou_threshold, "iou_threshold")
    parameter = threshold if method == "linear" else _sigma(sigma)
    rows, values, dtype = _wide(boxes, scores)
    floor = threshold_number(score_threshold, "score_threshold")
    kept, lowered = _core.soft_nms(rows, values, method, parameter, floor)
    return kept, lowered.astype(dtype, copy=False)


@same_kind
def matrix_nms(
    boxes: Any,
    scores: Any,
    idxs: Any = None,
    sigma: float = 0.5,
    score_threshold: float = 0.0,
    *,
    method: Method = "gaussian",
) -> tuple[NDArray[np.int64], Array]:
    """Matrix NMS: all scores are lowered at once, by the overlaps with better boxes.

    A box j is lowered by the worst of the better boxes i, each of which counts less the more it
    overlaps a better box itself (Wang et al., "SOLOv2: Dynamic and Fast Instance Segmentation",
    2020, on boxes instead of masks)::

        decay_j = min over i of f(IoU_ij) / f(max over k of IoU_ki)

    with i better than j and k better than i. "linear": ``f(x) = 1 - x``; "gaussian":
    ``f(x) = exp(-x**2 / sigma)``. Where the divisor is 0, box i is passed over.

    Parameters
    ----------
    boxes
        (R, 4).
    scores
        (R,), none of them NaN. Of equal scores the one of the smaller index is the better.
    idxs
        (R,) integers: only boxes of the same category lower each other. None: all are of one.
    sigma
        For "gaussian": above 0; the smaller, the more an overlap costs.
    score_threshold
        Boxes must keep more score than this.
    method
        "gaussian" or "linear".

    Returns
    -------
    int64 indices of the boxes by descending lowered score, and these scores: float32 if ``scores``
    is float32, else float64. Computed in float64. An IoU that is NaN counts as 0.

    Raises
    ------
    ValueError
        If a shape is wrong, a score is NaN, ``sigma`` not above 0 or ``method`` unknown.

    Examples
    --------
    >>> from oxidet import ops
    >>> boxes = [[0.0, 0.0, 4.0, 4.0], [0.0, 1.0, 4.0, 5.0], [8.0, 0.0, 12.0, 4.0]]
    >>> kept, scores = ops.matrix_nms(boxes, [0.9, 0.8, 0.7], method="linear")
    >>> kept, scores.round(4)
    (array([0, 2, 1]), array([0.9 , 0.7 , 0.32]))
    """
    choice(method, "method", ("gaussian", "linear"))
    parameter = 0.0 if method == "linear" else _sigma(sigma)
    rows, values, dtype = _wide(boxes, scores)
    categories = np.zeros(len(rows), np.int64)
    if idxs is not None:
        categories = ready_categories(idxs, "idxs", len(rows))
    floor = threshold_number(score_threshold, "score_threshold")
    kept, lowered = _core.matrix_nms(rows, values, categories, method, parameter, floor)
    return kept, lowered.astype(dtype, copy=False)
