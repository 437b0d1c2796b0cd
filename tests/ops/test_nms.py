"""Non-maximum suppression: the rules that implementations disagree on, one by one."""

from __future__ import annotations

import re
import sys
import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from oxidet import ops


def quadratic(boxes: np.ndarray, order: np.ndarray, threshold: float) -> list[int]:
    """The definition: a box survives unless a survivor before it overlaps it by more."""
    with np.errstate(all="ignore"):
        area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
        kept: list[int] = []
        for i in order:
            low = np.fmax(boxes[kept, :2], boxes[i, :2])
            high = np.fmin(boxes[kept, 2:], boxes[i, 2:])
            common = np.fmax(high - low, 0).prod(axis=1)
            iou = common / (area[kept] + area[i] - common)
            if not (iou.astype(np.float64) > threshold).any():
                kept.append(int(i))
    return kept


def ranked(scores: np.ndarray) -> np.ndarray:
    """NaN first, then from high to low; ties by index."""
    keys = np.where(np.isnan(scores), np.inf, scores)
    return np.lexsort((np.arange(len(scores)), -keys, ~np.isnan(scores)))


# Few different numbers, so that boxes coincide, touch and meet the threshold; and any number.
coordinates = st.one_of(
    st.integers(-4, 9).map(float),
    st.sampled_from([np.nan, np.inf, -np.inf, 1e30, -1e30, 1e-30, 3e38, 0.5, 1 / 3]),
    st.floats(width=32),
)
thresholds = st.one_of(
    st.sampled_from([-1.0, -0.0, 0.0, 1e-9, 0.2, 1 / 3, 0.5, 0.7, 1.0, 2.0, np.inf, -np.inf]),
    st.floats(allow_nan=False),
)
types = st.sampled_from([np.float32, np.float64])


@given(st.data(), thresholds, types, types, st.integers(0, 30))
def test_any_numbers(data, threshold, box_type, score_type, count) -> None:  # type: ignore[no-untyped-def]
    boxes = data.draw(arrays.arrays(np.float64, (count, 4), elements=coordinates))
    scores = data.draw(arrays.arrays(np.float64, count, elements=coordinates))
    categories = data.draw(
        arrays.arrays(np.int64, count, elements=st.sampled_from([0, 1, -(2**63)]))
    )
    with np.errstate(over="ignore"):
        boxes, scores = boxes.astype(box_type), scores.astype(score_type)
    order = ranked(scores)
    assert ops.nms(boxes, scores, threshold).tolist() == quadratic(boxes, order, threshold)
    expected: set[int] = set()
    for category in np.unique(categories):
        expected |= set(quadratic(boxes, order[categories[order] == category], threshold))
    got = ops.batched_nms(boxes, scores, categories, threshold).tolist()
    assert got == [i for i in order if i in expected]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("threshold", [0.05, 0.3, 0.5, 0.7, 0.9])
def test_boxes_of_all_sizes(threshold: float, dtype: type) -> None:
    rng = np.random.default_rng(0)
    for count, offset in [(191, 0), (193, 0), (2500, 0), (1500, 1e5), (1500, -3e6)]:
        corner = rng.uniform(0, 400, (count, 2)) + offset
        extent = np.exp(rng.uniform(0, 5, (count, 2)))
        boxes = np.concatenate([corner, corner + extent], 1).astype(dtype)
        # Copies whose overlap with their model lies close to the threshold.
        models = rng.integers(0, count, count // 3)
        copies = boxes[models].copy()
        near = threshold + rng.uniform(-1e-6, 1e-6, len(copies))
        copies[:, 2] = copies[:, 0] + (copies[:, 2] - copies[:, 0]) * near
        boxes = np.concatenate([boxes, copies])
        scores = rng.permutation(len(boxes)).astype(np.float32)
        expected = quadratic(boxes, ranked(scores), threshold)
        assert ops.nms(boxes, scores, threshold).tolist() == expected
        # The order of equal scores is that of the boxes.
        sorted_ = ops.nms(boxes[ranked(scores)], np.zeros(len(boxes)), threshold)
        assert ranked(scores)[sorted_].tolist() == expected


def test_layouts() -> None:
    rng = np.random.default_rng(1)
    corner = rng.uniform(0, 60, (300, 2))
    boxes = np.concatenate([corner, corner + rng.uniform(5, 40, (300, 2))], 1).astype(np.float32)
    scores, categories = rng.random(300).astype(np.float32), rng.integers(0, 5, 300)
    expected = ops.nms(boxes, scores, 0.4).tolist()
    by_category = ops.batched_nms(boxes, scores, categories, 0.4).tolist()
    assert len(expected) < len(by_category) < 300
    read_only = boxes.copy()
    read_only.flags.writeable = False
    misaligned = np.frombuffer(b" " + boxes.tobytes(), np.uint8)[1:].view(np.float32)
    forms = [
        np.asfortranarray(boxes),
        boxes[::-1].copy()[::-1],
        np.repeat(boxes, 2, axis=1)[:, ::2],
        boxes.astype(">f4"),
        misaligned.reshape(boxes.shape),
        read_only,
        boxes.astype(np.float64),
    ]
    for form in forms:
        for values in (
            scores,
            scores.astype(np.float64),
            scores.astype(">f4"),
            np.repeat(scores, 2)[::2],
        ):
            assert ops.nms(form, values, 0.4).tolist() == expected
            for classes in (categories, categories.astype(np.int16), categories.astype(">i8")):
                assert ops.batched_nms(form, values, classes, 0.4).tolist() == by_category


@pytest.mark.parametrize(
    ("boxes", "scores", "threshold", "error", "message"),
    [
        (np.zeros((3, 5)), [1, 2, 3], 0.5, ValueError, r"boxes: expected shape .*, got \(3, 5\)"),
        (np.zeros((3, 5), "f4"), np.ones(3, "f4"), 0.5, ValueError, r"boxes: .*got \(3, 5\)"),
        (np.zeros((3, 4)), [1, 2], 0.5, ValueError, r"scores: expected shape \(3,\).*, got \(2,\)"),
        (np.zeros((3, 4), "f4"), np.ones(2, "f4"), 0.5, ValueError, r"scores: .*got \(2,\)"),
        (np.zeros((3, 4)), ["a"] * 3, 0.5, TypeError, "scores: expected an array of numbers"),
        (
            np.zeros((3, 4)),
            [1, 2, 3],
            np.nan,
            ValueError,
            "iou_threshold: expected a number, got nan",
        ),
        (np.zeros((3, 4)), [1, 2, 3], "0.5", TypeError, "iou_threshold: expected a number"),
    ],
)
def test_bad_input_is_named(boxes, scores, threshold, error, message) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(error, match=message):
        ops.nms(boxes, scores, threshold)
    with pytest.raises(error, match=message):
        ops.batched_nms(boxes, scores, np.zeros(3, np.int64), threshold)


def test_categories_are_whole_numbers_one_for_each_box() -> None:
    boxes = np.zeros((3, 4), np.float32)
    with pytest.raises(ValueError, match=r"idxs: expected shape \(3,\).*, got \(2,\)"):
        ops.batched_nms(boxes, np.ones(3, np.float32), np.zeros(2, np.int64), 0.5)
    for wrong in (0.5, np.nan, np.inf, -np.inf, 2.0**63):
        with pytest.raises(ValueError, match=re.escape(f"expected whole numbers, got {wrong}")):
            ops.batched_nms(boxes, [1, 2, 3], [0.0, wrong, 2.0], 0.5)
    with pytest.raises(TypeError, match="idxs: expected an array of numbers"):
        ops.batched_nms(boxes, [1, 2, 3], ["a", "b", "c"], 0.5)


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8", ">f4", "u1", "i2", "?"])
def test_categories_may_have_any_type(dtype: str) -> None:
    boxes = np.tile(np.array([0, 0, 4, 4], np.float32), (6, 1))
    scores, labels = np.arange(6, dtype=np.float32), np.array([1, 0, 1, 0, 1, 1])
    assert ops.batched_nms(boxes, scores, labels.astype(dtype), 0.5).tolist() == [5, 3]
    assert ops.batched_nms(boxes[:0], scores[:0], labels[:0].astype(dtype), 0.5).shape == (0,)


def test_other_threads_go_on_meanwhile() -> None:
    rng = np.random.default_rng(2)
    corner = rng.uniform(0, 3000, (200_000, 2))
    boxes = np.concatenate([corner, corner + 20], 1).astype(np.float32)
    scores = rng.random(len(boxes)).astype(np.float32)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1000)  # only who lets go of the lock gives way
    try:
        worker = threading.Thread(target=ops.nms, args=(boxes, scores, 0.7))
        worker.start()
        turns = 0
        while worker.is_alive():
            turns += 1
            threading.Event().wait(1e-4)
    finally:
        sys.setswitchinterval(interval)
    assert turns > 1


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
