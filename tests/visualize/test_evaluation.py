"""Plots of an evaluation, and pictures of detections beside the truth."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from oxidet import Detections
from oxidet.detection import calc_detection_voc_prec_rec
from oxidet.models.detection import Detector
from oxidet.train import evaluate_detector
from oxidet.visualize import (
    PALETTE,
    annotated,
    confusion_matrix,
    contact_sheet,
    precision_recall,
)

matplotlib = pytest.importorskip("matplotlib")
matplotlib.use("Agg")
pyplot = pytest.importorskip("matplotlib.pyplot")
Image = pytest.importorskip("PIL.Image")

NAMES = ("cat", "$dog$")


@pytest.fixture(autouse=True)
def _close_figures() -> Any:
    yield
    pyplot.close("all")


class Shifted(Detector):
    """Finds a cat, and takes a dog for a cat."""

    def detect_images(self, images: Any, score: Any = None, nms: Any = None) -> Any:
        boxes = np.array([[0, 0, 10, 10], [20, 20, 30, 30]], np.float32)
        return [(boxes, np.array([0, 0]), np.array([0.9, 0.8], np.float32)) for _ in images]


def evaluation() -> Any:
    image = np.full((3, 40, 40), 128, np.float32)
    bbox = np.array([[0, 0, 10, 10], [20, 20, 30, 30], [30, 0, 40, 10]], np.float32)
    item = (image, bbox, np.array([0, 1, 1]))
    return evaluate_detector(Shifted(NAMES), [item])


def test_curves_of_an_evaluation() -> None:
    axes = precision_recall(evaluation())
    labels = [text.get_text() for text in axes.get_legend().get_texts()]
    assert labels == ["cat  1.000"]  # no dog was called one, so there is no curve
    line = axes.get_lines()[0]
    # One of one at recall 1; then a second, wrong one.
    np.testing.assert_allclose(line.get_xydata(), [[0, 1], [1, 1], [1, 0.5], [1, 0]])


def test_curves_of_arrays() -> None:
    prec, rec = calc_detection_voc_prec_rec(
        [[[0, 0, 9, 9], [50, 50, 60, 60]]], [[0, 2]], [[0.9, 0.8]], [[[0, 0, 9, 8]]], [[0]]
    )
    figure, axes = pyplot.subplots()
    assert precision_recall(prec, rec, names=("a", "b", "c"), ax=axes) is axes
    assert figure.axes == [axes]
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["a  1.000"]
    by_name = precision_recall({"a": (prec[0], rec[0])})
    np.testing.assert_array_equal(
        by_name.get_lines()[0].get_xydata(), axes.get_lines()[0].get_xydata()
    )


def test_of_many_classes_the_worst_are_named_and_the_mean() -> None:
    recall = np.linspace(0.1, 1, 10)
    curves = {f"c{k}": (np.full(10, (k + 1) / 12), recall) for k in range(12)}
    labels = [text.get_text() for text in precision_recall(curves).get_legend().get_texts()]
    assert [label.split()[0] for label in labels] == ["c0", "c1", "c2", "c3", "c4", "mean"]
    assert labels[-1] == f"mean of 12  {np.mean([(k + 1) / 12 for k in range(12)]):.3f}"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([None], [None]), "at least one class with a curve"),
        (([[1.0]],), "recall: expected 1 classes as precision, got none"),
        (([[1.0], [1.0]], [[1.0]]), "recall: expected 2 classes as precision, got 1"),
        (([[1.0]], [[0.5, 1.0]]), "recall: expected the shape"),
    ],
)
def test_curves_that_are_none(arguments: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        precision_recall(*arguments)


def test_confusion_counts_and_names() -> None:
    axes = confusion_matrix(evaluation())
    assert [text.get_text() for text in axes.get_xticklabels()] == [*NAMES, "missed"]
    assert [text.get_text() for text in axes.get_yticklabels()] == [*NAMES, "nothing"]
    counts = {text.get_position()[::-1]: int(text.get_text()) for text in axes.texts}
    assert counts == {(0, 0): 1, (1, 0): 1, (1, 2): 1}
    axes.figure.canvas.draw()  # "$dog$" is no formula
    few = confusion_matrix(evaluation(), score_threshold=0.85)
    counts = {text.get_position()[::-1]: int(text.get_text()) for text in few.texts}
    assert counts == {(0, 0): 1, (1, 2): 2}


def test_confusion_of_many_classes_has_no_numbers() -> None:
    assert len(confusion_matrix(np.eye(40, dtype=int)).texts) == 0
    with pytest.raises(ValueError, match=r"evaluation: expected counts \(C \+ 1, C \+ 1\)"):
        confusion_matrix(np.zeros((2, 3)))
    with pytest.raises(ValueError, match="names: expected 2, got 1"):
        confusion_matrix(np.eye(3), ["a"])


def grey(height: int = 400, width: int = 500) -> Any:
    return np.full((height, width, 3), 128, np.uint8)


def has(picture: Any, colour: tuple[int, int, int], box: tuple[int, int, int, int]) -> int:
    """Pixels of a colour within a box."""
    x1, y1, x2, y2 = box
    return int((np.asarray(picture)[y1:y2, x1:x2] == colour).all(axis=2).sum())


def test_found_and_missed_look_different() -> None:
    found = Detections([[50, 50, 150, 150]], [0], [0.9], class_names=NAMES)
    truth = Detections([[50, 50, 150, 152], [300, 200, 400, 300]], [0, 1], class_names=NAMES)
    image = grey()
    picture = annotated(image, found, truth, legend=False)
    assert picture.size == (500, 400)
    solid = has(picture, PALETTE[0], (50, 50, 51, 150))
    dashed = has(picture, PALETTE[1], (300, 200, 301, 300))
    assert solid == 100
    assert 30 < dashed < 70
    assert has(annotated(image, found, legend=False), PALETTE[1], (0, 0, 500, 400)) == 0
    hidden = annotated(image, found, truth, difficult=[False, True], legend=False)
    assert has(hidden, PALETTE[1], (0, 0, 500, 400)) == 0
    assert (image == 128).all()


def test_a_legend_names_every_class_below_the_picture() -> None:
    found = Detections([[50, 50, 150, 150]], [0], [0.9], class_names=NAMES)
    truth = Detections([[50, 50, 150, 152], [300, 200, 400, 300]], [0, 1], class_names=NAMES)
    picture = annotated(grey(), found, truth)
    assert picture.width == 500
    strip = (0, 400, 500, picture.height)
    assert has(picture, PALETTE[0], strip) > 50
    assert has(picture, PALETTE[1], strip) > 50
    nothing = annotated(grey(), found[:0])
    assert nothing.size == (500, 400)


def test_the_picture_may_be_tiny_and_the_boxes_many() -> None:
    rng = np.random.default_rng(0)
    corners = rng.uniform(-20, 60, (80, 2))
    boxes = np.concatenate([corners, corners + rng.uniform(0, 30, (80, 2))], axis=1)
    found = Detections(boxes[:40], rng.integers(0, 2, 40), rng.random(40), class_names=NAMES)
    truth = Detections(boxes[40:], rng.integers(0, 2, 40), class_names=NAMES)
    for shape in ((1, 1), (3, 40), (40, 40)):
        assert annotated(np.zeros(shape, np.uint8), found, truth).width >= shape[1]


def test_an_image_that_the_detections_carry() -> None:
    found = Detections([[5, 5, 15, 15]], [0], [0.9], image=grey(40, 60))
    assert annotated(None, found, scale=1, legend=False).size == (60, 40)
    with pytest.raises(ValueError, match="image: expected an image"):
        annotated(None, found.replace(image=None))
    with pytest.raises(ValueError, match="scale: expected at least 1"):
        annotated(None, found, scale=0)


def test_a_contact_sheet_holds_every_picture_once() -> None:
    colours = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 0, 255)]
    pictures = [Image.new("RGB", (60, 30 + 30 * k), colour) for k, colour in enumerate(colours)]
    sheet = contact_sheet(pictures, columns=3, width=600, titles=["a", "b" * 500, "c", "d"])
    assert sheet.width == 600
    areas = [has(sheet, colour, (0, 0, *sheet.size)) for colour in colours]
    assert all(area > 5000 for area in areas)
    assert np.allclose(np.array(areas) / areas[0], [1, 2, 3, 4], rtol=0.1)
    with pytest.raises(ValueError, match="titles: expected 4, got 1"):
        contact_sheet(pictures, titles=["a"])
    with pytest.raises(ValueError, match="pictures: expected at least 1, got 0"):
        contact_sheet([])
    assert contact_sheet([grey(6, 9)], columns=5, width=100).width == 100
