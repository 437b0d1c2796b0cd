"""Losses: numeric vectors, reductions, gradients, edges, arguments."""

from __future__ import annotations

import numpy as np
import pytest

from conftest import assert_close, check_gradients
from oxidet import nn
from oxidet.nn import functional as F

LOGITS = np.random.default_rng(0).standard_normal((5, 4)).astype(np.float32)
LABELS = np.array([3, 0, -100, 1, 3])
WEIGHT = np.array([0.5, 2.0, 1.0, 0.25], np.float32)


def naive(logits, labels, weight, ignore_index, smoothing):
    """Loss of each row, and what a mean divides by, in float64."""
    logits = np.asarray(logits, np.float64)
    cost = np.log(np.exp(logits).sum(1, keepdims=True)) - logits
    cost *= weight
    losses, total = np.zeros(len(labels)), 0.0
    for row, label in enumerate(labels):
        if label != ignore_index:
            share = smoothing / logits.shape[1]
            losses[row] = (1 - smoothing) * cost[row, label] + share * cost[row].sum()
            total += weight[label]
    return losses, total


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("weighted", [False, True])
def test_cross_entropy_agrees_with_its_definition(smoothing: float, weighted: bool) -> None:
    weight = WEIGHT if weighted else None
    factor = WEIGHT if weighted else np.ones(4)
    losses, total = naive(LOGITS, LABELS, factor, -100, smoothing)
    for reduction, expected in (
        ("none", losses),
        ("sum", losses.sum()),
        ("mean", losses.sum() / total),
    ):
        options = {"reduction": reduction, "label_smoothing": smoothing}
        got = F.cross_entropy(LOGITS, LABELS, weight, **options)
        assert_close(got, expected, 1e-6, reduction)
        check_gradients(
            lambda x, options=options: F.cross_entropy(x, LABELS, weight, **options),
            LOGITS,
            tolerance=3e-3,
        )


def test_cross_entropy_vectors() -> None:
    assert_close(F.cross_entropy([[1.0, 2.0, 3.0]], [2]), 0.407606, 1e-6)
    assert_close(F.cross_entropy([[1.0, 2.0, 3.0]], [2], label_smoothing=0.1), 0.507606, 1e-6)


def test_gradient_of_the_logits_is_softmax_minus_target() -> None:
    x = nn.Tensor(LOGITS, requires_grad=True)
    F.cross_entropy(x, LABELS, label_smoothing=0.1).backward()
    target = 0.9 * np.eye(4)[LABELS.clip(0)] + 0.1 / 4
    expected = (F.softmax(LOGITS, 1) - target) / 4
    expected[LABELS == -100] = 0
    assert_close(x.grad, expected, 1e-6)


def test_one_label_a_pixel_and_a_single_sample() -> None:
    x = np.random.default_rng(0).standard_normal((2, 3, 4, 5)).astype(np.float32)
    labels = np.random.default_rng(1).integers(0, 3, (2, 4, 5))
    rows = x.transpose(0, 2, 3, 1).reshape(-1, 3)
    per_pixel = F.cross_entropy(x, labels, reduction="none")
    expected = F.cross_entropy(rows, labels.ravel(), reduction="none")
    np.testing.assert_array_equal(per_pixel, expected.reshape(2, 4, 5))
    check_gradients(lambda x: F.cross_entropy(x, labels), x, tolerance=5e-3)
    single = F.cross_entropy(rows[0], labels.ravel()[0])
    assert single.shape == ()
    np.testing.assert_array_equal(single, expected[0])


def test_no_samples() -> None:
    empty, none = np.zeros((0, 3), np.float32), np.zeros(0, np.int64)
    assert np.isnan(F.cross_entropy(empty, none))
    assert F.cross_entropy(empty, none, reduction="sum") == 0
    assert F.cross_entropy(empty, none, reduction="none").shape == (0,)
    x = nn.Tensor(np.ones((2, 3)), requires_grad=True)
    loss = F.cross_entropy(x, [-1, -1], ignore_index=-1)
    loss.backward()
    assert np.isnan(loss.item())
    np.testing.assert_array_equal(x.grad, np.zeros((2, 3)))
    assert np.isnan(F.mse_loss([], []))
    assert np.isnan(F.smooth_l1_loss([], []))
    assert F.smooth_l1_loss([], [], reduction="sum") == 0


def test_labels_may_be_of_any_integer_type_and_a_tensor() -> None:
    expected = F.cross_entropy(LOGITS, [0, 1, 2, 3, 0])
    for dtype in (np.int8, np.uint8, np.int32, np.int64):
        labels = np.array([0, 1, 2, 3, 0], dtype)
        assert F.cross_entropy(LOGITS, labels) == expected
        assert F.cross_entropy(LOGITS, nn.Tensor(labels)) == expected


def test_nll_loss_of_log_softmax_is_cross_entropy() -> None:
    for weight in (None, WEIGHT):
        for reduction in ("mean", "sum", "none"):
            got = F.nll_loss(F.log_softmax(LOGITS, 1), LABELS, weight, reduction=reduction)
            assert_close(got, F.cross_entropy(LOGITS, LABELS, weight, reduction=reduction), 1e-6)
    check_gradients(lambda x: F.nll_loss(x, LABELS, WEIGHT), LOGITS, tolerance=1e-3)


DIFFERENCES = [0.05, 0.1, 1 / 9, 0.5, 1.0, 2.0]


def test_smooth_l1_vectors() -> None:
    zeros = np.zeros(6)
    for sigma, expected in (
        (1, [0.00125, 0.005, 0.006173, 0.125, 0.5, 1.5]),
        (3, [0.01125, 0.045, 0.055556, 0.444444, 0.944444, 1.944444]),
    ):
        got = F.smooth_l1_loss(DIFFERENCES, zeros, reduction="none", sigma=sigma)
        assert_close(got, expected, 1e-6)
        beta = F.smooth_l1_loss(DIFFERENCES, zeros, reduction="none", beta=1 / sigma**2)
        np.testing.assert_array_equal(got, beta)


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("shape", [(7,), (3, 4), (2, 3, 2, 2)])
def test_regression_losses_have_the_right_gradients(reduction: str, shape) -> None:
    rng = np.random.default_rng(0)
    x, t = rng.standard_normal(shape), rng.standard_normal(shape)
    weight = rng.uniform(-2, 2, shape[-1])
    for loss in (
        lambda x, t: F.mse_loss(x, t, reduction=reduction),
        lambda x, t: F.smooth_l1_loss(x, t, reduction=reduction, beta=0.5),
        lambda x, t: F.smooth_l1_loss(x, t, reduction=reduction, sigma=3),
        lambda x, t: F.smooth_l1_loss(x, t, reduction=reduction, inside_weight=weight),
    ):
        check_gradients(loss, x, t, step=1e-3, tolerance=1e-2)


def test_an_inside_weight_of_zero_takes_an_element_out() -> None:
    x = nn.Tensor([[1.0, 2.0], [3.0, 4.0]], requires_grad=True)
    loss = F.smooth_l1_loss(x, np.zeros((2, 2)), reduction="sum", inside_weight=[[1.0], [0.0]])
    loss.backward()
    assert loss.item() == 0.5 + 1.5
    np.testing.assert_array_equal(x.grad, [[1, 1], [0, 0]])


def test_modules_call_their_functions() -> None:
    module = nn.CrossEntropyLoss(WEIGHT, ignore_index=3, reduction="sum", label_smoothing=0.2)
    expected = F.cross_entropy(
        LOGITS, LABELS.clip(0), WEIGHT, ignore_index=3, reduction="sum", label_smoothing=0.2
    )
    assert module(LOGITS, LABELS.clip(0)) == expected
    assert list(module.state_dict()) == ["weight"]
    assert list(nn.CrossEntropyLoss().state_dict()) == []
    log_p = F.log_softmax(LOGITS, 1)
    assert nn.NLLLoss(reduction="sum")(log_p, LABELS) == F.nll_loss(log_p, LABELS, reduction="sum")
    zeros = np.zeros_like(LOGITS)
    assert nn.SmoothL1Loss(beta=0.3)(LOGITS, zeros) == F.smooth_l1_loss(LOGITS, zeros, beta=0.3)
    assert nn.MSELoss()(LOGITS, zeros) == F.mse_loss(LOGITS, zeros)


BAD = [
    (lambda: F.cross_entropy(LOGITS, LABELS[:4]), ValueError, r"target: expected shape \(5,\)"),
    (lambda: F.cross_entropy(LOGITS, np.ones(5)), TypeError, "target: expected integer class"),
    (lambda: F.cross_entropy(LOGITS, LABELS > 0), TypeError, "target: expected integer class"),
    (
        lambda: F.cross_entropy(LOGITS, [0, 1, 2, 4, 0]),
        ValueError,
        "target: expected a class from 0 to 3 .*, got 4 in row 3",
    ),
    (lambda: F.cross_entropy(LOGITS, LABELS, [1.0]), ValueError, r"weight: expected shape \(4,\)"),
    (
        lambda: F.cross_entropy(LOGITS, LABELS, reduction="avg"),
        ValueError,
        "reduction: expected one of",
    ),
    (
        lambda: F.cross_entropy(LOGITS, LABELS, label_smoothing=2),
        ValueError,
        "label_smoothing: expected a number from 0 to 1",
    ),
    (
        lambda: F.cross_entropy(LOGITS, LABELS, ignore_index=0.5),
        TypeError,
        "ignore_index: expected an integer",
    ),
    (lambda: F.cross_entropy(1.0, 0), ValueError, "input: expected shape"),
    (lambda: F.nll_loss(LOGITS, [7, 0, 0, 0, 0]), ValueError, "target: expected .* in row 0"),
    (lambda: F.smooth_l1_loss([1.0], [1.0, 2.0]), ValueError, r"target: expected shape \(1,\)"),
    (lambda: F.smooth_l1_loss([1.0], [1.0], beta=-1), ValueError, "beta: expected a number of at"),
    (lambda: F.smooth_l1_loss([1.0], [1.0], sigma=0), ValueError, "sigma: expected a number above"),
    (
        lambda: F.smooth_l1_loss([1.0], [1.0], inside_weight=[1.0, 2.0]),
        ValueError,
        "inside_weight: expected a shape that broadcasts",
    ),
    (lambda: F.mse_loss([[1.0]], [1.0]), ValueError, r"target: expected shape \(1, 1\)"),
]


@pytest.mark.parametrize(("call", "error", "message"), BAD, ids=[case[2] for case in BAD])
def test_bad_arguments_are_named(call, error, message: str) -> None:
    with pytest.raises(error, match=message):
        call()
