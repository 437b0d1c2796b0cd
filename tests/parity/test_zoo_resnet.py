"""The ResNet family beside torchvision's."""

from __future__ import annotations

from typing import Any

import pytest

from oxidet import models, nn
from parity.zoo import compare_logits, compare_training_step, keep_from_kinks, twins

pytest.importorskip("torch")
torchvision = pytest.importorskip("torchvision")

SMALL = ("resnet18", "resnet34", "resnet50", "resnext50_32x4d")
LARGE = (
    "wide_resnet50_2",
    "resnet101",
    "resnet152",
    "resnext101_32x8d",
    "resnext101_64x4d",
    "wide_resnet101_2",
)


def pair(name: str, **options: Any) -> tuple[nn.Module, Any]:
    return twins(
        lambda: models.get_model(name, **options),
        lambda: torchvision.models.get_model(name, **options),
    )


@pytest.mark.parametrize(
    "name", [*SMALL, *(pytest.param(name, marks=pytest.mark.slow) for name in LARGE)]
)
def test_logits(name: str) -> None:
    ours, twin = pair(name)
    compare_logits(ours, twin, (1, 3, 224, 224))
    compare_logits(ours, twin, (1, 3, 97, 131))


@pytest.mark.slow
@pytest.mark.parametrize("name", [*SMALL, *LARGE])
def test_logits_of_a_batch(name: str) -> None:
    compare_logits(*pair(name), (3, 3, 224, 224))


def test_dilated() -> None:
    ours, twin = pair("resnet50", replace_stride_with_dilation=[False, True, True])
    compare_logits(ours, twin, (2, 3, 65, 80))


def test_texts_are_torchvisions() -> None:
    for name in ("resnet34", "resnext50_32x4d"):
        theirs = str(torchvision.models.get_model(name))
        with nn.repr_style("torch2.13" if "bias=True, track" in theirs else "classic"):
            assert str(models.get_model(name)) == theirs, name


@pytest.mark.parametrize("name", ["resnet50", "resnext50_32x4d"])
def test_a_training_step(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    ours, twin = pair(name, num_classes=20)
    keep_from_kinks(ours, twin, monkeypatch)
    compare_training_step(ours, twin, (4, 3, 64, 64))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet34", "resnet101", "resnet152", "wide_resnet50_2"])
def test_a_training_step_of_more(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    ours, twin = pair(name, num_classes=20)
    keep_from_kinks(ours, twin, monkeypatch)
    compare_training_step(ours, twin, (4, 3, 64, 64))
