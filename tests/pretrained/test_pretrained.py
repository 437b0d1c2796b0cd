"""The weights in the package do what docs/shipped-weights.md says of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from oxidet.data import VOCBboxDataset
from oxidet.pretrained import PRETRAINED, blood_cell_detector, digit_classifier, digit_detector
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


@pytest.mark.parametrize(
    ("pictures", "least"), [(8, 0.85), pytest.param(72, 0.9, marks=pytest.mark.slow)]
)
def test_the_shipped_blood_cell_detector_is_as_good_as_documented(
    bccd: Path, pictures: int, least: float
) -> None:
    detector = blood_cell_detector()
    assert detector.class_names == ("RBC", "WBC", "Platelets")
    test = VOCBboxDataset(
        bccd, "test", use_difficult=True, class_names=detector.class_names, coordinates="edges"
    )
    result = evaluate_detector(detector, [test[index] for index in range(pictures)])
    assert result.images == pictures
    assert result.mean_ap >= least


def test_the_shipped_weights_are_small() -> None:
    assert sum(entry.path.stat().st_size for entry in PRETRAINED.values()) <= 8_000_000
