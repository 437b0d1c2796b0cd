"""Box functions and losses of oxidet.ops against torchvision.ops, tensors in and out."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from box_comparison import random_boxes
from conftest import assert_close
from oxidet import nn, ops

torch = pytest.importorskip("torch")
theirs = pytest.importorskip("torchvision").ops

FAMILY = ["box_iou", "generalized_box_iou", "distance_box_iou", "complete_box_iou"]
BOX_LOSSES = ["generalized_box_iou_loss", "distance_box_iou_loss", "complete_box_iou_loss"]


def awkward_boxes(rng: np.random.Generator, dtype: type) -> np.ndarray:
    """Ordinary, equal, touching, pointlike, inverted, huge, infinite boxes and NaN."""
    boxes = random_boxes(rng, 40, dtype=dtype)
    boxes[1] = boxes[0]
    boxes[2] = boxes[0][[2, 1, 2, 3]]
    boxes[3] = boxes[0][[0, 1, 0, 1]]
    boxes[4] = boxes[0][[2, 3, 0, 1]]
    boxes[5:8] *= dtype(1e6)
    boxes[8] = [-3e38, 0, -2.9e38, 1e-3]
    boxes[9] = [2.9e38, 0, 3e38, 1e-3]
    boxes[10] = [-np.inf, 0, np.inf, 9]
    boxes[11] = [np.inf, 0, np.inf, 9]
    boxes[12] = [np.inf, np.inf, -np.inf, -np.inf]
    boxes[13, rng.integers(4)] = np.nan
    boxes[14:20] = np.round(boxes[14:20] / 20) * 20
    return boxes


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", FAMILY)
def test_iou_family(name: str, dtype: type) -> None:
    mine, original = getattr(ops, name), getattr(theirs, name)
    for seed in range(100):
        rng = np.random.default_rng(seed)
        a, b = awkward_boxes(rng, dtype), awkward_boxes(rng, dtype)
        got, expected = mine(a, b), original(torch.tensor(a), torch.tensor(b)).numpy()
        assert got.dtype == expected.dtype
        # Relative, since a value may be huge; 1 - IoU leaves few digits where boxes coincide.
        np.testing.assert_allclose(got, expected, rtol=2e-6, atol=1e-6, err_msg=f"seed {seed}")


@pytest.mark.parametrize("dtype", [np.int64, np.int16, np.uint8, np.float16])
@pytest.mark.parametrize("name", FAMILY)
def test_iou_family_of_other_types(name: str, dtype: type) -> None:
    rng = np.random.default_rng(0)
    a, b = random_boxes(rng, 30, 150, dtype), random_boxes(rng, 20, 150, dtype)
    if dtype == np.uint8:  # torchvision subtracts before it widens: differences below 0 wrap
        a, b = np.tile(a[:1], (3, 1)), a[:1]
    got = getattr(ops, name)(a, b)
    expected = getattr(theirs, name)(torch.tensor(a), torch.tensor(b))
    assert torch.from_numpy(got).dtype == expected.dtype
    # torchvision rounds differences of half floats to half floats.
    assert_close(got, expected, 2e-2 if dtype == np.float16 else 1e-6)


@pytest.mark.parametrize("fmt", ["xyxy", "xywh", "cxcywh"])
def test_formats(fmt: str) -> None:
    for seed, dtype in itertools.product(range(50), (np.float32, np.float64)):
        rng = np.random.default_rng(seed)
        a, b = awkward_boxes(rng, dtype), awkward_boxes(rng, dtype)
        got = ops.box_iou(a, b, fmt)
        expected = theirs.box_iou(torch.tensor(a), torch.tensor(b), fmt)
        np.testing.assert_allclose(got, expected, rtol=2e-6, atol=1e-6, err_msg=f"seed {seed}")
        np.testing.assert_array_equal(ops.box_area(a, fmt), theirs.box_area(torch.tensor(a), fmt))


UPRIGHT = ["xyxy", "xywh", "cxcywh"]
ROTATED = ["xywhr", "cxcywhr", "xyxyxyxy"]


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16, np.int64, np.int16])
@pytest.mark.parametrize(
    ("in_fmt", "out_fmt"),
    [*itertools.product(UPRIGHT, repeat=2), *itertools.product(ROTATED, repeat=2)],
)
def test_box_convert(in_fmt: str, out_fmt: str, dtype: type) -> None:
    columns = {"xywhr": 5, "cxcywhr": 5, "xyxyxyxy": 8}.get(in_fmt, 4)
    rng = np.random.default_rng(0)
    for shape in [(0,), (1,), (50,), (3, 7), ()]:
        boxes = rng.uniform(0, 50, (*shape, columns)).astype(dtype)
        got = ops.box_convert(boxes, in_fmt, out_fmt)
        expected = theirs.box_convert(torch.tensor(boxes), in_fmt, out_fmt)
        assert torch.from_numpy(got).dtype == expected.dtype
        if np.issubdtype(dtype, np.integer):
            # A value halfway between integers may be rounded to either.
            assert np.abs(got - expected.numpy()).max(initial=0) <= (in_fmt in ROTATED)
        else:
            assert_close(got, expected, 1e-2 if dtype == np.float16 else 1e-6)


@pytest.mark.parametrize("fmt", ROTATED)
def test_rotated_formats(fmt: str) -> None:
    rng = np.random.default_rng(0)
    for n, m in [(0, 3), (1, 1), (40, 30)]:
        boxes = rng.uniform((0, 0, 5, 5, -180), (50, 50, 40, 40, 180), (n + m, 5))
        a, b = np.split(ops.box_convert(boxes.astype(np.float32), "cxcywhr", fmt), [n])
        expected = theirs.box_iou(torch.tensor(a), torch.tensor(b), fmt)
        assert_close(ops.box_iou(a, b, fmt), expected, 1e-5)
    for function in (ops.box_iou, theirs.box_iou):
        with pytest.raises(ValueError, match="xyrb"):
            function(torch.tensor(a), torch.tensor(b), "xyrb")


@pytest.mark.parametrize(("in_fmt", "out_fmt"), [("xyxy", "xywhr"), ("xyxyxyxy", "cxcywh")])
def test_upright_and_rotated_do_not_mix(in_fmt: str, out_fmt: str) -> None:
    for function in (ops.box_convert, theirs.box_convert):
        with pytest.raises(NotImplementedError, match=out_fmt):
            function(torch.zeros(2, 4), in_fmt, out_fmt)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16, np.int64, np.int16])
def test_clip_boxes_to_image(dtype: type) -> None:
    rng = np.random.default_rng(0)
    for size in ((60, 80), (1, 1), (0, 7), (33, 2000)):
        for shape in ((0, 4), (50, 4), (2, 5, 4), (4,)):
            boxes = rng.uniform(-100, 200, shape).astype(dtype)
            if np.issubdtype(dtype, np.floating) and boxes.size > 8:
                boxes.flat[::7] = np.nan
                boxes.flat[::5] = np.inf
            got = ops.clip_boxes_to_image(boxes, size)
            expected = theirs.clip_boxes_to_image(torch.tensor(boxes), size)
            np.testing.assert_array_equal(got, expected)
            assert got.dtype == dtype


@pytest.mark.parametrize("dtype", ["bool", "uint8", "int8", "int64", "float32", "float64"])
def test_masks_to_boxes(dtype: str) -> None:
    for seed in range(40):
        rng = np.random.default_rng(seed)
        n, h, w = rng.integers(0, 4), rng.integers(1, 200), rng.integers(1, 200)
        masks = (rng.random((n, h, w)) < rng.choice([0, 1e-4, 1e-2, 1])).astype(dtype)
        if dtype.startswith("float") and masks.size:
            masks[0, h // 2, w // 3] = np.nan
        if dtype.startswith("int"):
            masks = -masks
        expected = theirs.masks_to_boxes(torch.tensor(masks))
        np.testing.assert_array_equal(ops.masks_to_boxes(masks), expected)
        turned = np.ascontiguousarray(masks.transpose(0, 2, 1)).transpose(0, 2, 1)
        np.testing.assert_array_equal(ops.masks_to_boxes(turned), expected)
    large = np.zeros((6, 700, 900), dtype)
    large[[0, 2, 3, 4], [0, 699, 350, 17], [899, 0, 450, 18]] = 1
    np.testing.assert_array_equal(
        ops.masks_to_boxes(large), theirs.masks_to_boxes(torch.tensor(large))
    )


@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
@pytest.mark.parametrize("name", BOX_LOSSES)
def test_box_losses(name: str, reduction: str) -> None:
    for seed in range(60):
        rng = np.random.default_rng(seed)
        a, b = random_boxes(rng, 40), random_boxes(rng, 40)
        b[:5] = a[:5]  # equal corners share the gradient
        b[5:8, 0] = a[5:8, 0]
        a[8] = [0, 0, 10, 10]
        b[8] = [10, 0, 20, 10]  # touching
        weights = rng.standard_normal(40 if reduction == "none" else ()).astype(np.float32)
        tensors = [torch.tensor(x, dtype=torch.float64, requires_grad=True) for x in (a, b)]
        expected = getattr(theirs, name)(*tensors, reduction=reduction)
        expected.backward(torch.tensor(weights, dtype=torch.float64))
        sides = [nn.Tensor(x, requires_grad=True) for x in (a, b)]
        got = getattr(ops, name)(*sides, reduction=reduction)
        assert_close(got.numpy(), expected.detach(), 1e-6, f"seed {seed}")
        got.backward(weights)
        for side, tensor in zip(sides, tensors, strict=True):
            assert_close(side.grad, tensor.grad, 1e-5, f"gradient, seed {seed}")


@pytest.mark.parametrize("name", BOX_LOSSES)
def test_box_losses_of_degenerate_boxes(name: str) -> None:
    point, box, inverted = [1, 1, 1, 1], [0, 0, 4, 3], [4, 3, 0, 0]
    pairs = [(point, point), (point, box), (box, point), (inverted, box), (inverted, inverted)]
    a, b = (np.array(side, np.float32) for side in zip(*pairs, strict=True))
    tensors = [torch.tensor(x, dtype=torch.float64, requires_grad=True) for x in (a, b)]
    expected = getattr(theirs, name)(*tensors)
    expected.sum().backward()
    sides = [nn.Tensor(x, requires_grad=True) for x in (a, b)]
    got = getattr(ops, name)(*sides)
    np.testing.assert_allclose(got.numpy(), expected.detach(), rtol=1e-6, atol=1e-6)
    got.sum().backward()
    for side, tensor in zip(sides, tensors, strict=True):
        np.testing.assert_allclose(side.grad, tensor.grad, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
@pytest.mark.parametrize(("alpha", "gamma"), [(0.25, 2), (-1, 2), (0.7, 1.5), (0, 0), (1, 1)])
def test_focal_loss(alpha: float, gamma: float, reduction: str) -> None:
    for seed, shape in itertools.product(range(10), [(7,), (300, 20), (2, 3, 4)]):
        rng = np.random.default_rng(seed)
        x = (6 * rng.standard_normal(shape)).astype(np.float32)
        t = (rng.random(shape) < 0.3).astype(np.float32) if seed % 2 else rng.random(shape)
        t = t.astype(np.float32)
        tensors = [torch.tensor(v, dtype=torch.float64, requires_grad=True) for v in (x, t)]
        expected = theirs.sigmoid_focal_loss(*tensors, alpha, gamma, reduction)
        expected.sum().backward()
        sides = [nn.Tensor(v, requires_grad=True) for v in (x, t)]
        got = ops.sigmoid_focal_loss(*sides, alpha, gamma, reduction)
        assert_close(got.numpy(), expected.detach(), 1e-6)
        got.sum().backward()
        for side, tensor in zip(sides, tensors, strict=True):
            assert_close(side.grad, tensor.grad, 1e-5)


def test_tensors_come_back_as_tensors() -> None:
    boxes, others = torch.rand(5, 4), torch.rand(6, 4)
    boxes[:, 2:] += 1
    others[:, 2:] += 1
    masks = torch.rand(3, 8, 9) > 0.5
    calls = [
        ("box_area", (boxes,)),
        ("box_convert", (boxes, "xyxy", "cxcywh")),
        *((name, (boxes, others)) for name in FAMILY),
        *((name, (boxes, others[:5])) for name in BOX_LOSSES),
        *((name, (boxes, others[:5], "mean")) for name in BOX_LOSSES),
        ("clip_boxes_to_image", (boxes, (1, 1))),
        ("remove_small_boxes", (boxes, 1)),
        ("masks_to_boxes", (masks,)),
        ("sigmoid_focal_loss", (boxes, (others[:5] > 1).float(), 0.25, 2, "sum")),
    ]
    for name, arguments in calls:
        got, expected = getattr(ops, name)(*arguments), getattr(theirs, name)(*arguments)
        assert torch.is_tensor(got), name
        torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-6, msg=name)


def test_a_box_without_height_leaves_the_other_its_gradient() -> None:
    # As when an annotated box has none: the predicted one still has to learn.
    found = np.array([[0, 0, 4, 4], [1, 1, 6, 3], [0, 0, 2, 9]], np.float32)
    annotated = np.array([[1, 2, 5, 2], [2, 0, 6, 0], [0, 0, 2, 8]], np.float32)
    box, torch_box = nn.Tensor(found, requires_grad=True), torch.tensor(found, requires_grad=True)
    ops.complete_box_iou_loss(box, annotated, "sum").backward()
    theirs.complete_box_iou_loss(torch_box, torch.from_numpy(annotated), "sum").backward()
    assert np.isfinite(box.grad).all()
    assert_close(box.grad, torch_box.grad.numpy(), 1e-5)


def test_labels_and_thresholds_out_of_a_detectors_tensor() -> None:
    rng = np.random.default_rng(5)
    rows = np.column_stack([random_boxes(rng, 300), rng.random(300), rng.integers(0, 4, 300)])
    found = torch.from_numpy(rows.astype(np.float32))
    for threshold in torch.linspace(0.3, 0.7, 3):
        # The last column is of floats, and so is the threshold a tensor.
        arguments = found[:, :4], found[:, 4], found[:, 5], threshold
        kept = ops.batched_nms(*arguments)
        assert torch.equal(kept, theirs.batched_nms(*arguments))
        small = ops.remove_small_boxes(found[:, :4], 20 * threshold)
        assert torch.equal(small, theirs.remove_small_boxes(found[:, :4], 20 * threshold))


@pytest.mark.parametrize("name", FAMILY)
def test_leading_axes_broadcast(name: str) -> None:
    rng = np.random.default_rng(6)
    a = torch.from_numpy(random_boxes(rng, 24).reshape(2, 3, 4, 4))
    for b in (a[0], a[:1, 1:2], a[0, 0]):
        got = getattr(ops, name)(a, b)
        expected = getattr(theirs, name)(a, b)
        assert got.shape == expected.shape
        assert_close(got.numpy(), expected.numpy(), 1e-6)
