"""Average precision of a detector on a data set."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from oxidet.data import DataLoader
from oxidet.detection import eval_detection_voc
from oxidet.models.detection import Detector
from oxidet.train.progress import Progress


@dataclass(frozen=True)
class Evaluation:
    """What :func:`evaluate_detector` found.

    Attributes
    ----------
    mean_ap
        Mean of the classes' average precision, 0..1; classes without objects do not count.
    ap
        Average precision by class name; NaN for a class without objects.
    images, objects
        How many there were; objects marked difficult are not counted.
    """

    mean_ap: float
    ap: dict[str, float]
    images: int
    objects: int

    def __str__(self) -> str:
        width = max([len(name) for name in self.ap] + [4])
        rows = [f"{name:<{width}}  {value:.4f}" for name, value in self.ap.items()]
        total = f"mean average precision {self.mean_ap:.4f}"
        return "\n".join([*rows, f"{total} ({self.images} images, {self.objects} objects)"])


def evaluate_detector(
    model: Detector,
    dataset: Any,
    *,
    use_07_metric: bool = False,
    iou_thresh: float = 0.5,
    score_threshold: float = 0.05,
    nms_threshold: float | None = None,
    num_workers: int = 1,
    quiet: bool = True,
) -> Evaluation:
    """Average precision by PASCAL VOC's definition, see ``oxidet.detection.eval_detection_voc``.

    Parameters
    ----------
    model
        The detector; it computes in evaluation mode and is left in the mode it was in.
    dataset
        Items ``(img, bbox, label)`` or ``(img, bbox, label, difficult)`` as of
        ``oxidet.data.VOCBboxDataset``. Objects marked difficult neither help nor harm.
    use_07_metric
        Eleven points as in VOC 2007, instead of the area under the curve.
    iou_thresh
        IoU from which on a detection matches an object.
    score_threshold, nms_threshold
        Thresholds of the detector. Low scores matter for average precision: keep them.
    num_workers
        Threads that read ahead.
    quiet
        False shows progress.

    Examples
    --------
    >>> from oxidet.models.detection import build_detector
    >>> from oxidet.simple_faster_rcnn import Preprocessing
    >>> detector = build_detector(
    ...     "faster_rcnn_small", n_fg_class=1, preprocessing=Preprocessing(48, 48)
    ... )
    >>> item = (np.zeros((3, 48, 48), np.float32), np.array([[8.0, 10, 28, 30]]), np.array([0]))
    >>> result = evaluate_detector(detector, [item], score_threshold=1.0)
    >>> result.mean_ap, result.objects
    (0.0, 1)
    """
    if len(dataset) == 0:
        raise ValueError("dataset: expected at least one image, got none")
    found: list[tuple[Any, Any, Any]] = []
    truth: list[tuple[Any, Any, Any]] = []
    with (
        DataLoader(dataset, num_workers=num_workers) as loader,
        Progress(len(dataset), "evaluating", unit="image", leave=False, quiet=quiet) as progress,
    ):
        for [item] in loader:
            image, bbox, label = item[:3]
            marked = item[3] if len(item) > 3 else None
            difficult = np.zeros(len(label), bool) if marked is None else np.asarray(marked, bool)
            [(boxes, labels, scores)] = model.detect_images([image], score_threshold, nms_threshold)
            found.append((boxes[:, [1, 0, 3, 2]], labels, scores))
            truth.append((bbox, label, difficult))
            progress.step()
    pred_bboxes, pred_labels, pred_scores = zip(*found, strict=True)
    gt_bboxes, gt_labels, gt_difficults = zip(*truth, strict=True)
    result = eval_detection_voc(
        pred_bboxes,
        pred_labels,
        pred_scores,
        gt_bboxes,
        gt_labels,
        gt_difficults,
        iou_thresh=iou_thresh,
        use_07_metric=use_07_metric,
    )
    # A class beyond the last one seen has no entry.
    ap = dict.fromkeys(model.class_names, float("nan"))
    ap.update(zip(model.class_names, map(float, result["ap"]), strict=False))
    return Evaluation(
        mean_ap=float(result["map"]),
        ap=ap,
        images=len(dataset),
        objects=int(sum((~difficult).sum() for _, _, difficult in truth)),
    )
