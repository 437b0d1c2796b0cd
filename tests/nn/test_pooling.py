"""Pooling: the numeric vectors of the definition, gradients, layout, arguments."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import oxidet
from conftest import assert_close, check_gradients
from oxidet import nn
from oxidet.nn import functional as F


def ar(*shape: int) -> np.ndarray:
    return np.arange(np.prod(shape), dtype=np.float32).reshape(shape)


MAX_VECTORS = [
    (ar(1, 1, 5, 5), (3, 2), {}, "12 14 22 24"),
    (ar(1, 1, 6, 6), (3, 2), {}, "14 16 26 28"),
    (ar(1, 1, 6, 6), (3, 2), {"ceil_mode": True}, "14 16 17 26 28 29 32 34 35"),
    (ar(1, 1, 6, 6), (3, 2, 1), {}, "7 9 11 19 21 23 31 33 35"),
    (ar(1, 1, 4, 4), (2,), {}, "5 7 13 15"),
]
AVG_VECTORS = [
    (
        ar(1, 1, 3, 3),
        (3, 1, 1),
        {},
        ".888889 1.666667 1.333333 2.333333 4 3 2.222222 3.666667 2.666667",
    ),
    (
        ar(1, 1, 3, 3),
        (3, 1, 1),
        {"count_include_pad": False},
        "2 2.5 3 3.5 4 4.5 5 5.5 6",
    ),
    (ar(1, 1, 4, 4), (3, 2), {"ceil_mode": True}, "5 6.5 11 12.5"),
    (
        ar(1, 1, 4, 4),
        (3, 2, 1),
        {"ceil_mode": True},
        "1.111111 2.666667 1.666667 5.666667 10 5.5 4.166667 7 3.75",
    ),
    (
        ar(1, 1, 4, 4),
        (3, 2, 1),
        {"ceil_mode": True, "count_include_pad": False},
        "2.5 4 5 8.5 10 11 12.5 14 15",
    ),
    (ar(1, 1, 1, 14), ((1, 5), (1, 3)), {}, "2 5 8 11"),
]
ADAPTIVE_VECTORS = [
    (5, 3, ".5 2 3.5"),
    (14, 4, "1.5 4.5 8.5 11.5"),
    (6, 7, "0 .5 1.5 2.5 3.5 4.5 5"),
]


def numbers(text: str) -> np.ndarray:
    return np.array(text.split(), np.float64)


@pytest.mark.parametrize(("x", "args", "options", "expected"), MAX_VECTORS)
def test_max_pool2d_vectors(x, args, options, expected) -> None:
    np.testing.assert_array_equal(F.max_pool2d(x, *args, **options).ravel(), numbers(expected))


@pytest.mark.parametrize(("x", "args", "options", "expected"), AVG_VECTORS)
def test_avg_pool2d_vectors(x, args, options, expected) -> None:
    assert_close(F.avg_pool2d(x, *args, **options).ravel(), numbers(expected), 1e-6)


@pytest.mark.parametrize(("size", "out", "expected"), ADAPTIVE_VECTORS)
def test_adaptive_avg_pool2d_vectors(size: int, out: int, expected: str) -> None:
    got = F.adaptive_avg_pool2d(ar(1, 1, 1, size), (1, out))
    np.testing.assert_array_equal(got.ravel(), numbers(expected))
    got = F.adaptive_avg_pool2d(ar(1, 1, size, 1), (out, None))
    np.testing.assert_array_equal(got.ravel(), numbers(expected))


def compiled(layer: nn.Module) -> nn.Module:
    layer.compiled = True
    return layer.eval()


@pytest.mark.parametrize(("x", "args", "options", "expected"), MAX_VECTORS)
def test_max_pool2d_vectors_in_plans(x, args, options, expected) -> None:
    got = compiled(nn.MaxPool2d(*args, **options))(x)
    np.testing.assert_array_equal(got.ravel(), numbers(expected))


@pytest.mark.parametrize(("x", "args", "options", "expected"), AVG_VECTORS)
def test_avg_pool2d_vectors_in_plans(x, args, options, expected) -> None:
    got = compiled(nn.AvgPool2d(*args, **options))(x)
    assert_close(got.ravel(), numbers(expected), 1e-6)


@pytest.mark.parametrize("window", [(3, 2), (2, 2, 1), (3, 2, 1), ((3, 5), (2, 1), (1, 2)), (1, 2)])
@pytest.mark.parametrize("ceil_mode", [False, True])
def test_every_flag_of_pooling_does_the_same_in_plans(window: Any, ceil_mode: bool) -> None:
    x = np.random.default_rng(0).standard_normal((2, 17, 8, 9)).astype(np.float32)
    for divisor_override in (None, 3, -2):
        for include in (True, False):
            layer = nn.AvgPool2d(
                *window,
                ceil_mode=ceil_mode,
                count_include_pad=include,
                divisor_override=divisor_override,
            ).eval()
            expected = layer(x)
            np.testing.assert_array_equal(compiled(layer)(x), expected)
    layer = nn.MaxPool2d(*window, ceil_mode=ceil_mode).eval()
    expected = layer(x)
    np.testing.assert_array_equal(compiled(layer)(x), expected)


def test_indices_are_places_in_the_plane() -> None:
    x = np.random.default_rng(0).permutation(2 * 3 * 6 * 7).reshape(2, 3, 6, 7)
    for output, indices in (
        F.max_pool2d(x, 3, 2, 1, return_indices=True),
        F.adaptive_max_pool2d(x, (4, 2), return_indices=True),
    ):
        assert indices.dtype == np.int64
        flat = x.reshape(2, 3, -1)
        picked = np.take_along_axis(flat, indices.reshape(2, 3, -1), axis=2)
        np.testing.assert_array_equal(picked.reshape(output.shape), output)


def test_the_first_of_equal_maxima_receives_the_gradient() -> None:
    x = nn.Tensor(np.ones((1, 1, 2, 2)), requires_grad=True)
    F.max_pool2d(x, 2).sum().backward()
    np.testing.assert_array_equal(x.grad.ravel(), [1, 0, 0, 0])


GRADIENT_CASES = [
    lambda x: F.max_pool2d(x, 2),
    lambda x: F.max_pool2d(x, 3, 1, 1, ceil_mode=True),
    lambda x: F.max_pool2d(x, (2, 3), (1, 2), (1, 0), (2, 1)),
    lambda x: F.adaptive_max_pool2d(x, (2, 3)),
    lambda x: F.avg_pool2d(x, 2),
    lambda x: F.avg_pool2d(x, 3, 2, 1, ceil_mode=True),
    lambda x: F.avg_pool2d(x, 3, 2, 1, ceil_mode=True, count_include_pad=False),
    lambda x: F.avg_pool2d(x, (1, 2), divisor_override=-3),
    lambda x: F.adaptive_avg_pool2d(x, (3, 2)),
    lambda x: F.adaptive_avg_pool2d(x, 7),
]


@pytest.mark.parametrize("index", range(len(GRADIENT_CASES)))
def test_gradients_agree_with_finite_differences(index: int) -> None:
    # Distinct values further apart than the step: no difference crosses a change of maximum.
    values = np.random.default_rng(index).permutation(2 * 3 * 5 * 6) / 10
    check_gradients(GRADIENT_CASES[index], values.reshape(2, 3, 5, 6), tolerance=2e-3)


def test_results_are_channels_last_and_independent_of_threads_and_input_layout() -> None:
    x = np.random.default_rng(0).standard_normal((2, 17, 9, 8)).astype(np.float32)
    last = np.ascontiguousarray(x.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
    for function in GRADIENT_CASES:
        results = []
        for threads in (1, 2, 3):
            oxidet.set_num_threads(threads)
            for layout in (x, last, x[:, :, ::-1][:, :, ::-1]):
                tensor = nn.Tensor(layout, requires_grad=True)
                output = function(tensor)
                assert output.data.transpose(0, 2, 3, 1).flags.c_contiguous
                output.sum().backward()
                results.append((output.data, tensor.grad))
        for output, grad in results[1:]:
            np.testing.assert_array_equal(output, results[0][0])
            np.testing.assert_array_equal(grad, results[0][1])


def test_an_empty_batch_is_ordinary() -> None:
    x = nn.Tensor(np.zeros((0, 3, 6, 6), np.float32), requires_grad=True)
    for function in GRADIENT_CASES:
        output = function(x)
        assert output.shape[:2] == (0, 3)
        assert output.shape[2] > 0
        output.sum().backward()
        assert x.grad.shape == x.shape


BAD = [
    (lambda x: F.max_pool2d(x[0], 2), ValueError, "input: expected 4 dimensions"),
    (lambda x: F.max_pool2d(x, 5), ValueError, "input: expected at least one window"),
    (lambda x: F.max_pool2d(x, 0), ValueError, "kernel_size: expected values of at least 1"),
    (lambda x: F.max_pool2d(x, 2.0), TypeError, "kernel_size: expected an integer or a pair"),
    (lambda x: F.max_pool2d(x, 2, 0), ValueError, "stride: expected values of at least 1"),
    (lambda x: F.max_pool2d(x, 2, 1, 2), ValueError, "padding: expected at most half"),
    (lambda x: F.max_pool2d(x, 2, 1, -1), ValueError, "padding: expected values of at least 0"),
    (lambda x: F.max_pool2d(x, 2, 1, 0, 0), ValueError, "dilation: expected values"),
    (lambda x: F.max_pool2d(x, 2, ceil_mode=1), TypeError, "ceil_mode: expected True or False"),
    (lambda x: F.max_pool2d(x, 2**40), ValueError, "kernel_size: expected values of at most"),
    (lambda x: F.max_pool2d(x, 2**70), ValueError, "kernel_size: expected values of at most"),
    (lambda x: F.adaptive_avg_pool2d(x, 2**31), ValueError, "output_size: expected values of at m"),
    (lambda x: F.adaptive_avg_pool2d(x, 2**31 - 1), ValueError, "output_size: .* be addressed"),
    (lambda x: F.adaptive_max_pool2d(x, 2**23), MemoryError, "output_size: .* fits into memory"),
    (
        lambda x: F.avg_pool2d(x, 2, divisor_override=2**70),
        ValueError,
        "divisor_override: expected an integer from",
    ),
    (lambda x: F.max_pool2d("x", 2), TypeError, "input: expected an array of numbers"),
    (lambda x: F.avg_pool2d(x, 2, divisor_override=0), ValueError, "divisor_override: expected"),
    (lambda x: F.avg_pool2d(x, 2, divisor_override=1.5), TypeError, "divisor_override: expected"),
    (lambda x: F.adaptive_avg_pool2d(x, -1), ValueError, "output_size: expected values of"),
    (lambda x: F.adaptive_avg_pool2d(x, (1, 2, 3)), TypeError, "output_size: expected an integer"),
    (lambda x: F.adaptive_max_pool2d(x[:, :, :0], 1), ValueError, "input: expected at least 1 x 1"),
]


@pytest.mark.parametrize(("call", "error", "message"), BAD, ids=[case[2] for case in BAD])
def test_bad_arguments_are_named(call, error, message: str) -> None:
    with pytest.raises(error, match=message):
        call(ar(1, 2, 4, 4))


@pytest.mark.parametrize("size", [(16, 16), (16, 17), (40, 23)], ids=str)
def test_windows_of_any_size_remember_their_maximum(size: tuple[int, int]) -> None:
    """Up to 256 pixels a place is a byte, beyond that it is not."""
    x = np.random.default_rng(0).standard_normal((2, 5, *size)).astype(np.float32)
    tensor = nn.Tensor(x, requires_grad=True)
    F.adaptive_max_pool2d(tensor, 1).sum().backward()
    np.testing.assert_array_equal(tensor.grad, x == x.max(axis=(2, 3), keepdims=True))
