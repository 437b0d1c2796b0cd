"""Inception v3 beside torchvision's, v4 and Inception-ResNet v2 beside timm's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from oxidet import models, nn
from parity.zoo import compare_logits, compare_training_step, keep_from_kinks, twins

pytest.importorskip("torch")
torchvision = pytest.importorskip("torchvision")
timm = pytest.importorskip("timm")


def theirs(name: str, **options: Any) -> Callable[[], Any]:
    if name == "inception_v3":
        options = {"init_weights": False, **options}
        return lambda: torchvision.models.inception_v3(weights=None, **options)
    return lambda: timm.create_model(name, **options)


def pair(name: str, **options: Any) -> tuple[nn.Module, Any]:
    ours = {"init_weights": False, **options} if name == "inception_v3" else options
    return twins(lambda: models.get_model(name, **ours), theirs(name, **options))


NAMES = ("inception_v3", "inception_v4", "inception_resnet_v2")


@pytest.mark.parametrize("name", NAMES)
def test_logits(name: str) -> None:
    ours, twin = pair(name)
    compare_logits(ours, twin, (1, 3, 299, 299))
    compare_logits(ours, twin, (1, 3, 113, 139))


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_logits_of_a_batch(name: str) -> None:
    compare_logits(*pair(name), (3, 3, 299, 299))


def test_transformed_input() -> None:
    compare_logits(*pair("inception_v3", transform_input=True), (3, 3, 80, 97))


@pytest.mark.parametrize("name", ["inception_v4", "inception_resnet_v2"])
def test_text_is_timms(name: str) -> None:
    ours, twin = models.get_model(name), theirs(name)()
    with nn.repr_style("torch2.13" if "bias=True, track" in str(twin) else "classic"):
        assert str(ours) == str(twin)


def test_a_training_step_without_the_auxiliary_head(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, twin = pair("inception_v3", aux_logits=False, num_classes=20)
    keep_from_kinks(ours, twin, monkeypatch)
    compare_training_step(ours, twin, (8, 3, 107, 107))


@pytest.mark.slow
def test_a_training_step_with_both_heads(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, twin = pair("inception_v3", num_classes=20)
    keep_from_kinks(ours, twin, monkeypatch)
    compare_training_step(ours, twin, (3, 3, 299, 299), auxiliary=(0.4,))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["inception_v4", "inception_resnet_v2"])
def test_a_training_step(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    ours, twin = pair(name, num_classes=20)
    keep_from_kinks(ours, twin, monkeypatch)
    compare_training_step(ours, twin, (8, 3, 107, 107))
