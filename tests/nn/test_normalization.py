"""Batch norm: numeric vectors, running statistics, gradients, folding, arguments."""

from __future__ import annotations

import copy

import numpy as np
import pytest

import oxidet
from conftest import assert_close, check_gradients
from oxidet import nn
from oxidet.nn import functional as F


def random(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def test_vector_of_the_definition() -> None:
    x = np.array([1.0, 2.0, 3.0, 6.0], np.float32).reshape(4, 1, 1, 1)
    layer = nn.BatchNorm2d(1)
    assert_close(np.ravel(layer(x)), [-1.069043, -0.534522, 0, 1.603565], 1e-6)
    assert_close(layer.running_mean, [0.3], 1e-6)
    assert_close(layer.running_var, [1.3666667], 1e-6)
    assert int(layer.num_batches_tracked) == 1
    expected = [0.598777, 1.454173, 2.309569, 4.875756]
    assert_close(np.ravel(layer.eval()(x)), expected, 1e-6)
    assert int(layer.num_batches_tracked) == 1


def test_state_is_torchs() -> None:
    state = nn.BatchNorm2d(3).state_dict()
    assert [(k, v.shape, v.dtype.name) for k, v in state.items()] == [
        ("weight", (3,), "float32"),
        ("bias", (3,), "float32"),
        ("running_mean", (3,), "float32"),
        ("running_var", (3,), "float32"),
        ("num_batches_tracked", (), "int64"),
    ]
    del state["num_batches_tracked"]
    nn.BatchNorm2d(3).load_state_dict(state)
    assert "weight" not in nn.BatchNorm2d(3, affine=False).state_dict()
    assert list(nn.BatchNorm2d(3, track_running_stats=False).state_dict()) == ["weight", "bias"]
    assert "bias" not in nn.BatchNorm2d(3, bias=False).state_dict()


def test_without_momentum_statistics_are_the_mean_of_all_batches() -> None:
    layer = nn.BatchNorm2d(2, momentum=None)
    batches = [random(4, 2, 3, 3, seed=s) + s for s in range(3)]
    for batch in batches:
        layer(batch)
    means = [b.mean((0, 2, 3)) for b in batches]
    variances = [b.var((0, 2, 3), ddof=1) for b in batches]
    assert_close(layer.running_mean, np.mean(means, 0), 1e-6)
    assert_close(layer.running_var, np.mean(variances, 0), 1e-6)


def test_writing_statistics_raises_the_version() -> None:
    layer = nn.BatchNorm2d(2)
    before = layer.running_mean.version
    layer(random(2, 2, 3, 3))
    assert layer.running_mean.version > before
    layer.eval()
    before = layer.running_mean.version
    layer(random(2, 2, 3, 3))
    assert layer.running_mean.version == before


def test_function_updates_arrays_in_place() -> None:
    mean, var, x = np.zeros(3, np.float32), np.ones(3, np.float32), random(5, 3)
    F.batch_norm(x, mean, var, training=True, momentum=0.25)
    assert_close(mean, 0.25 * x.mean(0), 1e-6)
    assert_close(var, 0.75 + 0.25 * x.var(0, ddof=1), 1e-6)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("shape", [(4, 3), (3, 2, 2, 3), (2, 1, 4)])
def test_gradients_agree_with_finite_differences(training: bool, shape: tuple[int, ...]) -> None:
    channels = shape[1]
    mean, var = random(channels, seed=3), np.full(channels, 0.7, np.float32)
    # The batch's own statistics do not read the running ones; copies keep those as they are.
    check_gradients(
        lambda x, w, b: F.batch_norm(x, mean.copy(), var.copy(), w, b, training),
        random(*shape, seed=4),
        random(channels, seed=1),
        random(channels, seed=2),
        tolerance=5e-3,
    )


def test_a_channel_far_from_zero_keeps_its_digits() -> None:
    x = random(8, 2, 16, 16)
    shifted = (x + 4096).astype(np.float32)
    exact = shifted.astype(np.float64)
    exact = (exact - exact.mean((0, 2, 3), keepdims=True)) / exact.std((0, 2, 3), keepdims=True)
    assert_close(F.batch_norm(shifted, None, None, training=True), exact, 2e-4)


def test_results_do_not_depend_on_threads() -> None:
    x, grad = random(3, 17, 40, 41), random(3, 17, 40, 41, seed=1)
    results = []
    for threads in (1, 2, 3):
        oxidet.set_num_threads(threads)
        layer = nn.BatchNorm2d(17)
        tensor = nn.Tensor(x, requires_grad=True)
        output = layer(tensor)
        output.backward(grad)
        results.append((output.data, tensor.grad, layer.weight.grad, layer.bias.grad))
    for other in results[1:]:
        for a, b in zip(results[0], other, strict=True):
            np.testing.assert_array_equal(a, b)


def test_an_empty_batch_changes_no_statistics() -> None:
    layer = nn.BatchNorm2d(3)
    x = nn.Tensor(np.zeros((0, 3, 4, 4), np.float32), requires_grad=True)
    y = layer(x)
    y.sum().backward()
    assert y.shape == x.grad.shape == (0, 3, 4, 4)
    np.testing.assert_array_equal(layer.running_mean, np.zeros(3))
    np.testing.assert_array_equal(layer.running_var, np.ones(3))


def test_text_has_two_forms() -> None:
    layer = nn.BatchNorm2d(4, eps=0.001, momentum=None, affine=False)
    tail = "track_running_stats=True)"
    head = "BatchNorm2d(4, eps=0.001, momentum=None, affine=False, "
    assert repr(layer) == head + tail
    with nn.repr_style("torch2.13"):
        assert repr(layer) == head + "bias=False, " + tail
        assert "affine=True, bias=True, track" in repr(nn.BatchNorm2d(4))
    assert repr(layer) == head + tail


FOLDED = [
    {"kernel_size": 3, "padding": 1},
    {"kernel_size": (1, 5), "bias": False, "stride": 2},
    {"kernel_size": 3, "groups": 2, "dilation": 2, "padding": ((1, 2), (0, 1))},
    {"kernel_size": 3, "padding": "same", "groups": 4},
]


@pytest.mark.parametrize("options", FOLDED, ids=str)
@pytest.mark.parametrize("norm", [{}, {"affine": False}, {"bias": False, "eps": 0.1}], ids=str)
def test_folded_equals_unfolded(options: dict, norm: dict) -> None:
    conv, bn = nn.Conv2d(4, 8, **options), nn.BatchNorm2d(8, **norm)
    rng = np.random.default_rng(0)
    for parameter in bn.parameters():
        parameter.copy_(rng.standard_normal(8))
    bn.running_mean, bn.running_var = rng.standard_normal(8), rng.uniform(1e-3, 9, 8)
    model = nn.Sequential(conv, bn).eval()
    before = copy.deepcopy(model.state_dict())
    fused = nn.utils.fuse_conv_bn_eval(conv, bn)
    x = random(2, 4, 9, 11)
    assert_close(fused(x), model(x), 1e-5)
    assert not fused.training
    assert (fused.stride, fused.groups) == (conv.stride, conv.groups)
    for key, value in model.state_dict().items():
        np.testing.assert_array_equal(value, before[key])


def eval_pair(channels: int = 8, **options):
    return nn.Conv2d(4, 8, 1).eval(), nn.BatchNorm2d(channels, **options).eval()


BAD = [
    (lambda: nn.BatchNorm2d(3)(random(1, 3, 1, 1)), "input: expected more than 1 value"),
    (lambda: nn.BatchNorm2d(3)(random(2, 4, 2, 2)), "input: expected 3 channels, got shape"),
    (lambda: nn.BatchNorm2d(3)(random(2, 3)), "input: expected 4 dimensions"),
    (lambda: nn.BatchNorm2d(0), "num_features: expected an integer of at least 1"),
    (lambda: nn.BatchNorm2d(3, eps=-1.0), "eps: expected a number of at least 0"),
    (lambda: F.batch_norm(random(4), None, None, training=True), "input: expected at least 2"),
    (
        lambda: F.batch_norm(random(2, 3), None, None),
        r"running_mean: expected an array of shape \(3,",
    ),
    (
        lambda: F.batch_norm(random(2, 3), np.zeros(2), np.ones(3)),
        r"running_mean: expected shape \(3,\), got \(2,\)",
    ),
    (
        lambda: F.batch_norm(random(2, 3), np.zeros(3), np.ones(3), np.ones(4)),
        r"weight: expected shape \(3,\), got \(4,\)",
    ),
    (lambda: nn.utils.fuse_conv_bn_eval(*eval_pair(5)), "bn: expected 8 channels"),
    (
        lambda: nn.utils.fuse_conv_bn_eval(*eval_pair(track_running_stats=False)),
        "bn: expected running statistics",
    ),
    (
        lambda: nn.utils.fuse_conv_bn_eval(nn.Conv2d(4, 8, 1), nn.BatchNorm2d(8)),
        "conv: expected a module in evaluation mode",
    ),
]


@pytest.mark.parametrize(("call", "message"), BAD, ids=[case[1] for case in BAD])
def test_bad_arguments_are_named(call, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


def test_a_call_that_fails_changes_no_statistics() -> None:
    mean, var = np.zeros(3, np.float32), np.ones(3, np.float32)
    x = random(4, 3)
    for error, message, call in [
        (
            ValueError,
            "running_var: expected",
            lambda: F.batch_norm(x, mean, var[:2], training=True),
        ),
        (ValueError, "weight: expected", lambda: F.batch_norm(x, mean, var, [1.0], training=True)),
        (
            TypeError,
            "running_var: expected an array of floats to change in place, got list",
            lambda: F.batch_norm(x, mean, [1.0, 1.0, 1.0], training=True),
        ),
        (
            TypeError,
            "running_var: expected an array of floats to change in place, got int64",
            lambda: F.batch_norm(x, mean, np.ones(3, np.int64), training=True),
        ),
        (
            ValueError,
            "running_var: expected an array to change in place, got a read-only one",
            lambda: F.batch_norm(x, mean, np.broadcast_to(var, (3,)), training=True),
        ),
    ]:
        with pytest.raises(error, match=message):
            call()
        np.testing.assert_array_equal(mean, np.zeros(3))
        np.testing.assert_array_equal(var, np.ones(3))


# --- local response normalisation


def naive_response(x: np.ndarray, size: int, alpha: float, beta: float, k: float) -> np.ndarray:
    x = x.astype(np.float64)
    result = np.empty_like(x)
    for c in range(x.shape[1]):
        window = x[:, max(0, c - size // 2) : c + (size - 1) // 2 + 1]
        result[:, c] = x[:, c] / (k + alpha / size * (window**2).sum(axis=1)) ** beta
    return result


@pytest.mark.parametrize("beta", [0.75, 0.5, 1.0, 0.6])
@pytest.mark.parametrize("size", [1, 2, 5, 8, 300])
@pytest.mark.parametrize("shape", [(2, 7, 3, 4), (1, 1, 1, 1), (0, 5, 2, 2), (1, 130, 2, 3)])
def test_local_response_norm_agrees_with_the_formula(shape, size: int, beta: float) -> None:
    x = 3 * np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    got = F.local_response_norm(x, size, 0.4, beta, 1.5)
    assert_close(got, naive_response(x, size, 0.4, beta, 1.5), 2e-6)
    last = np.ascontiguousarray(x.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
    np.testing.assert_array_equal(F.local_response_norm(last, size, 0.4, beta, 1.5), got)


def test_local_response_norm_of_the_specification() -> None:
    x = np.arange(1.0, 8.0).reshape(1, 7, 1, 1)
    expected = [0.308368, 0.420448, 0.438191, 0.422948, 0.400103, 0.503761, 0.645564]
    got = F.local_response_norm(x, 5, alpha=1.0, k=2.0).ravel()
    np.testing.assert_allclose(got, expected, rtol=2e-6)
    expected = [5.651837, 10.70864, 14.86675, 17.99954, 20.19233, 24.73079, 29.96241]
    layer = nn.LocalResponseNorm(5, alpha=5e-4, k=2.0).eval()
    np.testing.assert_allclose(layer(10 * x).ravel(), expected, rtol=2e-6)
    layer.compiled = True
    np.testing.assert_allclose(layer(10 * x).ravel(), expected, rtol=2e-6)


@pytest.mark.parametrize("size", [1, 2, 3, 6])
@pytest.mark.parametrize("beta", [0.75, 1.2])
def test_gradient_of_local_response_norm(size: int, beta: float) -> None:
    x = 2 * np.random.default_rng(1).standard_normal((2, 5, 2, 2))
    check_gradients(lambda x: F.local_response_norm(x, size, 0.8, beta, 1.2), x)


def test_text_and_arguments_of_local_response_norm() -> None:
    assert (
        repr(nn.LocalResponseNorm(5, k=2)) == "LocalResponseNorm(5, alpha=0.0001, beta=0.75, k=2)"
    )
    with pytest.raises(ValueError, match="size: expected an integer of at least 1, got 0"):
        nn.LocalResponseNorm(0)
    with pytest.raises(TypeError, match="alpha: expected a number, got None"):
        nn.LocalResponseNorm(5, None)
    with pytest.raises(ValueError, match=r"input: expected at least 3 dimensions \(N, C, ...\)"):
        F.local_response_norm(np.ones((2, 3)), 5)
