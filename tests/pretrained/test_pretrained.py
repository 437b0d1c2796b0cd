"""The weights in the package do what docs/shipped-weights.md says of them."""

from __future__ import annotations

import pytest

from oxidet.pretrained import PRETRAINED, digit_classifier, digit_detector
from oxidet.train import evaluate_detector
from oxidet.train.digits import judged_scenes, measure_lenet

pytest.importorskip("sklearn")


def test_the_shipped_lenet_is_as_good_as_documented() -> None:
    assert measure_lenet(digit_classifier()) >= 0.985


@pytest.mark.slow
def test_the_shipped_detector_is_as_good_as_documented() -> None:
    result = evaluate_detector(digit_detector(), judged_scenes())
    assert result.images == 200
    assert result.mean_ap >= 0.95


def test_the_shipped_weights_are_small() -> None:
    assert sum(entry.path.stat().st_size for entry in PRETRAINED.values()) <= 4_000_000
