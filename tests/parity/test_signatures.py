"""Names, order and defaults of arguments are the originals'; only keyword-only ones may follow."""

from __future__ import annotations

import inspect
from typing import Any

import pytest

from oxidet import detection, ops

torchvision = pytest.importorskip("torchvision")

# What chainercv 0.13 and simple-faster-rcnn declare; they cannot be installed beside this NumPy.
DETECTION = {
    "bbox_iou": "(bbox_a, bbox_b)",
    "bbox2loc": "(src_bbox, dst_bbox)",
    "loc2bbox": "(src_bbox, loc)",
    "generate_anchor_base": "(base_size=16, ratios=[0.5, 1, 2], anchor_scales=[8, 16, 32])",
    "non_maximum_suppression": "(bbox, thresh, score=None, limit=None)",
    "resize_bbox": "(bbox, in_size, out_size)",
    "flip_bbox": "(bbox, size, y_flip=False, x_flip=False)",
    "crop_bbox": (
        "(bbox, y_slice=None, x_slice=None, allow_outside_center=True, return_param=False)"
    ),
    "translate_bbox": "(bbox, y_offset=0, x_offset=0)",
    "rotate_bbox": "(bbox, angle, size)",
    "eval_detection_voc": (
        "(pred_bboxes, pred_labels, pred_scores, gt_bboxes, gt_labels, gt_difficults=None, "
        "iou_thresh=0.5, use_07_metric=False)"
    ),
    "calc_detection_voc_prec_rec": (
        "(pred_bboxes, pred_labels, pred_scores, gt_bboxes, gt_labels, gt_difficults=None, "
        "iou_thresh=0.5)"
    ),
    "calc_detection_voc_ap": "(prec, rec, use_07_metric=False)",
    "eval_detection_coco": (
        "(pred_bboxes, pred_labels, pred_scores, gt_bboxes, gt_labels, gt_areas=None, "
        "gt_crowdeds=None)"
    ),
    "vis_bbox": (
        "(img, bbox, label=None, score=None, label_names=None, instance_colors=None, alpha=1.0, "
        "linewidth=3.0, sort_by_score=True, ax=None)"
    ),
}


def positional(function: Any) -> list[tuple[str, Any]]:
    parameters = inspect.signature(function).parameters.values()
    assert not any(p.kind is p.VAR_POSITIONAL for p in parameters)
    plain = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    return [(p.name, comparable(p.default)) for p in plain]


def comparable(default: Any) -> Any:
    if isinstance(default, (list, tuple)):
        return tuple(default)
    return default.__name__ if isinstance(default, type) else default


COMMON = sorted(set(ops.__all__) & set(torchvision.ops.__all__))


@pytest.mark.parametrize("name", COMMON)
def test_operators_are_called_as_those_of_torchvision(name: str) -> None:
    ours, theirs = getattr(ops, name), getattr(torchvision.ops, name)
    got, expected = positional(ours), positional(theirs)
    assert [n for n, _ in got] == [n for n, _ in expected]
    for (argument, a), (_, b) in zip(got, expected, strict=True):
        if name != "Conv2dNormActivation" or not isinstance(b, str):  # layer classes
            assert a == b, argument


@pytest.mark.parametrize("name", DETECTION)
def test_tools_are_called_as_those_of_chainercv(name: str) -> None:
    scope: dict[str, Any] = {}
    exec(f"def original{DETECTION[name]}: ...", scope)
    assert positional(getattr(detection, name)) == positional(scope["original"])


def test_nothing_of_the_issue_is_missing() -> None:
    assert len(COMMON) >= 29
    left_out = set(torchvision.ops.__all__) - set(ops.__all__)
    assert left_out <= {
        "DropBlock2d", "DropBlock3d", "drop_block2d", "drop_block3d", "Conv3dNormActivation", "MLP",
        "Permute", "SqueezeExcitation", "StochasticDepth", "stochastic_depth",
    }  # fmt: skip
