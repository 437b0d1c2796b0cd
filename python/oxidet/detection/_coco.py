"""COCO's metric on arrays: what to measure, and what comes out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from oxidet import _core

F64 = NDArray[np.float64]

IOU_THRESHOLDS = np.linspace(0.5, 0.95, 10)
RECALL_THRESHOLDS = np.linspace(0, 1, 101)
# Of object areas in pixels; both ends belong to a range.
AREA_RANGES = {
    "all": (0.0, 1e5**2),
    "small": (0.0, 32.0**2),
    "medium": (32.0**2, 96.0**2),
    "large": (96.0**2, 1e5**2),
}
MAX_DETS = (1, 10, 100)

# The twelve numbers of COCO's table: which metric, at which IoU, for which areas, of how many
# detections.
TABLE: tuple[tuple[str, float | None, str, int], ...] = (
    ("ap", None, "all", 100),
    ("ap", 0.5, "all", 100),
    ("ap", 0.75, "all", 100),
    ("ap", None, "small", 100),
    ("ap", None, "medium", 100),
    ("ap", None, "large", 100),
    ("ar", None, "all", 1),
    ("ar", None, "all", 10),
    ("ar", None, "all", 100),
    ("ar", None, "small", 100),
    ("ar", None, "medium", 100),
    ("ar", None, "large", 100),
)


@dataclass(frozen=True, eq=False)
class CocoEvaluation:
    """What COCO's metric says about a set of detections.

    ``print`` shows COCO's table, ``stats`` holds its twelve numbers, :meth:`ap` and :meth:`ar` give
    one number for each category, and the attributes the curves behind them.

    Attributes
    ----------
    category_ids
        The categories, in the order of every axis K below.
    category_names
        Their names; those of the ids where the data has none.
    precision
        float64, ``(T, R, K, A, M)``: IoU thresholds, recalls, categories, ranges of areas, greatest
        numbers of detections per image and category; as ``COCOeval.eval["precision"]`` of
        pycocotools. Best precision at this recall or a higher one, 0 if it is not reached, -1 where
        no object counts.
    scores
        float64, ``(T, R, K, A, M)``: the score of the detection at which the recall is reached.
    recall
        float64, ``(T, K, A, M)``: recall of all detections, -1 where no object counts.
    iou_thresholds, recall_thresholds
        What the axes T and R mean: 0.5, 0.55, ..., 0.95, and 0, 0.01, ..., 1.
    area_names
        What A means: "all", "small", "medium", "large" (all sizes; up to 32 x 32, up to 96 x 96,
        and above).
    max_dets
        What M means: 1, 10 and 100 detections of an image.
    """

    category_ids: list[Any]
    category_names: list[str]
    precision: F64 = field(repr=False)
    scores: F64 = field(repr=False)
    recall: F64 = field(repr=False)

    iou_thresholds = IOU_THRESHOLDS
    recall_thresholds = RECALL_THRESHOLDS
    area_names: ClassVar[tuple[str, ...]] = tuple(AREA_RANGES)
    max_dets = MAX_DETS

    def ap(self, iou: float | None = None, area: str = "all", max_dets: int = 100) -> F64:
        """Average precision of every category, ``(K,)``; NaN where no object counts.

        Parameters
        ----------
        iou
            One of ``iou_thresholds``; None is their mean.
        area
            One of ``area_names``.
        max_dets
            One of ``max_dets``.
        """
        return self._mean(self.precision, iou, area, max_dets)

    def ar(self, iou: float | None = None, area: str = "all", max_dets: int = 100) -> F64:
        """Average recall of every category, ``(K,)``; the arguments are those of :meth:`ap`."""
        return self._mean(self.recall[:, None], iou, area, max_dets)

    def _mean(self, curves: F64, iou: float | None, area: str, max_dets: int) -> F64:
        if area not in AREA_RANGES:
            raise ValueError(f"area: expected one of {self.area_names}, got {area!r}")
        if max_dets not in MAX_DETS:
            raise ValueError(f"max_dets: expected one of {MAX_DETS}, got {max_dets!r}")
        chosen = curves[..., self.area_names.index(area), MAX_DETS.index(max_dets)]
        if iou is not None:
            [rows] = np.nonzero(np.isclose(self.iou_thresholds, iou, rtol=0, atol=1e-9))
            if len(rows) == 0:
                raise ValueError(f"iou: expected one of {self.iou_thresholds}, got {iou!r}")
            chosen = chosen[rows]
        # A category has objects that count at all thresholds and recalls, or at none.
        mean: F64 = chosen.mean(axis=(0, 1))
        return np.where(chosen[0, 0] < 0, np.nan, mean)

    @property
    def stats(self) -> F64:
        """The twelve numbers of COCO's table, as ``COCOeval.stats``; -1 where no object counts.

        AP at IoU 0.5 to 0.95, at 0.5, at 0.75, of small, medium and large objects; AR with 1, 10
        and 100 detections, of small, medium and large objects.
        """
        means = [mean_of_known(getattr(self, kind)(*where)) for kind, *where in TABLE]
        return np.nan_to_num(np.array(means), nan=-1.0)

    def __str__(self) -> str:
        words = {"ap": "Average Precision  (AP)", "ar": "Average Recall     (AR)"}
        lines = []
        for (kind, iou, area, most), value in zip(TABLE, self.stats, strict=True):
            at = f"IoU={'0.50:0.95' if iou is None else f'{iou:.2f}':<9}"
            where = f"{at} | area={area:>6} | maxDets={most:>3}"
            lines.append(f" {words[kind]} @[ {where} ] = {value:.3f}")
        return "\n".join(lines)

    def summarize(self) -> None:
        """Print COCO's table, as ``COCOeval.summarize``."""
        print(self)


def mean_of_known(values: F64) -> float:
    """Mean of what is not NaN; NaN if nothing is left."""
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else float("nan")


@dataclass
class Boxes:
    """Boxes of all images: a row each, ``(x, y, width, height)``, with category and image."""

    boxes: F64
    labels: NDArray[np.int32]  # index of the category
    images: NDArray[np.int32]  # order of the images
    areas: F64


def evaluate(
    detections: Boxes,
    scores: F64,
    objects: Boxes,
    crowded: NDArray[np.bool_],
    category_ids: Sequence[Any],
    category_names: Sequence[str],
) -> CocoEvaluation:
    """The metric by the kernel; arrays are contiguous."""
    curves = _core.coco_curves(
        (detections.boxes, detections.labels, detections.images), scores, detections.areas,
        (objects.boxes, objects.labels, objects.images), objects.areas, crowded,
        len(category_ids), IOU_THRESHOLDS, RECALL_THRESHOLDS, list(AREA_RANGES.values()), MAX_DETS,
    ).transpose(3, 4, 0, 1, 2)  # fmt: skip
    recalls = len(RECALL_THRESHOLDS)
    return CocoEvaluation(
        category_ids=list(category_ids),
        category_names=list(category_names),
        precision=curves[:, :recalls],
        scores=curves[:, recalls:-1],
        recall=curves[:, -1],
    )
