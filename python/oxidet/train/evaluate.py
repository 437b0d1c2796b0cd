"""How good a detector is on a data set: average precision by VOC and by COCO, and the mistakes."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from oxidet._arrays import F32, number
from oxidet._text import printable
from oxidet.data import DataLoader
from oxidet.detection import (
    CocoEvaluation,
    calc_detection_voc_ap,
    calc_detection_voc_prec_rec,
    eval_detection_coco,
)
from oxidet.detections import Detections
from oxidet.models.detection import Detector
from oxidet.train.ground_truth import MARKS, check_ground_truth, marks
from oxidet.train.matching import Mistakes, match, mistakes
from oxidet.train.progress import Progress

F64 = NDArray[np.float64]

# COCO's twelve numbers, in the order of ``CocoEvaluation.stats``, by the names papers use.
COCO_NAMES = (
    "AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl"
)  # fmt: skip


class Curve(NamedTuple):
    """Precision against recall, as more and more detections of a class are taken by score."""

    precision: F64
    """(K,), one entry for each detection; NaN as long as only difficult objects were found."""
    recall: F64
    """(K,), ascending."""


class ImageResult(NamedTuple):
    """What there is in one image, and what was found."""

    name: str
    """The data set's name of the image, or its index."""
    item: int
    """Its index in the data set."""
    found: Detections
    """Best first."""
    truth: Detections
    difficult: NDArray[np.bool_]
    """(R',): objects that neither help nor harm; COCO's crowds."""
    areas: F32
    """(R',): of the objects in square pixels; of their masks, where the data set knows them."""

    def mistakes(self, score_threshold: float = 0.5, iou_thresh: float = 0.5) -> Mistakes:
        """What is wrong among the detections that score at least ``score_threshold``."""
        found = self.found.filter(min_score=score_threshold)
        return mistakes(found, self.truth, self.difficult, iou_thresh)


@dataclass(frozen=True, eq=False, repr=False)
class Evaluation:
    """What :func:`evaluate_detector` found. Prints as a table, in a notebook too.

    Attributes
    ----------
    mean_ap
        Mean of the classes' average precision by PASCAL VOC's definition, 0..1; classes without
        objects do not count.
    ap
        Average precision by class name; NaN for a class without objects.
    images, objects
        How many there were; objects marked difficult are not counted.
    iou_thresh, use_07_metric
        Of ``mean_ap`` and ``ap``: the IoU from which on a detection is right, and whether eleven
        points were taken instead of the area under the curve.
    coco
        COCO's metric on the same detections. Difficult objects are its crowds.
    curves
        Precision and recall by class name; classes without objects or detections have none.
    results
        Every image with its detections and its objects.
    skipped
        Why images were left out, a line each.
    """

    mean_ap: float
    ap: dict[str, float]
    images: int
    objects: int
    iou_thresh: float = 0.5
    use_07_metric: bool = False
    coco: CocoEvaluation | None = None
    curves: Mapping[str, Curve] = field(default_factory=dict)
    results: tuple[ImageResult, ...] = ()
    skipped: tuple[str, ...] = ()

    @property
    def class_names(self) -> tuple[str, ...]:
        """The detector's classes."""
        return tuple(self.ap)

    @property
    def coco_figures(self) -> dict[str, float]:
        """COCO's twelve numbers by the names that papers use: ``AP`` (mean over IoU 0.5 to 0.95),
        ``AP50``, ``AP75``, ``APs``, ``APm``, ``APl``, ``AR1``, ``AR10``, ``AR100``, ``ARs``,
        ``ARm``, ``ARl``; NaN where no object counts."""
        if self.coco is None:
            return {}
        known = (math.nan if value < 0 else float(value) for value in self.coco.stats)
        return dict(zip(COCO_NAMES, known, strict=True))

    @property
    def coco_ap(self) -> dict[str, float]:
        """COCO's average precision (mean over IoU 0.5 to 0.95) by class name; NaN for a class
        without objects."""
        values = dict.fromkeys(self.ap, math.nan)
        if self.coco is not None:
            values.update(zip(self.coco.category_names, map(float, self.coco.ap()), strict=True))
        return values

    @property
    def objects_by_class(self) -> dict[str, int]:
        """How many objects of each class count."""
        counts = np.zeros(len(self.ap), np.int64)
        for result in self.results:
            np.add.at(counts, result.truth.labels[~result.difficult], 1)
        return dict(zip(self.ap, counts.tolist(), strict=True))

    def confusion(self, score_threshold: float = 0.5, iou_thresh: float = 0.5) -> NDArray[np.int64]:
        """How often which class was taken for which, ``(C + 1, C + 1)``.

        Entry ``[i, j]`` counts objects of class ``i`` that a detection of class ``j`` stands for.
        The last row counts detections where no object is, the last column objects that were missed.
        Detections are those that score at least ``score_threshold``, paired with objects by
        :func:`oxidet.train.match`.
        """
        classes = len(self.ap)
        matrix = np.zeros((classes + 1, classes + 1), np.int64)
        for result in self.results:
            found = result.found.filter(min_score=score_threshold)
            partner = match(found, result.truth, iou_thresh).partner
            truth = np.append(result.truth.labels, classes)
            easy = np.append(~result.difficult, True)
            np.add.at(matrix, (truth[partner], found.labels), easy[partner])
            missed = ~result.difficult
            missed[partner[partner >= 0]] = False
            np.add.at(matrix[:, classes], result.truth.labels[missed], 1)
        return matrix

    def worst(
        self, count: int = 12, score_threshold: float = 0.5, iou_thresh: float = 0.5
    ) -> list[ImageResult]:
        """The images with the most mistakes, worst first; those without any are left out."""
        counted = [
            (result.mistakes(score_threshold, iou_thresh).total, result) for result in self.results
        ]
        ranked = sorted(counted, key=lambda pair: -pair[0])
        return [result for number, result in ranked[: max(count, 0)] if number]

    def __str__(self) -> str:
        objects, coco = self.objects_by_class, self.coco_ap
        width = max([len(printable(name)) for name in self.ap] + [5])
        lines = []
        if self.results:
            lines.append(f"{'class':<{width}}  objects   {self._ap_name():>6}  {'AP':>6}")
        for name, value in self.ap.items():
            line = f"{printable(name):<{width}}"
            if self.results:
                line += f"  {objects[name]:7}"
            line += f"  {figure(value):>7}"
            lines.append(f"{line}  {figure(coco[name]):>6}" if self.coco else line)
        lines.append(
            f"mean average precision {self.mean_ap:.4f} ({self.images} images, "
            f"{self.objects} objects)"
        )
        if self.coco is not None:
            shown = (f"{key} {figure(value)}" for key, value in self.coco_figures.items())
            lines.append("COCO: " + ", ".join(shown))
        return "\n".join(lines)

    def __repr__(self) -> str:
        return f"Evaluation: {self}" if not self.ap else f"Evaluation:\n{self}"

    def _ap_name(self) -> str:
        return f"AP{100 * self.iou_thresh:g}"

    def _repr_html_(self) -> str:
        from oxidet.visualize.html import evaluation_html

        return evaluation_html(self)


def figure(value: float) -> str:
    """A number from 0 to 1 for a table; a dash where there is nothing to measure."""
    return "-" if math.isnan(value) else f"{value:.4f}"


def evaluate_detector(
    model: Detector,
    dataset: Any,
    *,
    use_07_metric: bool = False,
    iou_thresh: float = 0.5,
    score_threshold: float = 0.05,
    nms_threshold: float | None = None,
    batch_size: int = 1,
    num_workers: int = 1,
    on_error: Literal["raise", "skip"] = "raise",
    quiet: bool = True,
) -> Evaluation:
    """Average precision by PASCAL VOC's definition and by COCO's, and what lies behind it.

    See ``oxidet.detection.eval_detection_voc`` and ``eval_detection_coco``.

    Parameters
    ----------
    model
        The detector; it computes in evaluation mode and is left in the mode it was in.
    dataset
        Items ``(img, bbox, label[, difficult[, crowd]])`` as of ``oxidet.data.VOCBboxDataset``,
        labels in the order of the model's classes. Objects marked difficult, and crowds, neither
        help nor harm.
    use_07_metric
        Eleven points as in VOC 2007, instead of the area under the curve.
    iou_thresh
        IoU from which on a detection matches an object in VOC's metric.
    score_threshold, nms_threshold
        Thresholds of the detector. Low scores matter for average precision: keep them.
    batch_size
        Images that the detector gets at once.
    num_workers
        Threads that read ahead.
    on_error
        What an image that cannot be read does: ``"raise"``, or ``"skip"``, which leaves it out.
    quiet
        False shows progress.

    Raises
    ------
    ValueError
        No image (left).
    oxidet.data.ItemError
        ``on_error`` is ``"raise"``, and an item cannot be read, or has a box that is none or a
        label that is none of the model's classes.

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
    if on_error not in ("raise", "skip"):
        raise ValueError(f"on_error: expected 'raise' or 'skip', got {on_error!r}")
    number(score_threshold, "score_threshold", 0, 1)
    if nms_threshold is not None:
        number(nms_threshold, "nms_threshold", 0, 1)
    if len(dataset) == 0:
        raise ValueError("dataset: expected at least one image, got none")
    results: list[ImageResult] = []
    skipped: list[str] = []
    with (
        DataLoader(
            dataset,
            batch_size,
            num_workers=num_workers,
            transform=_Checked(len(model.class_names)),
            on_error=on_error,
            report=skipped.append,
        ) as loader,
        Progress(len(dataset), "evaluating", unit="image", leave=False, quiet=quiet) as progress,
    ):
        first = 0
        for batch in loader:
            indices = range(first, min(first + batch_size, len(dataset)))
            first += batch_size
            images = [item[0] for item in batch]
            found = model.detect_images(images, score_threshold, nms_threshold) if batch else []
            read = (index for index in indices if index not in loader.skipped)
            for index, item, detected in zip(read, batch, found, strict=True):
                results.append(_result(dataset, index, item, detected, model.class_names))
            for _ in indices:
                progress.step()
    if not results:
        raise ValueError(f"dataset: expected an image that can be read, got none ({skipped[0]})")
    return _evaluation(results, model.class_names, iou_thresh, use_07_metric, tuple(skipped))


@dataclass(frozen=True)
class _Checked:
    """Refuses an item whose objects nothing could be compared with."""

    classes: int

    def __call__(self, item: Any, rng: np.random.Generator) -> Any:
        check_ground_truth(np.asarray(item[1]).reshape(-1, 4), item[2], self.classes)
        for name, marked in zip(MARKS, item[3:5], strict=False):
            if marked is not None:
                marks(marked, np.shape(item[2]), name)
        return item


def _result(
    dataset: Any, index: int, item: Sequence[Any], detected: Any, class_names: Sequence[str]
) -> ImageResult:
    """One image's objects and detections in one form."""
    known = hasattr(dataset, "image_path") and hasattr(dataset, "annotation")
    name = dataset.image_path(index).name if known else str(index)
    image, bbox, label = item[:3]
    difficult = np.zeros(len(label), np.bool_)
    for mark, marked in zip(MARKS, item[3:5], strict=False):
        if marked is not None:
            difficult = difficult | marks(marked, difficult.shape, mark)
    common: dict[str, Any] = {"class_names": class_names, "image_size": image.shape[1:]}
    truth = Detections.from_chainercv(
        np.asarray(bbox, np.float32).reshape(-1, 4), np.asarray(label, np.int64), **common
    )
    areas = dataset.annotation(index).area if known else truth.areas
    boxes, labels, scores = detected
    found = Detections(boxes, labels, scores, **common).top(len(scores))
    return ImageResult(name, index, found, truth, difficult, areas)


def _evaluation(
    results: list[ImageResult],
    class_names: Sequence[str],
    iou_thresh: float,
    use_07_metric: bool,
    skipped: tuple[str, ...],
) -> Evaluation:
    """Both metrics."""
    found = [result.found.to_chainercv() for result in results]
    truth = [result.truth.to_chainercv() for result in results]
    difficult = [result.difficult for result in results]
    pred: Iterator[Any] = zip(*found, strict=True)
    pred_bboxes, pred_labels, pred_scores = pred
    gt: Iterator[Any] = zip(*truth, strict=True)
    gt_bboxes, gt_labels, _ = gt
    columns = (pred_bboxes, pred_labels, pred_scores, gt_bboxes, gt_labels)
    precisions, recalls = calc_detection_voc_prec_rec(*columns, difficult, iou_thresh=iou_thresh)
    values = calc_detection_voc_ap(precisions, recalls, use_07_metric=use_07_metric)
    # A class beyond the last one seen has no entry.
    ap = dict.fromkeys(class_names, math.nan)
    ap.update(zip(class_names, map(float, values), strict=False))
    known = [value for value in ap.values() if not math.isnan(value)]
    curves = {
        name: Curve(precision, recall)
        for name, precision, recall in zip(class_names, precisions, recalls, strict=False)
        if precision is not None and recall is not None and len(recall)
    }
    areas = [result.areas for result in results]
    coco: CocoEvaluation = eval_detection_coco(*columns, areas, difficult)["coco_eval"]
    names = [class_names[label] for label in coco.category_ids]
    return Evaluation(
        mean_ap=float(np.mean(known)) if known else math.nan,
        ap=ap,
        images=len(results),
        objects=int(sum((~marked).sum() for marked in difficult)),
        iou_thresh=iou_thresh,
        use_07_metric=use_07_metric,
        coco=dataclasses.replace(coco, category_names=names),
        curves=curves,
        results=tuple(results),
        skipped=skipped,
    )
