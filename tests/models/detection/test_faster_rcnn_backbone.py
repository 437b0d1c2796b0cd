"""Faster R-CNN over any network: where it is cut, what it keeps, that it predicts and trains."""

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
    FasterRCNNBackbone,
    build_detector,
    faster_rcnn,
    load_detector,
    save_detector,
)
from oxidet.models.detection.faster_rcnn_backbone import feature_map
from oxidet.models.feature_extraction import create_feature_extractor
from oxidet.simple_faster_rcnn import Preprocessing
from oxidet.train import FasterRCNNTrainer
from oxidet.train.faster_rcnn import faster_rcnn_optimizer

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
SMALL = Preprocessing(min_size=96, max_size=128)


class Net(nn.Module):
    """A network with a map of stride 8, a head, and batch norm."""

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
    found = feature_map(network)
    assert (found.layer, found.channels, found.stride) == (*CUTS[name], 16)
    assert set(found.body.state_dict()) < keys
    assert set(network.state_dict()) == keys


def check_detector(detector: FasterRCNNBackbone) -> None:
    """It predicts with the weights it has, and one step changes all that it should."""
    result = detector.predict(picture(), score_threshold=0.0)
    assert isinstance(result, Detections)
    assert len(result) > 0
    boxes = np.asarray([[10.0, 12.0, 70.0, 80.0]], np.float32)
    image = detector.preprocessing(picture())[None]
    trainer = FasterRCNNTrainer(detector.train(), rng=np.random.RandomState(0))
    losses = trainer(image, [boxes], [np.asarray([1], np.int32)])
    losses.total_loss.backward()
    assert np.isfinite(float(losses.total_loss))
    for name, parameter in detector.named_parameters():
        assert parameter.grad is not None, name
        assert np.isfinite(parameter.grad).all(), name
    before = {key: value.copy() for key, value in detector.state_dict().items()}
    faster_rcnn_optimizer(detector).step()
    changed = {k for k, v in detector.state_dict().items() if not np.array_equal(v, before[k])}
    assert changed >= {name for name, p in detector.named_parameters() if p.grad.any()}
    assert not any("running" in key for key in changed)  # batch norm stays in evaluation mode


def test_a_network_of_ones_own() -> None:
    net = Net()
    detector = faster_rcnn(3, net, "features.5", preprocessing=SMALL)
    assert (detector.feat_stride, detector.rpn.feat_stride, detector.n_class) == (8, 8, 4)
    keys = list(detector.state_dict())
    assert "extractor.body.features.4.weight" in keys
    assert not any("features.6" in key or "fc" in key for key in keys)
    assert len(net.state_dict()) == 13
    x = SMALL(picture())[None]
    with nn.evaluating(net), nn.evaluating(detector), nn.no_grad():
        features = create_feature_extractor(net, {"features.5": "map"})(x)["map"]
        assert_close(detector.extractor(x), detector.extractor.neck(features))
    check_detector(detector)
    # The layers are those of the network.
    np.testing.assert_array_equal(
        detector.extractor.body.features[4].weight.numpy(), net.features[4].weight.numpy()
    )


@pytest.mark.parametrize("name", sorted(set(FAMILIES) & set(models.list_models())))
def test_networks_of_the_zoo(name: str) -> None:
    check_detector(faster_rcnn(2, name, preprocessing=SMALL))


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(set(models.list_models()) & (set(CUTS) - set(FAMILIES))))
def test_the_rest_of_the_zoo(name: str) -> None:
    check_detector(faster_rcnn(2, name, preprocessing=SMALL))


def test_by_name_and_from_a_file(tmp_path: Path) -> None:
    detector = build_detector(
        "faster_rcnn",
        n_fg_class=2,
        backbone="resnet18",
        layer="layer2",
        width=16,
        class_names=("ant", "bee"),
        preprocessing=SMALL,
    )
    assert detector.recipe is not None
    assert detector.recipe["backbone"] == "resnet18"
    save_detector(tmp_path / "detector.npz", detector)
    loaded = load_detector(tmp_path / "detector.npz")
    assert loaded.class_names == ("ant", "bee")
    expected = detector.predict(picture(), score_threshold=0.0)
    np.testing.assert_array_equal(
        loaded.predict(picture(), score_threshold=0.0).boxes, expected.boxes
    )


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((2, "resnet19"), ValueError, r"list_models\(\) \(near: resnet"),
        ((2, 5), TypeError, "backbone: expected a name or a Module, got int"),
        ((2, Net(), "features.9"), ValueError, "got 'features.9'"),
        ((2, Net(), "fc"), ValueError, "map of one whole stride, got 'fc' of shape"),
        ((2, models.lenet5()), ValueError, "no module of LeNet5 ends in a map of stride 16"),
        ((2, models.lenet5(), "features.2"), ValueError, "images of 3 channels, got 1"),
    ],
)
def test_bad_backbones(arguments: tuple[Any, ...], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        faster_rcnn(*arguments)
    with pytest.raises(ValueError, match="width"):
        faster_rcnn(2, Net(), "features.5", width=0)
