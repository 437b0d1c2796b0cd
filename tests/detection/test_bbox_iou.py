"""bbox_iou: bits of the original, degenerate boxes, arguments."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

import oxidet
from box_comparison import assert_bits, random_boxes
from conftest import golden
from oxidet.detection import bbox_iou


def definition(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The definition in NumPy, in the original's order of operations."""
    top_left = np.maximum(a[:, None, :2], b[:, :2])
    bottom_right = np.minimum(a[:, None, 2:], b[:, 2:])
    overlap = (top_left < bottom_right).all(axis=2)
    intersection = np.prod(bottom_right - top_left, axis=2) * overlap
    area_a, area_b = (np.prod(x[:, 2:] - x[:, :2], axis=1) for x in (a, b))
    with np.errstate(invalid="ignore", divide="ignore"):
        return intersection / (area_a[:, None] + area_b - intersection)


@pytest.mark.parametrize("dtype", ["f32", "f64"])
def test_original(dtype: str) -> None:
    case = golden("boxes")[dtype]
    assert_bits(bbox_iou(case["a"], case["b"]), case["iou"])


coordinates = st.floats(-1e3, 1e3, width=32) | st.sampled_from([0.0, 1.0, 2.0, float("nan")])


@given(
    arrays(np.float32, st.tuples(st.integers(0, 6), st.just(4)), elements=coordinates),
    arrays(np.float32, st.tuples(st.integers(0, 6), st.just(4)), elements=coordinates),
)
def test_bits_of_the_definition_for_any_corners(a: np.ndarray, b: np.ndarray) -> None:
    got, expected = bbox_iou(a, b), definition(a, b)
    assert got.shape == expected.shape
    np.testing.assert_array_equal(got, expected)  # NaN equals NaN, 0.0 equals -0.0


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("n", "k"), [(0, 0), (0, 3), (3, 0), (1, 1), (257, 65), (1000, 40)])
def test_bits_of_the_definition_for_many_boxes(n: int, k: int, dtype: type) -> None:
    rng = np.random.default_rng(n + k)
    a, b = random_boxes(rng, n, dtype=dtype), random_boxes(rng, k, dtype=dtype)
    assert_bits(bbox_iou(a, b), definition(a, b))


def test_symmetries() -> None:
    rng = np.random.default_rng(0)
    a, b = random_boxes(rng, 50), random_boxes(rng, 60)
    iou = bbox_iou(a, b)
    assert_bits(bbox_iou(b, a), np.ascontiguousarray(iou.T))
    swap = [1, 0, 3, 2]
    assert_bits(bbox_iou(a[:, swap], b[:, swap]), iou)
    assert_bits(bbox_iou(4 * a, 4 * b), iou)
    assert (np.diag(bbox_iou(a, a)) == 1).all()


def test_degenerate_boxes() -> None:
    inf, nan = np.inf, np.nan
    unit = [0, 0, 4, 4]
    for name, a, b, expected in (
        ("touching", unit, [4, 0, 8, 4], 0),
        ("two points", [1, 1, 1, 1], [1, 1, 1, 1], nan),
        ("a point in a box", [1, 1, 1, 1], unit, 0),
        ("NaN", [nan, 0, 4, 4], unit, nan),
        ("infinite", [0, 0, inf, inf], unit, 0),
        ("inverted, with itself", [4, 4, 0, 0], [4, 4, 0, 0], 0),
        ("worked example", [10, 20, 30, 60], [12, 16, 40, 50], 0.44554454),
    ):
        got = bbox_iou(np.array([a], np.float32), np.array([b], np.float32))
        np.testing.assert_array_equal(got, np.float32([[expected]]), err_msg=name)


def test_types() -> None:
    rng = np.random.default_rng(0)
    boxes = random_boxes(rng, 5)
    for given_type, expected in (
        (np.float16, np.float32),
        (np.float32, np.float32),
        (np.float64, np.float64),
        (np.int32, np.float64),
        (np.int64, np.float64),
        (np.uint8, np.float64),
        (">f4", np.float32),
        (">f8", np.float64),
    ):
        converted = boxes.astype(given_type)
        got = bbox_iou(converted, converted)
        assert got.dtype == expected, given_type
        native = converted.astype(expected)
        assert_bits(got, definition(native, native))
    assert bbox_iou(boxes, boxes.astype(np.float64)).dtype == np.float64


def test_memory_layout_does_not_matter() -> None:
    rng = np.random.default_rng(0)
    boxes = random_boxes(rng, 20)
    expected = bbox_iou(boxes, boxes)
    strided = np.repeat(boxes, 2, axis=0)[::2]
    frozen = boxes.copy()
    frozen.flags.writeable = False
    unaligned = np.frombuffer(b"x" + boxes.tobytes(), np.uint8)[1:].view(np.float32).reshape(-1, 4)
    for other in (strided, np.asfortranarray(boxes), frozen, boxes[::-1][::-1], unaligned):
        assert_bits(bbox_iou(other, other), expected)


def test_the_number_of_threads_does_not_matter() -> None:
    rng = np.random.default_rng(0)
    a, b = random_boxes(rng, 700), random_boxes(rng, 90)
    results = []
    for threads in (1, 2, 5):
        oxidet.set_num_threads(threads)
        results.append(bbox_iou(a, b))
    assert_bits(results[1], results[0])
    assert_bits(results[2], results[0])


def test_empty_list_is_no_boxes() -> None:
    assert bbox_iou([], [[0, 0, 1, 1]]).shape == (0, 1)


@pytest.mark.parametrize(
    ("a", "b", "error", "message"),
    [
        (np.zeros((3, 5)), np.zeros((3, 4)), ValueError, r"bbox_a: expected shape \(R, 4\), got"),
        (np.zeros((3, 4)), np.zeros(4), ValueError, r"bbox_b: expected shape \(R, 4\), got \(4,\)"),
        (np.zeros((2, 3, 4)), np.zeros((3, 4)), ValueError, "bbox_a: expected shape"),
        ("boxes", np.zeros((3, 4)), TypeError, "bbox_a: expected an array of numbers"),
        (np.zeros((3, 4), complex), np.zeros((3, 4)), TypeError, "bbox_a: expected an array"),
        ([[0, 0, 1, 1], [0]], np.zeros((3, 4)), ValueError, "bbox_a: expected an array of numbers"),
    ],
)
def test_bad_input_is_named(a: object, b: object, error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        bbox_iou(a, b)  # type: ignore[arg-type]


def test_a_matrix_beyond_memory_is_refused() -> None:
    boxes = np.zeros((2**23, 4), np.float32)  # the matrix would take 256 TB
    with pytest.raises(MemoryError, match="boxes: expected a result that fits into memory"):
        bbox_iou(boxes, boxes)
