"""Which detection is which object: what a confusion matrix and a list of mistakes are made of."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from oxidet._arrays import F32, number
from oxidet.detections import Detections
from oxidet.ops import box_iou


class Matches(NamedTuple):
    """Partners of the detections, row by row."""

    partner: NDArray[np.int64]
    """(R,): the row of the object that a detection is taken for; -1 for none."""
    iou: F32
    """(R,): how much the two overlap; 0 without a partner."""


def match(found: Detections, truth: Detections, iou_thresh: float = 0.5) -> Matches:
    """Pair detections with objects, each with at most one of the other.

    By descending score, a detection takes the free object of its class that it overlaps most, by an
    IoU of at least ``iou_thresh``. What is left over then takes a free object of any class in the
    same way: it stands in the right place and has the wrong name.

    Examples
    --------
    >>> from oxidet import Detections
    >>> found = Detections([[0, 0, 10, 10], [30, 30, 40, 40]], [0, 1], [0.9, 0.8])
    >>> truth = Detections([[30, 30, 40, 42], [0, 0, 10, 9]], [0, 0])
    >>> match(found, truth).partner.tolist()  # the second is taken for an object of class 0
    [1, 0]
    """
    number(iou_thresh, "iou_thresh", 0, 1)
    partner = np.full(len(found), -1, np.int64)
    overlap = np.zeros(len(found), np.float32)
    if len(found) == 0 or len(truth) == 0:
        return Matches(partner, overlap)
    overlaps = np.asarray(box_iou(found.boxes, truth.boxes))
    same_class = found.labels[:, None] == truth.labels[None, :]
    free = np.ones(len(truth), np.bool_)
    order = np.argsort(-found.scores, kind="stable")
    for allowed in (same_class, np.ones_like(same_class)):
        for row in order:
            if partner[row] >= 0:
                continue
            candidates = np.where(free & allowed[row], overlaps[row], -1)
            best = int(candidates.argmax())
            if candidates[best] >= iou_thresh and candidates[best] > 0:
                partner[row], overlap[row], free[best] = best, overlaps[row, best], False
    return Matches(partner, overlap)


class Mistakes(NamedTuple):
    """What is wrong with the detections of one image, as masks over rows."""

    wrong: NDArray[np.bool_]
    """(R,) detections in the place of an object of another class."""
    invented: NDArray[np.bool_]
    """(R,) detections where no object is."""
    missed: NDArray[np.bool_]
    """(R',) objects without a detection; difficult ones are never missed."""

    @property
    def total(self) -> int:
        """How many mistakes there are."""
        return int(self.wrong.sum() + self.invented.sum() + self.missed.sum())


def mistakes(
    found: Detections,
    truth: Detections,
    difficult: NDArray[np.bool_] | None = None,
    iou_thresh: float = 0.5,
) -> Mistakes:
    """The detections that are wrong and the objects that were missed, by :func:`match`.

    A detection of a ``difficult`` object is no mistake, whatever class it names.

    Examples
    --------
    >>> from oxidet import Detections
    >>> found = Detections([[0, 0, 10, 10], [60, 60, 70, 70]], [1, 0], [0.9, 0.8])
    >>> truth = Detections([[0, 0, 10, 9], [30, 30, 40, 42]], [0, 0])
    >>> [mask.tolist() for mask in mistakes(found, truth)]
    [[True, False], [False, True], [False, True]]
    """
    easy = np.ones(len(truth), np.bool_) if difficult is None else ~np.asarray(difficult, np.bool_)
    partner = match(found, truth, iou_thresh).partner
    paired = partner >= 0
    wrong = np.zeros(len(found), np.bool_)
    wrong[paired] = found.labels[paired] != truth.labels[partner[paired]]
    wrong[paired] &= easy[partner[paired]]
    missed = easy.copy()
    missed[partner[paired]] = False
    return Mistakes(wrong, ~paired, missed)
