"""What a detector does between its networks: arguments, empty batches, threads."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import oxidet
from box_comparison import random_boxes
from oxidet import ops
from oxidet.detection import loc2bbox, non_maximum_suppression
from oxidet.models.detection import Matcher, _kernels
from oxidet.nn import functional as F


def same_for_any_number_of_threads(run: Callable[[], Any]) -> None:
    before = oxidet.get_num_threads()
    try:
        results = []
        for threads in (1, 2, 5):
            oxidet.set_num_threads(threads)
            results.append(run())
    finally:
        oxidet.set_num_threads(before)
    for other in results[1:]:
        for image, expected in zip(other, results[0], strict=True):
            parts = (image,) if isinstance(image, np.ndarray) else image
            wanted = (expected,) if isinstance(expected, np.ndarray) else expected
            for got, array in zip(parts, wanted, strict=True):
                assert got.tobytes() == array.tobytes()


# A square and a flat anchor.
CELLS = [[-8, -8, 8, 8], [-8, -4, 8, 4]]


def rpn(images: int = 2, **changes: Any) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    grids = [(20, 24), (10, 12)]
    draw = lambda *shape: rng.standard_normal(shape).astype(np.float32)  # noqa: E731
    arguments: dict[str, Any] = {
        "objectness": [draw(images, 2, *grid) for grid in grids],
        "deltas": [0.2 * draw(images, 8, *grid) for grid in grids],
        "cell_anchors": [
            np.array([[-8, -8, 8, 8], [-8, -4, 8, 4]], np.float32) * s for s in (1, 2)
        ],
        "strides": [(8, 8), (16, 16)],
        "image_sizes": [(160 - i, 190) for i in range(images)],
        "pre_nms_top_n": 300,
        "post_nms_top_n": 100,
    }
    return {**arguments, **changes}


def head(counts: list[int], classes: int = 4) -> tuple[Any, Any, list[Any]]:
    rng = np.random.default_rng(1)
    total = sum(counts)
    return (
        2 * rng.standard_normal((total, classes)).astype(np.float32),
        rng.standard_normal((total, 4 * classes)).astype(np.float32),
        [random_boxes(rng, n, 100).astype(np.float32) for n in counts],
    )


def test_the_number_of_threads_does_not_change_a_bit() -> None:
    many = head([700, 400, 0, 900], 12)
    sizes = [(100, 90)] * 4
    same_for_any_number_of_threads(
        lambda: _kernels.rpn_proposals(**rpn(3, pre_nms_top_n=900, post_nms_top_n=500))
    )
    same_for_any_number_of_threads(lambda: _kernels.box_detections(*many, sizes))
    same_for_any_number_of_threads(
        lambda: _kernels.detect_per_class(*many, sizes, [1.0, 0.5, 1.0, 2.0])
    )


def test_equal_logits_are_taken_in_order() -> None:
    arguments = rpn(1, pre_nms_top_n=3, nms_thresh=1.0)
    arguments["objectness"] = [np.zeros((1, 2, 20, 24), "f4"), np.ones((1, 2, 10, 12), "f4")]
    arguments["deltas"] = [np.zeros_like(level) for level in arguments["deltas"]]
    ((boxes, scores),) = _kernels.rpn_proposals(**arguments)
    # Both anchors of the first cell and one of the second, the better level first.
    expected = [[0, 0, 16, 16], [0, 0, 16, 8], [0, 0, 32, 16]]
    assert boxes.tolist() == [*expected, [0, 0, 8, 8], [0, 0, 8, 4], [0, 0, 16, 8]]
    assert np.round(scores, 4).tolist() == np.float32([0.7311] * 3 + [0.5] * 3).tolist()


def test_nothing_to_propose() -> None:
    assert _kernels.rpn_proposals(**rpn(0)) == []
    for changes in ({"pre_nms_top_n": 0}, {"post_nms_top_n": 0}, {"min_size": 1e6}):
        for boxes, scores in _kernels.rpn_proposals(**rpn(**changes)):
            assert boxes.shape == (0, 4)
            assert scores.shape == (0,)
    empty = rpn(2)
    empty["objectness"][1] = np.zeros((2, 2, 0, 5), np.float32)
    empty["deltas"][1] = np.zeros((2, 8, 0, 5), np.float32)
    assert all(len(boxes) == 100 for boxes, _ in _kernels.rpn_proposals(**empty))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image_sizes": [(160, 190)]}, "objectness: expected one for each image"),
        ({"deltas": [np.zeros((2, 8, 20, 24), "f4")]}, "deltas: expected 2 levels"),
        ({"strides": [(8, 8)]}, "strides: expected 2 levels"),
        ({"cell_anchors": [np.zeros((3, 4))] * 2}, r"cell_anchors: expected shape \(2, 4\)"),
        ({"cell_anchors": [np.zeros((2, 3))] * 2}, r"cell_anchors\[0\]: expected shape \(R, 4\)"),
        ({"objectness": [np.zeros((2, 2, 20)), 0]}, r"objectness\[0\]: expected 4 dimensions"),
        ({"pre_nms_top_n": -1}, "pre_nms_top_n: expected an integer of at least 0"),
    ],
)
def test_arguments_of_proposals_are_checked(changes: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        _kernels.rpn_proposals(**rpn(**changes))


def test_deltas_must_fit_the_logits() -> None:
    arguments = rpn()
    arguments["deltas"][1] = np.zeros((2, 4, 10, 12), np.float32)
    with pytest.raises(ValueError, match=r"deltas: expected shape \(2, 10, 12, 8\)"):
        _kernels.rpn_proposals(**arguments)


def test_no_levels_propose_nothing() -> None:
    arguments = rpn(objectness=[], deltas=[], cell_anchors=[], strides=[])
    assert [len(boxes) for boxes, _ in _kernels.rpn_proposals(**arguments)] == [0, 0]


@pytest.mark.parametrize(
    ("index", "value", "message"),
    [
        (0, np.zeros((5, 0), "f4"), "box_regression: expected shape"),
        (0, np.zeros((4, 4), "f4"), "box_regression: expected shape"),
        (1, np.zeros((5, 12), "f4"), "box_regression: expected shape"),
        (2, [np.zeros((3, 4))], "class_logits: expected a row of 4 for each of 3 regions"),
        (2, [np.zeros((5, 4))] * 2, "image_sizes: expected 2 rows"),
        (2, [np.zeros((5, 3))], r"proposals\[0\]: expected shape \(R, 4\)"),
    ],
)
def test_arguments_of_detections_are_checked(index: int, value: Any, message: str) -> None:
    arguments: list[Any] = [*head([5])]
    arguments[index] = value
    with pytest.raises(ValueError, match=message):
        _kernels.box_detections(*arguments, [(50, 50)])
    if index < 2:
        with pytest.raises(ValueError, match=message):
            _kernels.detect_per_class(*arguments, [(50, 50)], [1.0])


def test_no_classes_are_refused() -> None:
    with pytest.raises(ValueError, match="class_logits: expected at least one class"):
        _kernels.box_detections(np.zeros((2, 0)), np.zeros((2, 0)), [np.zeros((2, 4))], [(9, 9)])


@pytest.mark.parametrize("inclusive", [False, True])
@pytest.mark.parametrize("counts", [[60], [40, 0, 75]])
def test_objects_by_class_are_those_of_the_steps_one_by_one(
    counts: list[int], inclusive: bool
) -> None:
    logits, offsets, rois = head(counts, 7)
    rois = [boxes[:, [1, 0, 3, 2]].astype(np.float32) for boxes in rois]
    offsets[1, 9] = np.nan
    offsets[2, 6] = 1e4
    sizes, scales = [(70 + i, 90) for i in range(len(counts))], [1.7, 1.0, 0.6][: len(counts)]
    mean, std = (0.01, -0.02, 0.03, 0.0), (0.1, 0.1, 0.2, 0.25)
    got = _kernels.detect_per_class(
        logits, offsets, rois, sizes, scales, mean, std, 0.1, 0.3, inclusive=inclusive
    )
    probabilities = F.softmax(logits, dim=1)
    rule: Any = "chainercv" if inclusive else "torchvision"
    start = 0
    for mine, roi, (height, width), scale in zip(got, rois, sizes, scales, strict=True):
        rows = slice(start, start + len(roi))
        start += len(roi)
        loc = offsets[rows] * np.tile(np.float32(std), 7) + np.tile(np.float32(mean), 7)
        boxes = loc2bbox(roi / np.float32(scale), loc).reshape(-1, 7, 4)
        boxes[..., 0::2] = boxes[..., 0::2].clip(0, height)
        boxes[..., 1::2] = boxes[..., 1::2].clip(0, width)
        bbox: list[Any] = []
        label: list[int] = []
        score: list[float] = []
        for cls in range(1, 7):
            mask = probabilities[rows, cls] > 0.1
            kept_boxes, kept_scores = boxes[mask, cls], probabilities[rows][mask, cls]
            keep = non_maximum_suppression(kept_boxes, 0.3, kept_scores, nms_rule=rule)
            bbox += kept_boxes[keep].tolist()
            label += [cls - 1] * len(keep)
            score += kept_scores[keep].tolist()
        np.testing.assert_array_equal(mine[0], np.array(bbox, np.float32).reshape(-1, 4))
        assert (mine[1].dtype, mine[1].tolist()) == (np.int32, label)
        assert mine[2].tolist() == score


def test_matching_without_objects_or_boxes() -> None:
    boxes = random_boxes(np.random.default_rng(0), 5)
    assert _kernels.match_boxes(np.zeros((0, 4)), boxes, 0.7, 0.3, True).tolist() == [-1] * 5
    assert _kernels.match_boxes(boxes, [], 0.7, 0.3, True).shape == (0,)
    assert _kernels.match_boxes([], [], 0.5, 0.5).dtype == np.int64


def test_matching_is_the_matcher_on_the_matrix_in_both_types() -> None:
    rng = np.random.default_rng(1)
    gt, boxes = random_boxes(rng, 30, 80), random_boxes(rng, 9000, 80)
    boxes[100:130] = gt
    for dtype in (np.float32, np.float64):
        objects, others = gt.astype(dtype), boxes.astype(dtype)
        for low_quality in (False, True):
            expected = Matcher(0.6, 0.3, low_quality)(ops.box_iou(objects, others))
            got = _kernels.match_boxes(objects, others, 0.6, 0.3, low_quality)
            np.testing.assert_array_equal(got, expected)
    same_for_any_number_of_threads(lambda: [_kernels.match_boxes(gt, boxes, 0.6, 0.3, True)])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([[1, 2, 3]], [], 0.5, 0.5), r"gt_boxes: expected shape \(R, 4\)"),
        (([], [[1, 2]], 0.5, 0.5), r"boxes: expected shape \(R, 4\)"),
        (([], [], 0.3, 0.5), "low_threshold: expected at most high_threshold"),
    ],
)
def test_arguments_of_matching_are_checked(arguments: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        _kernels.match_boxes(*arguments)


def test_images_of_any_strides_types_and_channels() -> None:
    rng = np.random.default_rng(2)
    image = rng.integers(0, 256, (2, 30, 41)).astype(np.uint8)
    sizes, statistics = [(45, 30)], ([0.1, 0.2], [0.5, 2.0])
    expected = _kernels.batch_images([image], sizes, *statistics, 16)
    assert expected.shape == (1, 2, 48, 32)
    wide = np.zeros((2, 30, 82), np.uint8)
    wide[:, :, ::2] = image
    for same in (
        wide[:, :, ::2],
        image[:, ::-1].copy()[:, ::-1],
        np.asfortranarray(image),
        image.astype(np.float64),
        image.astype(">f4"),
        image.astype(np.int32),
    ):
        got = _kernels.batch_images([same], sizes, *statistics, 16)
        np.testing.assert_array_equal(got, expected)


def test_the_number_of_threads_does_not_change_a_batch() -> None:
    rng = np.random.default_rng(3)
    images = [rng.random((3, h, w), np.float32) for h, w in ((50, 70), (90, 20), (1, 1))]
    sizes = [(100, 140), (45, 10), (7, 9)]
    same_for_any_number_of_threads(
        lambda: [_kernels.batch_images(images, sizes, [0.5] * 3, [0.2] * 3)]
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"images": []}, "images: expected at least one"),
        ({"images": [np.zeros((3, 4))]}, r"images\[0\]: expected shape \(C, H, W\)"),
        ({"images": [np.zeros((4, 4, 4))]}, r"images\[0\]: expected 3 channels"),
        ({"images": [np.zeros((3, 0, 4))]}, "images: expected 3 channels of at least one pixel"),
        ({"sizes": []}, "sizes: expected 1, one for each image"),
        ({"sizes": [(0, 5)]}, r"sizes\[0\]: expected values of at least 1"),
        ({"sizes": [(2**31 - 1, 2**31 - 1)]}, "sizes: expected a result"),
        ({"std": [1.0, 0.0, 1.0]}, "expected no zeros"),
        ({"std": [1.0]}, "std: expected 3 numbers"),
        ({"size_divisible": 0}, "size_divisible: expected an integer from 1"),
    ],
)
def test_arguments_of_batches_are_checked(changes: Any, message: str) -> None:
    arguments: Any = {
        "images": [np.zeros((3, 4, 4))],
        "sizes": [(8, 8)],
        "mean": [0.0] * 3,
        "std": [1.0] * 3,
        **changes,
    }
    with pytest.raises((ValueError, MemoryError), match=message):
        _kernels.batch_images(**arguments)
