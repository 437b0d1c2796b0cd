"""bbox2loc and loc2bbox: numbers of the original, round trip, degenerate boxes, arguments."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from box_comparison import assert_bits, assert_ulp, random_boxes
from conftest import golden
from oxidet.detection import bbox2loc, loc2bbox


@pytest.mark.parametrize("dtype", ["f32", "f64"])
def test_original(dtype: str) -> None:
    case = golden("boxes")[dtype]
    loc = bbox2loc(case["src"], case["dst"])
    assert_bits(loc[:, :2], case["loc"][:, :2])
    np.testing.assert_array_max_ulp(loc, case["loc"], maxulp=4)
    assert_ulp(loc2bbox(case["src"], case["loc"]), case["back"])


def test_original_with_several_offsets_a_row() -> None:
    case = golden("boxes")["classes"]
    bbox = loc2bbox(case["src"], case["loc"])
    assert_ulp(bbox, case["bbox"])
    for k in range(3):
        one = slice(4 * k, 4 * k + 4)
        assert_bits(bbox[:, one], loc2bbox(case["src"], case["loc"][:, one]))


def test_worked_example() -> None:
    src, dst = np.float32([[10, 20, 30, 60]]), np.float32([[12, 16, 40, 50]])
    loc = bbox2loc(src, dst)
    np.testing.assert_array_max_ulp(
        loc, np.float32([[0.3, -0.175, 0.33647224, -0.1625189]]), maxulp=1
    )
    assert_ulp(loc2bbox(src, loc), np.float32([[12, 15.999998, 40, 50]]), ulp=1)


edges = st.floats(0, 1000, width=32)
sides = st.floats(0.5, 1000, width=32)


@given(
    arrays(np.float64, (5, 2), elements=edges), arrays(np.float64, (5, 2), elements=sides),
    arrays(np.float64, (5, 2), elements=edges), arrays(np.float64, (5, 2), elements=sides),
)  # fmt: skip
def test_decoding_inverts_encoding(
    p: np.ndarray, p_sides: np.ndarray, g: np.ndarray, g_sides: np.ndarray
) -> None:
    src = np.concatenate((p, p + p_sides), axis=1)
    dst = np.concatenate((g, g + g_sides), axis=1)
    np.testing.assert_allclose(loc2bbox(src, bbox2loc(src, dst)), dst, atol=1e-8)


@pytest.mark.parametrize("n", [0, 1, 1023, 1024, 1025, 5000])
def test_rows_are_independent(n: int) -> None:
    rng = np.random.default_rng(n)
    src, dst = random_boxes(rng, n), random_boxes(rng, n)
    loc = bbox2loc(src, dst)
    assert loc.shape == (n, 4)
    for i in range(0, n, 511):
        assert_bits(loc[i : i + 1], bbox2loc(src[i : i + 1], dst[i : i + 1]))
    back = loc2bbox(src, loc)
    for i in range(0, n, 511):
        assert_bits(back[i : i + 1], loc2bbox(src[i : i + 1], loc[i : i + 1]))


def test_degenerate_boxes() -> None:
    point, box = np.zeros((1, 4), np.float32), np.float32([[0, 0, 2, 2]])
    assert bbox2loc(point, box)[0, 2] == pytest.approx(16.6355, abs=1e-4)
    assert (bbox2loc(box, point)[0, 2:] == -np.inf).all()
    assert np.isnan(bbox2loc(box, box[:, [2, 3, 0, 1]])[0, 2:]).all()
    assert np.isnan(bbox2loc(np.full((1, 4), np.nan), box)).all()


def test_a_huge_exponent_and_nan_pass_through() -> None:
    src = np.float32([[0, 0, 10, 10]])
    decoded = loc2bbox(src, np.float32([[0, 0, 100, 100]]))
    assert decoded.tolist() == [[-np.inf, -np.inf, np.inf, np.inf]]
    assert np.isnan(loc2bbox(src, np.float32([[np.nan, 0, 0, 0]]))[0, [0, 2]]).all()


def test_types() -> None:
    f32, f64 = np.ones((2, 4), np.float32), np.ones((2, 4))
    f32[:, 2:], f64[:, 2:] = 3, 3
    assert bbox2loc(f32, f32).dtype == np.float32
    assert bbox2loc(f32, f64).dtype == np.float64
    assert bbox2loc(f32.astype(np.int64), f32.astype(np.int64)).dtype == np.float64
    # Decoding returns the dtype of the offsets.
    assert loc2bbox(f64, np.zeros((2, 4), np.float32)).dtype == np.float32
    assert loc2bbox(f32, np.zeros((2, 4))).dtype == np.float64
    truncated = loc2bbox([[0, 0, 3, 3]], np.array([[1, 0, 0, 0]]))
    assert truncated.dtype.kind == "i"
    assert truncated.tolist() == [[3, 0, 6, 3]]


def test_one_row_serves_all() -> None:
    rng = np.random.default_rng(0)
    one, many = random_boxes(rng, 1), random_boxes(rng, 6)
    repeated = np.repeat(one, 6, axis=0)
    assert_bits(bbox2loc(one, many), bbox2loc(repeated, many))
    assert_bits(bbox2loc(many, one), bbox2loc(many, repeated))
    loc = bbox2loc(one, many)
    assert_bits(loc2bbox(one, loc), loc2bbox(repeated, loc))


def test_no_boxes() -> None:
    assert bbox2loc(np.zeros((0, 4)), np.zeros((0, 4))).shape == (0, 4)
    none = loc2bbox(np.zeros((0, 4)), np.zeros((0, 12), np.float32))
    assert none.shape == (0, 4)
    assert none.dtype == np.float32


@pytest.mark.parametrize(
    ("function", "first", "second", "message"),
    [
        (bbox2loc, (3, 4), (2, 4), r"dst_bbox: expected shape \(3, 4\) as src_bbox, got \(2, 4\)"),
        (bbox2loc, (3, 3), (3, 4), r"src_bbox: expected shape \(R, 4\), got \(3, 3\)"),
        (loc2bbox, (3, 4), (2, 4), r"loc: expected shape \(3, 4 K\), got \(2, 4\)"),
        (loc2bbox, (3, 4), (3, 6), r"loc: expected shape \(3, 4 K\), got \(3, 6\)"),
        (loc2bbox, (3, 4), (12,), r"loc: expected shape \(3, 4 K\), got \(12,\)"),
        (loc2bbox, (4,), (1, 4), r"src_bbox: expected shape \(R, 4\), got \(4,\)"),
    ],
)
def test_bad_input_is_named(function, first, second, message) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError, match=message):
        function(np.ones(first), np.ones(second))
