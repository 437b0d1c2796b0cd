"""What the detectors of this package learn from: targets for both stages, and four losses.

"Approximate joint training" (Ren et al., arXiv 1506.01497, section 3.2): both stages learn at
once, and the proposals that the first hands to the second count as constants. Losses, their order
and the order of random draws are simple-faster-rcnn's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from oxidet._arrays import F32, as_float32
from oxidet.detection import AnchorTargetCreator, ProposalTargetCreator
from oxidet.nn import functional as F

if TYPE_CHECKING:
    from oxidet.simple_faster_rcnn.faster_rcnn import FasterRCNN

I32 = NDArray[np.int32]
Rng = np.random.Generator | np.random.RandomState | None


class LossTuple(NamedTuple):
    """The four losses and their sum."""

    rpn_loc_loss: Any
    rpn_cls_loss: Any
    roi_loc_loss: Any
    roi_cls_loss: Any
    total_loss: Any


class Outcome(NamedTuple):
    """The losses of a batch, and what both stages said where they were told a class.

    ``rpn_scores`` (S, 2) and ``roi_scores`` (R, n_class) are logits, on the tape; ``rpn_labels``
    (S,) and ``roi_labels`` (R,) int32 the classes, -1 where nothing was asked.
    """

    losses: LossTuple
    rpn_scores: Any
    rpn_labels: I32
    roi_scores: Any
    roi_labels: I32


@dataclass
class Objective:
    """Chooses what a :class:`FasterRCNN` trains on, and computes its losses.

    Attributes
    ----------
    rpn_sigma, roi_sigma
        Where the smooth L1 losses of the two stages turn from square to linear (at 1 / sigma ** 2).
    anchor_target_creator, proposal_target_creator
        Choose what each stage trains on.
    """

    rpn_sigma: float = 3.0
    roi_sigma: float = 1.0
    anchor_target_creator: AnchorTargetCreator = field(default_factory=AnchorTargetCreator)
    proposal_target_creator: ProposalTargetCreator = field(default_factory=ProposalTargetCreator)

    def __call__(
        self,
        net: FasterRCNN,
        imgs: Any,
        bboxes: Sequence[F32],
        labels: Sequence[NDArray[np.integer[Any]]],
        scale: float | Sequence[float] = 1.0,
        *,
        rng: Rng = None,
    ) -> Outcome:
        """The losses of a batch of equally large, preprocessed images.

        Parameters
        ----------
        net
            The detector, in training mode.
        imgs
            (N, 3, H, W) float32.
        bboxes
            N arrays (R, 4) float32 (y_min, x_min, y_max, x_max) in pixels of ``imgs``; R may be 0.
        labels
            N arrays (R,) of classes from 0.
        scale
            Factor by which the original images were scaled, one for all or one for each.
        rng
            What the creators draw from; NumPy's global state if None.

        Returns
        -------
        Losses are tensors. The first stage's are averaged over images, the second's over all
        sampled regions.
        """
        imgs = as_float32(imgs, "imgs", ndim=4, form="(N, 3, H, W)")
        batch, _, height, width = imgs.shape
        for name, values in (("bboxes", bboxes), ("labels", labels)):
            if len(values) != batch:
                raise ValueError(f"{name}: expected {batch} arrays, got {len(values)}")
        last = net.n_class - 2
        for i, classes in enumerate(labels):
            highest = np.max(classes, initial=0)
            if highest > last:
                raise ValueError(f"labels[{i}]: expected classes from 0 to {last}, got {highest}")
        features = net.extractor(imgs)
        proposals = net.rpn(features, (height, width), scale)

        sampled = [
            self.proposal_target_creator(
                proposals.rois[proposals.roi_indices == i],
                bboxes[i],
                labels[i],
                net.loc_normalize_mean,
                net.loc_normalize_std,
                rng=rng,
            )
            for i in range(batch)
        ]
        rois, gt_roi_loc, gt_roi_label = (
            np.concatenate(part) for part in zip(*sampled, strict=True)
        )
        indices = np.repeat(np.arange(batch, dtype=np.int32), [len(s[0]) for s in sampled])
        roi_cls_loc, roi_score = net.head(features, rois, indices)

        rpn_loc_loss: Any = 0.0
        rpn_cls_loss: Any = 0.0
        rpn_labels = []
        for i in range(batch):
            gt_loc, gt_label = self.anchor_target_creator(
                bboxes[i], proposals.anchor, (height, width), rng=rng
            )
            locs, scores = proposals.rpn_locs[i], proposals.rpn_scores[i]
            rpn_loc_loss += loc_loss(locs, gt_loc, gt_label, self.rpn_sigma) / batch
            rpn_cls_loss += _sampled_cross_entropy(scores, gt_label) / batch
            rpn_labels.append(gt_label)

        per_class = roi_cls_loc.reshape(len(rois), net.n_class, 4)
        own_class = per_class[np.arange(len(rois)), gt_roi_label]
        roi_loc_loss = loc_loss(own_class, gt_roi_loc, gt_roi_label, self.roi_sigma)
        roi_cls_loss = _sampled_cross_entropy(roi_score, gt_roi_label)
        total = rpn_loc_loss + rpn_cls_loss + roi_loc_loss + roi_cls_loss
        return Outcome(
            LossTuple(rpn_loc_loss, rpn_cls_loss, roi_loc_loss, roi_cls_loss, total),
            proposals.rpn_scores.reshape(-1, 2),
            np.concatenate(rpn_labels),
            roi_score,
            gt_roi_label,
        )


def loc_loss(pred_loc: Any, gt_loc: F32, gt_label: I32, sigma: float) -> Any:
    """Smooth L1 over the rows with ``gt_label > 0``, divided by the number with ``gt_label >= 0``.

    ``pred_loc`` and ``gt_loc`` are (R, 4), ``gt_label`` (R,) with -1 for what was not sampled.
    Other rows do not count, whatever they hold. 0 if nothing was sampled.
    """
    positive = np.flatnonzero(gt_label > 0)
    count = max(int((gt_label >= 0).sum()), 1)
    total = F.smooth_l1_loss(
        pred_loc[positive], gt_loc[positive], reduction="sum", beta=1.0 / sigma**2
    )
    return total / count


def _sampled_cross_entropy(scores: Any, label: I32) -> Any:
    """Mean cross-entropy over the rows that were sampled; 0 if none was."""
    rows = np.flatnonzero(label >= 0)
    if len(rows) == 0:
        return scores.sum() * 0.0
    return F.cross_entropy(scores[rows], label[rows].astype(np.int64))
