"""Every model: its plan does what its layers do, one after the other, compute."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import oxidet
from conftest import assert_close
from oxidet import models, nn
from oxidet.models import vgg
from oxidet.simple_faster_rcnn import FasterRCNNResNet, FasterRCNNSmall, FasterRCNNVGG16

# Error that each precision may add to that of the layers, over whole networks.
TOLERANCES = {"direct": 1e-5, "winograd": 1e-4}


def randomise_statistics(model: nn.Module) -> nn.Module:
    """Batch norms as after training: not the identity."""
    rng = np.random.default_rng(0)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean = rng.normal(0, 0.1, module.num_features)
            module.running_var = rng.uniform(0.5, 2, module.num_features)
            module.weight = rng.uniform(0.5, 1.5, module.num_features)
            module.bias = rng.normal(0, 0.1, module.num_features)
    return model.eval()


def images(*shape: int) -> np.ndarray:
    return np.random.default_rng(1).standard_normal(shape).astype(np.float32)


def plan_count(module: nn.Module) -> int:
    return len(module.__dict__["_plan_cache"].plans) if "_plan_cache" in module.__dict__ else 0


def check(module: Any, *inputs: Any, method: str = "__call__") -> None:
    """Compare plans with layers, in both precisions, and images with their batch."""
    call = getattr(module, method)
    with nn.eager():
        expected = call(*inputs)
    assert plan_count(module) == 0
    single = not isinstance(expected, tuple)
    for precision, tolerance in TOLERANCES.items():
        with oxidet.precision(precision):
            got = call(*inputs)
            alone = call(*(x[-1:] for x in inputs))
            none = call(*(x[:0] for x in inputs))
        for a, b, one, empty in zip(
            *((value,) if single else value for value in (got, expected, alone, none)), strict=True
        ):
            assert_close(a, b, tolerance, precision)
            np.testing.assert_array_equal(one, a[-1:])
            assert empty.shape == (0, *a.shape[1:])
    assert plan_count(module) == 2


@pytest.mark.parametrize("activation", ["tanh", "sigmoid"])
def test_lenet5(activation: str) -> None:
    check(models.lenet5(activation=activation).eval(), images(3, 1, 32, 32))


@pytest.mark.parametrize("name", ["resnet18", "resnet34", "resnet50", "resnet101", "resnet152"])
def test_resnet(name: str) -> None:
    model = randomise_statistics(getattr(models, name)(num_classes=50))
    check(model, images(2, 3, 64, 50))


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("densenet121", {}),
        ("inception_v3", {"transform_input": True, "init_weights": False}),
        ("inception_resnet_v1", {"blocks": (1, 1, 1)}),
        ("resnext50_32x4d", {}),
        ("resnet50", {"replace_stride_with_dilation": [False, True, True], "stride_1x1": True}),
        ("resnet20_cifar10", {"shortcut": "A"}),
        ("plain18", {}),
    ],
)
def test_the_zoo(name: str, options: dict[str, Any]) -> None:
    model = randomise_statistics(models.get_model(name, num_classes=50, **options))
    check(model, images(2, 3, 76, 81))


@pytest.mark.parametrize("batch_norm", [False, True])
@pytest.mark.parametrize("configuration", vgg.CONFIGURATIONS)
def test_the_features_of_vgg(configuration: str, batch_norm: bool) -> None:
    features = randomise_statistics(vgg.make_features(configuration, batch_norm))
    features.compiled = True
    check(features, images(2, 3, 64, 50))


@pytest.mark.parametrize(
    "name",
    [
        "vgg11",
        *(pytest.param(name, marks=pytest.mark.slow) for name in ("vgg13", "vgg16", "vgg19")),
    ],
)
def test_vgg(name: str) -> None:
    check(getattr(models, name)(num_classes=10).eval(), images(2, 3, 64, 50))


DETECTORS = {
    "small": lambda: FasterRCNNSmall(),
    "resnet18": lambda: FasterRCNNResNet(3, "resnet18"),
    "resnet50": lambda: FasterRCNNResNet(3, "resnet50"),
    "vgg16": lambda: FasterRCNNVGG16(3),
}


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[pytest.mark.slow] * (name == "vgg16")) for name in DETECTORS],
)
def test_the_parts_of_a_detector(name: str) -> None:
    detector = randomise_statistics(DETECTORS[name]())
    x = images(2, 3, 96, 80)
    check(detector.extractor, x)
    with nn.eager():
        features = detector.extractor(x)
    check(detector.rpn, features, method="slide")
    channels = features.shape[1]
    pooled = images(5, channels, *((14, 14) if "resnet" in name else (7, 7)))
    check(detector.head, pooled, method="predict_boxes")


def test_a_detector_runs_plans_and_one_for_any_number_of_regions() -> None:
    oxidet.manual_seed(0)
    detector = randomise_statistics(FasterRCNNSmall())
    rng = np.random.default_rng(2)
    with oxidet.precision("direct"):
        for _ in range(3):
            picture = rng.uniform(0, 255, (3, 96, 128)).astype(np.float32)
            got = detector.detect(picture, score_thresh=0.0)
            with nn.eager():
                expected = detector.detect(picture, score_thresh=0.0)
            assert len(got[0]) > 0
            assert abs(len(got[0]) - len(expected[0])) <= 0.02 * len(expected[0])
        features = detector.extractor(images(1, 3, 64, 64))
        for regions in (0, 1, 7, 60):
            rois = rng.uniform(0, 30, (regions, 4)).astype(np.float32)
            rois[:, 2:] += rois[:, :2] + 8
            locs, scores = detector.head(features, rois, np.zeros(regions))
            with nn.eager():
                expected = detector.head(features, rois, np.zeros(regions))
            assert_close(locs, expected[0], 1e-5)
            assert_close(scores, expected[1], 1e-5)
    assert plan_count(detector.head) == 1
    assert plan_count(detector.extractor) == 2
    assert plan_count(detector.rpn) == 1


def test_training_a_detector_records_everything() -> None:
    detector = FasterRCNNSmall()
    output = detector(nn.Tensor(images(1, 3, 64, 64)))
    (output.roi_scores.sum() + output.roi_cls_locs.sum()).backward()
    assert detector.extractor[0].weight.grad is not None
    assert detector.head.score.weight.grad is not None
    parts = detector.extractor, detector.rpn, detector.head
    assert [plan_count(part) for part in parts] == [0, 0, 0]
