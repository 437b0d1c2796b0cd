"""What the RPN should say about each anchor."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from oxidet import _arrays
from oxidet._same_kind import same_kind
from oxidet.detection._sampling import Rng, draw


class AnchorTargetCreator:
    """Assigns ground-truth boxes to anchors and samples anchors to train the RPN on.

    Parameters
    ----------
    n_sample
        Anchors to label 1 or 0.
    pos_iou_thresh
        An anchor whose best IoU reaches this is positive.
    neg_iou_thresh
        An anchor whose best IoU is below this is negative.
    pos_ratio
        Share of positives at most.
    ignore_unreached
        Whether a ground-truth box that overlaps no anchor inside the image is left out when each
        box forces its best anchors to be positive. The original does not leave it out: its best IoU
        is 0, so every anchor that does not touch it is positive.

    Notes
    -----
    Ren et al., "Faster R-CNN", 2015, section 3.1.2. As chainercv's and simple-faster-rcnn's
    ``AnchorTargetCreator``: the same NumPy seed gives the same labels. Three differences, where the
    original fails or poisons the loss: without ground truth every anchor inside the image is
    negative, without an anchor inside the image all labels are -1, and a ground-truth box that is
    not finite or has no size raises ValueError.

    Examples
    --------
    >>> import numpy as np
    >>> from oxidet.detection import AnchorTargetCreator
    >>> anchors = np.array([[0, 0, 8, 8], [0, 8, 8, 16], [-8, 0, 8, 8]], np.float32)
    >>> loc, label = AnchorTargetCreator()(np.array([[0, 0, 8, 9]], np.float32), anchors, (16, 16))
    >>> label
    array([ 1,  0, -1], dtype=int32)
    """

    n_sample: int
    pos_iou_thresh: float
    neg_iou_thresh: float
    pos_ratio: float

    def __init__(
        self,
        n_sample: int = 256,
        pos_iou_thresh: float = 0.7,
        neg_iou_thresh: float = 0.3,
        pos_ratio: float = 0.5,
        *,
        ignore_unreached: bool = False,
    ) -> None:
        self.n_sample = _arrays.integer(n_sample, "n_sample", 0)
        self.pos_iou_thresh = _arrays.threshold_number(pos_iou_thresh, "pos_iou_thresh")
        self.neg_iou_thresh = _arrays.threshold_number(neg_iou_thresh, "neg_iou_thresh")
        self.pos_ratio = _arrays.number(pos_ratio, "pos_ratio", 0, 1)
        self.ignore_unreached = ignore_unreached

    @same_kind
    def __call__(
        self,
        bbox: ArrayLike,
        anchor: ArrayLike,
        img_size: tuple[float, float],
        *,
        rng: Rng = None,
    ) -> tuple[NDArray[Any], NDArray[np.int32]]:
        """Offsets and labels of all anchors.

        Parameters
        ----------
        bbox
            Ground-truth boxes, (R, 4).
        anchor
            Anchors, (S, 4).
        img_size
            (height, width) of the image; anchors that leave it take no part.
        rng
            Where draws come from; NumPy's global state by default.

        Returns
        -------
        ``(loc, label)``: offsets from every inside anchor to its best ground-truth box, not
        normalised, (S, 4), 0 for the others; labels (1 positive, 0 negative, -1 ignored), int32
        (S,).

        Raises
        ------
        ValueError
            A wrong shape, or a ground-truth box that is not finite or has no size.
        """
        boxes, anchors = _arrays.boxes(bbox=bbox, anchor=anchor)
        size = _arrays.real_pair(img_size, "img_size")
        loc, label, positive, negative = _arrays.kernel("anchor_targets", anchors)(
            anchors,
            boxes,
            size,
            float(self.pos_iou_thresh),
            float(self.neg_iou_thresh),
            not self.ignore_unreached,
        )
        # Surplus positives leave first; what they leave free is filled with negatives.
        n_positive = self._limit(label, positive, int(self.pos_ratio * self.n_sample), rng)
        self._limit(label, negative, self.n_sample - n_positive, rng)
        return loc, label

    @staticmethod
    def _limit(
        label: NDArray[np.int32], candidates: NDArray[np.int64], limit: int, rng: Rng
    ) -> int:
        """Turn the labels of all but ``limit`` candidates into -1; how many are left.

        Draws nothing if there are no more than that.
        """
        surplus = len(candidates) - limit
        if surplus <= 0:
            return len(candidates)
        label[draw(rng, candidates, surplus)] = -1
        return limit
