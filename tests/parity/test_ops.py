"""oxidet.ops' box functions against torchvision.ops."""

from __future__ import annotations

import numpy as np
import pytest

from conftest import assert_close
from oxidet import ops

torch = pytest.importorskip("torch")
theirs = pytest.importorskip("torchvision").ops

SEEDS = range(5)


def random_boxes(rng: np.random.Generator, count: int, dtype: type = np.float32) -> np.ndarray:
    corner = rng.uniform(0, 100, (count, 2))
    return np.concatenate([corner, corner + rng.uniform(1, 60, (count, 2))], 1).astype(dtype)


def plant(boxes: np.ndarray, threshold: float, rng: np.random.Generator) -> np.ndarray:
    """Add pairs whose IoU lies a few units in the last place around the threshold."""
    planted = [boxes]
    for index in rng.choice(len(boxes), min(8, len(boxes)), replace=False):
        x1, y1, x2, y2 = boxes[index]
        for nudge in (-3e-7, -1e-7, 0, 1e-7, 3e-7):
            planted.append(np.array([[x1, y1, x1 + (x2 - x1) * (threshold + nudge), y2]]))
    return np.concatenate(planted).astype(boxes.dtype)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("threshold", [0.0, 0.2, 0.3, 0.5, 0.7, 0.95, 1.0])
@pytest.mark.parametrize("seed", SEEDS)
def test_nms(seed: int, threshold: float, dtype: type) -> None:
    rng = np.random.default_rng(seed)
    for count in (0, 1, 2, 63, 64, 65, 300, 1500):
        boxes = plant(random_boxes(rng, count, dtype), threshold, rng)
        for scores in (
            rng.permutation(len(boxes)) / (len(boxes) + 1),  # all different
            rng.integers(0, 5, len(boxes)) / 4,  # many equal
        ):
            scores = scores.astype(dtype)
            expected = theirs.nms(torch.tensor(boxes), torch.tensor(scores), threshold)
            np.testing.assert_array_equal(ops.nms(boxes, scores, threshold), expected)


def test_nms_of_irregular_numbers() -> None:
    rng = np.random.default_rng(0)
    boxes = random_boxes(rng, 60)
    boxes[3] = np.nan
    boxes[7:9] = [5, 5, 5, 5]
    boxes[9:11] = boxes[9, [2, 3, 0, 1]]
    boxes[11] = [-np.inf, 0, np.inf, 9]
    scores = rng.random(60).astype(np.float32)
    scores[[4, 40]] = np.nan
    scores[[5, 6]] = [np.inf, -np.inf]
    for threshold in (0.0, 0.3, 0.7):
        expected = theirs.nms(torch.tensor(boxes), torch.tensor(scores), threshold)
        np.testing.assert_array_equal(ops.nms(boxes, scores, threshold), expected)


@pytest.mark.parametrize("arrangement", ["spread", "clusters", "sizes", "whole", "huge", "one"])
@pytest.mark.parametrize("seed", SEEDS)
def test_nms_of_arrangements(arrangement: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    for count in (190, 1200, 4000):
        centre = rng.uniform(0, 1000, (count, 2))
        extent = rng.uniform(4, 100, (count, 2))
        if arrangement == "clusters":
            centre = centre[:50][rng.integers(0, 50, count)] + rng.normal(0, 8, (count, 2))
        elif arrangement == "sizes":
            extent = np.exp(rng.uniform(-3, 7, (count, 2)))
        elif arrangement == "one":
            centre = rng.normal(0, 1, (count, 2))
        boxes = np.concatenate([centre - extent / 2, centre + extent / 2], 1)
        if arrangement == "whole":
            boxes = np.round(boxes / 20)
        elif arrangement == "huge":
            boxes = boxes * 1e15 + 1e17
        boxes = boxes.astype(np.float32)
        scores = rng.integers(0, count, count).astype(np.float32)
        for threshold in (0.0, 0.1, 0.3, 0.5, 0.7, 0.9):
            expected = theirs.nms(torch.tensor(boxes), torch.tensor(scores), threshold)
            np.testing.assert_array_equal(ops.nms(boxes, scores, threshold), expected)


def test_a_caller_that_flushes_subnormal_numbers_gets_the_same() -> None:
    rng = np.random.default_rng(0)
    boxes, scores = random_boxes(rng, 400), rng.random(400).astype(np.float32)
    expected = [ops.nms(boxes, scores, t).tolist() for t in (-1.0, 0.0, 0.5)]
    if not torch.set_flush_denormal(True):
        pytest.skip("this processor cannot")
    try:
        got = [ops.nms(boxes, scores, t).tolist() for t in (-1.0, 0.0, 0.5)]
    finally:
        torch.set_flush_denormal(False)
    assert got == expected


def test_nms_of_tensors() -> None:
    rng = np.random.default_rng(0)
    boxes, scores = torch.tensor(random_boxes(rng, 80)), torch.rand(80)
    kept = ops.nms(boxes, scores, 0.3)
    assert kept.dtype == torch.int64
    assert torch.equal(kept, theirs.nms(boxes, scores, 0.3))
    classes = torch.tensor(rng.integers(0, 3, 80))
    kept = ops.batched_nms(boxes, scores, classes, 0.3)
    assert torch.equal(kept, theirs.batched_nms(boxes, scores, classes, 0.3))


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("count", [0, 1, 30, 900, 1100])
def test_batched_nms(count: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    # Multiples of 1/4 below 2^12: torchvision's shifted coordinates are exact.
    boxes = np.round(random_boxes(rng, count) * 4) / 4
    scores = (rng.permutation(count) / (count + 1)).astype(np.float32)
    classes = rng.integers(0, 9, count)
    tensors = (torch.tensor(boxes), torch.tensor(scores), torch.tensor(classes))
    expected = theirs.batched_nms(*tensors, 0.4)
    np.testing.assert_array_equal(ops.batched_nms(boxes, scores, classes, 0.4), expected)


@pytest.mark.parametrize(
    "dtype", [np.float32, np.float64, np.float16, np.int64, np.int16, np.uint8]
)
def test_box_arithmetic(dtype: type) -> None:
    rng = np.random.default_rng(0)
    floating = np.issubdtype(dtype, np.floating)
    tolerance = 2e-3 if dtype == np.float16 else 1e-6
    for count in (0, 1, 50):
        boxes = random_boxes(rng, count, dtype)
        tensor = torch.tensor(boxes)
        cases = [
            (ops.clip_boxes_to_image(boxes, (70, 90)), theirs.clip_boxes_to_image(tensor, (70, 90)))
        ]
        cases.append((ops.remove_small_boxes(boxes, 20), theirs.remove_small_boxes(tensor, 20)))
        for fmt in ("xyxy", "xywh", "cxcywh"):
            cases.append((ops.box_area(boxes, fmt), theirs.box_area(tensor, fmt)))
            for other in ("xyxy", "xywh", "cxcywh"):
                if floating or "cxcywh" not in (fmt, other) or fmt == other or dtype != np.uint8:
                    mine = ops.box_convert(boxes, fmt, other)
                    cases.append((mine, theirs.box_convert(tensor, fmt, other)))
        for got, expected in cases:
            assert torch.tensor(got).dtype == expected.dtype
            assert_close(got, expected, tolerance)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int64])
@pytest.mark.parametrize("fmt", ["xyxy", "xywh", "cxcywh"])
def test_box_iou(fmt: str, dtype: type) -> None:
    rng = np.random.default_rng(1)
    for n, m in [(0, 3), (3, 0), (1, 1), (40, 70)]:
        a, b = random_boxes(rng, n, dtype), random_boxes(rng, m, dtype)
        got = ops.box_iou(a, b, fmt)
        expected = theirs.box_iou(torch.tensor(a), torch.tensor(b), fmt)
        assert torch.tensor(got).dtype == expected.dtype
        assert_close(got, expected, 1e-6)
    a, b = (np.stack([random_boxes(rng, n, dtype) for _ in range(3)]) for n in (4, 5))
    assert_close(ops.box_iou(a, b), theirs.box_iou(torch.tensor(a), torch.tensor(b)), 1e-6)


def test_box_iou_of_irregular_numbers() -> None:
    rows = [
        [0, 0, 4, 4],
        [1, 1, 1, 1],
        [4, 0, 8, 4],
        [4, 4, 0, 0],
        [np.nan, 0, 1, 1],
        [-np.inf, 0, np.inf, 4],
        [1, 2, 5, 2],
    ]
    boxes = np.array(rows, np.float32)
    expected = theirs.box_iou(torch.tensor(boxes), torch.tensor(boxes))
    np.testing.assert_array_equal(ops.box_iou(boxes, boxes), expected)
