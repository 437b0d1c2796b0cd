"""generate_anchor_base and enumerate_shifted_anchor."""

from __future__ import annotations

import numpy as np
import pytest

from box_comparison import assert_bits
from conftest import golden
from oxidet.detection import enumerate_shifted_anchor, generate_anchor_base


def test_original_base() -> None:
    base = golden("boxes")["base"]
    assert_bits(generate_anchor_base(), base["default"])
    other = generate_anchor_base(8, [0.3, 1, 2.5, 4], [1, 3])
    assert_bits(other, base["other"])
    assert_bits(
        generate_anchor_base(base_size=8, ratios=np.array([0.3, 1, 2.5, 4]), anchor_scales=(1, 3)),
        other,
    )


def test_original_shifted() -> None:
    stored = golden("boxes")
    case = stored["shifted"]
    stride, height, width = case["arguments"].tolist()
    shifted = enumerate_shifted_anchor(case["base"], stride, height, width)
    assert_bits(shifted, case["anchor"])
    paper = enumerate_shifted_anchor(generate_anchor_base(), 16, 37, 50)
    assert paper.shape == (16650, 4)
    assert_bits(paper[stored["paper"]["rows"]], stored["paper"]["anchor"])


def test_counts_of_the_paper() -> None:
    anchor = enumerate_shifted_anchor(generate_anchor_base(), 16, 37, 50)
    inside = (anchor[:, :2] >= 0).all(axis=1) & (anchor[:, 2:] <= (600, 800)).all(axis=1)
    per_base = inside.reshape(-1, 9).sum(axis=0)
    assert per_base.tolist() == [1216, 728, 60, 1260, 748, 108, 1144, 570, 0]
    assert inside.sum() == 5834
    assert len(enumerate_shifted_anchor(generate_anchor_base(), 16, 38, 50)) == 17100


def test_empty() -> None:
    assert generate_anchor_base(ratios=[]).shape == (0, 4)
    for height, width in ((0, 5), (5, 0)):
        assert enumerate_shifted_anchor([[0, 0, 1, 1]], 16, height, width).shape == (0, 4)
    assert enumerate_shifted_anchor(np.zeros((0, 4)), 16, 2, 2).shape == (0, 4)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0,), "base_size: expected positive finite numbers, got 0"),
        ((16, [1, -1]), "ratios: expected positive finite numbers, got -1"),
        ((16, [1], [np.inf]), "anchor_scales: expected positive finite numbers, got inf"),
        ((16, [[1]]), "ratios: expected a sequence of numbers"),
    ],
)
def test_bad_base_is_named(arguments, message) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError, match=message):
        generate_anchor_base(*arguments)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((np.zeros((2, 3)), 16, 2, 2), ValueError, r"anchor_base: expected shape \(R, 4\)"),
        ((np.zeros((2, 4)), 0, 2, 2), ValueError, "feat_stride: expected positive"),
        (
            (np.zeros((2, 4)), 16, -1, 2),
            ValueError,
            "height: expected an integer from 0 to 2147483647, got -1",
        ),
        ((np.zeros((2, 4)), 16, 2, 2.5), TypeError, "width: expected an integer, got 2.5"),
        ((np.zeros((2, 4)), 16, 2**40, 2), ValueError, "height: expected an integer from 0 to"),
        ((np.zeros((2, 4)), 16, 2**31 - 1, 2**31 - 1), ValueError, "height, width: expected a res"),
        ((np.zeros((2, 4)), 16, 2**22, 2**22), MemoryError, "height, width: expected a result"),
    ],
)
def test_bad_shift_is_named(arguments, error, message) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(error, match=message):
        enumerate_shifted_anchor(*arguments)
