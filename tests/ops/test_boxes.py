"""Box arithmetic of oxidet.ops: values, types, edges, messages."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from oxidet import ops

BOXES = arrays(
    np.float32,
    st.tuples(st.integers(0, 6), st.just(4)),
    elements=st.floats(-1e3, 1e3, width=32),
)


@given(BOXES, st.sampled_from(["xyxy", "xywh", "cxcywh"]))
def test_a_conversion_and_its_inverse_cancel(boxes: np.ndarray, fmt: str) -> None:
    back = ops.box_convert(ops.box_convert(boxes, "xyxy", fmt), fmt, "xyxy")
    np.testing.assert_allclose(back, boxes, atol=1e-3)
    assert back.dtype == boxes.dtype
    assert back.shape == boxes.shape


@given(BOXES)
def test_the_area_does_not_depend_on_the_format(boxes: np.ndarray) -> None:
    area = ops.box_area(boxes)
    for fmt in ("xywh", "cxcywh"):
        converted = ops.box_convert(boxes, "xyxy", fmt)
        np.testing.assert_allclose(ops.box_area(converted, fmt), area, rtol=1e-5, atol=1e-2)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.uint8, np.int64])
@pytest.mark.parametrize(
    ("fmt", "expected"),
    [("xyxy", [18, 0, 18]), ("xywh", [32, 27, 2]), ("cxcywh", [32, 27, 2])],
)
def test_the_area_is_the_product_of_the_sides(
    fmt: str, expected: list[int], dtype: type[np.generic]
) -> None:
    """Of an ordinary box, one without width, and one with both sides inverted."""
    boxes = np.array([[1, 2, 4, 8], [3, 5, 3, 9], [4, 8, 1, 2]], dtype)
    np.testing.assert_array_equal(ops.box_area(boxes, fmt), expected)
    np.testing.assert_array_equal(ops.box_area(boxes[::-1], fmt), expected[::-1])
    np.testing.assert_array_equal(ops.box_area(boxes[None], fmt), [expected])
    np.testing.assert_array_equal(ops.box_area(boxes.tolist(), fmt), expected)
    assert ops.box_area(boxes[:0], fmt).shape == (0,)


def test_types_follow_torchvision() -> None:
    for given_type, area_type in [
        (np.float16, np.float32),
        (np.float32, np.float32),
        (np.float64, np.float64),
        (np.uint8, np.int32),
        (np.int16, np.int32),
        (np.int64, np.int64),
    ]:
        boxes = np.array([[1, 2, 4, 8]], given_type)
        assert ops.box_area(boxes).dtype == area_type
        assert ops.clip_boxes_to_image(boxes, (6, 3)).dtype == given_type
        np.testing.assert_array_equal(ops.clip_boxes_to_image(boxes, (6, 3)), [[1, 2, 3, 6]])
    integers = np.array([[1, 2, 4, 9]])
    assert ops.box_convert(integers, "xyxy", "xywh").dtype == np.int64
    np.testing.assert_array_equal(
        ops.box_convert(integers, "xyxy", "cxcywh"), np.float32([[2.5, 5.5, 3, 7]])
    )
    assert ops.box_convert(integers, "xywh", "cxcywh").dtype == np.float32


def test_rotated_half_floats_are_computed_in_float32() -> None:
    boxes = np.array([[100, 60, 120, 80, 350], [10, 20, 30, 40, -75]], np.float16)
    for out_fmt in ("xywhr", "xyxyxyxy"):
        expected = ops.box_convert(boxes.astype(np.float32), "cxcywhr", out_fmt)
        got = ops.box_convert(boxes, "cxcywhr", out_fmt)
        assert got.dtype == np.float16
        np.testing.assert_allclose(got, expected, rtol=1e-3, atol=1e-3)


def test_results_are_new_arrays() -> None:
    boxes = np.array([[1.0, 2.0, 3.0, 4.0]])
    for result in (ops.box_convert(boxes, "xyxy", "xyxy"), ops.clip_boxes_to_image(boxes, (9, 9))):
        assert not np.shares_memory(result, boxes)


def test_clip_keeps_nan_and_clips_infinity() -> None:
    got = ops.clip_boxes_to_image([[np.nan, -np.inf, np.inf, 5.0]], (4, 3))
    np.testing.assert_array_equal(got, [[np.nan, 0, 3, 4]])


def test_small_boxes() -> None:
    boxes = np.array([[0, 0, 4, 4], [0, 0, 3.99, 9], [np.nan, 0, 9, 9], [4, 4, 0, 0]], np.float32)
    kept = ops.remove_small_boxes(boxes, 4)
    np.testing.assert_array_equal(kept, [0])
    assert kept.dtype == np.int64
    assert ops.remove_small_boxes(np.zeros((0, 4)), 1).shape == (0,)


def test_iou_of_the_specification() -> None:
    a = np.array([[10, 20, 30, 60]], np.float32)
    b = np.array([[12, 16, 40, 50]], np.float32)
    np.testing.assert_allclose(ops.box_iou(a, b), [[0.44554454]], rtol=1e-6)
    assert ops.box_iou(a, b).dtype == np.float32
    assert ops.box_iou(a, b.astype(np.float64)).dtype == np.float64


def test_iou_without_area_and_without_boxes() -> None:
    point, inverted, unit = [1, 1, 1, 1], [3, 3, 0, 0], [0, 0, 2, 2]
    boxes = np.array([point, inverted, unit], np.float32)
    expected = [[np.nan, 0, 0], [0, 0, 0], [0, 0, 1]]
    np.testing.assert_array_equal(ops.box_iou(boxes, boxes), expected)
    assert ops.box_iou(np.zeros((0, 4)), np.zeros((3, 4))).shape == (0, 3)
    assert ops.box_iou(np.zeros((2, 3, 4)), np.zeros((2, 0, 4))).shape == (2, 3, 0)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: ops.box_area(np.zeros((2, 5))), r"boxes: expected shape \(\.\.\., 4\), got"),
        (
            lambda: ops.box_area(np.zeros(4), "xyrb"),
            r"fmt: expected one of \('xyxy', .*, got 'xyrb'",
        ),
        (lambda: ops.box_convert(np.zeros((1, 4)), "a", "xyxy"), "in_fmt: expected"),
        (lambda: ops.box_convert(np.zeros((1, 4)), "xyxy", "b"), "out_fmt: expected"),
        (lambda: ops.box_iou(np.zeros(4), np.zeros((1, 4))), r"boxes1: expected shape \(\.\.\., N"),
        (
            lambda: ops.box_iou(np.zeros((2, 1, 4)), np.zeros((3, 1, 4))),
            r"boxes2: expected leading axes that go with \(2,\) of boxes1, got \(3,\)",
        ),
        (lambda: ops.remove_small_boxes(np.zeros(4), 1), "boxes: expected shape"),
        (lambda: ops.nms(np.zeros((2, 4)), np.zeros(3), 0.5), r"scores: expected shape \(2,\)"),
        (lambda: ops.nms(np.zeros((2, 4)), np.zeros(2), np.nan), "iou_threshold: expected"),
        (lambda: ops.batched_nms(np.zeros((2, 4)), np.zeros(2), [0], 0.5), "idxs: expected shape"),
        (lambda: ops.clip_boxes_to_image(np.zeros((1, 4)), (2,)), "size: expected two finite"),
        (
            lambda: ops.clip_boxes_to_image(np.zeros((1, 4)), (-2, 3)),
            "size: expected .* least 0",
        ),
    ],
)
def test_messages_name_the_argument(call, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


def test_wrong_types_are_type_errors() -> None:
    with pytest.raises(TypeError, match="boxes: expected an array of numbers"):
        ops.box_area("boxes")
    with pytest.raises(TypeError, match=r"iou_threshold: expected a number, got '0\.5'"):
        ops.nms(np.zeros((1, 4)), np.zeros(1), "0.5")
    with pytest.raises(TypeError, match="min_size: expected a number, got None"):
        ops.remove_small_boxes(np.zeros((1, 4)), None)
