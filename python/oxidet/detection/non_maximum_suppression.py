"""Greedy non-maximum suppression."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from oxidet import _arrays, _core
from oxidet._same_kind import same_kind

NmsRule = Literal["chainercv", "torchvision"]


def is_chainercv(nms_rule: str) -> bool:
    """Whether an overlap equal to the threshold suppresses; refuses unknown names."""
    if nms_rule not in ("chainercv", "torchvision"):
        raise ValueError(f"nms_rule: expected 'chainercv' or 'torchvision', got {nms_rule!r}")
    return nms_rule == "chainercv"


@same_kind
def non_maximum_suppression(
    bbox: ArrayLike,
    thresh: float,
    score: ArrayLike | None = None,
    limit: int | None = None,
    *,
    nms_rule: NmsRule = "chainercv",
) -> NDArray[np.int32]:
    """Indices of the boxes that no better box overlaps.

    Boxes are taken by descending score (without scores: as they come); one is kept unless it
    overlaps a box that was kept before.

    Parameters
    ----------
    bbox
        Boxes, (R, 4).
    thresh
        IoU that counts as an overlap.
    score
        (R,), any order. NaN ranks first, equal scores by ascending index.
    limit
        At most so many indices.
    nms_rule
        "chainercv" suppresses at ``IoU >= thresh``, with the threshold rounded to the type of the
        boxes; "torchvision" at ``IoU > thresh``, compared in float64. They differ only where the
        IoU meets the threshold.

    Returns
    -------
    int32 indices by descending score. A NaN IoU never suppresses, so boxes with a NaN corner and
    copies of a box without area all stay.

    Raises
    ------
    ValueError
        ``bbox`` is not (R, 4), ``score`` not (R,), or ``limit`` negative.

    Notes
    -----
    As chainercv's ``non_maximum_suppression``, with two differences: the order of equal scores is
    defined, and ``limit=0`` returns nothing (the original returns one index on the CPU).

    Examples
    --------
    >>> from oxidet.detection import non_maximum_suppression
    >>> boxes = [[0, 0, 4, 4], [1, 1, 5, 5], [2, 1, 6, 5], [4, 0, 8, 4]]
    >>> non_maximum_suppression(boxes, 0.3)
    array([0, 2, 3], dtype=int32)
    >>> non_maximum_suppression(boxes, 0.3, score=[0.1, 0.2, 0.3, 0.4])
    array([3, 2, 0], dtype=int32)
    """
    inclusive = is_chainercv(nms_rule)
    threshold = _arrays.threshold_number(thresh, "thresh")
    if limit is not None:
        limit = min(_arrays.integer(limit, "limit", 0), 2**63)
    # The kernel rounds the threshold to the type of the boxes where the rule is inclusive.
    kept = _core.nms(bbox, score, threshold, inclusive, inclusive, limit)
    if kept is None:
        (boxes,) = _arrays.boxes(bbox=bbox)
        scores = None
        if score is not None:
            given = _arrays.numbers(score, "score", len(boxes))
            scores = np.ascontiguousarray(given, np.float64)
        kept = _core.nms(boxes, scores, threshold, inclusive, inclusive, limit)
    return _arrays.computed(kept).astype(np.int32)
