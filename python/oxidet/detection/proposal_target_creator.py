"""What the head should say about each proposal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from oxidet import _arrays
from oxidet._same_kind import same_kind
from oxidet.detection._sampling import Rng, draw
from oxidet.detection.bbox2loc import bbox2loc


class ProposalTargetCreator:
    """Assigns ground-truth boxes to proposals and samples proposals to train the head on.

    Parameters
    ----------
    n_sample
        Proposals to sample; None for as many as there are.
    pos_ratio
        Share of foreground proposals at most; the number is rounded half to even.
    pos_iou_thresh
        A proposal whose best IoU reaches this is foreground.
    neg_iou_thresh_hi
        Background proposals have a best IoU below this,
    neg_iou_thresh_lo
        And of at least this.

    Notes
    -----
    Girshick, "Fast R-CNN", 2015, section 2.3. As chainercv's and simple-faster-rcnn's
    ``ProposalTargetCreator``: the same NumPy seed gives the same sample. Two differences, where the
    original fails or poisons the loss: without ground truth every proposal is background (offsets
    0), and a ground-truth box that is not finite or has no size raises ValueError.

    Examples
    --------
    >>> import numpy as np
    >>> from oxidet.detection import ProposalTargetCreator
    >>> bbox = np.array([[0, 0, 10, 10]], np.float32)
    >>> roi = np.array([[0, 0, 10, 8], [20, 20, 30, 30]], np.float32)
    >>> rng = np.random.RandomState(0)
    >>> sample, loc, label = ProposalTargetCreator(n_sample=4)(roi, bbox, np.array([6]), rng=rng)
    >>> label
    array([7, 0])
    """

    pos_ratio: float
    pos_iou_thresh: float
    neg_iou_thresh_hi: float
    neg_iou_thresh_lo: float

    def __init__(
        self,
        n_sample: int | None = 128,
        pos_ratio: float = 0.25,
        pos_iou_thresh: float = 0.5,
        neg_iou_thresh_hi: float = 0.5,
        neg_iou_thresh_lo: float = 0.0,
    ) -> None:
        if n_sample is not None:
            n_sample = _arrays.integer(n_sample, "n_sample", 0)
        self.n_sample = n_sample
        self.pos_ratio = _arrays.number(pos_ratio, "pos_ratio", 0, 1)
        self.pos_iou_thresh = _arrays.threshold_number(pos_iou_thresh, "pos_iou_thresh")
        self.neg_iou_thresh_hi = _arrays.threshold_number(neg_iou_thresh_hi, "neg_iou_thresh_hi")
        self.neg_iou_thresh_lo = _arrays.threshold_number(neg_iou_thresh_lo, "neg_iou_thresh_lo")

    @same_kind
    def __call__(
        self,
        roi: ArrayLike,
        bbox: ArrayLike,
        label: ArrayLike,
        loc_normalize_mean: Sequence[float] = (0.0, 0.0, 0.0, 0.0),
        loc_normalize_std: Sequence[float] = (0.1, 0.1, 0.2, 0.2),
        *,
        rng: Rng = None,
    ) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
        """A sample of proposals with their targets.

        The ground-truth boxes are proposals too; an empty ``roi`` is fine.

        Parameters
        ----------
        roi
            Proposals, (R, 4).
        bbox
            Ground-truth boxes, (R', 4).
        label
            Their classes from 0, integers (R',).
        loc_normalize_mean
            Subtracted from the offsets,
        loc_normalize_std
            Then divides them.
        rng
            Where draws come from; NumPy's global state by default.

        Returns
        -------
        ``(sample_roi, gt_roi_loc, gt_roi_label)``: proposals (S, 4), foreground first; normalised
        offsets to the best ground-truth box (S, 4), for background too; classes from 1, 0 for
        background, in the dtype of ``label`` or, if that is narrower, int32, (S,). S is at most
        ``n_sample``. A deviation of 0 gives infinite offsets or NaN.

        Raises
        ------
        ValueError
            A wrong shape, a label that is negative or the largest number of its type, or a
            ground-truth box that is not finite or has no size.
        """
        rois, boxes = _arrays.boxes(roi=roi, bbox=bbox)
        labels = _wide(_arrays.labels(label, "label", len(boxes)))
        mean = _arrays.numbers(loc_normalize_mean, "loc_normalize_mean", 4).astype(np.float32)
        std = _arrays.numbers(loc_normalize_std, "loc_normalize_std", 4).astype(np.float32)
        rois = np.concatenate((rois, boxes))
        assignment, positives, negatives = _arrays.kernel("roi_targets", rois)(
            rois,
            boxes,
            float(self.pos_iou_thresh),
            float(self.neg_iou_thresh_hi),
            float(self.neg_iou_thresh_lo),
        )
        n_sample = len(rois) if self.n_sample is None else self.n_sample
        # Python rounds halves to even, as NumPy does.
        positive = self._sample(positives, round(n_sample * self.pos_ratio), rng)
        negative = self._sample(negatives, n_sample - len(positive), rng)
        keep = np.concatenate((positive, negative))
        assigned = assignment[keep]
        sample_roi = rois[keep]
        gt_roi_label = np.zeros(len(keep), labels.dtype)
        gt_roi_label[: len(positive)] = labels[assigned[: len(positive)]] + 1
        if len(boxes) == 0:
            return sample_roi, np.zeros_like(sample_roi), gt_roi_label
        gt_roi_loc = bbox2loc(sample_roi, boxes[assigned])
        with np.errstate(all="ignore"):
            gt_roi_loc -= mean
            gt_roi_loc /= std
        return sample_roi, gt_roi_loc, gt_roi_label

    @staticmethod
    def _sample(candidates: NDArray[np.int64], size: int, rng: Rng) -> NDArray[np.int64]:
        """``size`` of the candidates at most, in random order; draws if there is any."""
        if len(candidates) == 0:
            return candidates
        return draw(rng, candidates, min(size, len(candidates)))


def _wide(labels: NDArray[Any]) -> NDArray[Any]:
    """Labels in a type that holds one more than the largest of them."""
    if labels.dtype.itemsize < 4:
        return labels.astype(np.int32)
    largest = np.iinfo(labels.dtype).max
    if labels.max(initial=0) == largest:
        raise ValueError(f"label: expected labels below {largest}, got {largest}")
    return labels
