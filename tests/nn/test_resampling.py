"""Padding and resizing: values, gradients, plans, layouts, texts, arguments."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import oxidet
from conftest import assert_close, check_gradients
from oxidet import nn
from oxidet.nn import functional as F


def random(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def channels_last(x: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(x.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)


# --- padding

PADS = [(1, 2), (1, 2, 0, 3), (0, 0, 0, 0, 2, 1), (3, 0, 1, 1, 0, 5), (0, 0), (), (1,) * 8]


def by_numpy(x: np.ndarray, pad: tuple[int, ...], mode: str, **options: Any) -> np.ndarray:
    ends = [(0, 0)] * x.ndim
    for axis in range(len(pad) // 2):
        ends[x.ndim - 1 - axis] = pad[2 * axis], pad[2 * axis + 1]
    name = {"replicate": "edge", "circular": "wrap"}.get(mode, mode)
    return np.pad(x, ends, name, **options)


@pytest.mark.parametrize("value", [None, 0, -2.5])
@pytest.mark.parametrize("shape", [(2, 3, 4, 5), (1, 1, 1, 1), (0, 3, 4, 5), (1, 2, 0, 3)], ids=str)
@pytest.mark.parametrize("pad", PADS, ids=str)
def test_pad_with_a_constant(pad: tuple[int, ...], shape: tuple[int, ...], value: Any) -> None:
    x = random(*shape)
    expected = by_numpy(x, pad, "constant", constant_values=value or 0)
    for input in (x, channels_last(x)):
        np.testing.assert_array_equal(F.pad(input, pad, value=value), expected)
    tensor = nn.Tensor(x, requires_grad=True)
    grad = random(*expected.shape, seed=1)
    F.pad(tensor, pad, value=value).backward(grad)
    inside = by_numpy(np.ones_like(x), pad, "constant") > 0
    np.testing.assert_array_equal(tensor.grad.ravel(), grad[inside])


@pytest.mark.parametrize("shape", [(7,), (3, 4), (2, 3, 4), (1, 2, 3, 2, 2)], ids=str)
def test_pad_of_any_number_of_axes(shape: tuple[int, ...]) -> None:
    x = random(*shape)
    for count in range(len(shape) + 1):
        pad = tuple(range(1, 2 * count + 1))
        expected = by_numpy(x, pad, "constant", constant_values=3)
        tensor = nn.Tensor(x, requires_grad=True)
        got = F.pad(tensor, pad, value=3)
        np.testing.assert_array_equal(got.data, expected)
        (got * got).sum().backward()
        np.testing.assert_allclose(tensor.grad, 2 * x)


@pytest.mark.parametrize("mode", ["reflect", "replicate", "circular"])
@pytest.mark.parametrize("pad", [(1, 2, 0, 3), (4, 0, 3, 1), (0, 0, 0, 0)], ids=str)
def test_pad_with_the_image_itself(pad: tuple[int, ...], mode: str) -> None:
    x = random(2, 3, 4, 5)
    np.testing.assert_array_equal(F.pad(x, pad, mode), by_numpy(x, pad, mode))
    check_gradients(lambda x: F.pad(x, pad, mode), x)


def test_padding_leaves_nan_and_infinity_where_they_are() -> None:
    x = np.array([[[[np.nan, np.inf], [-np.inf, 1]]]], np.float32)
    np.testing.assert_array_equal(F.pad(x, (1, 0, 0, 1)), by_numpy(x, (1, 0, 0, 1), "constant"))


def test_a_padded_convolution_is_one_step() -> None:
    net = nn.Sequential(nn.ZeroPad2d((0, 1, 2, 3)), nn.Conv2d(3, 4, 3, stride=2)).eval()
    x = random(2, 3, 8, 9)
    expected = net(x)
    net.compiled = True
    assert_close(net(x), expected, 1e-5)
    (step,) = net.plan(x.shape).rows
    assert (step.op, step.fused) == ("conv2d", ("pad",))


def test_zero_pad_and_upsample_are_layers() -> None:
    x = random(1, 2, 3, 3)
    assert nn.ZeroPad2d(1)(x).shape == (1, 2, 5, 5)
    assert repr(nn.ZeroPad2d((1, 2, 3, 4))) == "ZeroPad2d((1, 2, 3, 4))"
    assert nn.Upsample(scale_factor=2)(x).shape == (1, 2, 6, 6)
    assert repr(nn.Upsample((4, 5), mode="bilinear")) == "Upsample(size=(4, 5), mode='bilinear')"
    np.testing.assert_array_equal(nn.Upsample(size=7)(x), F.interpolate(x, 7))


@pytest.mark.parametrize("mode", ["zeros", "reflect", "replicate", "circular"])
@pytest.mark.parametrize("padding", [1, (2, 1), "same", ((0, 2), (1, 0))], ids=str)
def test_convolutions_pad_as_they_are_told(mode: str, padding: Any) -> None:
    layer = nn.Conv2d(2, 3, (3, 4), padding=padding, padding_mode=mode).eval()
    x = random(2, 2, 5, 6)
    sides = {
        1: (1, 1, 1, 1), (2, 1): (1, 1, 2, 2), "same": (1, 2, 1, 1), ((0, 2), (1, 0)): (1, 0, 0, 2),
    }[padding]  # fmt: skip
    padded = by_numpy(x, sides, "constant" if mode == "zeros" else mode)
    expected = F.conv2d(padded, layer.weight.data, layer.bias.data)
    assert_close(layer(x), expected, 1e-6)
    layer.compiled = True
    assert_close(layer(x), expected, 1e-5)
    assert ("padding_mode=" in repr(layer)) == (mode != "zeros")


# --- resizing

RESIZED: dict[str, dict[str, Any]] = {
    "nearest, twice": {"scale_factor": 2},
    "nearest, to a size": {"size": (7, 3)},
    "nearest-exact": {"size": (3, 11), "mode": "nearest-exact"},
    "bilinear, twice": {"scale_factor": 2, "mode": "bilinear"},
    "bilinear, aligned": {"size": (7, 3), "mode": "bilinear", "align_corners": True},
    "bilinear, by other factors": {"scale_factor": (1.7, 0.6), "mode": "bilinear"},
    "area": {"size": (2, 3), "mode": "area"},
}


@pytest.mark.parametrize("name", RESIZED)
def test_gradients_of_resizing(name: str) -> None:
    check_gradients(lambda x: F.interpolate(x, **RESIZED[name]), random(2, 3, 4, 5))


@pytest.mark.parametrize("name", RESIZED)
def test_resizing_takes_any_layout_and_batch(name: str) -> None:
    x = random(3, 5, 6, 7)
    expected = F.interpolate(x, **RESIZED[name])
    np.testing.assert_array_equal(F.interpolate(channels_last(x), **RESIZED[name]), expected)
    np.testing.assert_array_equal(F.interpolate(x[1:2], **RESIZED[name]), expected[1:2])
    assert F.interpolate(x[:0], **RESIZED[name]).shape == (0, *expected.shape[1:])
    oxidet.set_num_threads(3)
    np.testing.assert_array_equal(F.interpolate(x, **RESIZED[name]), expected)


def test_known_values_of_resizing() -> None:
    x = np.arange(4, dtype=np.float32).reshape(1, 1, 2, 2)
    np.testing.assert_array_equal(
        F.interpolate(x, (3, 4))[0, 0], [[0, 0, 1, 1], [0, 0, 1, 1], [2, 2, 3, 3]]
    )
    np.testing.assert_allclose(
        F.interpolate(x, 3, mode="bilinear")[0, 0],
        [[0, 0.5, 1], [1, 1.5, 2], [2, 2.5, 3]],
        atol=1e-6,
    )


# --- arguments

X = np.ones((1, 2, 3, 4), np.float32)
BAD: list[tuple[Callable[[], Any], type[Exception], str]] = [
    (lambda: F.pad(X, 1), ValueError, "pad: expected an even number of integers, got 1"),
    (lambda: F.pad(X, (1, 2, 3)), ValueError, "pad: expected an even number of integers"),
    (lambda: F.pad(X, (1, -2)), ValueError, "pad: expected an integer from 0 to .*, got -2"),
    (lambda: F.pad(X, (1.0, 2)), TypeError, "pad: expected an integer, got 1.0"),
    (lambda: F.pad(X, (0,) * 10), ValueError, "pad: expected at most 8 values for 4 axes"),
    (lambda: F.pad(X, (1, 1), "mirror"), ValueError, "mode: expected one of"),
    (lambda: F.pad(X, (1, 1), "reflect"), ValueError, r"pad: expected \(left, right, to"),
    (lambda: F.pad(X, (4, 0, 0, 0), "reflect"), ValueError, "pad: expected at most 3 for 4 col"),
    (lambda: F.pad(X, (0, 0, 0, 4), "circular"), ValueError, "pad: expected at most 3 for 3 rows"),
    (lambda: F.pad(X, (1, 1, 1, 1), "reflect", 2), ValueError, "value: expected None with mode="),
    (lambda: F.pad(X, (2**31 - 1,) * 6), ValueError, "pad: expected a result that can"),
    (lambda: nn.ZeroPad2d((1, 2)), ValueError, r"padding: expected an integer or \(left, right"),
    (lambda: nn.Conv2d(1, 1, 1, padding_mode="mirror"), ValueError, "padding_mode: expected one"),
    (lambda: F.interpolate(X), ValueError, "size: expected either a size or a scale_factor"),
    (lambda: F.interpolate(X, 3, 2), ValueError, "size: expected either a size or a scale_factor"),
    (lambda: F.interpolate(X[0], 3), ValueError, r"input: expected 4 dimensions \(N, C, H, W\)"),
    (lambda: F.interpolate(X, 0), ValueError, "size: expected values of at least 1, got 0"),
    (lambda: F.interpolate(X, (3, 3, 3)), TypeError, "size: expected an integer or a pair"),
    (lambda: F.interpolate(X[:, :, :0], 3), ValueError, "input: expected at least 1 x 1 pixels"),
    (lambda: F.interpolate(X, (2**31 - 1,) * 2), ValueError, "size: expected a result that"),
    (lambda: F.interpolate(X, scale_factor=0.3), ValueError, "scale_factor: .* of 3 x 4"),
    (lambda: F.interpolate(X, scale_factor=-1), ValueError, "scale_factor: expected numbers a"),
    (lambda: F.interpolate(X, scale_factor=1e300), ValueError, "scale_factor: expected one"),
    (lambda: F.interpolate(X, scale_factor=float("nan")), ValueError, "scale_factor: expected num"),
    (lambda: F.interpolate(X, 3, mode="bicubic"), ValueError, "mode: expected one of"),
    (lambda: F.interpolate(X, 3, align_corners=True), ValueError, "align_corners: expected None"),
    (lambda: F.interpolate(X, 3, antialias=True), ValueError, "antialias: expected False"),
    (lambda: F.interpolate(X, 3, recompute_scale_factor=True), ValueError, "recompute_scale_fac"),
]  # fmt: skip


@pytest.mark.parametrize(("call", "error", "message"), BAD, ids=[case[2] for case in BAD])
def test_bad_arguments_are_named(
    call: Callable[[], Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        call()
