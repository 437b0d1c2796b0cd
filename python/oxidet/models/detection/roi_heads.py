"""The second stage over a pyramid: regions to classes and boxes, as torchvision's ``RoIHeads``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from oxidet import _arrays, nn
from oxidet._arrays import F32
from oxidet.detection._sampling import Rng
from oxidet.models.detection import _kernels
from oxidet.models.detection.balanced_sampler import BalancedPositiveNegativeSampler
from oxidet.models.detection.box_coder import BoxCoder
from oxidet.models.detection.matcher import Matcher
from oxidet.models.detection.rpn import BETA
from oxidet.nn import functional as F
from oxidet.ops import MultiScaleRoIAlign

I64 = NDArray[np.int64]


class RegionSample(NamedTuple):
    """Regions to learn from: ``regions`` of each image, (R, 4), and of all of them together the
    ``labels`` (S,), 0 for background, and the corrections that they should get, (S, 4)."""

    regions: list[F32]
    labels: I64
    targets: F32


def fastrcnn_loss(
    class_logits: Any, box_regression: Any, labels: I64, regression_targets: F32
) -> tuple[Any, Any]:
    """Losses of the second stage: ``(loss_classifier, loss_box_reg)``.

    Cross-entropy averaged over the regions, and smooth L1 (beta 1/9) of the own class's
    corrections of all regions that are no background, over the number of regions.

    ``class_logits`` is (S, K), ``box_regression`` (S, 4 K), ``labels`` (S,) int64 and
    ``regression_targets`` (S, 4).
    """
    foreground = np.flatnonzero(labels > 0)
    own = box_regression.reshape(len(labels), -1, 4)[foreground, labels[foreground]]
    box_loss = F.smooth_l1_loss(own, regression_targets[foreground], beta=BETA, reduction="sum")
    return F.cross_entropy(class_logits, labels), box_loss / max(len(labels), 1)


class RoIHeads(nn.Module):
    """Pools regions, classifies them and corrects their boxes, as torchvision's class.

    In evaluation mode ``box_head`` and ``box_predictor`` run as one plan; set ``compiled = False``
    if they do something that no plan can.

    Parameters
    ----------
    box_roi_pool
        A :class:`~oxidet.ops.MultiScaleRoIAlign`.
    box_head, box_predictor
        Modules from pooled regions (S, C, h, w) to features, and from these to logits (S, K) and
        corrections (S, 4 K).
    fg_iou_thresh, bg_iou_thresh
        IoU with an object from which a region has its class, and below which it is background.
    batch_size_per_image, positive_fraction
        Regions of an image to learn from, and share of objects among them at most.
    bbox_reg_weights
        Of the four corrections; None for (10, 10, 5, 5).
    score_thresh, nms_thresh, detections_per_img
        Detections score above the first, overlap at most by the second within a class, and are at
        most that many for an image.
    """

    proposal_matcher: Matcher
    fg_bg_sampler: BalancedPositiveNegativeSampler
    box_coder: BoxCoder
    detections_per_img: int
    min_size: float

    compiled = True

    def __init__(
        self,
        box_roi_pool: MultiScaleRoIAlign,
        box_head: nn.Module,
        box_predictor: nn.Module,
        fg_iou_thresh: float,
        bg_iou_thresh: float,
        batch_size_per_image: int,
        positive_fraction: float,
        bbox_reg_weights: tuple[float, float, float, float] | None,
        score_thresh: float,
        nms_thresh: float,
        detections_per_img: int,
    ) -> None:
        super().__init__()
        self.proposal_matcher = Matcher(fg_iou_thresh, bg_iou_thresh)
        self.fg_bg_sampler = BalancedPositiveNegativeSampler(
            batch_size_per_image, positive_fraction
        )
        self.box_coder = BoxCoder(
            (10.0, 10.0, 5.0, 5.0) if bbox_reg_weights is None else bbox_reg_weights
        )
        self.box_roi_pool = box_roi_pool
        self.box_head = box_head
        self.box_predictor = box_predictor
        self.score_thresh = score_thresh
        self.nms_thresh = nms_thresh
        self.detections_per_img = _arrays.integer(detections_per_img, "detections_per_img", 0)
        self.min_size = 1e-2

    def forward(
        self,
        features: Mapping[str, Any],
        proposals: Sequence[F32],
        image_shapes: Sequence[tuple[int, int]],
        targets: Sequence[Mapping[str, Any]] | None = None,
        rng: Rng = None,
    ) -> tuple[list[dict[str, Any]], dict[str, Any]]:
        """Detections of each image, or in training the losses.

        Parameters
        ----------
        features
            Levels (N, C, H, W) by name.
        proposals
            For each image (R, 4) boxes (x1, y1, x2, y2) in pixels of the batch.
        image_shapes
            (height, width) of each image without padding.
        targets
            For each image a mapping with ``boxes`` (R, 4) float and ``labels`` (R,) int64 from 1.
        rng
            Where the sample of regions is drawn from; NumPy's global state by default.

        Returns
        -------
        In evaluation for each image ``{"boxes": (R, 4) float32, "labels": (R,) int64, "scores":
        (R,) float32}``, best first, and no losses; in training an empty list, and
        ``loss_classifier`` and ``loss_box_reg``.
        """
        if not self.training:
            logits, codes = self.classify(features, proposals, image_shapes)
            return self.postprocess_detections(logits, codes, proposals, image_shapes), {}
        if targets is None:
            raise ValueError("targets: expected boxes and labels in training, got None")
        boxes = [target["boxes"] for target in targets]
        labels = [target["labels"] for target in targets]
        sample = self.sample(proposals, boxes, labels, rng)
        return [], self.losses(features, sample, image_shapes)

    def classify(
        self,
        features: Mapping[str, Any],
        regions: Sequence[F32],
        image_shapes: Sequence[tuple[int, int]],
    ) -> tuple[Any, Any]:
        """Logits (S, K) and corrections (S, 4 K) of the regions (R, 4) of all images."""
        return self.predict_boxes(self.pool(features, regions, image_shapes))

    def pool(
        self,
        features: Mapping[str, Any],
        regions: Sequence[F32],
        image_shapes: Sequence[tuple[int, int]],
    ) -> Any:
        """What the maps hold of the regions (R, 4) of all images: (S, C, h, w)."""
        return self.box_roi_pool.pool(features, list(regions), list(image_shapes))

    @nn.compiled_method
    def predict_boxes(self, pooled: Any) -> tuple[Any, Any]:
        """Pooled regions (S, C, h, w) to logits (S, K) and corrections (S, 4 K)."""
        scores, corrections = self.box_predictor(self.box_head(pooled))
        return scores, corrections

    def postprocess_detections(
        self,
        class_logits: Any,
        box_regression: Any,
        proposals: Sequence[F32],
        image_shapes: Sequence[tuple[int, int]],
        score_thresh: float | None = None,
        nms_thresh: float | None = None,
        detections_per_img: int | None = None,
    ) -> list[dict[str, Any]]:
        """Detections of each image as :meth:`forward` returns them; limits by default its own.

        Classes are told apart from 1: a detection of background is none. Equal scores stand in the
        order of regions, then of classes.
        """
        found = _kernels.box_detections(
            np.asarray(class_logits),
            np.asarray(box_regression),
            proposals,
            image_shapes,
            self.box_coder.weights,
            self.score_thresh if score_thresh is None else score_thresh,
            self.nms_thresh if nms_thresh is None else nms_thresh,
            self.detections_per_img if detections_per_img is None else detections_per_img,
            self.min_size,
        )
        return [
            {"boxes": boxes, "labels": labels, "scores": scores} for boxes, labels, scores in found
        ]

    def sample(
        self,
        proposals: Sequence[F32],
        boxes: Sequence[F32],
        labels: Sequence[I64],
        rng: Rng = None,
    ) -> RegionSample:
        """Regions to learn from: of the proposals and the objects' own boxes, in that order."""
        candidates = [np.concatenate(pair) for pair in zip(proposals, boxes, strict=True)]
        matches = [
            self.match(found, regions) for found, regions in zip(boxes, candidates, strict=True)
        ]
        classes = [_label(matched, known) for matched, known in zip(matches, labels, strict=True)]
        regions, chosen, targets = [], [np.zeros(0, np.int64)], [np.zeros((0, 4), np.float32)]
        samples = self.fg_bg_sampler(classes, rng=rng)
        for i, (positive, negative) in enumerate(zip(*samples, strict=True)):
            rows = np.flatnonzero(positive | negative)
            regions.append(candidates[i][rows])
            chosen.append(classes[i][rows])
            codes = np.zeros((len(rows), 4), np.float32)
            objects = np.flatnonzero(classes[i][rows] > 0)  # background has no box to aim at
            matched = boxes[i][matches[i][rows[objects]]]
            codes[objects] = self.box_coder.encode_single(matched, regions[i][objects])
            targets.append(codes)
        return RegionSample(regions, np.concatenate(chosen), np.concatenate(targets))

    def match(self, boxes: F32, regions: F32) -> I64:
        """For each region the index of its object, or one of the matcher's negative numbers."""
        matcher = self.proposal_matcher
        return _kernels.match_boxes(boxes, regions, matcher.high_threshold, matcher.low_threshold)

    def losses(
        self,
        features: Mapping[str, Any],
        sample: RegionSample,
        image_shapes: Sequence[tuple[int, int]],
    ) -> dict[str, Any]:
        """``loss_classifier`` and ``loss_box_reg`` of a sample."""
        logits, codes = self.classify(features, sample.regions, image_shapes)
        classifier, box = fastrcnn_loss(logits, codes, sample.labels, sample.targets)
        return {"loss_classifier": classifier, "loss_box_reg": box}


def _label(matches: I64, labels: I64) -> I64:
    """Classes of regions: that of the matched object, 0 for background, -1 for neither."""
    classes = np.where(matches == Matcher.BELOW_LOW_THRESHOLD, 0, -1)
    inside = matches >= 0
    classes[inside] = labels[matches[inside]]
    return classes.astype(np.int64)
