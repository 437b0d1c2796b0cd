"""Losses of oxidet.ops: values, gradients by finite differences, reductions, messages."""

from __future__ import annotations

import numpy as np
import pytest

from box_comparison import random_boxes
from conftest import assert_close, check_gradients
from oxidet import nn, ops

BOX_LOSSES = [
    (ops.generalized_box_iou_loss, ops.generalized_box_iou),
    (ops.distance_box_iou_loss, ops.distance_box_iou),
    (ops.complete_box_iou_loss, ops.complete_box_iou),
]


@pytest.mark.parametrize(("loss", "iou"), BOX_LOSSES)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_box_loss_is_one_less_the_iou(loss, iou, dtype: type) -> None:
    rng = np.random.default_rng(0)
    for count in (0, 1, 30, 3000):
        a, b = random_boxes(rng, count, dtype=dtype), random_boxes(rng, count, dtype=dtype)
        got = loss(a, b)
        assert got.dtype == dtype
        few = min(count, 200)
        assert_close(got[:few], 1 - np.diag(iou(a[:few], b[:few])), 1e-6)
        for reduction, expected in (("sum", got.sum()), ("mean", got.mean() if count else 0)):
            assert_close(loss(a, b, reduction), expected, 1e-5)
    assert loss(a[0], b[0]).shape == ()
    assert loss(a.reshape(30, 100, 4), b.reshape(30, 100, 4)).shape == (30, 100)


@pytest.mark.parametrize("loss", [ops.generalized_box_iou_loss, ops.distance_box_iou_loss])
@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
def test_gradients_of_box_losses(loss, reduction: str) -> None:
    # The kernel's own tests compare in float64, the complete loss among them: its gradient is not
    # that of the loss, since a weight counts as a constant.
    rng = np.random.default_rng(1)
    a = random_boxes(rng, 6, 10)
    b = a + rng.uniform(-0.8, 0.8, a.shape)
    check_gradients(lambda a, b: loss(a, b, reduction), a, b, step=3e-3)


@pytest.mark.parametrize(("loss", "_"), BOX_LOSSES)
def test_each_side_alone_can_be_differentiated(loss, _) -> None:
    rng = np.random.default_rng(2)
    a, b = random_boxes(rng, 9), random_boxes(rng, 9)
    both = [nn.Tensor(x, requires_grad=True) for x in (a, b)]
    loss(*both, reduction="sum").backward()
    for side in (0, 1):
        sides = [nn.Tensor(x, requires_grad=side == i) for i, x in enumerate((a, b))]
        loss(*sides, reduction="sum").backward()
        np.testing.assert_array_equal(sides[side].grad, both[side].grad)
        assert sides[1 - side].grad is None


@pytest.mark.parametrize("targets", [[0.0, 1.0, 0.0, 1.0, 1.0], [0.2, 0.9, 0.0, 0.5, 1.0]])
@pytest.mark.parametrize(("alpha", "gamma"), [(0.25, 2.0), (-1, 1.0), (0.6, 0.0), (1.0, 3.5)])
@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
def test_gradients_of_the_focal_loss(
    reduction: str, alpha: float, gamma: float, targets: list[float]
) -> None:
    inputs = np.array([-3.0, -1.0, 0.0, 0.7, 2.0])

    def loss(x, t):
        return ops.sigmoid_focal_loss(x, t, alpha, gamma, reduction)

    check_gradients(loss, inputs, np.array(targets))


def test_the_focal_loss_of_extreme_logits_is_finite() -> None:
    inputs = nn.Tensor([-200.0, 200.0, 0.0], requires_grad=True)
    loss = ops.sigmoid_focal_loss(inputs, np.ones(3), gamma=0.5)
    loss.backward(np.ones(3, np.float32))
    assert_close(loss.numpy(), [50, 0, 0.25 * np.log(2) * np.sqrt(0.5)])
    assert_close(inputs.grad[:2], [-0.25, 0])


def test_shapes_and_types_of_the_focal_loss() -> None:
    x = np.linspace(-2, 2, 24).reshape(2, 3, 4)
    wide = ops.sigmoid_focal_loss(x, x > 0)
    narrow = ops.sigmoid_focal_loss(x.astype(np.float32), (x > 0).astype(np.int64))
    assert (wide.dtype, narrow.dtype) == (np.float64, np.float32)
    assert_close(narrow, wide, 1e-6)
    strided = ops.sigmoid_focal_loss(x.transpose(2, 0, 1), x.transpose(2, 0, 1) > 0)
    np.testing.assert_array_equal(strided, wide.transpose(2, 0, 1))
    assert ops.sigmoid_focal_loss(np.zeros((0, 3)), np.zeros((0, 3))).shape == (0, 3)
    assert np.isnan(ops.sigmoid_focal_loss(np.zeros(0), np.zeros(0), reduction="mean"))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: ops.generalized_box_iou_loss(np.zeros((2, 4)), np.zeros((3, 4))),
            r"boxes2: expected shape \(2, 4\) as boxes1 has, got \(3, 4\)",
        ),
        (lambda: ops.distance_box_iou_loss(np.zeros(5), np.zeros(5)), "boxes1: expected shape"),
        (
            lambda: ops.complete_box_iou_loss(np.zeros((1, 4)), np.zeros((1, 4)), "all"),
            "reduction: expected one of",
        ),
        (lambda: ops.sigmoid_focal_loss(np.zeros(2), np.zeros(3)), "targets: expected shape"),
        (lambda: ops.sigmoid_focal_loss([0.0], [1], alpha=1.5), "alpha: expected a number from 0"),
        (lambda: ops.sigmoid_focal_loss([0.0], [1], gamma=-1), "gamma: expected a number of at"),
        (lambda: ops.sigmoid_focal_loss([0.0], [1], reduction="x"), "reduction: expected one of"),
    ],
)
def test_messages_name_the_argument(call, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
