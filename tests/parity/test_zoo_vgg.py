"""AlexNet and VGG against torchvision: logits, and a step of training."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import pytest

from oxidet import models, nn
from oxidet.models import vgg

torch = pytest.importorskip("torch")
torchvision = pytest.importorskip("torchvision")

from parity import zoo  # noqa: E402

DEPTHS = {"11": "A", "13": "B", "16": "D", "19": "E"}


def twins(name: str, **options: Any) -> tuple[Any, Any]:
    return zoo.twins(
        lambda: getattr(models, name)(**options),
        lambda: getattr(torchvision.models, name)(weights=None, **options),
    )


def with_small_head(features: Any, nn: Any) -> Any:
    """A VGG whose linear layers are too small to slow a test; ``nn`` is ours or torch's."""
    head = nn.Sequential(
        nn.Linear(512 * 7 * 7, 64), nn.ReLU(True), nn.Dropout(0.5), nn.Linear(64, 10)
    )
    return nn.Sequential(
        OrderedDict(
            features=features, avgpool=nn.AdaptiveAvgPool2d((7, 7)), flat=nn.Flatten(), head=head
        )
    )


def small_twins(name: str) -> tuple[Any, Any]:
    depth, _, norm = name.removeprefix("vgg").partition("_")
    torch.manual_seed(0)
    configuration = torchvision.models.vgg.cfgs[DEPTHS[depth]]
    features = torchvision.models.vgg.make_layers(configuration, batch_norm=norm == "bn")
    for module in features.modules():
        if isinstance(module, torch.nn.Conv2d):
            torch.nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    theirs = zoo.randomise_statistics(with_small_head(features, torch.nn))
    ours = with_small_head(vgg.make_features(DEPTHS[depth], norm == "bn"), nn)
    ours.compiled = True
    return zoo.copy_weights(ours, theirs), theirs


NAMES = [f"vgg{depth}{norm}" for depth in DEPTHS for norm in ("", "_bn")]


def test_logits_of_alexnet() -> None:
    ours, theirs = twins("alexnet")
    for shape in ((1, 3, 224, 224), (3, 3, 224, 224), (2, 3, 97, 131)):
        zoo.compare_logits(ours, theirs, shape)


def test_a_training_step_of_alexnet() -> None:
    ours, theirs = twins("alexnet", num_classes=10)
    zoo.compare_training_step(ours, theirs, (2, 3, 96, 96))


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_logits_of_vgg(name: str) -> None:
    ours, theirs = twins(name)
    for shape in ((1, 3, 224, 224), (3, 3, 224, 224), (2, 3, 97, 131)):
        zoo.compare_logits(ours, theirs, shape)


@pytest.mark.parametrize("name", ["vgg11_bn", "vgg13", "vgg19_bn"])
def test_logits_of_vgg_with_a_small_head(name: str) -> None:
    zoo.compare_logits(*small_twins(name), (2, 3, 97, 67))


# Sizes at which no ReLU or pool of these deep stacks, whose gradients jump there, decides otherwise
# for another rounding.
@pytest.mark.parametrize(("name", "size"), [("vgg11", 64), ("vgg16_bn", 96)])
def test_a_training_step_of_vgg_with_a_small_head(name: str, size: int) -> None:
    ours, theirs = small_twins(name)
    zoo.compare_training_step(ours, theirs, (2, 3, size, size))
