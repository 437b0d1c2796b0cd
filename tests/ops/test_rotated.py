"""Rotated boxes against a polygon library, torchvision and the greedy definition."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from oxidet import ops


def random_boxes(rng: np.random.Generator, count: int, offset: float = 0.0) -> np.ndarray:
    centre, extent = rng.uniform(0, 60, (count, 2)) + offset, rng.uniform(0.5, 40, (count, 2))
    angle = rng.choice([0, 30, 45, 90, -90, 180, 360, 17.3, -723.1], (count, 1))
    return np.concatenate([centre, extent, angle], axis=1)


def corners(box: np.ndarray) -> np.ndarray:
    cx, cy, w, h, angle = box
    cos, sin = np.cos(np.radians(angle)), np.sin(np.radians(angle))
    signs = np.array([[1, 1], [-1, 1], [-1, -1], [1, -1]]) / 2
    return [cx, cy] + signs[:, :1] * w * [cos, -sin] + signs[:, 1:] * h * [sin, cos]


@pytest.mark.parametrize("seed", range(3))
def test_polygons(seed: int) -> None:
    shapely = pytest.importorskip("shapely")
    rng = np.random.default_rng(seed)
    for n, m, offset in [(0, 3, 0), (3, 0, 0), (1, 1, 0), (40, 30, 0), (40, 30, 1e4)]:
        a, b = random_boxes(rng, n, offset), random_boxes(rng, m, offset)
        b[: min(n, m) // 2] = a[: min(n, m) // 2]  # the same
        b[min(n, m) // 2 : min(n, m), 4] = a[min(n, m) // 2 : min(n, m), 4]  # parallel
        # Around the origin: the library loses digits far from it.
        first = [shapely.Polygon(corners(box - [offset, offset, 0, 0, 0])) for box in a]
        second = [shapely.Polygon(corners(box - [offset, offset, 0, 0, 0])) for box in b]
        common = np.array([[p.intersection(q).area for q in second] for p in first])
        common = common.reshape(n, m)
        area = (a[:, 2] * a[:, 3])[:, None] + b[:, 2] * b[:, 3]
        np.testing.assert_allclose(ops.rotated_box_iou(a, b), common / (area - common), atol=1e-9)


@pytest.mark.parametrize("seed", range(3))
def test_torchvision(seed: int) -> None:
    torch = pytest.importorskip("torch")
    theirs = pytest.importorskip("torchvision").ops
    rng = np.random.default_rng(seed)
    a, b = random_boxes(rng, 60), random_boxes(rng, 50)
    try:
        expected = theirs.box_iou(torch.tensor(a), torch.tensor(b), fmt="cxcywhr")
    except (TypeError, ValueError):
        pytest.skip("this torchvision has no rotated boxes")
    np.testing.assert_allclose(ops.rotated_box_iou(a, b), expected, atol=1e-6)


@given(st.integers(0, 2**32 - 1))
def test_symmetries(seed: int) -> None:
    rng = np.random.default_rng(seed)
    a, b = random_boxes(rng, 4), random_boxes(rng, 5)
    iou = ops.rotated_box_iou(a, b)
    assert ((iou >= 0) & (iou <= 1)).all()
    np.testing.assert_allclose(ops.rotated_box_iou(b, a), iou.T, atol=1e-12)
    turned = a[:, [0, 1, 3, 2, 4]] + [0, 0, 0, 0, 90]
    np.testing.assert_allclose(ops.rotated_box_iou(turned, b), iou, atol=1e-12)
    np.testing.assert_allclose(np.diag(ops.rotated_box_iou(a, a)), 1, atol=1e-12)
    a[:, 4], b[:, 4] = 180, -360
    straight = [
        np.concatenate([c[:, :2] - c[:, 2:4] / 2, c[:, :2] + c[:, 2:4] / 2], 1) for c in (a, b)
    ]
    np.testing.assert_allclose(ops.rotated_box_iou(a, b), ops.box_iou(*straight), atol=1e-12)


@pytest.mark.parametrize("threshold", [-1.0, 0.0, 0.1, 0.5, 1.0])
def test_nms_is_the_greedy_definition(threshold: float) -> None:
    rng = np.random.default_rng(0)
    for count in (0, 1, 200):
        boxes, scores = random_boxes(rng, count), rng.integers(0, 20, count) / 7
        boxes[::11, 2] = 0
        boxes[5::31] = np.nan
        iou, kept = ops.rotated_box_iou(boxes, boxes), []
        for i in np.argsort(-scores, kind="stable"):
            if not (iou[kept, i] > threshold).any():
                kept.append(int(i))
        for values in (scores, scores.astype(np.float32), scores * 7):
            assert ops.rotated_nms(boxes, values, threshold).tolist() == kept


def test_irregular_numbers_and_types() -> None:
    box = np.array([[0, 0, 2, 2, 0]])
    for odd, expected in [([0, 0, 2, 0, 0], 0), ([0, 0, -2, 2, 0], 0), ([9, 9, 1, 1, 0], 0)]:
        assert ops.rotated_box_iou(box, np.array([odd])) == expected
    for value in (np.nan, np.inf):
        for index in range(5):
            odd = np.array([[0, 0, 2, 2, 0]], np.float64)
            odd[0, index] = value
            assert np.isnan(ops.rotated_box_iou(box, odd))
    assert ops.rotated_box_iou(box, box).dtype == np.float32
    assert ops.rotated_box_iou(box, box.astype(np.float64)).dtype == np.float64
    for function in (lambda b: ops.rotated_box_iou(b, box), lambda b: ops.rotated_nms(b, [1], 0.5)):
        with pytest.raises(ValueError, match=r"expected shape \(R, 5\), got \(1, 4\)"):
            function(np.zeros((1, 4)))
    with pytest.raises(ValueError, match="iou_threshold: expected a number, got nan"):
        ops.rotated_nms(box, [1], np.nan)
