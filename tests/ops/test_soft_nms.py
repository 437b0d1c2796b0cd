"""Soft-NMS and Matrix NMS: the papers read naively in float64, and ensemble-boxes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from oxidet import ops


def random_boxes(rng: np.random.Generator, count: int, size: float = 1.0) -> np.ndarray:
    corner = rng.uniform(0, 0.7 * size, (count, 2))
    return np.concatenate([corner, corner + rng.uniform(0.05, 0.3, (count, 2)) * size], 1)


def iou_matrix(boxes: np.ndarray) -> np.ndarray:
    low = np.maximum(boxes[:, None, :2], boxes[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], boxes[None, :, 2:])
    common = np.maximum(high - low, 0).prod(axis=2)
    area = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)
    with np.errstate(invalid="ignore"):
        return common / (area[:, None] + area[None] - common)


def naive_soft(
    boxes: np.ndarray, scores: np.ndarray, method: str, parameter: float, floor: float
) -> tuple[list[int], list[float]]:
    iou, left, now = iou_matrix(boxes), list(range(len(boxes))), scores.copy()
    kept, lowered = [], []
    while left:
        best = max(left, key=lambda i: (now[i], -i))
        if not now[best] > floor:
            break
        left.remove(best)
        kept.append(best)
        lowered.append(now[best])
        for i in left:
            overlap = iou[best, i]
            if method == "gaussian":
                now[i] *= np.exp(-(overlap**2) / parameter) if overlap > 0 else 1
            elif overlap > parameter:
                now[i] *= 1 - overlap
    return kept, lowered


def naive_matrix(
    boxes: np.ndarray, scores: np.ndarray, idxs: np.ndarray, method: str, sigma: float
) -> np.ndarray:
    """Lowered scores, from the matrix of the paper's pseudo code."""
    order = np.argsort(-scores, kind="stable")
    iou = np.nan_to_num(iou_matrix(boxes[order]))
    iou = np.triu(iou * (idxs[order][:, None] == idxs[order][None]), 1)
    worst = iou.max(axis=0)[:, None]
    if method == "gaussian":
        above, below = np.exp(-(iou**2) / sigma), np.exp(-(worst**2) / sigma)
    else:
        above, below = 1 - iou, 1 - worst
    above, below = np.broadcast_arrays(above, below)
    decay = np.ones_like(above)
    np.divide(above, below, out=decay, where=below > 0)
    decay = np.where(np.triu(np.ones_like(iou), 1) > 0, decay, 1).min(axis=0)
    lowered = np.empty(len(boxes))
    lowered[order] = scores[order] * np.minimum(decay, 1)
    return lowered


@pytest.mark.parametrize("method", ["linear", "gaussian"])
@pytest.mark.parametrize("seed", range(5))
def test_soft_nms(seed: int, method: str) -> None:
    rng = np.random.default_rng(seed)
    for count in (0, 1, 2, 30, 150):
        boxes, scores = random_boxes(rng, count), rng.integers(1, 60, count) / 60
        for floor in (0.0, 0.001, 0.3):
            expected = naive_soft(boxes, scores, method, 0.4, floor)
            kept, lowered = ops.soft_nms(boxes, scores, 0.4, 0.4, floor, method=method)  # type: ignore[arg-type]
            assert kept.dtype == np.int64
            assert kept.tolist() == expected[0]
            np.testing.assert_allclose(lowered, expected[1], rtol=1e-12)


@pytest.mark.parametrize("method", [1, 2])
@pytest.mark.parametrize("seed", range(5))
def test_ensemble_boxes(seed: int, method: int) -> None:
    theirs = pytest.importorskip("ensemble_boxes")
    rng = np.random.default_rng(seed)
    for count in (2, 40, 200):
        boxes, scores = random_boxes(rng, count), (rng.permutation(count) + 1) / (count + 1)
        for threshold, sigma, floor in [(0.5, 0.5, 0.001), (0.3, 0.1, 0.2)]:
            expected, _, _ = theirs.soft_nms(
                [boxes], [scores], [np.zeros(count)], method, threshold, sigma, floor
            )
            name = ("linear", "gaussian")[method - 1]
            kept, _ = ops.soft_nms(boxes, scores, threshold, sigma, floor, method=name)  # type: ignore[arg-type]
            np.testing.assert_array_equal(boxes[kept], expected)


@pytest.mark.parametrize("method", ["linear", "gaussian"])
@pytest.mark.parametrize("seed", range(5))
def test_matrix_nms(seed: int, method: str) -> None:
    rng = np.random.default_rng(seed)
    for count in (0, 1, 2, 16, 17, 300):
        boxes = random_boxes(rng, count)
        boxes[count // 2 :] = boxes[: count - count // 2]  # copies
        scores, idxs = rng.integers(1, 60, count) / 60, rng.integers(0, 3, count)
        lowered = naive_matrix(boxes, scores, idxs, method, 0.5) if count else scores
        kept, got = ops.matrix_nms(boxes, scores, idxs, score_threshold=0.05, method=method)  # type: ignore[arg-type]
        np.testing.assert_allclose(got, lowered[kept], rtol=1e-12)
        assert (np.diff(got) <= 0).all()
        assert sorted(kept) == np.flatnonzero(lowered > 0.05).tolist()


@given(st.integers(0, 2**32 - 1), st.sampled_from(["linear", "gaussian"]))
def test_scores_only_fall_and_far_boxes_keep_theirs(seed: int, method: str) -> None:
    rng = np.random.default_rng(seed)
    boxes, scores = random_boxes(rng, 20), rng.random(20) + 0.01
    boxes[0] += 5
    for function in (ops.soft_nms, ops.matrix_nms):
        kept, lowered = function(boxes, scores, score_threshold=0.0, method=method)  # type: ignore[arg-type]
        assert (lowered <= scores[kept]).all()
        assert lowered[kept == 0] == scores[0]
        assert lowered[0] == scores.max()


def test_types_and_bad_input() -> None:
    boxes, scores = np.float32([[0, 0, 4, 4], [0, 1, 4, 5]]), np.float32([0.5, 0.6])
    for function in (ops.soft_nms, ops.matrix_nms):
        assert function(boxes, scores)[1].dtype == np.float32
        assert function(boxes.tolist(), scores.tolist())[1].dtype == np.float64
        assert function(np.zeros((2, 4)), scores)[0].tolist() == [1, 0]  # no area: IoU NaN
        for wrong in ({"sigma": 0.0}, {"sigma": np.nan}, {"method": "cubic"}):
            with pytest.raises(ValueError, match=next(iter(wrong))):
                function(boxes, scores, **wrong)
        with pytest.raises(ValueError, match=r"scores: expected shape \(2,\), got \(3,\)"):
            function(boxes, np.ones(3))
        with pytest.raises(ValueError, match="score_threshold: expected a number, got nan"):
            function(boxes, scores, score_threshold=np.nan)
    assert ops.soft_nms(boxes, np.float32([np.nan, 1]))[0].tolist() == [1]
    with pytest.raises(ValueError, match="scores: expected numbers, got NaN in row 0"):
        ops.matrix_nms(boxes, np.float32([np.nan, 1]))
    with pytest.raises(TypeError, match="idxs: expected integers"):
        ops.matrix_nms(boxes, scores, [0.5, 1.0])


def test_tensors() -> None:
    torch = pytest.importorskip("torch")
    boxes = torch.tensor([[0.0, 0, 4, 4], [0, 1, 4, 5]])
    kept, lowered = ops.soft_nms(boxes, torch.tensor([0.5, 0.6]))
    assert isinstance(kept, torch.Tensor)
    assert lowered.dtype == torch.float32
