"""The three creators of simple-faster-rcnn, in NumPy; suppression is torchvision's, as there."""

from __future__ import annotations

import numpy as np
import torch
import torchvision

from originals.boxes import bbox2loc, bbox_iou, loc2bbox


class AnchorTargetCreator:
    """Labels and offsets of all anchors, 256 of them sampled."""

    def __init__(
        self,
        n_sample: int = 256,
        pos_iou_thresh: float = 0.7,
        neg_iou_thresh: float = 0.3,
        pos_ratio: float = 0.5,
    ) -> None:
        self.n_sample = n_sample
        self.pos_iou_thresh = pos_iou_thresh
        self.neg_iou_thresh = neg_iou_thresh
        self.pos_ratio = pos_ratio

    def __call__(
        self, bbox: np.ndarray, anchor: np.ndarray, img_size: tuple[int, int]
    ) -> tuple[np.ndarray, np.ndarray]:
        height, width = img_size
        inside = np.where(
            (anchor[:, 0] >= 0)
            & (anchor[:, 1] >= 0)
            & (anchor[:, 2] <= height)
            & (anchor[:, 3] <= width)
        )[0]
        boxes = anchor[inside]
        best, label = self._label(boxes, bbox)
        loc = bbox2loc(boxes, bbox[best])
        all_labels = np.full(len(anchor), -1, label.dtype)
        all_labels[inside] = label
        all_locs = np.zeros((len(anchor), 4), loc.dtype)
        all_locs[inside] = loc
        return all_locs, all_labels

    def _label(self, boxes: np.ndarray, bbox: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        iou = bbox_iou(boxes, bbox)
        best = iou.argmax(axis=1)
        largest = iou[np.arange(len(boxes)), best]
        of_each_object = iou[iou.argmax(axis=0), np.arange(iou.shape[1])]
        forced = np.where(iou == of_each_object)[0]
        label = np.full(len(boxes), -1, np.int32)
        label[largest < self.neg_iou_thresh] = 0
        label[forced] = 1
        label[largest >= self.pos_iou_thresh] = 1
        most = int(self.pos_ratio * self.n_sample)
        positive = np.where(label == 1)[0]
        if len(positive) > most:
            label[np.random.choice(positive, len(positive) - most, replace=False)] = -1
        most = self.n_sample - np.sum(label == 1)
        negative = np.where(label == 0)[0]
        if len(negative) > most:
            label[np.random.choice(negative, len(negative) - most, replace=False)] = -1
        return best, label


class ProposalCreator:
    """Proposals of one image; ``training`` chooses the limits."""

    def __init__(self, training: bool, nms_thresh: float = 0.7, min_size: int = 16) -> None:
        self.nms_thresh = nms_thresh
        self.min_size = min_size
        self.n_pre_nms, self.n_post_nms = (12000, 2000) if training else (6000, 300)

    def __call__(
        self,
        loc: np.ndarray,
        score: np.ndarray,
        anchor: np.ndarray,
        img_size: tuple[int, int],
        scale: float = 1.0,
    ) -> np.ndarray:
        roi = loc2bbox(anchor, loc)
        roi[:, 0:4:2] = np.clip(roi[:, 0:4:2], 0, img_size[0])
        roi[:, 1:4:2] = np.clip(roi[:, 1:4:2], 0, img_size[1])
        least = self.min_size * scale
        large = np.where((roi[:, 2] - roi[:, 0] >= least) & (roi[:, 3] - roi[:, 1] >= least))[0]
        roi, score = roi[large], score[large]
        order = score.ravel().argsort()[::-1][: self.n_pre_nms]
        roi, score = roi[order], score[order]
        kept = torchvision.ops.nms(torch.from_numpy(roi), torch.from_numpy(score), self.nms_thresh)
        return roi[kept[: self.n_post_nms].numpy()]


class ProposalTargetCreator:
    """A sample of 128 proposals with their classes and offsets."""

    def __init__(
        self,
        n_sample: int = 128,
        pos_ratio: float = 0.25,
        pos_iou_thresh: float = 0.5,
        neg_iou_thresh_hi: float = 0.5,
        neg_iou_thresh_lo: float = 0.0,
    ) -> None:
        self.n_sample = n_sample
        self.pos_ratio = pos_ratio
        self.pos_iou_thresh = pos_iou_thresh
        self.neg_iou_thresh_hi = neg_iou_thresh_hi
        self.neg_iou_thresh_lo = neg_iou_thresh_lo

    def __call__(
        self,
        roi: np.ndarray,
        bbox: np.ndarray,
        label: np.ndarray,
        loc_normalize_mean: tuple[float, ...] = (0.0, 0.0, 0.0, 0.0),
        loc_normalize_std: tuple[float, ...] = (0.1, 0.1, 0.2, 0.2),
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        roi = np.concatenate((roi, bbox), axis=0)
        iou = bbox_iou(roi, bbox)
        best, largest = iou.argmax(axis=1), iou.max(axis=1)
        classes = label[best] + 1
        positive = np.where(largest >= self.pos_iou_thresh)[0]
        n_positive = int(min(np.round(self.n_sample * self.pos_ratio), len(positive)))
        if len(positive) > 0:
            positive = np.random.choice(positive, n_positive, replace=False)
        negative = np.where(
            (largest < self.neg_iou_thresh_hi) & (largest >= self.neg_iou_thresh_lo)
        )[0]
        n_negative = int(min(self.n_sample - n_positive, len(negative)))
        if len(negative) > 0:
            negative = np.random.choice(negative, n_negative, replace=False)
        sample = np.append(positive, negative)
        classes = classes[sample]
        classes[n_positive:] = 0
        sample_roi = roi[sample]
        loc = bbox2loc(sample_roi, bbox[best[sample]])
        mean = np.array(loc_normalize_mean, np.float32)
        std = np.array(loc_normalize_std, np.float32)
        return sample_roi, (loc - mean) / std, classes
