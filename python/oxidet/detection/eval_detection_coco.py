"""Average precision and recall as COCO defines them, from arrays."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from oxidet import _arrays
from oxidet._same_kind import same_kind
from oxidet.detection import _coco
from oxidet.detection._rows import Rows

F64 = NDArray[np.float64]

# What the result holds, in this order; the arguments of CocoEvaluation.ap and .ar.
KEYS: tuple[tuple[str, float | None, str, int], ...] = (
    ("ap", None, "all", 100),
    ("ap", 0.5, "all", 100),
    ("ap", 0.75, "all", 100),
    ("ar", None, "all", 1),
    ("ar", None, "all", 10),
    ("ar", None, "all", 100),
)
KEYS_WITH_AREAS = (
    *((kind, None, area, 100) for kind in ("ap", "ar") for area in ("small", "medium", "large")),
)


@same_kind
def eval_detection_coco(
    pred_bboxes: Iterable[ArrayLike],
    pred_labels: Iterable[ArrayLike],
    pred_scores: Iterable[ArrayLike],
    gt_bboxes: Iterable[ArrayLike],
    gt_labels: Iterable[ArrayLike],
    gt_areas: Iterable[ArrayLike] | None = None,
    gt_crowdeds: Iterable[ArrayLike] | None = None,
) -> dict[str, Any]:
    """COCO's average precision and recall of every class, and their means.

    In every image the 100 best-scored detections of a class count. By descending score, each takes
    the object of its class that it overlaps most among those not yet taken, if the IoU reaches a
    threshold; ten thresholds, 0.50 to 0.95, are averaged. Detections of a crowd, and of an object
    outside the range of areas in question, do not count; nor do those that find no object and are
    themselves outside that range.

    Parameters
    ----------
    pred_bboxes
        One array (R, 4) for each image, ``(y_min, x_min, y_max, x_max)``.
    pred_labels
        One array (R,) of classes from 0 for each image.
    pred_scores
        One array (R,) for each image. Equal scores keep their order (image, then row), NaN comes
        last.
    gt_bboxes
        One array (R', 4) for each image.
    gt_labels
        One array (R',) of classes from 0 for each image.
    gt_areas
        One array (R',) of areas in pixels for each image, in data sets with masks those of the
        masks; by default the areas of the boxes.
    gt_crowdeds
        One array (R',) of bool for each image: whether the box holds a crowd. The IoU with a crowd
        is the part of the detection inside it. None for no crowds.

    Returns
    -------
    A dictionary. With IoU 0.50:0.95 standing for the mean over the ten thresholds:

    =============================================  =================================================
    ``ap/iou=0.50:0.95/area=all/max_dets=100``     float64, (n_class,): average precision, the mean
                                                   of the precisions at recalls 0, 0.01, ..., 1;
                                                   NaN for classes without objects that count
    ``ap/iou=0.50/area=all/max_dets=100``          at IoU 0.5
    ``ap/iou=0.75/area=all/max_dets=100``          at IoU 0.75
    ``ar/iou=0.50:0.95/area=all/max_dets=1``       average recall of 1 detection per image and class
    ``ar/iou=0.50:0.95/area=all/max_dets=10``      of 10
    ``ar/iou=0.50:0.95/area=all/max_dets=100``     of 100
    ``map/...``, ``mar/...``                       float, each with an ``m`` in front: the mean over
                                                   the classes that are not NaN
    ``existent_labels``                            the classes that occur, ascending
    ``coco_eval``                                  :class:`CocoEvaluation`, with COCO's twelve
                                                   numbers and all curves
    =============================================  =================================================

    With ``gt_areas`` also ``ap`` and ``ar`` for ``area=small``, ``medium`` and ``large`` (split at
    32 x 32 and 96 x 96 pixels) at ``iou=0.50:0.95`` and ``max_dets=100``.

    Raises
    ------
    ValueError
        Numbers of images or lengths within an image differ, or a label is negative or above
        1048575.
    TypeError
        Labels are not integers.

    Notes
    -----
    As chainercv's ``eval_detection_coco``, which asks pycocotools: corners and sizes are rounded to
    two decimals, and the numbers agree with those of pycocotools within the rounding of a mean.
    pycocotools is not needed; so ``coco_eval`` is ours, not its ``COCOeval``. No boxes at all give
    empty arrays and NaN means (the original fails). Arrays are (y, x); for files in COCO's own
    format there is :func:`eval_coco`.

    Examples
    --------
    >>> from oxidet.detection import eval_detection_coco
    >>> result = eval_detection_coco(
    ...     [[[0, 0, 10, 10], [50, 50, 60, 60]]], [[0, 0]], [[0.9, 0.8]], [[[0, 0, 10, 8]]], [[0]]
    ... )
    >>> round(result["map/iou=0.50:0.95/area=all/max_dets=100"], 3)  # right up to an IoU of 0.80
    0.7
    >>> result["ap/iou=0.75/area=all/max_dets=100"].round(3)
    array([1.])
    """
    detections = Rows(pred_bboxes, pred_labels, "pred")
    objects = Rows(gt_bboxes, gt_labels, "gt")
    detections.check_images(len(objects), "gt_bboxes")
    scores = detections.companion(pred_scores, "pred_scores").astype(np.float64)
    areas = crowded = None
    if gt_areas is not None:
        areas = objects.companion(gt_areas, "gt_areas").astype(np.float64)
    if gt_crowdeds is not None:
        crowded = objects.companion(gt_crowdeds, "gt_crowdeds").astype(np.bool_)
    # Only classes that occur have curves, so a large label costs nothing but its entry.
    existent, places = np.unique(
        np.concatenate((detections.labels, objects.labels)), return_inverse=True
    )
    labels = places.reshape(-1).astype(np.int32)
    cut = len(detections.labels)
    evaluation = _coco.evaluate(
        _converted(detections, labels[:cut], "pred_bboxes"),
        scores,
        _converted(objects, labels[cut:], "gt_bboxes", areas),
        np.zeros(len(objects.labels), np.bool_) if crowded is None else crowded,
        category_ids=existent.tolist(),
        category_names=[str(label) for label in existent],
    )
    result: dict[str, Any] = {}
    for kind, iou, area, max_dets in KEYS + (() if areas is None else KEYS_WITH_AREAS):
        spelled = "0.50:0.95" if iou is None else f"{iou:.2f}"
        key = f"{kind}/iou={spelled}/area={area}/max_dets={max_dets}"
        known = getattr(evaluation, kind)(iou, area, max_dets)
        values = np.full(existent.max(initial=-1) + 1, np.nan)
        values[existent] = known
        result[key] = values
        result["m" + key] = _coco.mean_of_known(known)
    return {"coco_eval": evaluation, "existent_labels": existent.tolist(), **result}


def _converted(
    rows: Rows, labels: NDArray[np.int32], argument: str, areas: F64 | None = None
) -> _coco.Boxes:
    """(y_min, x_min, y_max, x_max) as COCO's (x, y, width, height), with the original's rounding.

    Sizes and areas are computed in the type of the boxes, sizes and corners rounded in it.
    """
    [corners] = _arrays.floats(**{argument: rows.boxes})
    y_min, x_min, y_max, x_max = corners.T
    with np.errstate(invalid="ignore", over="ignore"):  # infinite boxes
        height, width = y_max - y_min, x_max - x_min
        boxes = np.stack((x_min, y_min, width, height), axis=1).round(2)
        boxes = boxes.astype(np.float64, copy=False)
        products = (height * width).astype(np.float64, copy=False)
    return _coco.Boxes(boxes, labels, rows.images, products if areas is None else areas)
