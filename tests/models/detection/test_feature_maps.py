"""Where networks are cut for a detector, and what the detector over one keeps and learns."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from conftest import assert_close
from known_networks import NAMES, blank
from oxidet import models, nn
from oxidet.detections import Detections
from oxidet.models.detection import (
    FasterRCNN,
    TwoMLPHead,
    build_detector,
    faster_rcnn,
    load_detector,
    save_detector,
)
from oxidet.models.detection.feature_maps import feature_maps
from oxidet.models.feature_extraction import create_feature_extractor
from oxidet.ops import FrozenBatchNorm2d

# Where a network is cut if nobody says, and the channels there.
CUTS = {
    "alexnet": ("features.11", 256),
    "densenet121": ("features.denseblock3", 1024),
    "densenet161": ("features.denseblock3", 2112),
    "googlenet": ("inception4e", 832),
    "inception_v2": ("inception4d", 576),
    "inception_v3": ("Mixed_6e", 768),
    "inception_v4": ("features.17", 1024),
    "inception_resnet_v2": ("repeat_1", 1088),
    "nin": ("features.19", 384),
    "resnet18": ("layer3", 256),
    "resnet50": ("layer3", 1024),
    "resnext50_32x4d": ("layer3", 1024),
    "vgg16": ("features.29", 512),
    "wide_resnet50_2": ("layer3", 1024),
}
CUT = [name for name in NAMES if (name if isinstance(name, str) else name.values[0]) in CUTS]
FAMILIES = ["resnet18", "densenet121", "googlenet"]
SMALL: dict[str, Any] = {"min_size": 96, "max_size": 128, "rpn_post_nms_top_n_test": 50}
SMALL |= {"rpn_post_nms_top_n_train": 50, "box_batch_size_per_image": 16}


class Net(nn.Module):
    """A network with maps of stride 4 and 8, a head, and batch norm."""

    compiled = True

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 8, 3, stride=4, padding=1),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(8, 12, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(12, 16, 3, stride=2, padding=1),
        )
        self.fc = nn.Linear(16, 5)

    def forward(self, x: Any) -> Any:
        return self.fc(self.features(x).mean((2, 3)))


def picture() -> np.ndarray:
    return np.random.default_rng(0).uniform(0, 255, (3, 90, 120)).astype(np.float32)


@pytest.mark.parametrize("name", CUT)
def test_where_networks_are_cut(name: str) -> None:
    network = blank(name)
    keys = set(network.state_dict())
    found = feature_maps(network)
    assert (found.layers, found.channels, found.strides) == ([CUTS[name][0]], [CUTS[name][1]], [16])
    assert set(found.body.state_dict()) < keys
    assert set(network.state_dict()) == keys


def check_detector(detector: FasterRCNN) -> None:
    """It predicts with the weights it has, and learns with all of them."""
    result = detector.predict(picture(), score_threshold=0.0)
    assert isinstance(result, Detections)
    assert len(result) > 0
    boxes = np.asarray([[10.0, 12.0, 70.0, 80.0]], np.float32)
    losses = detector.train().training_losses(
        [picture()], [boxes], [np.asarray([1])], rng=np.random.RandomState(0)
    )
    sum(losses.values()).backward()
    assert all(np.isfinite(float(loss)) for loss in losses.values())
    for name, parameter in detector.named_parameters():
        assert parameter.grad is not None, name
        assert np.isfinite(parameter.grad).all(), name


def test_a_network_of_ones_own() -> None:
    net = Net()
    detector = faster_rcnn(3, net, "features.5", **SMALL)
    assert detector.num_classes == 4
    assert detector.backbone.strides == [8]
    assert detector.settings()["levels"] == "features.5"
    keys = list(detector.state_dict())
    assert "backbone.body.features.4.weight" in keys
    assert not any("features.6" in key or "fc." in key for key in keys if "body" in key)
    assert len(net.state_dict()) == 13
    x = np.random.default_rng(0).standard_normal((1, 3, 96, 128)).astype(np.float32)
    with nn.evaluating(net), nn.evaluating(detector), nn.no_grad():
        features = create_feature_extractor(net, {"features.5": "map"})(x)["map"]
        levels, logits, deltas = detector.convolve(x)
        assert_close(levels["0"], detector.backbone.neck(features))
    assert [level.shape for level in (*logits, *deltas)] == [(1, 15, 12, 16), (1, 60, 12, 16)]
    check_detector(detector)
    # The layers are those of the network.
    np.testing.assert_array_equal(
        detector.backbone.body.features[4].weight.numpy(), net.features[4].weight.numpy()
    )


def test_a_pyramid_over_layers_and_strides() -> None:
    detector = faster_rcnn(2, Net(), ["features.2", 8], out_channels=32, **SMALL)
    assert detector.backbone.layers == ["features.2", "features.5"]
    assert detector.rpn.anchor_generator.sizes == ((32,), (64,), (128,))
    assert "backbone.fpn.inner_blocks.1.0.weight" in detector.state_dict()
    levels, logits, _ = detector.eval().convolve(np.zeros((2, 3, 64, 96), np.float32))
    assert {name: level.shape for name, level in levels.items()} == {
        "0": (2, 32, 16, 24),
        "1": (2, 32, 8, 12),
        "pool": (2, 32, 4, 6),
    }
    assert [level.shape[1] for level in logits] == [3, 3, 3]
    check_detector(detector)


def test_frozen_batch_norms() -> None:
    net = Net()
    net.features[1].running_mean = np.arange(8)
    detector = faster_rcnn(2, net, 8, norm_layer="frozen", norm_eps=0.5, **SMALL)
    frozen = detector.backbone.body.features[1]
    assert isinstance(frozen, FrozenBatchNorm2d)
    assert frozen.eps == 0.5
    np.testing.assert_array_equal(frozen.running_mean, np.arange(8))
    check_detector(detector)


@pytest.mark.parametrize("name", sorted(set(FAMILIES) & set(models.list_models())))
def test_networks_of_the_zoo(name: str) -> None:
    check_detector(faster_rcnn(2, name, **SMALL))


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(set(models.list_models()) & (set(CUTS) - set(FAMILIES))))
def test_the_rest_of_the_zoo(name: str) -> None:
    check_detector(faster_rcnn(2, name, **SMALL))


def test_by_name_and_from_a_file(tmp_path: Path) -> None:
    detector = build_detector(
        "faster_rcnn",
        n_fg_class=2,
        backbone="resnet18",
        levels=["layer2", 16],
        out_channels=16,
        representation_size=24,
        class_names=("ant", "bee"),
        **SMALL,
    )
    assert detector.recipe is not None
    assert detector.recipe["representation_size"] == 24
    assert isinstance(detector, FasterRCNN)
    assert isinstance(detector.roi_heads.box_head, TwoMLPHead)
    assert detector.roi_heads.box_head.fc7.out_features == 24
    assert detector.roi_heads.box_predictor.cls_score.weight.shape == (3, 24)
    assert detector.recipe["backbone"] == "resnet18"
    assert detector.recipe["levels"] == ["layer2", "layer3"]
    save_detector(tmp_path / "detector.npz", detector)
    loaded = load_detector(tmp_path / "detector.npz")
    assert loaded.class_names == ("ant", "bee")
    assert loaded.recipe == detector.recipe
    expected = detector.predict(picture(), score_threshold=0.0)
    assert len(expected) > 0
    assert loaded.predict(picture(), score_threshold=0.0) == expected


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((2, "resnet19"), ValueError, r"list_models\(\) \(near: resnet"),
        ((2, 5), TypeError, "backbone: expected a name or a Module, got int"),
        ((2, Net(), "features.9"), ValueError, "got 'features.9'"),
        ((2, Net(), "fc"), ValueError, "map of one whole stride, got 'fc' of shape"),
        ((2, Net(), []), ValueError, "at least one layer, got none"),
        ((2, Net(), [8, 4]), ValueError, "layers of growing stride, got"),
        ((2, Net(), 5), ValueError, "no module of Net ends in a map of stride 5"),
        ((2, models.lenet5()), ValueError, "no module of LeNet5 ends in a map of stride 16"),
        ((2, models.lenet5(), "features.2"), ValueError, "images of 3 channels, got 1"),
    ],
)
def test_bad_backbones(arguments: tuple[Any, ...], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        faster_rcnn(*arguments)


def test_bad_options() -> None:
    with pytest.raises(ValueError, match="out_channels"):
        faster_rcnn(2, Net(), "features.5", out_channels=0)
    with pytest.raises(ValueError, match="norm_layer: expected one of"):
        faster_rcnn(2, Net(), "features.5", norm_layer="group")
    with pytest.raises(ValueError, match="weights_backbone: expected None for a network"):
        faster_rcnn(2, Net(), "features.5", weights_backbone="DEFAULT")
