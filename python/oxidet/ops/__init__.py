"""Detection operators with torchvision.ops' names, argument order, defaults and results.

Boxes are (x1, y1, x2, y2), image sizes (height, width). Arrays in, arrays out; torch tensors in,
torch tensors out. The losses and the RoI operators also take oxidet's own tensors and are
differentiable.
"""

from __future__ import annotations

from oxidet.ops._box_convert import box_convert
from oxidet.ops._boxes import box_area, clip_boxes_to_image, masks_to_boxes, remove_small_boxes
from oxidet.ops._conv_norm import Conv2dNormActivation, FrozenBatchNorm2d
from oxidet.ops._deform_conv import DeformConv2d, deform_conv2d
from oxidet.ops._feature_pyramid import FeaturePyramidNetwork, LastLevelMaxPool, LastLevelP6P7
from oxidet.ops._fusion import weighted_boxes_fusion
from oxidet.ops._iou import box_iou, complete_box_iou, distance_box_iou, generalized_box_iou
from oxidet.ops._losses import (
    complete_box_iou_loss,
    distance_box_iou_loss,
    generalized_box_iou_loss,
    sigmoid_focal_loss,
)
from oxidet.ops._nms import batched_nms, nms
from oxidet.ops._poolers import MultiScaleRoIAlign
from oxidet.ops._ps_roi import PSRoIAlign, PSRoIPool, ps_roi_align, ps_roi_pool
from oxidet.ops._roi_align import RoIAlign, roi_align
from oxidet.ops._roi_pool import RoIPool, roi_pool
from oxidet.ops._rotated import rotated_box_iou, rotated_nms
from oxidet.ops._soft_nms import matrix_nms, soft_nms

__all__ = [
    "Conv2dNormActivation",
    "DeformConv2d",
    "FeaturePyramidNetwork",
    "FrozenBatchNorm2d",
    "LastLevelMaxPool",
    "LastLevelP6P7",
    "MultiScaleRoIAlign",
    "PSRoIAlign",
    "PSRoIPool",
    "RoIAlign",
    "RoIPool",
    "batched_nms",
    "box_area",
    "box_convert",
    "box_iou",
    "clip_boxes_to_image",
    "complete_box_iou",
    "complete_box_iou_loss",
    "deform_conv2d",
    "distance_box_iou",
    "distance_box_iou_loss",
    "generalized_box_iou",
    "generalized_box_iou_loss",
    "masks_to_boxes",
    "matrix_nms",
    "nms",
    "ps_roi_align",
    "ps_roi_pool",
    "remove_small_boxes",
    "roi_align",
    "roi_pool",
    "rotated_box_iou",
    "rotated_nms",
    "sigmoid_focal_loss",
    "soft_nms",
    "weighted_boxes_fusion",
]
