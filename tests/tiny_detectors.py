"""Detectors of every structure of which everything takes milliseconds, and whose scores differ."""

from __future__ import annotations

from typing import Any

import numpy as np

from oxidet import nn, simple_faster_rcnn
from oxidet.models.detection import AnchorGenerator, Detector, FasterRCNN, TwoMLPHead
from oxidet.ops import MultiScaleRoIAlign, RoIPool

CLASSES = ("ant", "bee", "cat")


class _Maps(nn.Module):
    """A backbone of one or two small maps."""

    out_channels = 8

    def __init__(self, several: bool) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, stride=8, padding=1)
        if several:
            self.second = nn.Conv2d(8, 8, 3, stride=2, padding=1)

    def forward(self, x: Any) -> Any:
        fine = self.first(x)
        return {"fine": fine, "coarse": self.second(fine)} if hasattr(self, "second") else fine


def torchvision_structure(several: bool) -> FasterRCNN:
    """``oxidet.models.detection.FasterRCNN`` over a pyramid of two levels, or over one map."""
    sizes = ((16, 32), (48, 64)) if several else ((16, 32),)
    model = FasterRCNN(
        _Maps(several),
        rpn_anchor_generator=AnchorGenerator(sizes, ((0.5, 1.0, 2.0),) * len(sizes)),
        box_roi_pool=MultiScaleRoIAlign(["fine", "coarse"] if several else ["0"], 3, 2),
        box_head=TwoMLPHead(8 * 9, 1024),
        num_classes=len(CLASSES) + 1,
        class_names=CLASSES,
        min_size=64,
        max_size=96,
        rpn_post_nms_top_n_test=40,
    )
    head = model.rpn.head
    _spread(head.cls_logits, head.bbox_pred, model.roi_heads.box_predictor.cls_score)
    return model.eval()


def simple_structure() -> simple_faster_rcnn.FasterRCNN:
    """``oxidet.simple_faster_rcnn.FasterRCNN``."""
    extractor = nn.Conv2d(3, 8, 3, stride=16, padding=1)
    rpn = simple_faster_rcnn.RegionProposalNetwork(
        8, 8, anchor_scales=(1, 2), proposal_creator_params={"n_test_post_nms": 20}
    )
    classifier = nn.Sequential(nn.Linear(8 * 4, 16), nn.ReLU())
    head = simple_faster_rcnn.RoIHead(len(CLASSES) + 1, RoIPool((2, 2), 1 / 16), classifier, 16)
    model = simple_faster_rcnn.FasterRCNN(
        extractor,
        rpn,
        head,
        class_names=CLASSES,
        preprocessing=simple_faster_rcnn.Preprocessing(min_size=64, max_size=128),
    )
    _spread(rpn.score, head.score)
    return model.eval()


def _spread(*layers: Any) -> None:
    rng = np.random.default_rng(0)
    for layer in layers:
        layer.weight = 2 * rng.standard_normal(layer.weight.shape)


STRUCTURES = {
    "pyramid": lambda: torchvision_structure(True),
    "one level": lambda: torchvision_structure(False),
    "simple": simple_structure,
}


def random_picture(height: int = 90, width: int = 120) -> np.ndarray:
    """(3, height, width) float32, 0..255."""
    shape = (3, height, width)
    return np.random.default_rng(0).uniform(0, 255, shape).astype(np.float32)


def make(structure: str) -> Detector:
    """The detector of one of ``STRUCTURES``."""
    return STRUCTURES[structure]()
