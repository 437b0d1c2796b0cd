"""The IoU family of oxidet.ops: worked examples, types, edges, messages."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

import oxidet
from box_comparison import assert_bits, random_boxes
from oxidet import ops

FAMILY = [ops.box_iou, ops.generalized_box_iou, ops.distance_box_iou, ops.complete_box_iou]


def test_worked_examples() -> None:
    a, b = np.array([[0, 0, 4, 4]], np.float32), np.array([[2, 1, 6, 5]], np.float32)
    for function, other, expected in [
        (ops.box_iou, b, 6 / 26),
        (ops.generalized_box_iou, b, 0.09743589),
        (ops.distance_box_iou, b, 0.14880201),
        (ops.complete_box_iou, np.array([[2, 1, 6, 4]], np.float32), 0.19090597),
    ]:
        np.testing.assert_allclose(function(a, other), [[expected]], rtol=1e-6)


@given(
    arrays(
        np.float32,
        st.tuples(st.integers(1, 5), st.just(4)),
        elements=st.floats(0, 1000, width=32).map(lambda x: round(x * 8) / 8),
    )
)
def test_the_family_is_ordered(values: np.ndarray) -> None:
    boxes = np.concatenate([values[:, :2], values[:, :2] + values[:, 2:] + 1], 1)
    iou, generalized, distance, complete = (f(boxes, boxes) for f in FAMILY)
    assert (generalized <= iou + 1e-6).all()
    assert (distance <= iou + 1e-6).all()
    assert (complete <= distance + 1e-6).all()
    assert (generalized >= -1 - 1e-6).all()
    for matrix in (iou, generalized, distance, complete):
        np.testing.assert_allclose(np.diag(matrix), 1, rtol=1e-6)
        np.testing.assert_allclose(matrix, matrix.T, atol=1e-6)


@pytest.mark.parametrize("function", FAMILY)
def test_types_and_layouts(function) -> None:
    rng = np.random.default_rng(0)
    boxes, others = np.round(random_boxes(rng, 30)), np.round(random_boxes(rng, 20))
    expected = function(boxes, others)
    assert expected.dtype == np.float32
    assert function(boxes, others.astype(np.float64)).dtype == np.float64
    frozen = boxes.copy()
    frozen.flags.writeable = False
    unaligned = np.frombuffer(b"x" + boxes.tobytes(), np.uint8)[1:].view(np.float32).reshape(-1, 4)
    layouts = [boxes.astype(">f4"), np.asfortranarray(boxes), frozen, boxes[::-1][::-1], unaligned]
    for other in layouts:
        assert_bits(function(other, others), expected)
    for type_ in (np.int16, np.int64, np.uint8, np.float16):
        result = function(boxes.astype(type_), others)
        assert result.dtype == np.float32, type_
        np.testing.assert_allclose(result, expected, atol=1e-6)
    with pytest.raises(TypeError, match="boxes1: expected coordinates, got dtype bool"):
        function(boxes > 2, others)
    stacked = function(np.stack([boxes, boxes + 1]), np.stack([others, others + 1]))
    assert_bits(stacked[0], expected)
    np.testing.assert_allclose(stacked[1], expected, atol=1e-5)


@pytest.mark.parametrize("function", FAMILY)
def test_leading_axes_broadcast(function) -> None:
    rng = np.random.default_rng(3)
    boxes = np.stack([random_boxes(rng, 5) for _ in range(6)]).reshape(2, 3, 5, 4)
    others = np.stack([random_boxes(rng, 4) for _ in range(3)])
    result = function(boxes, others)
    assert result.shape == (2, 3, 5, 4)
    for index in np.ndindex(2, 3):
        assert_bits(result[index], function(boxes[index], others[index[1]]))
    assert_bits(function(others[0], boxes)[1, 2], function(others[0], boxes[1, 2]))
    assert function(boxes, np.zeros((1, 0, 4))).shape == (2, 3, 5, 0)
    assert function(boxes[:0], others).shape == (0, 3, 5, 4)


@pytest.mark.parametrize("function", FAMILY)
def test_no_boxes(function) -> None:
    assert function(np.zeros((0, 4)), np.zeros((3, 4))).shape == (0, 3)
    assert function(np.zeros((2, 3, 4)), np.zeros((2, 0, 4))).shape == (2, 3, 0)
    assert function(np.zeros((0, 3, 4)), np.zeros((0, 2, 4))).shape == (0, 3, 2)


@pytest.mark.parametrize("function", FAMILY)
def test_the_number_of_threads_does_not_matter(function) -> None:
    rng = np.random.default_rng(0)
    boxes, others = random_boxes(rng, 700), random_boxes(rng, 230)
    results = []
    for threads in (1, 2, 5):
        oxidet.set_num_threads(threads)
        results.append(function(boxes, others))
    assert_bits(results[1], results[0])
    assert_bits(results[2], results[0])


def test_a_gap_beyond_the_largest_number_is_a_gap() -> None:
    far = np.array([[-3e38, 0, -2.9e38, 1e-3], [2.9e38, 0, 3e38, 1e-3]], np.float32)
    np.testing.assert_array_equal(ops.box_iou(far, far), np.eye(2))


def test_sizes_are_not_taken_from_rounded_corners() -> None:
    # One unit in the last place of the corner is 1/8: a width of 0.2 would become 1/4.
    boxes = np.array([[2**20, 0, 0.2, 1]], np.float32)
    assert ops.box_area(boxes, "xywh") == np.float32(0.2)
    assert ops.box_iou(boxes, boxes, "xywh")[0, 0] == pytest.approx(0.25 / 0.15)


@pytest.mark.parametrize("function", FAMILY)
@pytest.mark.parametrize(
    ("a", "b", "error", "message"),
    [
        (np.zeros((3, 5)), np.zeros((3, 4)), ValueError, r"boxes1: expected shape \(\.\.\., 4\)"),
        (np.zeros((3, 4)), np.zeros(4), ValueError, r"boxes2: expected shape \(\.\.\., N, 4\)"),
        (np.zeros((2, 3, 4)), np.zeros((5, 3, 4)), ValueError, "boxes2: expected leading axes"),
        ("boxes", np.zeros((3, 4)), TypeError, "boxes1: expected an array of numbers"),
        (np.zeros((3, 4)), None, TypeError, "boxes2: expected an array of numbers"),
    ],
)
def test_bad_input_is_named(function, a, b, error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        function(a, b)


def test_a_wrong_epsilon_is_refused() -> None:
    boxes = np.zeros((1, 4), np.float32)
    for function in (ops.distance_box_iou, ops.complete_box_iou):
        with pytest.raises(TypeError, match="eps: expected a number"):
            function(boxes, boxes, eps="1e-7")


def test_a_matrix_beyond_memory_is_refused() -> None:
    boxes = np.zeros((2**23, 4), np.float32)  # the matrix would take 256 TB
    with pytest.raises(MemoryError, match="boxes: expected a result that fits into memory"):
        ops.box_iou(boxes, boxes)


def test_big_endian_doubles_stay_doubles() -> None:
    boxes = np.array([[1e8, 0, 1e8 + 1, 1]], ">f8")
    iou = ops.box_iou(boxes, boxes)
    assert iou.dtype == np.float64
    assert iou.tolist() == [[1.0]]
    assert ops.generalized_box_iou_loss(boxes, boxes).dtype == np.float64
