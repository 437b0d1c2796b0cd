"""Every network has the recipe it was published with (shared/spec/models.md, section 5)."""

from __future__ import annotations

import fnmatch
from typing import Any

import numpy as np
import pytest

from oxidet.models import get_model, list_models
from oxidet.transforms import ImageClassification

HALF: dict[str, Any] = {"mean": 0.5, "std": 0.5}
CIFAR: dict[str, Any] = {"mean": (0.4914, 0.4822, 0.4465), "std": (0.2470, 0.2435, 0.2616)}
STANDARD = ImageClassification(224)
RECIPES = {
    "plain??_cifar10": ImageClassification(32, resize_size=32, **CIFAR),
    "resnet*_cifar10": ImageClassification(32, resize_size=32, **CIFAR),
    "alexnet_2012": ImageClassification.caffe(227),
    "alexnet": STANDARD,
    "densenet*": STANDARD,
    "googlenet": STANDARD,
    "googlenet_paper": ImageClassification.caffe(224),
    "inception_resnet_v1": ImageClassification(299, resize_size=341, **HALF),
    "inception_resnet_v2": ImageClassification(
        299, resize_size=333, interpolation="bicubic", **HALF
    ),
    "inception_v2": ImageClassification(224, **HALF),
    "inception_v3": ImageClassification(299, resize_size=342),
    "inception_v4": ImageClassification(299, resize_size=341, interpolation="bicubic", **HALF),
    "lenet": ImageClassification(28, resize_size=28, mean=0, std=1, channels="L", scale=1 / 256),
    "lenet5*": ImageClassification(
        32, resize_size=28, mean=0.1 / 1.275, std=1 / 1.275, channels="L"
    ),
    "nin": ImageClassification.caffe(224),
    "nin_cifar10": ImageClassification.caffe(32, resize_size=(32, 32), mean=(113.9, 123.0, 125.3)),
    "plain*": STANDARD,
    "resne*": STANDARD,
    "vgg*": STANDARD,
    "wide_resnet*": STANDARD,
    "zfnet*": ImageClassification.caffe(224, resize_size=256),
}
LARGE = (
    "vgg*",
    "alexnet*",
    "zfnet*",
    "wide*",
    "resnext101*",
    "resnet101",
    "resnet152",
)  # seconds to draw


def params() -> list[Any]:
    large = {name for pattern in LARGE for name in fnmatch.filter(list_models(), pattern)}
    return [
        pytest.param(name, marks=pytest.mark.slow if name in large else ())
        for name in list_models()
    ]


@pytest.mark.parametrize("name", params())
def test_recipe(name: str) -> None:
    patterns = [pattern for pattern in RECIPES if fnmatch.fnmatch(name, pattern)]
    assert patterns, f"{name} has no recipe in this test"
    model: Any = get_model(name)
    assert model.preprocess == RECIPES[patterns[0]]
    picture = np.random.default_rng(0).integers(0, 256, (300, 400, 3), dtype=np.uint8)
    assert np.isfinite(model.preprocess(picture)).all()


@pytest.mark.parametrize("name", ["resnet18", "resnet20_cifar10"])
def test_a_network_takes_what_its_recipe_makes(name: str) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (300, 400, 3), dtype=np.uint8)
    found = get_model(name, num_classes=7).classify([picture, picture[:250]], top=3)
    assert [len(one) for one in found] == [3, 3]
