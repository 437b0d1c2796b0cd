"""Boxes of several models made one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from oxidet import _core
from oxidet._arrays import as_array, choice, listed, number, numbers, threshold_number
from oxidet._same_kind import same_kind
from oxidet.ops._nms import ready_categories

Array = NDArray[Any]
Confidence = Literal["avg", "max", "box_and_model_avg", "absent_model_aware_avg"]


def _model_boxes(value: Any, argument: str) -> Array:
    boxes = as_array(value, argument)
    if boxes.shape == (0,):
        boxes = boxes.reshape(0, 4)
    if boxes.ndim != 2 or boxes.shape[1] != 4:
        raise ValueError(f"{argument}: expected shape (R, 4), got {boxes.shape}")
    return boxes.astype(np.float64)


def _weights(value: Any, models: int) -> Array:
    if value is None:
        return np.ones(models)
    weights = numbers(value, "weights", models).astype(np.float64)
    if not (np.isfinite(weights) & (weights >= 0)).all() or not weights.any():
        raise ValueError(
            f"weights: expected finite numbers of at least 0, not all of them 0, got {value!r}"
        )
    return weights


@same_kind
def weighted_boxes_fusion(
    boxes_list: Sequence[Any],
    scores_list: Sequence[Any],
    labels_list: Sequence[Any],
    weights: Any = None,
    iou_thr: float = 0.55,
    skip_box_thr: float = 0.0,
    conf_type: Confidence = "avg",
    allows_overflow: bool = False,
) -> tuple[Array, Array, NDArray[np.int64]]:
    """Fuse the boxes of several models, as the package ensemble-boxes does.

    Boxes of one label are gone through by descending score. Each joins the cluster whose fused box
    overlaps it most, if by more than ``iou_thr``, or founds its own; a fused box is the mean of its
    members, weighted by their scores (Solovyev et al., "Weighted boxes fusion", 2019).

    Parameters
    ----------
    boxes_list
        One (R, 4) array for each model: x1, y1, x2, y2 as parts of the image's size. What lies
        outside of 0 to 1 is cut off there, upper and lower edges that are interchanged are put
        right, and boxes without area are left out.
    scores_list, labels_list
        One (R,) array for each model: scores, and integers.
    weights
        One number for each model, which its scores are multiplied by; None: all 1.
    iou_thr
        Overlap above which boxes are fused.
    skip_box_thr
        Boxes of a lower score (before weighting) are left out, and those whose score is NaN.
    conf_type
        Score of a fused box. "avg": mean of its members, times their number (that of the models at
        most) over the sum of the weights; "max": the highest, over the largest weight;
        "box_and_model_avg": weighted mean, times the weight of the models among its members over
        that of all; "absent_model_aware_avg": weighted mean with 0 for models not among them.
    allows_overflow
        For "avg": several boxes of one model may count, so that scores above 1 are possible.

    Returns
    -------
    Boxes (K, 4) and scores (K,) in float64, labels (K,) in int64, by descending score. Equal
    scores of boxes go by model, then by index. (The original leaves their order open, returns
    labels as floats and rounds fused boxes to float32.)

    Raises
    ------
    ValueError
        If lists have different lengths, a shape is wrong, a coordinate or threshold is NaN, or
        weights are negative.

    Examples
    --------
    >>> from oxidet import ops
    >>> boxes = [[[0.0, 0.0, 0.4, 0.4]], [[0.0, 0.0, 0.4, 0.5], [0.6, 0.6, 0.8, 0.8]]]
    >>> boxes, scores, labels = ops.weighted_boxes_fusion(boxes, [[0.9], [0.6, 0.3]], [[1], [1, 2]])
    >>> boxes.round(2)
    array([[0.  , 0.  , 0.4 , 0.44],
           [0.6 , 0.6 , 0.8 , 0.8 ]])
    >>> scores, labels
    (array([0.75, 0.15]), array([1, 2]))
    """
    boxes_list = listed(boxes_list, "boxes_list")
    scores_list = listed(scores_list, "scores_list")
    labels_list = listed(labels_list, "labels_list")
    models = len(boxes_list)
    for value, argument in ((scores_list, "scores_list"), (labels_list, "labels_list")):
        if len(value) != models:
            raise ValueError(
                f"{argument}: expected {models} arrays, one for each of boxes_list, "
                f"got {len(value)}"
            )
    choice(conf_type, "conf_type", ("avg", "max", "box_and_model_avg", "absent_model_aware_avg"))
    weight = _weights(weights, models)
    threshold = threshold_number(iou_thr, "iou_thr")
    skip = number(skip_box_thr, "skip_box_thr")
    boxes, scores, labels, origin = [np.zeros((0, 4))], [np.zeros(0)], [np.zeros(0, np.int64)], []
    for model in range(models):
        rows = _model_boxes(boxes_list[model], f"boxes_list[{model}]")
        if np.isnan(rows).any():
            row = int(np.isnan(rows).any(axis=1).argmax())
            raise ValueError(f"boxes_list[{model}]: expected numbers, got {rows[row]} in row {row}")
        values = numbers(scores_list[model], f"scores_list[{model}]", len(rows))
        classes = ready_categories(labels_list[model], f"labels_list[{model}]", len(rows))
        rows = np.clip(rows, 0, 1)
        rows = np.concatenate(
            [np.minimum(rows[:, :2], rows[:, 2:]), np.maximum(rows[:, :2], rows[:, 2:])], axis=1
        )
        good = (values >= skip) & ((rows[:, 2:] - rows[:, :2]).prod(axis=1) > 0)
        boxes.append(rows[good])
        scores.append(values[good].astype(np.float64))
        labels.append(classes[good])
        origin += [model] * int(good.sum())
    return _core.fuse_boxes(
        np.concatenate(boxes),
        np.concatenate(scores),
        np.concatenate(labels),
        np.array(origin, np.int64),
        weight,
        threshold,
        conf_type,
        bool(allows_overflow),
    )
