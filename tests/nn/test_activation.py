"""Activations, softmax, dropout, Flatten and Identity."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import oxidet
from conftest import assert_close, check_gradients
from oxidet import nn
from oxidet.nn import functional as F

EXACT = {
    "relu": lambda x: np.maximum(x, 0),
    "tanh": np.tanh,
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "softmax": lambda x: np.exp(x) / np.exp(x).sum(-1, keepdims=True),
    "log_softmax": lambda x: x - np.log(np.exp(x).sum(-1, keepdims=True)),
}


def call(name: str, x):
    return getattr(F, name)(x, -1) if "softmax" in name else getattr(F, name)(x)


@pytest.mark.parametrize("name", EXACT)
@pytest.mark.parametrize("shape", [(1,), (3, 5), (0, 4), (2, 17, 3, 5), (1, 1, 1, 1), (40_000, 3)])
def test_values_agree_with_float64(name: str, shape: tuple[int, ...]) -> None:
    x = (4 * np.random.default_rng(0).standard_normal(shape)).astype(np.float32)
    got = call(name, x)
    assert got.dtype == np.float32
    assert_close(got, EXACT[name](x.astype(np.float64)), 1e-6, name)


@pytest.mark.parametrize("name", EXACT)
def test_gradients_agree_with_finite_differences(name: str) -> None:
    x = np.random.default_rng(1).standard_normal((2, 3, 2, 4))
    x[np.abs(x) < 0.05] = 0.5  # away from the kink of ReLU
    check_gradients(lambda x: call(name, x), x, tolerance=3e-3)


@pytest.mark.parametrize("dim", [0, 1, 2, 3, -1, -4])
def test_softmax_runs_along_any_axis(dim: int) -> None:
    x = np.random.default_rng(0).standard_normal((2, 5, 3, 4)).astype(np.float32)
    exact = np.exp(x) / np.exp(x).sum(dim, keepdims=True)
    assert_close(F.softmax(x, dim), exact, 1e-6)
    assert_close(F.log_softmax(x, dim), np.log(exact), 1e-6)
    check_gradients(lambda x: F.softmax(x, dim), x[:1, :2], tolerance=1e-2)


def test_four_axes_stay_channels_last() -> None:
    x = np.random.default_rng(0).standard_normal((2, 17, 5, 3)).astype(np.float32)
    for name in ("relu", "tanh", "sigmoid"):
        assert call(name, x).transpose(0, 2, 3, 1).flags.c_contiguous
    assert F.softmax(x, 1).transpose(0, 2, 3, 1).flags.c_contiguous


def test_a_single_number_keeps_its_shape() -> None:
    for name in ("relu", "tanh", "sigmoid"):
        x = nn.Tensor(0.5, requires_grad=True)
        y = call(name, x)
        y.backward()
        assert y.shape == x.grad.shape == ()


def test_relu_keeps_nan_and_has_no_gradient_at_zero() -> None:
    assert np.isnan(F.relu([np.nan])[0])
    x = nn.Tensor([-1.0, 0.0, 2.0], requires_grad=True)
    F.relu(x).sum().backward()
    np.testing.assert_array_equal(x.grad, [0, 0, 1])


def test_lenet_squashing() -> None:
    """LeNet-5's 1.7159 tanh(2x/3) maps +-1 to about +-1."""
    x = nn.Tensor([-1.0, 1.0])
    np.testing.assert_allclose(F.tanh(x * (2 / 3)) * 1.7159, [-1, 1], atol=1e-4)


# --- dropout


@settings(max_examples=30, deadline=None)
@given(st.floats(0, 1), st.integers(0, 2**32))
def test_dropout_keeps_in_expectation(p: float, seed: int) -> None:
    oxidet.manual_seed(seed)
    y = F.dropout(np.ones(20_000, np.float32), p)
    kept = np.count_nonzero(y)
    # Six standard deviations: about one in 1e9 examples fails by chance.
    assert abs(kept - (1 - p) * y.size) <= 6 * np.sqrt(p * (1 - p) * y.size) + 1
    if kept:
        np.testing.assert_allclose(y[y != 0], 1 / (1 - p), rtol=1e-6)


def test_the_gradient_passes_where_the_value_did() -> None:
    x = nn.Tensor(np.ones((3, 8, 5, 7)), requires_grad=True)
    y = F.dropout(x, 0.3)
    y.sum().backward()
    np.testing.assert_array_equal(x.grad, y.data)
    assert 0 < np.count_nonzero(x.grad) < x.grad.size


def test_masks_follow_the_seed_and_not_the_threads() -> None:
    x = np.ones((2, 64, 40, 40), np.float32)
    masks = []
    for threads in (1, 2, 3):
        oxidet.set_num_threads(threads)
        oxidet.manual_seed(5)
        masks.append((F.dropout(x), F.dropout(x)))
    for first, second in masks[1:]:
        np.testing.assert_array_equal(first, masks[0][0])
        np.testing.assert_array_equal(second, masks[0][1])
    agreement = (masks[0][0] == masks[0][1]).mean()
    assert abs(agreement - 0.5) < 0.01, "two masks of one seed are independent"


def test_dropout_is_gone_in_evaluation() -> None:
    x = np.ones((2, 3), np.float32)
    layer = nn.Dropout(0.9)
    assert layer.eval()(x) is x
    assert F.dropout(x, 0.5, training=False) is x
    assert np.count_nonzero(nn.Dropout(1.0)(x)) == 0
    np.testing.assert_array_equal(nn.Dropout(0.0)(x), x)


def test_dropout2d_drops_whole_channels() -> None:
    x = np.random.default_rng(0).uniform(1, 2, (4, 300, 3, 5)).astype(np.float32)
    for input in (x, np.ascontiguousarray(x.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)):
        tensor = nn.Tensor(input, requires_grad=True)
        y = nn.Dropout2d(0.2)(tensor)
        factors = y.data / x
        kept = factors[:, :, :1, :1] > 0
        np.testing.assert_allclose(factors, np.where(kept, 1.25, 0) + 0 * x, rtol=1e-6)
        assert abs(kept.mean() - 0.8) < 0.04
        y.backward(np.ones(y.shape))
        np.testing.assert_allclose(tensor.grad, factors, rtol=1e-6)
    assert nn.Dropout2d(0.9).eval()(x) is x
    assert not F.dropout2d(x, 1.0).any()
    assert repr(nn.Dropout2d(0.1, inplace=True)) == "Dropout2d(p=0.1, inplace=True)"


# --- shapes and arguments


def test_concat_joins_a_list() -> None:
    a, b = np.ones((2, 3, 4, 4), np.float32), np.zeros((2, 1, 4, 4), np.float32)
    net = nn.Concat().eval()
    expected = np.concatenate([a, b], axis=1)
    np.testing.assert_array_equal(net([a, b]), expected)
    net.compiled = True
    np.testing.assert_array_equal(net((a, b)), expected)
    assert nn.Concat(0)([a, a]).shape == (4, 3, 4, 4)
    assert repr(net) == "Concat(dim=1)"
    with pytest.raises(TypeError, match="inputs: expected a list or tuple of arrays, got ndarray"):
        nn.Concat()(a)


def test_flatten_keeps_c_h_w_order() -> None:
    x = np.arange(24, dtype=np.float32).reshape(1, 2, 3, 4)
    last = np.ascontiguousarray(x.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
    np.testing.assert_array_equal(nn.Flatten()(last), x.reshape(1, 24))
    assert nn.Flatten(0, 1)(x).shape == (2, 3, 4)


def test_identity_takes_any_arguments() -> None:
    x = np.ones(3)
    assert nn.Identity(54, unused=0)(x) is x


BAD = [
    (lambda: F.softmax([1.0], 1), ValueError, "dim: expected an axis of 1 dimensions, got 1"),
    (lambda: F.softmax([1.0], None), TypeError, "dim: expected an integer"),
    (lambda: F.log_softmax(1.0, 0), ValueError, "dim: expected an axis of 0 dimensions"),
    (lambda: F.dropout([1.0], 1.5), ValueError, "p: expected a number from 0 to 1, got 1.5"),
    (lambda: F.dropout([1.0], float("nan")), ValueError, "p: expected a number from 0 to 1"),
    (lambda: nn.Dropout("half"), TypeError, "p: expected a number, got 'half'"),
    (lambda: F.dropout2d([1.0]), ValueError, r"input: expected 4 dimensions \(N, C, H, W\)"),
    (lambda: nn.Dropout2d(-1), ValueError, "p: expected a number from 0 to 1, got -1"),
    (lambda: nn.Concat("1"), TypeError, "dim: expected an integer, got '1'"),
    (lambda: F.relu(["a"]), TypeError, "input: expected an array of numbers"),
]


@pytest.mark.parametrize(("call", "error", "message"), BAD, ids=[case[2] for case in BAD])
def test_bad_arguments_are_named(call, error, message: str) -> None:
    with pytest.raises(error, match=message):
        call()


def test_clamp() -> None:
    x = np.array([-np.inf, -2, -1, 0.5, 3, np.inf, np.nan], np.float32)
    assert np.array_equal(F.clamp(x, -1, 3), np.clip(x, -1, 3), equal_nan=True)
    assert np.array_equal(F.clamp(x, min=0), np.clip(x, 0, None), equal_nan=True)
    assert np.array_equal(F.clamp(x, max=0), np.clip(x, None, 0), equal_nan=True)
    tensor = nn.Tensor(x, requires_grad=True)
    F.clamp(tensor, -1, 3).backward(np.arange(1.0, 8.0))
    # A value at a limit is inside, as in torch.
    assert tensor.grad is not None
    assert tensor.grad.tolist() == [0, 0, 3, 4, 5, 0, 0]
    with pytest.raises(ValueError, match="min: expected a number unless max is one, got None"):
        F.clamp(x)
    with pytest.raises(ValueError, match=r"min: expected at most max=1\.0, got 2"):
        F.clamp(x, 2, 1)
    with pytest.raises(TypeError, match="max: expected a number"):
        F.clamp(x, 0, "one")  # type: ignore[arg-type]
