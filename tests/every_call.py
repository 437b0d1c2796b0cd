"""A legal call of every function and layer of oxidet.ops and oxidet.detection."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import numpy as np

from box_comparison import random_boxes
from oxidet import detection, ops

RNG = np.random.default_rng(0)
BOXES, OTHERS = random_boxes(RNG, 30, 60), random_boxes(RNG, 30, 60)
SCORES = RNG.random(30).astype(np.float32)
LABELS = np.arange(30) % 3
MAPS = RNG.random((2, 8, 16, 16)).astype(np.float32)
ROIS = np.concatenate([LABELS[:, None] % 2, BOXES / 8], 1).astype(np.float32)
TURNED = np.concatenate([BOXES, 90 * SCORES[:, None]], 1).astype(np.float32)
MASKS = RNG.random((4, 9, 7)) > 0.8
LEVELS = OrderedDict([("a", MAPS), ("b", MAPS[:, :, ::2, ::2].copy())])
EVALUATED = ([BOXES[:5], BOXES[5:9]], [LABELS[:5], LABELS[5:9]])
SCORED = (*EVALUATED, [SCORES[:5], SCORES[5:9]], *EVALUATED)
LOC = RNG.normal(0, 0.1, (30, 4)).astype(np.float32)

CALLS: dict[str, tuple[Any, tuple[Any, ...]]] = {
    "nms": (ops.nms, (BOXES, SCORES, 0.3)),
    "batched_nms": (ops.batched_nms, (BOXES, SCORES, LABELS, 0.3)),
    "soft_nms": (ops.soft_nms, (BOXES, SCORES)),
    "matrix_nms": (ops.matrix_nms, (BOXES, SCORES)),
    "weighted_boxes_fusion": (
        ops.weighted_boxes_fusion,
        ([BOXES / 100, OTHERS / 100], [SCORES, SCORES], [LABELS, LABELS]),
    ),
    "rotated_box_iou": (ops.rotated_box_iou, (TURNED, TURNED)),
    "rotated_nms": (ops.rotated_nms, (TURNED, SCORES, 0.3)),
    "box_area": (ops.box_area, (BOXES,)),
    "box_convert": (ops.box_convert, (BOXES, "xyxy", "xywh")),
    "box_iou": (ops.box_iou, (BOXES, OTHERS)),
    "generalized_box_iou": (ops.generalized_box_iou, (BOXES, OTHERS)),
    "distance_box_iou": (ops.distance_box_iou, (BOXES, OTHERS)),
    "complete_box_iou": (ops.complete_box_iou, (BOXES, OTHERS)),
    "clip_boxes_to_image": (ops.clip_boxes_to_image, (BOXES, (30, 40))),
    "remove_small_boxes": (ops.remove_small_boxes, (BOXES, 9)),
    "masks_to_boxes": (ops.masks_to_boxes, (MASKS,)),
    "generalized_box_iou_loss": (ops.generalized_box_iou_loss, (BOXES, OTHERS, "mean")),
    "distance_box_iou_loss": (ops.distance_box_iou_loss, (BOXES, OTHERS)),
    "complete_box_iou_loss": (ops.complete_box_iou_loss, (BOXES, OTHERS, "sum")),
    "sigmoid_focal_loss": (ops.sigmoid_focal_loss, (SCORES, LABELS % 2)),
    "roi_pool": (ops.roi_pool, (MAPS, ROIS, 3)),
    "roi_pool of a list": (ops.roi_pool, (MAPS, [BOXES, OTHERS], 3, 0.1)),
    "roi_align": (ops.roi_align, (MAPS, ROIS, 3)),
    "ps_roi_pool": (ops.ps_roi_pool, (MAPS, ROIS, 2)),
    "ps_roi_align": (ops.ps_roi_align, (MAPS, ROIS, 2)),
    "deform_conv2d": (
        ops.deform_conv2d,
        (MAPS, np.zeros((2, 18, 14, 14), np.float32), np.ones((4, 8, 3, 3), np.float32)),
    ),
    "RoIPool": (ops.RoIPool(3, 1.0), (MAPS, ROIS)),
    "RoIAlign": (ops.RoIAlign(3, 1.0, 2), (MAPS, ROIS)),
    "PSRoIPool": (ops.PSRoIPool(2, 1.0), (MAPS, ROIS)),
    "PSRoIAlign": (ops.PSRoIAlign(2, 1.0, 2), (MAPS, ROIS)),
    "MultiScaleRoIAlign": (
        ops.MultiScaleRoIAlign(["a", "b"], 3, 2),
        (LEVELS, [BOXES, OTHERS], [(64, 64), (64, 64)]),
    ),
    "FrozenBatchNorm2d": (ops.FrozenBatchNorm2d(8), (MAPS,)),
    "DeformConv2d": (ops.DeformConv2d(8, 4, 3), (MAPS, np.zeros((2, 18, 14, 14), np.float32))),
    "Conv2dNormActivation": (ops.Conv2dNormActivation(8, 4), (MAPS,)),
    "FeaturePyramidNetwork": (ops.FeaturePyramidNetwork([8, 8], 4), (LEVELS,)),
    "bbox_iou": (detection.bbox_iou, (BOXES, OTHERS)),
    "bbox2loc": (detection.bbox2loc, (BOXES, OTHERS)),
    "loc2bbox": (detection.loc2bbox, (BOXES, LOC)),
    "non_maximum_suppression": (detection.non_maximum_suppression, (BOXES, 0.3, SCORES)),
    "enumerate_shifted_anchor": (detection.enumerate_shifted_anchor, (BOXES, 16, 2, 3)),
    "AnchorTargetCreator": (detection.AnchorTargetCreator(), (BOXES[:3], OTHERS, (90, 90))),
    "ProposalCreator": (
        detection.ProposalCreator(training=False),
        (LOC, SCORES, BOXES, (90, 90)),
    ),
    "ProposalTargetCreator": (detection.ProposalTargetCreator(), (OTHERS, BOXES[:3], LABELS[:3])),
    "roi_pooling_2d": (detection.roi_pooling_2d, (MAPS, ROIS, 2, 3, 0.5)),
    "resize_bbox": (detection.resize_bbox, (BOXES, (60, 60), (30, 90))),
    "flip_bbox": (detection.flip_bbox, (BOXES, (90, 90), True)),
    "crop_bbox": (detection.crop_bbox, (BOXES, slice(10, 50), slice(0, 60))),
    "translate_bbox": (detection.translate_bbox, (BOXES, 3, -2)),
    "rotate_bbox": (detection.rotate_bbox, (BOXES, 90, (90, 90))),
    "random_flip": (detection.random_flip, (MAPS[0], True, True)),
    "eval_detection_voc": (detection.eval_detection_voc, SCORED),
    "eval_detection_coco": (detection.eval_detection_coco, SCORED),
    "calc_detection_voc_prec_rec": (detection.calc_detection_voc_prec_rec, SCORED),
    "calc_detection_voc_ap": (
        detection.calc_detection_voc_ap,
        ([SCORES[:4], None], [np.sort(SCORES[:4]), None]),
    ),
}


def mapped(value: Any, change: Any) -> Any:
    """The same containers with other contents."""
    if isinstance(value, dict):
        return type(value)((key, mapped(item, change)) for key, item in value.items())
    if isinstance(value, (list, tuple)):
        return type(value)(mapped(item, change) for item in value)
    return change(value)


def leaves(value: Any) -> list[Any]:
    if isinstance(value, dict):
        value = list(value.values())
    if not isinstance(value, (list, tuple)):
        return [value]
    return [leaf for item in value for leaf in leaves(item)]
