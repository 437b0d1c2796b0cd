"""roi_pooling_2d against Chainer's rules, written out in NumPy."""

from __future__ import annotations

import math

import numpy as np
import pytest

from conftest import check_gradients
from oxidet import ops
from oxidet.detection import roi_pooling_2d


def chainer_cpu(x: np.ndarray, rois: np.ndarray, outh: int, outw: int, scale: float) -> np.ndarray:
    """Python's round, float64 bin edges, NumPy's max over slices."""
    height, width = x.shape[2:]
    out = np.zeros((len(rois), x.shape[1], outh, outw), np.float32)
    for r, (index, *corners) in enumerate(rois.tolist()):
        x1, y1, x2, y2 = (round(c * scale) for c in corners)
        step_h, step_w = max(y2 - y1 + 1, 1) / outh, max(x2 - x1 + 1, 1) / outw
        for i in range(outh):
            for j in range(outw):
                top, bottom = (
                    min(max(edge + y1, 0), height)
                    for edge in (math.floor(i * step_h), math.ceil((i + 1) * step_h))
                )
                left, right = (
                    min(max(edge + x1, 0), width)
                    for edge in (math.floor(j * step_w), math.ceil((j + 1) * step_w))
                )
                if top < bottom and left < right:
                    out[r, :, i, j] = x[int(index), :, top:bottom, left:right].max(axis=(1, 2))
    return out


@pytest.mark.parametrize(("outh", "outw"), [(1, 1), (7, 7), (3, 5)])
def test_the_cpu_convention(outh: int, outw: int) -> None:
    rng = np.random.default_rng(outh)
    x = rng.standard_normal((2, 3, 14, 17)).astype(np.float32)
    # Multiples of 4: every fourth coordinate is a half after scaling.
    corners = rng.integers(-10, 75, (200, 2, 2)).cumsum(axis=1).reshape(200, 4) * 4
    rois = np.column_stack([rng.integers(0, 2, 200), corners]).astype(np.float32)
    got = roi_pooling_2d(x, rois, outh, outw, 1 / 16, convention="cpu")
    np.testing.assert_array_equal(got, chainer_cpu(x, rois, outh, outw, 1 / 16))
    assert (got != roi_pooling_2d(x, rois, outh, outw, 1 / 16)).any()


def test_the_cpu_convention_at_every_size() -> None:
    x = np.arange(260, dtype=np.float32).reshape(1, 1, 260, 1)
    rois = np.array([[0, 0, 3, 0, 2 + size] for size in range(200)], np.float32)
    got = roi_pooling_2d(x, rois, 7, 1, 1.0, convention="cpu")
    np.testing.assert_array_equal(got, chainer_cpu(x, rois, 7, 1, 1.0))


def test_the_gpu_convention_is_roi_pool() -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2, 3, 6, 7)).astype(np.float32)
    rois = np.column_stack([rng.integers(0, 2, 30), rng.integers(-20, 120, (30, 4))])
    got = roi_pooling_2d(x, rois, 2, 3, 1 / 16)
    np.testing.assert_array_equal(got, ops.roi_pool(x, rois, (2, 3), 1 / 16))


def test_gradient() -> None:
    x = np.random.default_rng(0).permutation(60).reshape(1, 2, 5, 6)
    rois = np.array([[0, 0.5, 0, 3.5, 2.5], [0, 1, 1, 9, 9]])
    check_gradients(lambda x: roi_pooling_2d(x, rois, 2, 2, 1.0, convention="cpu"), x, step=0.25)


def test_bad_arguments() -> None:
    x, rois = np.zeros((1, 1, 4, 4)), np.zeros((1, 5))
    with pytest.raises(ValueError, match="convention: expected 'gpu' or 'cpu'"):
        roi_pooling_2d(x, rois, 2, 2, 1.0, convention="tpu")
    with pytest.raises(ValueError, match="outh, outw: expected"):
        roi_pooling_2d(x, rois, 0, 2, 1.0)
    with pytest.raises(ValueError, match=r"rois: expected shape \(R, 5\)"):
        roi_pooling_2d(x, rois[:, :4], 2, 2, 1.0)
    assert roi_pooling_2d(x, [[0, 0, 0, 1, 1]], 2, 2, 1.0).shape == (1, 1, 2, 2)
