"""Faster R-CNN against the original: forward pass, predictions and one training step of chainercv.

``tests/golden/make_reference.py`` ran chainercv and describes what it stored.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import oxidet
from conftest import assert_close, golden
from oxidet import nn
from oxidet.detection import AnchorTargetCreator, ProposalTargetCreator
from oxidet.models.detection import (
    FasterRCNN,
    FasterRCNNVGG16,
    Preprocessing,
    RegionProposalNetwork,
    RoIHead,
)
from oxidet.ops import RoIPool
from oxidet.train.faster_rcnn import FasterRCNNTrainer

PREPROCESSING = Preprocessing(96, 160, rounding="trunc", edge="clamp", normalization="chainercv")
TOLERANCE = 1e-5


@pytest.fixture(autouse=True)
def _direct_sums() -> None:
    oxidet.set_precision("direct")


def small_network() -> FasterRCNN:
    """The stored network, with chainercv's rules."""
    weights = {k: v.astype(np.float32) for k, v in golden("faster_rcnn")["weights"].items()}
    layers: list[nn.Module] = []
    for i in range(5):
        out_channels, in_channels = weights[f"extractor.{3 * i}.weight"].shape[:2]
        layers += [nn.Conv2d(in_channels, out_channels, 3, padding=1), nn.ReLU()]
        layers += [nn.MaxPool2d(2, 2, ceil_mode=True)] if i < 4 else []
    rpn = RegionProposalNetwork(
        16, 16, anchor_scales=(2, 4, 8), rank_by="logit",
        proposal_creator_params={"nms_rule": "chainercv", "n_test_post_nms": 30},
    )  # fmt: skip
    classifier = nn.Sequential(nn.Linear(784, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU())
    head = RoIHead(4, RoIPool((7, 7), 1 / 16), classifier, 16)
    model = FasterRCNN(
        nn.Sequential(*layers), rpn, head, preprocessing=PREPROCESSING, nms_rule="chainercv"
    )
    model.load_state_dict(weights)
    return model


def check_forward(model: FasterRCNN, case: dict[str, Any], every: int = 1) -> None:
    """Compare each stage; ``case`` holds one of ``every`` channels of the features."""
    model.eval()
    x, scale = case["prepared"][None], case["scale"]
    with nn.no_grad():
        features = model.extractor(x)
        proposals = model.rpn(features, x.shape[2:], scale)
        output = model(x, scale)
    assert_close(features[:, ::every], case["features"], TOLERANCE, "features")
    assert_close(proposals.rpn_locs, case["rpn_locs"], TOLERANCE, "rpn_locs")
    assert_close(proposals.rpn_scores, case["rpn_scores"], TOLERANCE, "rpn_scores")
    assert_close(output.rois, case["rois"], TOLERANCE, "rois")
    assert_close(output.roi_cls_locs, case["roi_cls_locs"], TOLERANCE, "roi_cls_locs")
    assert_close(output.roi_scores, case["roi_scores"], TOLERANCE, "roi_scores")


def check_predictions(model: FasterRCNN, case: dict[str, Any]) -> None:
    bbox, label, score = model.detect(case["image"].astype(np.float32))
    assert label.tolist() == case["label"].tolist()
    assert_close(bbox, case["bbox"], TOLERANCE, "bbox")
    assert_close(score, case["score"], TOLERANCE, "score")


@pytest.mark.parametrize("image", ["even", "odd"])
def test_small_network(image: str) -> None:
    case = golden("faster_rcnn")[image]
    model = small_network()
    check_forward(model, case)
    prepared = model.preprocessing(case["image"].astype(np.float32))
    assert_close(prepared, case["prepared"], TOLERANCE, "prepared")
    check_predictions(model, case)


def test_one_training_step() -> None:
    stored = golden("faster_rcnn")
    case, model = stored["train"], small_network().train()
    n_proposals, n_anchors = case["n_sample"].tolist()
    trainer = FasterRCNNTrainer(
        model,
        anchor_target_creator=AnchorTargetCreator(n_anchors),
        proposal_target_creator=ProposalTargetCreator(n_proposals),
    )
    np.random.seed(case["seed"])
    losses = trainer(stored["even"]["prepared"][None], [case["bbox"]], [case["label"]])
    for name in ("rpn_loc_loss", "rpn_cls_loss", "roi_loc_loss", "roi_cls_loss"):
        assert float(np.asarray(getattr(losses, name))) == pytest.approx(case[name], rel=1e-5), name
    losses.total_loss.backward()
    for name, parameter in model.named_parameters():
        assert_close(parameter.grad, case[f"grad/{name}"], TOLERANCE, name)


@pytest.mark.slow
def test_vgg16() -> None:
    case = golden("faster_rcnn_vgg16")[""]
    model = FasterRCNNVGG16(20, preprocessing=PREPROCESSING)
    model.rpn.rank_by = "logit"
    model.rpn.proposal_layer.nms_rule = model.nms_rule = "chainercv"
    # The weights of vgg16_weights in make_reference.py; state_dict has the same order of layers.
    rng = np.random.RandomState(7)
    weights = {}
    for key, value in model.state_dict().items():
        layer, _, kind = key.rpartition(".")
        gain = {"extractor.0": 0.02, "rpn.loc": 0.1}.get(layer, 1.0)
        if kind == "weight":
            scale = gain * np.sqrt(6.0 / np.prod(value.shape[1:]))
        drawn = (2 * rng.random_sample(value.shape) - 1) * (
            scale if kind == "weight" else 0.1 * scale
        )
        weights[key] = drawn.astype(np.float32)
    model.load_state_dict(weights)
    check_forward(model, case, every=16)
    check_predictions(model, case)
