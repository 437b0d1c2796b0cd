"""Matcher: thresholds, low-quality matches, what it refuses."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import oxidet
from oxidet.models.detection import Matcher


def test_an_object_that_nothing_touches_matches_everything_else() -> None:
    quality = np.array([[0.5, 0.2, 0.0], [0.0, 0.0, 0.0]])
    assert Matcher(0.7, 0.3)(quality).tolist() == [-2, -1, -1]
    assert Matcher(0.7, 0.3, True)(quality).tolist() == [0, 0, 0]
    assert Matcher(0.7, 0.3, True)(quality[:1]).tolist() == [0, -1, -1]


def test_thresholds_belong_to_the_upper_side() -> None:
    quality = np.float32([[0.7, 0.3, 0.1]])
    assert Matcher(0.7, 0.3)(quality).tolist() == [0, -2, -1]
    assert Matcher(0.5, 0.5)(np.array([[0.5, 0.49]])).tolist() == [0, -1]
    assert (Matcher.BELOW_LOW_THRESHOLD, Matcher.BETWEEN_THRESHOLDS) == (-1, -2)


def test_the_number_of_threads_does_not_matter() -> None:
    quality = np.random.default_rng(0).integers(0, 50, (40, 20_000)) / 64
    results = []
    for threads in (1, 3):
        oxidet.set_num_threads(threads)
        results.append(Matcher(0.7, 0.3, True)(quality).tolist())
    assert results[0] == results[1]


def test_bad_input_is_named() -> None:
    cases: list[tuple[Any, type, str]] = [
        (lambda: Matcher(0.3, 0.7), ValueError, "low_threshold: expected at most high_threshold"),
        (lambda: Matcher(np.nan, 0.7), ValueError, "low_threshold: expected at most"),
        (lambda: Matcher("1", 0.7), TypeError, "high_threshold: expected a number"),
        (lambda: Matcher(0.7, 0.3)(np.zeros((0, 5))), ValueError, "at least one ground-truth box"),
        (lambda: Matcher(0.7, 0.3)(np.zeros((5, 0))), ValueError, "at least one proposal"),
        (
            lambda: Matcher(0.7, 0.3)(np.zeros(5)),
            ValueError,
            r"expected shape \(M, N\)",
        ),
    ]
    for call, error, message in cases:
        with pytest.raises(error, match=message):
            call()
