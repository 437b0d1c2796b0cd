"""PASCAL VOC's average precision, in NumPy: per image, per class."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np

Arrays = Sequence[np.ndarray]
Curve = list[Any]


def eval_detection_voc(
    pred_bboxes: Arrays,
    pred_labels: Arrays,
    pred_scores: Arrays,
    gt_bboxes: Arrays,
    gt_labels: Arrays,
    gt_difficults: Arrays | None = None,
    iou_thresh: float = 0.5,
    use_07_metric: bool = False,
) -> dict[str, Any]:
    """Average precision of every class and their mean."""
    prec, rec = calc_detection_voc_prec_rec(
        pred_bboxes, pred_labels, pred_scores, gt_bboxes, gt_labels, gt_difficults, iou_thresh
    )
    ap = calc_detection_voc_ap(prec, rec, use_07_metric)
    return {"ap": ap, "map": np.nanmean(ap)}


def calc_detection_voc_prec_rec(
    pred_bboxes: Arrays,
    pred_labels: Arrays,
    pred_scores: Arrays,
    gt_bboxes: Arrays,
    gt_labels: Arrays,
    gt_difficults: Arrays | None = None,
    iou_thresh: float = 0.5,
) -> tuple[Curve, Curve]:
    """Precision and recall of every class."""
    if gt_difficults is None:
        gt_difficults = [np.zeros(len(label), bool) for label in gt_labels]
    positives: dict[int, int] = defaultdict(int)
    scores: dict[int, list] = defaultdict(list)
    outcomes: dict[int, list] = defaultdict(list)
    images = zip(
        pred_bboxes, pred_labels, pred_scores, gt_bboxes, gt_labels, gt_difficults, strict=True
    )
    for pred_bbox, pred_label, pred_score, gt_bbox, gt_label, gt_difficult in images:
        for label in np.unique(np.concatenate((pred_label, gt_label)).astype(int)):
            found = pred_label == label
            bbox, score = pred_bbox[found], pred_score[found]
            order = score.argsort()[::-1]
            bbox, score = bbox[order], score[order]
            known = gt_label == label
            target, difficult = gt_bbox[known], gt_difficult[known]
            positives[label] += np.logical_not(difficult).sum()
            scores[label].extend(score)
            if len(bbox) == 0:
                continue
            if len(target) == 0:
                outcomes[label].extend((0,) * len(bbox))
                continue
            # Corners are the first and last pixel.
            bbox, target = bbox.copy(), target.copy()
            bbox[:, 2:] += 1
            target[:, 2:] += 1
            iou = bbox_iou(bbox, target)
            match = iou.argmax(axis=1)
            match[iou.max(axis=1) < iou_thresh] = -1
            used = np.zeros(len(target), bool)
            for index in match:
                if index < 0:
                    outcomes[label].append(0)
                    continue
                if difficult[index]:
                    outcomes[label].append(-1)
                else:
                    outcomes[label].append(0 if used[index] else 1)
                used[index] = True

    classes = max(positives) + 1
    prec: Curve = [None] * classes
    rec: Curve = [None] * classes
    for label in positives:
        outcome = np.array(outcomes[label], np.int8)
        outcome = outcome[np.array(scores[label]).argsort()[::-1]]
        right, wrong = np.cumsum(outcome == 1), np.cumsum(outcome == 0)
        with np.errstate(invalid="ignore"):
            prec[label] = right / (right + wrong)
        if positives[label] > 0:
            rec[label] = right / positives[label]
    return prec, rec


def calc_detection_voc_ap(prec: Curve, rec: Curve, use_07_metric: bool = False) -> np.ndarray:
    """Average precision of every class."""
    ap = np.empty(len(prec))
    for label, (p, r) in enumerate(zip(prec, rec, strict=True)):
        if p is None or r is None:
            ap[label] = np.nan
        elif use_07_metric:
            points = [np.max(np.nan_to_num(p)[r >= t], initial=0) for t in np.arange(0, 1.1, 0.1)]
            ap[label] = np.sum(points) / 11
        else:
            precision = np.concatenate(([0], np.nan_to_num(p), [0]))
            recall = np.concatenate(([0], r, [1]))
            precision = np.maximum.accumulate(precision[::-1])[::-1]
            [steps] = np.where(recall[1:] != recall[:-1])
            ap[label] = np.sum((recall[steps + 1] - recall[steps]) * precision[steps + 1])
    return ap


def bbox_iou(bbox_a: np.ndarray, bbox_b: np.ndarray) -> np.ndarray:
    """IoU of every box of the one list with every box of the other, (N, K)."""
    low = np.maximum(bbox_a[:, np.newaxis, :2], bbox_b[:, :2])
    high = np.minimum(bbox_a[:, np.newaxis, 2:], bbox_b[:, 2:])
    shared = np.prod(high - low, axis=2) * (low < high).all(axis=2)
    area_a = np.prod(bbox_a[:, 2:] - bbox_a[:, :2], axis=1)
    area_b = np.prod(bbox_b[:, 2:] - bbox_b[:, :2], axis=1)
    return shared / (area_a[:, np.newaxis] + area_b - shared)
