"""Evaluation of a detector on a data set."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from oxidet.data import ImageError, ItemError
from oxidet.detection import eval_detection_coco
from oxidet.models.detection import Detector
from oxidet.train import evaluate_detector


class Oracle(Detector):
    """Detects what it is told, image by image."""

    def __init__(self, found: list[tuple[Any, Any, Any]]) -> None:
        super().__init__(("a", "b", "c"))
        self.found = found
        self.thresholds: list[Any] = []
        self.batches: list[int] = []

    def detect_images(self, images: Any, score: Any = None, nms: Any = None) -> Any:
        self.thresholds.append((score, nms))
        self.batches.append(len(images))
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


@pytest.mark.parametrize("place", [3, 4])
@pytest.mark.parametrize("marks", [[False], [False] * 3, [[False, False]], [0.0, 1.0]])
def test_marks_fit_the_objects(place: int, marks: Any) -> None:
    boxes = [[0, 0, 4, 4], [2, 2, 8, 8]]
    good = (*item(0, boxes, [0, 0], [False, False]), np.array([False, False]))
    bad = (*good[:place], np.array(marks), *good[place + 1 :])
    dataset = [good, bad]
    oracle = Oracle([found(boxes, [0, 0], [0.8, 0.9])])
    name = ("difficult", "crowd")[place - 3]
    with pytest.raises(ItemError, match=rf"item 1 .*{name}: expected bool of shape \(2,\), got"):
        evaluate_detector(oracle, dataset)
    result = evaluate_detector(oracle, dataset, on_error="skip")
    assert (result.images, len(result.skipped)) == (1, 1)


def test_results_are_named_after_their_images() -> None:
    class Named(list):  # type: ignore[type-arg]
        def image_path(self, index: int) -> Path:
            return Path("pictures") / f"{'ab'[index]}.jpg"

        def annotation(self, index: int) -> SimpleNamespace:
            return SimpleNamespace(area=np.array([16.0]))

    items = [(*item(i, [[0, 0, 4, 4]], [0], [False]), np.array([False])) for i in range(2)]
    oracle = Oracle([found([[0, 0, 4, 4]], [0], [0.8])] * 2)
    results = evaluate_detector(oracle, Named(items)).results
    assert [result.name for result in results] == ["a.jpg", "b.jpg"]
    assert [result.name for result in evaluate_detector(oracle, items).results] == ["0", "1"]


def test_crowds_neither_help_nor_harm() -> None:
    boxes = [[0, 0, 4, 4], [2, 2, 8, 8]]
    dataset = [(*item(0, boxes, [0, 0], [False, False]), np.array([False, True]))]
    result = evaluate_detector(Oracle([found(boxes, [0, 0], [0.8, 0.9])]), dataset)
    assert (result.mean_ap, result.objects) == (1.0, 1)
    missed = evaluate_detector(Oracle([found(boxes[:1], [0], [0.8])]), dataset)
    assert (missed.mean_ap, missed.coco_figures["AP50"]) == (1.0, pytest.approx(1.0))


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
    area = evaluate_detector(model, dataset, score_threshold=0.2, nms_threshold=0.4)
    assert area.mean_ap == pytest.approx(2 / 3)
    assert (area.images, area.objects) == (2, 3)
    assert area.ap["a"] == pytest.approx(2 / 3)
    assert math.isnan(area.ap["b"])
    assert math.isnan(area.ap["c"])
    assert model.thresholds == [(0.2, 0.4)] * 2
    assert "mean average precision 0.6667 (2 images, 3 objects)" in str(area)
    eleven = evaluate_detector(model, dataset, use_07_metric=True)
    assert eleven.mean_ap == pytest.approx(0.636364, abs=1e-6)


def test_nothing_found_and_nothing_there() -> None:
    model = Oracle([found([], [], []), found([], [], [])])
    result = evaluate_detector(model, [item(0, [[0, 0, 5, 5]], [1]), item(1, [], [])])
    assert result.mean_ap == 0
    with pytest.raises(ValueError, match="dataset: expected at least one image"):
        evaluate_detector(model, [])


def cats_and_dogs() -> tuple[Oracle, list[Any]]:
    """Two images: a cat found, a dog taken for a cat, a cat missed, a dog where none is, and one
    on a difficult cat."""
    dataset = [
        item(0, [[0, 0, 10, 10], [20, 20, 30, 30], [40, 40, 50, 50]], [0, 1, 0]),
        item(1, [[0, 0, 10, 10], [30, 30, 40, 40]], [1, 0], [False, True]),
    ]
    model = Oracle(
        [
            found([[0, 0, 10, 9], [20, 20, 30, 30], [40, 40, 50, 50]], [0, 0, 0], [0.9, 0.8, 0.3]),
            found(
                [[60, 60, 70, 70], [0, 0, 10, 10], [30, 30, 40, 40]], [1, 1, 1], [0.95, 0.85, 0.7]
            ),
        ]
    )
    model.class_names = ("cat", "dog")
    return model, dataset


def test_confusion_and_the_worst_images() -> None:
    model, dataset = cats_and_dogs()
    result = evaluate_detector(model, dataset)
    #        cat dog missed
    expected = [
        [1, 0, 1],  # cat
        [1, 1, 0],  # dog
        [0, 1, 0],  # nothing there
    ]
    np.testing.assert_array_equal(result.confusion(), expected)
    assert result.confusion(score_threshold=0.2)[0].tolist() == [2, 0, 0]
    assert result.objects_by_class == {"cat": 2, "dog": 2}
    assert [worst.item for worst in result.worst()] == [0, 1]
    assert [worst.item for worst in result.worst(1)] == [0]
    assert result.worst(score_threshold=1.0)[0].mistakes(1.0).missed.tolist() == [True] * 3
    faults = result.results[1].mistakes()
    assert (faults.wrong.sum(), faults.invented.tolist()) == (0, [True, False, False])


def test_cocos_figures_are_those_of_its_evaluation() -> None:
    model, dataset = cats_and_dogs()
    result = evaluate_detector(model, dataset)
    columns = [list(column) for column in zip(*model.found, strict=True)]
    expected = eval_detection_coco(
        *columns,
        [entry[1] for entry in dataset],
        [entry[2] for entry in dataset],
        gt_crowdeds=[np.zeros(3, bool), np.array([False, True])],
    )
    figures = result.coco_figures
    for name, key in (("AP", "iou=0.50:0.95"), ("AP50", "iou=0.50"), ("AP75", "iou=0.75")):
        assert figures[name] == pytest.approx(expected[f"map/{key}/area=all/max_dets=100"]), name
    assert math.isnan(figures["APl"])
    np.testing.assert_allclose(
        list(result.coco_ap.values()), expected["ap/iou=0.50:0.95/area=all/max_dets=100"]
    )


def test_curves_belong_to_their_classes() -> None:
    model, dataset = cats_and_dogs()
    result = evaluate_detector(model, dataset)
    assert list(result.curves) == ["cat", "dog"]
    np.testing.assert_allclose(result.curves["cat"].precision, [1, 1 / 2, 2 / 3])
    np.testing.assert_allclose(result.curves["cat"].recall, [1 / 2, 1 / 2, 1])


def test_the_table_says_everything_that_was_measured() -> None:
    model, dataset = cats_and_dogs()
    model.class_names = ("cat", "dog", "a\x1b<b>")
    text = repr(evaluate_detector(model, dataset))
    lines = text.splitlines()
    assert lines[1].split() == ["class", "objects", "AP50", "AP"]
    assert lines[2].split()[:2] == ["cat", "2"]
    assert lines[4].split() == ["a\\x1b<b>", "0", "-", "-"]
    assert lines[-1].startswith("COCO: AP 0.")
    page = evaluate_detector(model, dataset)._repr_html_()
    assert "a\x1b&lt;b&gt;" in page
    assert "<b>b" not in page
    assert "AP75" in page


@pytest.mark.parametrize("batch_size", [1, 2, 3])
def test_batches_do_not_change_the_result(batch_size: int) -> None:
    model, dataset = cats_and_dogs()
    result = evaluate_detector(model, dataset, batch_size=batch_size)
    assert max(model.batches) == min(batch_size, 2)
    assert result.ap == pytest.approx({"cat": 5 / 6, "dog": 1 / 4})
    assert [entry.item for entry in result.results] == [0, 1]


class Damaged:
    """The second image cannot be read."""

    def __init__(self, items: list[Any]) -> None:
        self.items = items

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> Any:
        if index == 1:
            raise ImageError("b.jpg: expected an image file, got a damaged one")
        return self.items[index]


def test_an_unreadable_image_stops_or_is_left_out() -> None:
    model, dataset = cats_and_dogs()
    with pytest.raises(ItemError, match="1"):
        evaluate_detector(model, Damaged(dataset))
    result = evaluate_detector(model, Damaged(dataset), on_error="skip", batch_size=2)
    assert (result.images, result.objects) == (1, 3)
    [reason] = result.skipped
    assert reason.endswith("b.jpg: expected an image file, got a damaged one")
    with pytest.raises(ValueError, match="on_error: expected 'raise' or 'skip', got 'ignore'"):
        evaluate_detector(model, dataset, on_error="ignore")  # type: ignore[arg-type]


def test_a_label_beyond_the_models_classes_names_its_image() -> None:
    model, dataset = cats_and_dogs()
    dataset.append(item(1, [[0, 0, 9, 9]], [7]))
    with pytest.raises(ItemError, match=r"item 2 of list: ValueError: label: expected .* 0 to 1"):
        evaluate_detector(model, dataset)
    result = evaluate_detector(model, dataset, on_error="skip")
    assert result.images == 2
    assert len(result.skipped) == 1
