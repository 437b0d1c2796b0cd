"""The RoI operators against torchvision: results and gradients."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

from conftest import assert_close
from oxidet import nn, ops

torch = pytest.importorskip("torch")
theirs = pytest.importorskip("torchvision").ops

# (N, C, H, W), (rows, columns), scale: Faster R-CNN's own shape, and every edge around it.
SHAPES = [
    ((1, 1, 1, 1), (1, 1), 1.0),
    ((2, 3, 6, 8), (2, 3), 0.25),
    ((3, 33, 9, 7), (7, 7), 0.1),
    ((1, 512, 37, 50), (7, 7), 1 / 16),
    ((2, 64, 20, 31), (14, 14), 1 / 4),
    ((1, 5, 130, 4), (7, 1), 1.0),
]


def random_rois(
    rng: np.random.Generator, shape: tuple[int, ...], scale: float, count: int
) -> np.ndarray:
    """Regions inside, across the border, outside, of size zero, and with corners at halves."""
    batch, _, height, width = shape
    size = np.array([width, height]) / scale
    corner = rng.uniform(-0.3, 1.1, (count, 2)) * size
    extent = rng.uniform(0, 0.9, (count, 2)) * size
    extent[::7] = 0
    corners = np.concatenate([corner, corner + extent], 1)
    corners[1::3] = np.round(corners[1::3] * scale * 2) / 2 / scale
    fixed = [[0, 0, *size], [*(size + 40 / scale), *(size + 50 / scale)]]
    corners = np.concatenate([corners, fixed])
    return np.column_stack([rng.integers(0, batch, count + 2), corners]).astype(np.float32)


def compare(
    shape: tuple[int, ...],
    rois: np.ndarray,
    seed: int,
    ours_op: Any,
    their_op: Any,
    tolerance: float,
) -> None:
    rng = np.random.default_rng(seed)
    x = rng.standard_normal(shape).astype(np.float32)
    mine = nn.Tensor(x, requires_grad=True)
    other = torch.tensor(x, requires_grad=True)
    got, expected = ours_op(mine, rois), their_op(other, torch.tensor(rois))
    assert_close(got, expected.detach(), tolerance, "output")
    grad = rng.standard_normal(expected.shape).astype(np.float32)
    got.backward(grad)
    expected.backward(torch.tensor(grad))
    # torchvision adds thousands of float32 terms to a pixel one by one; its error, not ours.
    assert_close(mine.grad, other.grad, 3e-5, "gradient")
    # Without a tape there is no argmax to keep, and another kernel runs.
    np.testing.assert_array_equal(ours_op(x, rois), got)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("case", SHAPES, ids=str)
def test_roi_pool(case, seed: int) -> None:
    shape, size, scale = case
    rois = random_rois(np.random.default_rng(seed), shape, scale, 25)
    compare(
        shape,
        rois,
        seed,
        lambda x, r: ops.roi_pool(x, r, size, scale),
        lambda x, r: theirs.roi_pool(x, r, size, scale),
        0.0,
    )


@pytest.mark.parametrize("aligned", [False, True])
@pytest.mark.parametrize("ratio", [-1, 0, 1, 2, 5])
@pytest.mark.parametrize("case", SHAPES, ids=str)
def test_roi_align(case, ratio: int, aligned: bool) -> None:
    shape, size, scale = case
    rois = random_rois(np.random.default_rng(ratio + 1), shape, scale, 25)
    compare(
        shape,
        rois,
        ratio + 1,
        lambda x, r: ops.roi_align(x, r, size, scale, ratio, aligned),
        lambda x, r: theirs.roi_align(x, r, size, scale, ratio, aligned),
        2e-6,
    )


@pytest.mark.parametrize("start", [0, 3])
def test_roi_pool_of_every_size_in_seven_bins(start: int) -> None:
    x = np.random.default_rng(0).standard_normal((1, 2, 210, 210)).astype(np.float32)
    sizes = np.arange(1, 200)
    zeros = np.zeros_like(sizes)
    ends = start + sizes - 1
    rois = np.stack([zeros, zeros + start, zeros + start, ends, ends], 1).astype(np.float32)
    expected = theirs.roi_pool(torch.tensor(x), torch.tensor(rois), 7)
    np.testing.assert_array_equal(ops.roi_pool(x, rois, 7), expected)


def test_reversed_corners() -> None:
    rois = np.array([[0, 5, 5, 2, 1], [0, 5, 1, 2, 6], [0, 1, 6, 5, 2]], np.float32)
    for name, options in [
        ("roi_pool", {}),
        ("roi_align", {}),
        ("roi_align", {"sampling_ratio": 2}),
        ("roi_align", {"sampling_ratio": 2, "aligned": True}),
    ]:
        compare(
            (1, 3, 8, 9),
            rois,
            0,
            lambda x, r, name=name, options=options: getattr(ops, name)(x, r, (2, 3), **options),
            lambda x, r, name=name, options=options: getattr(theirs, name)(x, r, (2, 3), **options),
            1e-6,
        )


def test_irregular_features() -> None:
    x = np.random.default_rng(0).standard_normal((1, 4, 8, 8)).astype(np.float32)
    x[0, 0] = np.nan
    x[0, 1, ::2] = np.nan
    x[0, 2] = -np.inf
    x[0, 3, 3] = np.inf
    rois = np.array([[0, 0, 0, 7, 7], [0, 2, 2, 3, 3]], np.float32)
    expected = theirs.roi_pool(torch.tensor(x), torch.tensor(rois), 3)
    np.testing.assert_array_equal(ops.roi_pool(x, rois, 3), expected)


def test_lists_of_boxes() -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((3, 4, 9, 9)).astype(np.float32)
    boxes = [np.sort(rng.uniform(0, 9, (n, 2, 2)), 1).reshape(n, 4) for n in (2, 0, 3)]
    boxes = [b.astype(np.float32) for b in boxes]
    for name, size in itertools.product(("roi_pool", "roi_align"), (2, (3, 1))):
        expected = getattr(theirs, name)(torch.tensor(x), [torch.tensor(b) for b in boxes], size)
        assert_close(getattr(ops, name)(x, boxes, size), expected, 1e-6)


# (N, C, H, W), (rows, columns), scale.
PS_SHAPES = [
    ((1, 1, 1, 1), (1, 1), 1.0),
    ((2, 18, 6, 8), (2, 3), 0.25),
    ((3, 9, 9, 7), (3, 3), 0.1),
    ((1, 490, 37, 50), (7, 7), 1 / 16),
]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("case", PS_SHAPES, ids=str)
def test_ps_roi_pool(case, seed: int) -> None:
    shape, size, scale = case
    compare(
        shape,
        random_rois(np.random.default_rng(seed), shape, scale, 25),
        seed,
        lambda x, r: ops.ps_roi_pool(x, r, size, scale),
        lambda x, r: theirs.ps_roi_pool(x, r, size, scale),
        2e-6,
    )


@pytest.mark.parametrize("ratio", [-1, 1, 2, 5])
@pytest.mark.parametrize("case", PS_SHAPES, ids=str)
def test_ps_roi_align(case, ratio: int) -> None:
    shape, size, scale = case
    rois = random_rois(np.random.default_rng(ratio + 1), shape, scale, 25)
    if ratio < 0:  # the average of nothing is NaN in both, which no tolerance measures
        points = (rois[:, 1] == rois[:, 3]) | (rois[:, 2] == rois[:, 4])
        x = torch.ones(shape)
        expected = theirs.ps_roi_align(x, torch.tensor(rois[points]), size, scale)
        assert torch.isnan(expected).all()
        assert np.isnan(ops.ps_roi_align(np.ones(shape), rois[points], size, scale)).all()
        rois = rois[~points]
    compare(
        shape,
        rois,
        ratio + 1,
        lambda x, r: ops.ps_roi_align(x, r, size, scale, ratio),
        lambda x, r: theirs.ps_roi_align(x, r, size, scale, ratio),
        2e-6,
    )
