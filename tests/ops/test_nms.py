"""Non-maximum suppression: the rules that implementations disagree on, one by one."""

from __future__ import annotations

import numpy as np
import pytest

from oxidet import ops


def pair_with_iou(iou: float, dtype: type) -> np.ndarray:
    """Two boxes of height 1: [0, 1] and a part of it of length ``iou``."""
    return np.array([[0, 0, 1, 1], [0, 0, iou, 1]], dtype)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_equal_to_the_threshold_is_not_enough(dtype: type) -> None:
    boxes = pair_with_iou(0.5, dtype)
    np.testing.assert_array_equal(ops.nms(boxes, [0.9, 0.8], 0.5), [0, 1])
    np.testing.assert_array_equal(ops.nms(boxes, [0.9, 0.8], np.nextafter(0.5, 0)), [0])


def test_float32_overlaps_are_compared_in_float64() -> None:
    # float32(0.2) lies above 0.2 and float32(0.7) below 0.7.
    for iou, kept in [(0.2, [0]), (0.7, [0, 1])]:
        boxes = pair_with_iou(iou, np.float32)
        assert ops.box_iou(boxes[:1], boxes[1:])[0, 0] == np.float32(iou)
        np.testing.assert_array_equal(ops.nms(boxes, [0.9, 0.8], iou), kept)


def test_a_suppressed_box_suppresses_nothing() -> None:
    boxes = np.array([[0, 0, 10, 10], [4, 0, 14, 10], [8, 0, 18, 10]], np.float32)
    np.testing.assert_array_equal(ops.nms(boxes, [0.9, 0.8, 0.7], 0.4), [0, 2])


def test_ties_go_by_index_and_nan_scores_first() -> None:
    boxes = np.array([[i * 10, 0, i * 10 + 5, 5] for i in range(5)], np.float32)
    scores = [0.5, np.nan, 0.5, np.inf, -np.inf]
    np.testing.assert_array_equal(ops.nms(boxes, scores, 0.5), [1, 3, 0, 2, 4])
    same = np.repeat(boxes[:1], 3, axis=0)
    np.testing.assert_array_equal(ops.nms(same, [0.1, 0.1, 0.1], 0.5), [0])


def test_boxes_whose_overlap_is_no_number_survive() -> None:
    point, nan, inverted = [1, 1, 1, 1], [np.nan, 0, 1, 1], [4, 4, 0, 0]
    boxes = np.array([point, point, nan, nan, inverted, inverted], np.float32)
    np.testing.assert_array_equal(ops.nms(boxes, np.arange(6)[::-1], 0.5), range(6))


@pytest.mark.parametrize("shift", [0, -100, 1e6])
def test_categories_do_not_meet(shift: float) -> None:
    boxes = np.array([[0, 0, 4, 4]] * 4, np.float32) + np.float32(shift)
    kept = ops.batched_nms(boxes, [0.1, 0.4, 0.3, 0.2], [0, 1, 0, 1], 0.5)
    np.testing.assert_array_equal(kept, [1, 2])


def test_no_boxes() -> None:
    none = np.zeros((0, 4))
    for kept in (ops.nms(none, [], 0.5), ops.batched_nms(none, [], [], 0.5)):
        assert kept.shape == (0,)
        assert kept.dtype == np.int64


def test_input_forms() -> None:
    boxes = np.array([[0, 0, 4, 4], [0, 0, 4, 4], [9, 9, 12, 12]])
    forms = [boxes, boxes.astype(np.float16), boxes.tolist(), np.asfortranarray(boxes, np.float32)]
    for form in forms:
        np.testing.assert_array_equal(ops.nms(form, [1, 3, 2], 0.5), [1, 2])
