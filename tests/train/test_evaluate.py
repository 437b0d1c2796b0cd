"""Evaluation of a detector on a data set."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from oxidet.train import evaluate_detector


class Oracle:
    """Detects what it is told, image by image."""

    class_names = ("a", "b", "c")

    def __init__(self, found: list[tuple[Any, Any, Any]]) -> None:
        self.found = found
        self.thresholds: list[Any] = []

    def detect_images(self, images: Any, score: float, nms: float | None) -> Any:
        self.thresholds.append((score, nms))
        found = [self.found[int(image[0, 0, 0])] for image in images]
        return [(bbox[:, [1, 0, 3, 2]], label, score) for bbox, label, score in found]


def item(index: int, bbox: list[list[float]], label: list[int], difficult: Any = None) -> Any:
    image = np.full((3, 8, 8), index, np.float32)
    entry = (image, np.array(bbox, np.float32).reshape(-1, 4), np.array(label, np.int32))
    return entry if difficult is None else (*entry, np.array(difficult, bool))


def found(bbox: list[list[float]], label: list[int], score: list[float]) -> Any:
    return (
        np.array(bbox, np.float32).reshape(-1, 4),
        np.array(label, np.int32),
        np.array(score, np.float32),
    )


def test_the_example_of_the_specification() -> None:
    """spec/detection.md, section 13: precision 1, 1, 2/3, 2/3, 1/2, one object difficult."""
    dataset = [
        item(0, [[0, 0, 9, 9], [20, 20, 39, 39]], [0, 0], [False, True]),
        item(1, [[10, 10, 19, 19], [60, 60, 70, 70]], [0, 0], [False, False]),
    ]
    model = Oracle(
        [
            found(
                [[0, 0, 9, 9], [0, 0, 9, 8], [20, 20, 39, 39], [50, 50, 60, 60]],
                [0, 0, 0, 0],
                [0.9, 0.8, 0.7, 0.6],
            ),
            found([[10, 10, 19, 18]], [0], [0.85]),
        ]
    )
    area = evaluate_detector(model, dataset, score_threshold=0.2, nms_threshold=0.4)  # type: ignore[arg-type]
    assert area.mean_ap == pytest.approx(2 / 3)
    assert (area.images, area.objects) == (2, 3)
    assert area.ap["a"] == pytest.approx(2 / 3)
    assert math.isnan(area.ap["b"])
    assert math.isnan(area.ap["c"])
    assert model.thresholds == [(0.2, 0.4)] * 2
    assert "mean average precision 0.6667 (2 images, 3 objects)" in str(area)
    eleven = evaluate_detector(model, dataset, use_07_metric=True)  # type: ignore[arg-type]
    assert eleven.mean_ap == pytest.approx(0.636364, abs=1e-6)


def test_nothing_found_and_nothing_there() -> None:
    model = Oracle([found([], [], []), found([], [], [])])
    result = evaluate_detector(model, [item(0, [[0, 0, 5, 5]], [1]), item(1, [], [])])  # type: ignore[arg-type]
    assert result.mean_ap == 0
    with pytest.raises(ValueError, match="dataset: expected at least one image"):
        evaluate_detector(model, [])  # type: ignore[arg-type]
