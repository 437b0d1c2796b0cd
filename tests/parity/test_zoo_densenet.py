"""DenseNets beside torchvision's."""

from __future__ import annotations

import pytest

from oxidet import models
from parity.zoo import compare_logits, compare_training_step, keep_from_kinks, twins

pytest.importorskip("torch")
torchvision = pytest.importorskip("torchvision")


def pair(name: str, **options: int):
    return twins(
        lambda: models.get_model(name, **options),
        lambda: torchvision.models.get_model(name, **options),
    )


@pytest.mark.parametrize("name", ["densenet121", "densenet161", "densenet169", "densenet201"])
def test_logits(name: str) -> None:
    ours, twin = pair(name)
    if name == "densenet121":
        compare_logits(ours, twin, (1, 3, 224, 224))
    compare_logits(ours, twin, (3, 3, 67, 93))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["densenet121", "densenet161", "densenet169", "densenet201"])
def test_logits_at_full_size(name: str) -> None:
    ours, twin = pair(name)
    compare_logits(ours, twin, (1, 3, 224, 224))
    compare_logits(ours, twin, (3, 3, 224, 224))


def test_a_training_step(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, twin = pair("densenet121", num_classes=20)
    keep_from_kinks(ours, twin, monkeypatch)
    compare_training_step(ours, twin, (6, 3, 64, 64))
