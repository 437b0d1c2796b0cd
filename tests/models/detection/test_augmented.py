"""Several looks at an image: mirrored boxes come back, sizes reach the network, looks are fused."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from conftest import assert_close
from oxidet.models.detection import (
    AugmentedDetector,
    Detector,
    Found,
    build_detector,
)
from oxidet.ops import box_iou
from oxidet.simple_faster_rcnn import Preprocessing

FLIPS = ("", "x", "y", "xy")


class Bright(Detector):
    """Finds the rectangle of bright pixels, exactly, and knows nothing of sizes."""

    def __init__(self) -> None:
        super().__init__(["bright"])

    def detect_images(
        self, images: Sequence[Any], score: float | None = None, nms: float | None = None
    ) -> list[Found]:
        results = []
        for image in images:
            rows, columns = np.nonzero(image[0] > 100)
            corners = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
            results.append(
                Found(np.array([corners], np.float32), np.array([0]), np.array([0.75], np.float32))
            )
        return results


def scene() -> np.ndarray:
    image = np.zeros((3, 40, 60), np.float32)
    image[:, 5:15, 7:30] = 255
    return image


@pytest.mark.parametrize("flips", [FLIPS, ("x",), ("y",), ("xy", "")])
def test_boxes_of_mirror_images_come_back(flips: tuple[str, ...]) -> None:
    [found] = AugmentedDetector(Bright(), flips).detect_images([scene()])
    assert_close(found.boxes, [[7, 5, 30, 15]], 1e-6)
    assert found.boxes.dtype == found.scores.dtype == np.float32
    assert found.labels.tolist() == [0]
    assert_close(found.scores, [0.75], 1e-6)


class Once(Bright):
    """Sees the rectangle in the first call only."""

    calls = 0

    def detect_images(
        self, images: Sequence[Any], score: float | None = None, nms: float | None = None
    ) -> list[Found]:
        self.calls += 1
        found = super().detect_images(images)
        if self.calls > 1:
            found = [Found(*(column[:0] for column in one)) for one in found]
        return found


def test_what_one_look_of_four_sees_counts_for_a_quarter() -> None:
    [found] = AugmentedDetector(Once(), FLIPS).detect_images([scene()], 0.1)
    assert_close(found.scores, [0.75 / 4], 1e-6)
    [found] = AugmentedDetector(Once(), FLIPS).detect_images([scene()], 0.2)
    assert found.boxes.shape == (0, 4)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("fasterrcnn_resnet_fpn", {"min_size": 64, "max_size": 96}),
        ("faster_rcnn_small", {"preprocessing": Preprocessing(64, 96)}),
    ],
)
def test_sizes_reach_the_network(
    name: str, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    detector = build_detector(name, class_names=("a", "b"), **options).eval()
    image = np.random.default_rng(0).uniform(0, 255, (3, 60, 80)).astype(np.float32)
    seen: list[tuple[int, ...]] = []
    part = "convolve" if name == "fasterrcnn_resnet_fpn" else "forward"
    original = getattr(detector, part)

    def spy(x: Any, *rest: Any) -> Any:
        seen.append(np.shape(x)[2:])
        return original(x, *rest)

    monkeypatch.setattr(detector, part, spy)
    augmented = AugmentedDetector(detector, ("",), (0.5, 1, 2))
    [found] = augmented.detect_images([image], 0.0)
    if name == "fasterrcnn_resnet_fpn":  # to whole pixels downwards, then padded to 32
        assert seen == [(32, 64), (64, 96), (128, 192)]
    else:
        assert seen == [(32, 43), (64, 85), (128, 171)]
    assert len(found.boxes)
    assert found.boxes.min() >= 0
    assert (found.boxes[:, 2:] <= (80, 60)).all()


def test_one_look_as_it_is_changes_nothing_but_the_order() -> None:
    detector = build_detector("faster_rcnn_small", class_names=("a", "b")).eval()
    image = np.random.default_rng(1).uniform(0, 255, (3, 60, 80)).astype(np.float32)
    [own] = detector.detect_images([image], 0.3)
    # With an overlap of 1 nothing is fused.
    [found] = AugmentedDetector(detector, ("",), (1,), 1.0).detect_images([image], 0.3)
    assert len(own.boxes) == len(found.boxes) > 0
    nearest = box_iou(found.boxes, own.boxes).argmax(axis=1)
    assert_close(found.boxes, own.boxes[nearest], 1e-5)
    assert (np.diff(found.scores) <= 0).all()


def test_it_is_a_detector_like_another() -> None:
    detector = Bright()
    augmented = AugmentedDetector(detector, FLIPS, (1.0,))
    assert augmented.class_names == detector.class_names
    found = augmented.predict(scene().astype(np.uint8).transpose(1, 2, 0))
    assert found.names == ["bright"]
    assert "flips=('', 'x', 'y', 'xy'), scales=(1.0,), iou_thresh=0.55" in repr(augmented)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((5,), TypeError, "detector: expected a Detector, got int"),
        ((Bright(), ("z",)), ValueError, "flips: expected some of .*, got 'z'"),
        ((Bright(), ()), ValueError, "flips: expected some of .*, got none"),
        ((Bright(), ("",), ()), ValueError, "scales: expected positive numbers, at least one"),
        ((Bright(), ("",), (0,)), ValueError, "scales: expected positive numbers"),
        ((Bright(), ("",), (1,), 2), ValueError, "iou_thresh"),
    ],
)
def test_bad_arguments(arguments: tuple[Any, ...], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        AugmentedDetector(*arguments)
