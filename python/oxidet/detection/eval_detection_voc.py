"""Mean average precision as PASCAL VOC defines it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from oxidet import _arrays, _core
from oxidet._same_kind import same_kind
from oxidet.detection._rows import Rows

F64 = NDArray[np.float64]
Curve = list[F64 | None]


@same_kind
def eval_detection_voc(
    pred_bboxes: Iterable[ArrayLike],
    pred_labels: Iterable[ArrayLike],
    pred_scores: Iterable[ArrayLike],
    gt_bboxes: Iterable[ArrayLike],
    gt_labels: Iterable[ArrayLike],
    gt_difficults: Iterable[ArrayLike] | None = None,
    iou_thresh: float = 0.5,
    use_07_metric: bool = False,
) -> dict[str, Any]:
    """Average precision of every class, and their mean.

    Parameters
    ----------
    pred_bboxes, pred_labels, pred_scores, gt_bboxes, gt_labels, gt_difficults, iou_thresh
        As for :func:`calc_detection_voc_prec_rec`.
    use_07_metric
        Whether ``ap`` is the mean of precisions at eleven recalls (VOC 2007) instead of the area
        under the curve. Published VOC 2007 results use it.

    Returns
    -------
    ``{"ap": float64 (n_class,), "map": float}``. ``ap`` is NaN for a class without objects that
    count; ``map`` is the mean over the others, NaN if there are none. A class with objects but no
    detections has 0.

    Raises
    ------
    ValueError, TypeError
        As :func:`calc_detection_voc_prec_rec`.

    Notes
    -----
    As chainercv's ``eval_detection_voc``, except that no boxes at all give an empty ``ap`` and a
    NaN ``map`` (the original fails).

    Examples
    --------
    >>> from oxidet.detection import eval_detection_voc
    >>> result = eval_detection_voc(
    ...     [[[0, 0, 9, 9], [50, 50, 60, 60]]], [[0, 0]], [[0.9, 0.8]], [[[0, 0, 9, 8]]], [[0]]
    ... )
    >>> result["map"]
    1.0
    """
    kernel, *arguments = _problem(
        "voc_ap",
        pred_bboxes, pred_labels, pred_scores, gt_bboxes, gt_labels, gt_difficults, iou_thresh,
    )  # fmt: skip
    ap = kernel(*arguments, _arrays.flag(use_07_metric, "use_07_metric"))
    known = ap[~np.isnan(ap)]
    return {"ap": ap, "map": float(known.mean()) if len(known) else float("nan")}


@same_kind
def calc_detection_voc_prec_rec(
    pred_bboxes: Iterable[ArrayLike],
    pred_labels: Iterable[ArrayLike],
    pred_scores: Iterable[ArrayLike],
    gt_bboxes: Iterable[ArrayLike],
    gt_labels: Iterable[ArrayLike],
    gt_difficults: Iterable[ArrayLike] | None = None,
    iou_thresh: float = 0.5,
) -> tuple[Curve, Curve]:
    """Precision and recall of every class, as more and more detections are taken by score.

    A detection belongs to the object of its class that it overlaps most; both boxes first grow by
    one pixel at the bottom and the right, as VOC's corners are the first and last pixel. It is
    right if the IoU reaches ``iou_thresh`` and no better-scored detection took the object; at a
    difficult object it does not count.

    Parameters
    ----------
    pred_bboxes
        One array (R, 4) for each image.
    pred_labels
        One array (R,) of classes from 0 for each image.
    pred_scores
        One array (R,) for each image. Equal scores keep their order.
    gt_bboxes
        One array (R', 4) for each image.
    gt_labels
        One array (R',) of classes from 0 for each image.
    gt_difficults
        One array (R',) of bool for each image; None for no difficult objects.
    iou_thresh
        IoU of a right detection.

    Returns
    -------
    ``(prec, rec)``, two lists over the classes 0 to the largest label of float64 arrays, one entry
    for each detection of the class by descending score. Both are None for a class without
    detections and objects, ``rec`` also for a class without objects that count. Precision is NaN as
    long as only detections of difficult objects were taken. No boxes at all give two empty lists.

    Raises
    ------
    ValueError
        Numbers of images or lengths within an image differ, or a label is negative or above
        1048575.
    TypeError
        Labels are not integers.

    Notes
    -----
    As chainercv's ``calc_detection_voc_prec_rec``, except that the number of images is always
    checked, that equal scores have an order, and that no boxes at all are no error.

    Examples
    --------
    >>> from oxidet.detection import calc_detection_voc_prec_rec
    >>> prec, rec = calc_detection_voc_prec_rec(
    ...     [[[0, 0, 9, 9], [50, 50, 60, 60]]], [[0, 0]], [[0.9, 0.8]], [[[0, 0, 9, 8]]], [[0]]
    ... )
    >>> prec, rec
    ([array([1. , 0.5])], [array([1., 1.])])
    """
    kernel, *arguments = _problem(
        "voc_match",
        pred_bboxes, pred_labels, pred_scores, gt_bboxes, gt_labels, gt_difficults, iou_thresh,
    )  # fmt: skip
    prec: Curve = []
    rec: Curve = []
    for outcome, positives in kernel(*arguments):
        right, wrong = np.cumsum(outcome == 1), np.cumsum(outcome == 0)
        with np.errstate(invalid="ignore"):  # 0 / 0 is the documented NaN
            prec.append(None if positives is None else right / (right + wrong))
        rec.append(right / positives if positives else None)
    return prec, rec


@same_kind
def calc_detection_voc_ap(
    prec: Sequence[ArrayLike | None],
    rec: Sequence[ArrayLike | None],
    use_07_metric: bool = False,
) -> F64:
    """Average precision of every class from its precision and recall.

    Parameters
    ----------
    prec
        One array or None for each class, see :func:`calc_detection_voc_prec_rec`.
    rec
        Likewise. Recalls are ascending.
    use_07_metric
        The mean of the best precisions at recalls of at least 0, 0.1, ..., 1 (VOC 2007) instead of
        the area under the curve made non-increasing (VOC 2010).

    Returns
    -------
    float64, (n_class,). NaN where precision or recall is None; NaN precisions count as 0.

    Raises
    ------
    ValueError
        The lengths of the lists or of a class's arrays differ.

    Notes
    -----
    As chainercv's ``calc_detection_voc_ap``.

    Examples
    --------
    >>> from oxidet.detection import calc_detection_voc_ap
    >>> calc_detection_voc_ap([[1.0, 0.5], None], [[0.5, 1.0], None])
    array([0.75,  nan])
    """
    prec, rec = _arrays.listed(prec, "prec"), _arrays.listed(rec, "rec")
    if len(prec) != len(rec):
        raise ValueError(f"rec: expected {len(prec)} classes as in prec, got {len(rec)}")
    eleven_points = _arrays.flag(use_07_metric, "use_07_metric")
    ap = np.full(len(prec), np.nan)
    for i, (p, r) in enumerate(zip(prec, rec, strict=True)):
        if p is not None and r is not None:
            curve = [
                np.ascontiguousarray(_arrays.as_array(values, f"{name}[{i}]").ravel(), np.float64)
                for values, name in ((p, "prec"), (r, "rec"))
            ]
            ap[i] = _core.voc_average_precision(curve[0], curve[1], eleven_points)
    return ap


def _problem(
    kernel: str,
    pred_bboxes: Iterable[ArrayLike],
    pred_labels: Iterable[ArrayLike],
    pred_scores: Iterable[ArrayLike],
    gt_bboxes: Iterable[ArrayLike],
    gt_labels: Iterable[ArrayLike],
    gt_difficults: Iterable[ArrayLike] | None,
    iou_thresh: float,
) -> list[Any]:
    """The kernel for boxes of this type, and its arguments."""
    detections = Rows(pred_bboxes, pred_labels, "pred")
    objects = Rows(gt_bboxes, gt_labels, "gt")
    detections.check_images(len(objects), "gt_bboxes")
    scores = detections.companion(pred_scores, "pred_scores").astype(np.float64)
    if gt_difficults is None:
        difficult = np.zeros(len(objects.boxes), np.bool_)
    else:
        difficult = objects.companion(gt_difficults, "gt_difficults").astype(np.bool_)
    pred, gt = _arrays.boxes(pred_bboxes=detections.boxes, gt_bboxes=objects.boxes)
    return [
        _arrays.kernel(kernel, pred),
        detections.kernel_arguments(pred),
        scores,
        objects.kernel_arguments(gt),
        difficult,
        _arrays.threshold_number(iou_thresh, "iou_thresh"),
    ]
