"""How results are compared with the originals."""

from __future__ import annotations

import numpy as np


def assert_bits(got: np.ndarray, expected: np.ndarray) -> None:
    """Same dtype, shape and bits; any NaN equals any NaN."""
    assert got.dtype == expected.dtype
    assert got.shape == expected.shape
    bits = np.dtype(f"u{got.dtype.itemsize}")
    same = np.ascontiguousarray(got).view(bits) == np.ascontiguousarray(expected).view(bits)
    same |= np.isnan(got) & np.isnan(expected)
    assert same.all(), f"{(~same).sum()} of {same.size} values differ"


def assert_ulp(got: np.ndarray, expected: np.ndarray, ulp: float = 4) -> None:
    """Within ``ulp`` units in the last place of the largest number of a row.

    The corners of a decoded box are a centre plus and minus half a size: next to 0 their own last
    place says nothing about the arithmetic.
    """
    assert got.dtype == expected.dtype
    assert got.shape == expected.shape
    if got.size == 0:
        return
    unit = np.spacing(np.abs(expected).max(axis=-1, keepdims=True))
    error = np.abs(got.astype(np.float64) - expected) / unit
    assert error.max() <= ulp, f"{error.max():.1f} ulp"


def random_boxes(
    rng: np.random.Generator, n: int, size: float = 100, dtype: type = np.float32
) -> np.ndarray:
    """``n`` boxes with sides of 1 to ``size / 2`` in a square of about ``size``."""
    start = rng.uniform(0, size, (n, 2))
    return np.concatenate((start, start + rng.uniform(1, size / 2, (n, 2))), axis=1).astype(dtype)
