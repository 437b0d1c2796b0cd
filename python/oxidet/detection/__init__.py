"""The tools of chainercv and simple-faster-rcnn: same names, arguments and numbers, faster.

Boxes are ``(y_min, x_min, y_max, x_max)`` with continuous edges (``height = y_max - y_min``),
offsets ``(t_y, t_x, t_h, t_w)``, image sizes ``(height, width)``, labels of foreground classes
count from 0. float32 and float64 boxes keep their type; integers become float64, half floats
float32.

Where the originals fail or return what nobody wants (no ground truth, a box of no size,
``limit=0``, other lengths), these functions differ; each says so in its docstring. Wrong shapes and
values raise ValueError, where the originals raise IndexError or fail later.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from oxidet.detection._coco import CocoEvaluation
from oxidet.detection.anchor_target_creator import AnchorTargetCreator
from oxidet.detection.bbox2loc import bbox2loc
from oxidet.detection.bbox_iou import bbox_iou
from oxidet.detection.crop_bbox import crop_bbox
from oxidet.detection.enumerate_shifted_anchor import enumerate_shifted_anchor
from oxidet.detection.eval_coco import eval_coco
from oxidet.detection.eval_detection_coco import eval_detection_coco
from oxidet.detection.eval_detection_voc import (
    calc_detection_voc_ap,
    calc_detection_voc_prec_rec,
    eval_detection_voc,
)
from oxidet.detection.flip_bbox import flip_bbox
from oxidet.detection.generate_anchor_base import generate_anchor_base
from oxidet.detection.loc2bbox import loc2bbox
from oxidet.detection.non_maximum_suppression import non_maximum_suppression
from oxidet.detection.proposal_creator import ProposalCreator
from oxidet.detection.proposal_target_creator import ProposalTargetCreator
from oxidet.detection.random_flip import random_flip
from oxidet.detection.resize_bbox import resize_bbox
from oxidet.detection.roi_pooling_2d import roi_pooling_2d
from oxidet.detection.rotate_bbox import rotate_bbox
from oxidet.detection.translate_bbox import translate_bbox

if TYPE_CHECKING:
    from oxidet.visualize import vis_bbox

__all__ = [
    "AnchorTargetCreator",
    "CocoEvaluation",
    "ProposalCreator",
    "ProposalTargetCreator",
    "bbox2loc",
    "bbox_iou",
    "calc_detection_voc_ap",
    "calc_detection_voc_prec_rec",
    "crop_bbox",
    "enumerate_shifted_anchor",
    "eval_coco",
    "eval_detection_coco",
    "eval_detection_voc",
    "flip_bbox",
    "generate_anchor_base",
    "loc2bbox",
    "non_maximum_suppression",
    "random_flip",
    "resize_bbox",
    "roi_pooling_2d",
    "rotate_bbox",
    "translate_bbox",
    "vis_bbox",
]


def __getattr__(name: str) -> Any:
    """Load ``vis_bbox`` when it is asked for: it reads images, and their transforms need boxes."""
    if name != "vis_bbox":
        raise AttributeError(f"module 'oxidet.detection' has no attribute {name!r}")
    from oxidet.visualize import vis_bbox

    globals()[name] = vis_bbox
    return vis_bbox
