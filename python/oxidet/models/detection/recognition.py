"""Which detector with torchvision's structure some weights belong to, by their names and shapes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from oxidet.models.detection.backbone_utils import STAGES

# Blocks of each stage, whether they are bottlenecks, and (output, input) channels of the first
# one's second convolution.
_SHAPES: dict[Any, str] = {
    ((2, 2, 2, 2), False, (64, 64)): "resnet18",
    ((3, 4, 6, 3), False, (64, 64)): "resnet34",
    ((3, 4, 6, 3), True, (64, 64)): "resnet50",
    ((3, 4, 23, 3), True, (64, 64)): "resnet101",
    ((3, 8, 36, 3), True, (64, 64)): "resnet152",
    ((3, 4, 6, 3), True, (128, 4)): "resnext50_32x4d",
    ((3, 4, 23, 3), True, (256, 8)): "resnext101_32x8d",
    ((3, 4, 23, 3), True, (256, 4)): "resnext101_64x4d",
    ((3, 4, 6, 3), True, (128, 128)): "wide_resnet50_2",
    ((3, 4, 23, 3), True, (128, 128)): "wide_resnet101_2",
}


def recognise_torchvision(state: Mapping[str, Any]) -> dict[str, str] | None:
    """The name (and the backbone) of a detector over a ResNet that has these weights, if any.

    >>> from oxidet.models.detection import fasterrcnn_resnet_fpn
    >>> from oxidet.models.detection.recognition import recognise_torchvision
    >>> recognise_torchvision(fasterrcnn_resnet_fpn(2, "resnet34").state_dict())
    {'model': 'fasterrcnn_resnet_fpn', 'backbone': 'resnet34'}
    """
    body = "backbone.body."
    predicts = "roi_heads.box_predictor.cls_score.weight" in state
    if not predicts or not any(key.startswith("backbone.fpn.") for key in state):
        return None
    blocks = tuple(
        len({key[len(body) :].split(".")[1] for key in state if key.startswith(f"{body}{stage}.")})
        for stage in STAGES[3::-1]
    )
    bottlenecks = f"{body}layer1.0.conv3.weight" in state
    inside = np.shape(state.get(f"{body}layer1.0.conv2.weight", ()))[:2]
    backbone = _SHAPES.get((blocks, bottlenecks, inside))
    if backbone is None:
        return None
    plain = "roi_heads.box_head.fc6.weight" in state
    if backbone != "resnet50":
        return {"model": "fasterrcnn_resnet_fpn", "backbone": backbone} if plain else None
    return {"model": "fasterrcnn_resnet50_fpn" if plain else "fasterrcnn_resnet50_fpn_v2"}
