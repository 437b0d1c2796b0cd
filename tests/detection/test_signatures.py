"""Names, order and defaults of the arguments are those of chainercv and simple-faster-rcnn."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import pytest

from oxidet import detection

EVALUATED = "pred_bboxes, pred_labels, pred_scores, gt_bboxes, gt_labels"

ORIGINALS = {
    "AnchorTargetCreator": "n_sample=256, pos_iou_thresh=0.7, neg_iou_thresh=0.3, pos_ratio=0.5",
    "AnchorTargetCreator.__call__": "bbox, anchor, img_size",
    "ProposalCreator": (
        "parent_model, nms_thresh=0.7, n_train_pre_nms=12000, n_train_post_nms=2000, "
        "n_test_pre_nms=6000, n_test_post_nms=300, min_size=16"
    ),
    "ProposalCreator.__call__": "loc, score, anchor, img_size, scale=1.0",
    "ProposalTargetCreator": (
        "n_sample=128, pos_ratio=0.25, pos_iou_thresh=0.5, neg_iou_thresh_hi=0.5, "
        "neg_iou_thresh_lo=0.0"
    ),
    "ProposalTargetCreator.__call__": (
        "roi, bbox, label, loc_normalize_mean=(0.0, 0.0, 0.0, 0.0), "
        "loc_normalize_std=(0.1, 0.1, 0.2, 0.2)"
    ),
    "bbox2loc": "src_bbox, dst_bbox",
    "bbox_iou": "bbox_a, bbox_b",
    "calc_detection_voc_ap": "prec, rec, use_07_metric=False",
    "calc_detection_voc_prec_rec": f"{EVALUATED}, gt_difficults=None, iou_thresh=0.5",
    "crop_bbox": (
        "bbox, y_slice=None, x_slice=None, allow_outside_center=True, return_param=False"
    ),
    "enumerate_shifted_anchor": "anchor_base, feat_stride, height, width",
    "eval_detection_coco": f"{EVALUATED}, gt_areas=None, gt_crowdeds=None",
    "eval_detection_voc": f"{EVALUATED}, gt_difficults=None, iou_thresh=0.5, use_07_metric=False",
    "flip_bbox": "bbox, size, y_flip=False, x_flip=False",
    # The originals' lists are tuples here, which nobody can change by accident.
    "generate_anchor_base": "base_size=16, ratios=(0.5, 1, 2), anchor_scales=(8, 16, 32)",
    "loc2bbox": "src_bbox, loc",
    "non_maximum_suppression": "bbox, thresh, score=None, limit=None",
    "random_flip": "img, y_random=False, x_random=False, return_param=False, copy=False",
    "resize_bbox": "bbox, in_size, out_size",
    "roi_pooling_2d": "x, rois, outh, outw, spatial_scale",
    "rotate_bbox": "bbox, angle, size",
    "translate_bbox": "bbox, y_offset=0, x_offset=0",
    "vis_bbox": (
        "img, bbox, label=None, score=None, label_names=None, instance_colors=None, alpha=1.0, "
        "linewidth=3.0, sort_by_score=True, ax=None"
    ),
}


def form(function: Callable[..., Any]) -> str:
    """The arguments without annotations and without the keyword-only extras of ours."""
    parameters = [
        p.replace(annotation=inspect.Parameter.empty)
        for p in inspect.signature(function).parameters.values()
        if p.kind is not p.KEYWORD_ONLY and p.name != "self"
    ]
    return str(inspect.Signature(parameters))[1:-1]


@pytest.mark.parametrize("name", ORIGINALS)
def test_signature(name: str) -> None:
    cls, _, method = name.partition(".")
    function = getattr(detection, cls)
    expected = ORIGINALS[name]
    if name == "ProposalCreator":
        # chainercv's has no parent_model, so one may leave it out.
        expected = expected.replace("parent_model", "parent_model=None")
    assert form(getattr(function, method) if method else function) == expected


def test_every_function_is_listed() -> None:
    ours = {"CocoEvaluation", "eval_coco"}
    assert {*detection.__all__} - {*ORIGINALS} == ours
