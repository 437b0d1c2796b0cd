"""Faster R-CNN against chainercv itself: forward, predict and one training step.

The files in ``tests/golden`` hold what chainercv 0.13.1 computed; ``make reference`` makes them
anew. chainercv differs from simple-faster-rcnn in settings that are all explicit here: pools that
keep a last partial window, proposals ranked by the raw logit, suppression at (not above) the
threshold, sizes truncated, mean subtracted from RGB, RoI pooling as on Chainer's CPU.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from conftest import ROOT, assert_close
from oxidet import nn, weights
from oxidet.detection import AnchorTargetCreator, ProposalTargetCreator, roi_pooling_2d
from oxidet.simple_faster_rcnn import (
    FasterRCNN,
    FasterRCNNVGG16,
    Preprocessing,
    RegionProposalNetwork,
    RoIHead,
)
from oxidet.train import FasterRCNNTrainer

GOLDEN = ROOT / "tests" / "golden"


class ChainerPool(nn.Module):
    """RoI max pooling with the rounding of Chainer's CPU code."""

    def forward(self, x: Any, rois: Any) -> Any:
        return roi_pooling_2d(x, rois, 7, 7, 1 / 16, convention="cpu")


CHAINERCV = Preprocessing(
    min_size=96, max_size=160, rounding="trunc", edge="clamp", normalization="chainercv"
)


def load(name: str) -> dict[str, np.ndarray]:
    with np.load(GOLDEN / f"{name}.npz") as file:
        return {key: file[key] for key in file.files}


def part(values: dict[str, np.ndarray], prefix: str) -> dict[str, np.ndarray]:
    return {k[len(prefix) :]: v for k, v in values.items() if k.startswith(prefix)}


@pytest.fixture(scope="module")
def golden() -> dict[str, np.ndarray]:
    return load("faster_rcnn")


@pytest.fixture
def model(golden: dict[str, np.ndarray]) -> FasterRCNN:
    channels = (3, 8, 12, 16, 16, 16)
    layers: list[nn.Module] = []
    for i in range(5):
        layers += [nn.Conv2d(channels[i], channels[i + 1], 3, padding=1), nn.ReLU()]
        if i < 4:
            layers.append(nn.MaxPool2d(2, 2, ceil_mode=True))
    rpn = RegionProposalNetwork(
        16,
        16,
        anchor_scales=(2, 4, 8),
        proposal_creator_params={"nms_rule": "chainercv", "n_test_post_nms": 30},
        rank_by="logit",
    )
    classifier = nn.Sequential(nn.Linear(784, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU())
    head = RoIHead(4, ChainerPool(), classifier, 16)
    net = FasterRCNN(
        nn.Sequential(*layers), rpn, head, preprocessing=CHAINERCV, nms_rule="chainercv"
    )
    net.load_state_dict(part(golden, "weights/"))
    return net.eval()


def assert_same_detections(model: FasterRCNN, expected: dict[str, np.ndarray]) -> None:
    """Compare ``detect`` with the original row by row; the stored images have no tied scores."""
    bbox, label, score = model.detect(expected["image"].astype(np.float32))
    np.testing.assert_array_equal(label, expected["label"])
    assert np.abs(bbox - expected["bbox"]).max() < 1e-3
    assert np.abs(score - expected["score"]).max() < 1e-4


@pytest.mark.parametrize("name", ["even", "odd"])
def test_forward_and_predict(model: FasterRCNN, golden: dict[str, np.ndarray], name: str) -> None:
    expected = part(golden, f"{name}/")
    image = expected["image"].astype(np.float32)
    prepared = model.preprocessing(image)
    assert_close(prepared, expected["prepared"], 2e-5, "prepared")
    x = expected["prepared"][None]
    features = model.extractor(x)
    assert_close(features, expected["features"], 1e-5, "features")
    proposals = model.rpn(features, x.shape[2:], float(expected["scale"]))
    for key in ("rpn_locs", "rpn_scores", "rois"):
        assert_close(getattr(proposals, key), expected[key], 1e-5, key)
    np.testing.assert_array_equal(proposals.roi_indices, expected["roi_indices"])
    out = model(x, float(expected["scale"]))
    assert_close(out.roi_cls_locs, expected["roi_cls_locs"], 1e-4, "roi_cls_locs")
    assert_close(out.roi_scores, expected["roi_scores"], 1e-4, "roi_scores")

    assert_same_detections(model, expected)


def test_a_training_step(model: FasterRCNN, golden: dict[str, np.ndarray]) -> None:
    expected = part(golden, "train/")
    samples = [int(n) for n in expected["n_sample"]]
    trainer = FasterRCNNTrainer(
        model.train(),
        proposal_target_creator=ProposalTargetCreator(n_sample=samples[0]),
        anchor_target_creator=AnchorTargetCreator(n_sample=samples[1]),
    )
    np.random.seed(int(expected["seed"]))
    losses = trainer(golden["even/prepared"][None], [expected["bbox"]], [expected["label"]])
    for name in ("rpn_loc_loss", "rpn_cls_loss", "roi_loc_loss", "roi_cls_loss"):
        assert_close(getattr(losses, name), expected[name], 1e-5, name)
    assert_close(losses.total_loss, expected["loss"], 1e-5, "total_loss")
    losses.total_loss.backward()
    for name, parameter in model.named_parameters():
        assert_close(parameter.grad, expected[f"grad/{name}"], 1e-4, name)


def chainercv_vgg16_weights(shapes: dict[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    """The weights that the golden file was made with, under chainercv's names.

    The rule is stated in ``make_reference.py``: uniform values from one generator, scaled by the
    fan-in.
    """
    rng = np.random.RandomState(7)
    state = {}
    for name, shape in shapes.items():
        gain = {"extractor/conv1_1/conv": 0.02, "rpn/loc": 0.1}.get(name, 1.0)
        scale = gain * np.sqrt(6.0 / np.prod(shape[1:]))
        weight = (2 * rng.random_sample(shape) - 1) * scale
        bias = (2 * rng.random_sample(shape[0]) - 1) * (0.1 * scale)
        state[f"{name}/W"], state[f"{name}/b"] = weight.astype("f4"), bias.astype("f4")
    return state


def test_over_vgg16_with_converted_weights() -> None:
    golden = load("faster_rcnn_vgg16")
    # The references are Chainer's on a CPU, whose RoI pooling rounds halves to even.
    model = FasterRCNNVGG16(
        flavour="chainercv", preprocessing=CHAINERCV, roi_rounding="even"
    ).eval()
    shapes = {
        name: tuple(value.shape)
        for name, value in zip(
            CHAINERCV_LAYERS,
            (v for k, v in model.state_dict().items() if k.endswith("weight")),
            strict=True,
        )
    }
    state = chainercv_vgg16_weights(shapes)
    model.load_state_dict(weights.from_chainercv_faster_rcnn(state, channel_order="rgb"))
    x = golden["prepared"][None]
    features = model.extractor(x)
    assert_close(features[:, ::16], golden["features"], 1e-5, "features")
    out = model(x, 1.0)
    assert_close(out.rois, golden["rois"], 1e-5, "rois")
    assert_close(out.roi_cls_locs, golden["roi_cls_locs"], 1e-4, "roi_cls_locs")
    assert_close(out.roi_scores, golden["roi_scores"], 1e-4, "roi_scores")
    assert_same_detections(model, golden)


CHAINERCV_LAYERS = [
    *(
        f"extractor/conv{stage}_{i}/conv"
        for stage, count in enumerate((2, 2, 3, 3, 3), 1)
        for i in range(1, count + 1)
    ),
    *(f"rpn/{name}" for name in ("conv1", "score", "loc")),
    *(f"head/{name}" for name in ("fc6", "fc7", "cls_loc", "score")),
]
