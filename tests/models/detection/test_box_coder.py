"""BoxCoder: the worked example, types, what it refuses."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from box_comparison import random_boxes
from oxidet.models.detection import BoxCoder

PROPOSAL, REFERENCE = np.float32([[20, 10, 60, 30]]), np.float32([[16, 12, 50, 40]])


def test_the_worked_example() -> None:
    coder = BoxCoder((10.0, 10.0, 5.0, 5.0))
    (codes,) = coder.encode([REFERENCE], [PROPOSAL])
    np.testing.assert_allclose(codes, [[-1.75, 3.0, -0.8126, 1.6824]], atol=5e-5)
    np.testing.assert_allclose(coder.decode(codes, [PROPOSAL])[0], REFERENCE, rtol=1e-6)
    box = np.float32([[0, 0, 16, 16]])
    huge = BoxCoder((1.0, 1.0, 1.0, 1.0)).decode_single(np.float32([[0, 0, 1000, 1000]]), box)
    np.testing.assert_allclose(huge, [[-492, -492, 508, 508]], rtol=1e-6)
    small = BoxCoder((1.0, 1.0, 1.0, 1.0), bbox_xform_clip=np.log(2.0))
    np.testing.assert_allclose(
        small.decode_single(np.float32([[0, 0, 9, -1e9]]), box), [[-8, 8, 24, 8]], rtol=1e-6
    )


@pytest.mark.parametrize("count", [0, 1, 7, 9000])
def test_decoding_is_the_inverse(count: int) -> None:
    rng = np.random.default_rng(count)
    proposals, references = (random_boxes(rng, count, dtype=np.float64) for _ in range(2))
    coder = BoxCoder((3.0, 2.0, 5.0, 0.5), bbox_xform_clip=20.0)
    codes = coder.encode_single(references, proposals)
    assert codes.dtype == np.float64
    np.testing.assert_allclose(coder.decode_single(codes, proposals), references, rtol=1e-9)
    np.testing.assert_allclose(
        coder.decode_single(codes[::-1].copy()[::-1], np.asfortranarray(proposals)),
        references,
        rtol=1e-9,
    )


def test_integers_and_lists_are_numbers_too() -> None:
    coder = BoxCoder((1.0, 1.0, 1.0, 1.0))
    assert coder.decode([[0, 0, 0, 0, 1, 0, 0, 0]], [[[0, 0, 4, 4]]]).tolist() == [
        [[0, 0, 4, 4], [4, 0, 8, 4]]
    ]
    assert coder.encode([], []) == ()


def test_bad_input_is_named() -> None:
    coder = BoxCoder((1.0, 1.0, 1.0, 1.0))
    cases: list[tuple[Any, type, str]] = [
        (lambda: BoxCoder((1.0, 1.0)), ValueError, "weights: expected four numbers"),
        (lambda: BoxCoder((1.0, 1.0, 1.0, "1")), TypeError, "weights: expected a number"),
        (
            lambda: coder.encode_single(PROPOSAL[:, :3], PROPOSAL),
            ValueError,
            "reference_boxes: exp",
        ),
        (
            lambda: coder.encode_single(REFERENCE, np.repeat(PROPOSAL, 2, axis=0)),
            ValueError,
            r"proposals: expected shape \(1, 4\) as reference_boxes, got \(2, 4\)",
        ),
        (lambda: coder.decode(np.zeros((1, 6)), [PROPOSAL]), ValueError, "rel_codes: expected 4 K"),
        (lambda: coder.decode(np.zeros((1, 4)), PROPOSAL), TypeError, "boxes: expected a list"),
        (
            lambda: coder.decode_single(np.zeros((2, 4)), PROPOSAL),
            ValueError,
            r"rel_codes: expected shape \(1, 4\), one row for each box",
        ),
        (lambda: coder.decode_single(np.zeros(4), PROPOSAL), ValueError, "rel_codes: expected sha"),
    ]
    for call, error, message in cases:
        with pytest.raises(error, match=message):
            call()
