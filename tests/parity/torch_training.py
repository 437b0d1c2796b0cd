"""The training half of ``torch_faster_rcnn``: targets, the four losses, a step of SGD.

Random choices are made on NumPy's global state, in the original's order. A step can be given the
proposals and samples of another run, so that two implementations can walk the same path however
their roundings differ.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch.nn import functional as F

from parity.torch_faster_rcnn import LOC_MEAN, LOC_STD, FasterRCNN, bbox_iou


def bbox2loc(src: np.ndarray, dst: np.ndarray) -> np.ndarray:
    """Offsets (ty, tx, th, tw) from source to destination boxes."""
    half = np.float32(0.5)
    src_size, dst_size = src[:, 2:] - src[:, :2], dst[:, 2:] - dst[:, :2]
    src_centre, dst_centre = src[:, :2] + half * src_size, dst[:, :2] + half * dst_size
    src_size = np.maximum(src_size, np.finfo(src_size.dtype).eps)
    shift, zoom = (dst_centre - src_centre) / src_size, np.log(dst_size / src_size)
    return np.concatenate([shift, zoom], axis=1)


def anchor_targets(
    bbox: np.ndarray,
    anchor: np.ndarray,
    img_size: tuple[int, int],
    n_sample: int = 256,
    pos_iou_thresh: float = 0.7,
    neg_iou_thresh: float = 0.3,
    pos_ratio: float = 0.5,
) -> tuple[np.ndarray, np.ndarray]:
    """Offsets (S, 4) and labels (S,): 1 object, 0 background, -1 ignored."""
    height, width = img_size
    inside = np.flatnonzero(
        (anchor[:, :2] >= 0).all(axis=1) & (anchor[:, 2] <= height) & (anchor[:, 3] <= width)
    )
    iou = bbox_iou(anchor[inside], bbox)
    label = np.full(len(inside), -1, np.int32)
    label[iou.max(axis=1) < neg_iou_thresh] = 0
    label[(iou == iou.max(axis=0)).any(axis=1)] = 1
    label[iou.max(axis=1) >= pos_iou_thresh] = 1
    positive = np.flatnonzero(label == 1)
    surplus = len(positive) - int(pos_ratio * n_sample)
    if surplus > 0:
        label[np.random.choice(positive, size=surplus, replace=False)] = -1
    negative = np.flatnonzero(label == 0)
    surplus = len(negative) - (n_sample - np.count_nonzero(label == 1))
    if surplus > 0:
        label[np.random.choice(negative, size=surplus, replace=False)] = -1
    loc = bbox2loc(anchor[inside], bbox[iou.argmax(axis=1)])
    all_locs = np.zeros((len(anchor), 4), np.float32)
    all_labels = np.full(len(anchor), -1, np.int32)
    all_locs[inside], all_labels[inside] = loc, label
    return all_locs, all_labels


def proposal_targets(
    roi: np.ndarray,
    bbox: np.ndarray,
    label: np.ndarray,
    n_sample: int = 128,
    pos_ratio: float = 0.25,
    pos_iou_thresh: float = 0.5,
    neg_iou_thresh_hi: float = 0.5,
    neg_iou_thresh_lo: float = 0.0,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Sampled proposals, their normalised offsets, their labels (0 is background)."""
    roi = np.concatenate([roi, bbox])
    iou = bbox_iou(roi, bbox)
    assigned, best = iou.argmax(axis=1), iou.max(axis=1)
    positive = np.flatnonzero(best >= pos_iou_thresh)
    n_positive = min(round(n_sample * pos_ratio), len(positive))
    if len(positive):
        positive = np.random.choice(positive, size=n_positive, replace=False)
    negative = np.flatnonzero((best < neg_iou_thresh_hi) & (best >= neg_iou_thresh_lo))
    n_negative = min(n_sample - n_positive, len(negative))
    if len(negative):
        negative = np.random.choice(negative, size=n_negative, replace=False)
    keep = np.concatenate([positive, negative])
    labels = label[assigned[keep]] + 1
    labels[n_positive:] = 0
    loc = (bbox2loc(roi[keep], bbox[assigned[keep]]) - LOC_MEAN) / LOC_STD
    return roi[keep], loc.astype(np.float32), labels


def loc_loss(
    pred: torch.Tensor, target: torch.Tensor, label: torch.Tensor, sigma: float
) -> torch.Tensor:
    """Smooth L1 over the rows of objects, divided by the number of rows not ignored."""
    distance = ((label > 0).float()[:, None] * (pred - target)).abs()
    quadratic = 0.5 * sigma**2 * distance**2
    linear = distance - 0.5 / sigma**2
    loss = torch.where(distance < 1.0 / sigma**2, quadratic, linear).sum()
    return loss / (label >= 0).sum().float()


class Losses(NamedTuple):
    """The four losses and their sum."""

    rpn_loc_loss: torch.Tensor
    rpn_cls_loss: torch.Tensor
    roi_loc_loss: torch.Tensor
    roi_cls_loss: torch.Tensor
    total_loss: torch.Tensor


@dataclass
class Samples:
    """What the two target creators drew in one step."""

    sample_roi: np.ndarray
    gt_roi_loc: np.ndarray
    gt_roi_label: np.ndarray
    gt_rpn_loc: np.ndarray
    gt_rpn_label: np.ndarray


class Trainer:
    """Approximate joint training with SGD, as simple-faster-rcnn's trainer does it."""

    def __init__(
        self,
        model: FasterRCNN,
        lr: float = 1e-3,
        weight_decay: float = 0.0005,
        rpn_sigma: float = 3.0,
        roi_sigma: float = 1.0,
    ) -> None:
        self.model = model
        self.rpn_sigma, self.roi_sigma = rpn_sigma, roi_sigma
        groups = [
            {"params": [p], "lr": 2 * lr, "weight_decay": 0.0}
            if "bias" in name
            else {"params": [p], "lr": lr, "weight_decay": weight_decay}
            for name, p in model.named_parameters()
            if p.requires_grad
        ]
        self.optimizer = torch.optim.SGD(groups, momentum=0.9)
        self.rois = np.zeros((0, 4), np.float32)
        self.samples: Samples | None = None

    def forward(
        self,
        img: np.ndarray,
        bbox: np.ndarray,
        label: np.ndarray,
        scale: float,
        rois: np.ndarray | None = None,
        samples: Samples | None = None,
    ) -> Losses:
        """Losses of one (3, H, W) image.

        ``rois`` replaces the proposals, ``samples`` what the creators would draw. What was used
        stays in ``self.rois`` and ``self.samples``.
        """
        model = self.model
        size = img.shape[1:]
        features = model.extractor(torch.from_numpy(img[None]))
        locs, scores, _, anchors, proposed, _ = model.propose(features, size, scale)
        self.rois = proposed if rois is None else rois
        if samples is None:
            drawn = proposal_targets(self.rois, bbox, label)
            samples = Samples(*drawn, *anchor_targets(bbox, anchors, size))
        self.samples = samples
        indices = np.zeros(len(samples.sample_roi), np.int32)
        cls_locs, cls_scores = model.head(features, samples.sample_roi, indices)

        rpn_label = torch.from_numpy(samples.gt_rpn_label).long()
        rpn_target = torch.from_numpy(samples.gt_rpn_loc)
        roi_label = torch.from_numpy(samples.gt_roi_label).long()
        roi_target = torch.from_numpy(samples.gt_roi_loc)
        own_class = cls_locs.reshape(len(roi_label), -1, 4)[torch.arange(len(roi_label)), roi_label]
        parts = (
            loc_loss(locs[0], rpn_target, rpn_label, self.rpn_sigma),
            F.cross_entropy(scores[0], rpn_label, ignore_index=-1),
            loc_loss(own_class, roi_target, roi_label, self.roi_sigma),
            F.cross_entropy(cls_scores, roi_label),
        )
        return Losses(*parts, sum(parts))

    def step(
        self,
        img: np.ndarray,
        bbox: np.ndarray,
        label: np.ndarray,
        scale: float,
        rois: np.ndarray | None = None,
        samples: Samples | None = None,
    ) -> dict[str, float]:
        """One training step; the losses before it."""
        self.model.train()
        self.optimizer.zero_grad()
        losses = self.forward(img, bbox, label, scale, rois, samples)
        losses.total_loss.backward()
        self.optimizer.step()
        return {name: float(value.detach()) for name, value in losses._asdict().items()}
