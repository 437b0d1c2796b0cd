"""Guided backpropagation and deconvolution, by hand and by what they must not touch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from oxidet import models, nn, pretrained, receptive_field, visualize
from oxidet.models.feature_extraction import create_feature_extractor


def ramp(*shape: int) -> np.ndarray:
    return np.arange(np.prod(shape), dtype=np.float32).reshape(shape)


def one_layer(kernel: np.ndarray) -> nn.Sequential:
    net = nn.Sequential(
        nn.Conv2d(1, 2, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(8, 3)
    )
    net[0].weight = np.stack([kernel, -kernel])[:, None]
    net[0].bias = [0.5, 0.25]
    return net.eval()


def test_deconvolution_by_hand() -> None:
    kernel = ramp(3, 3) - 3  # neither symmetric nor of one sign
    net, x = one_layer(kernel), ramp(1, 1, 4, 4) % 7
    pooled = nn.Sequential(*list(net)[:3]).eval()(x)[0]
    before = np.asarray(nn.Sequential(*list(net)[:2]).eval()(x))[0]
    for channel, sign in ((0, 1), (1, -1)):
        for row, column in np.ndindex(2, 2):
            value = pooled[channel, row, column]
            # To the place of the maximum, and from there the kernel, as far as it is in the image.
            window = before[channel, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2]
            y, x_ = np.unravel_index(window.argmax(), (2, 2))
            expected = np.zeros((6, 6), np.float32)
            top, left = 2 * row + y, 2 * column + x_
            expected[top : top + 3, left : left + 3] = value * sign * kernel
            got = visualize.deconvolve(net, x, "2", channel, (int(row), int(column)))
            np.testing.assert_allclose(got[0], expected[1:-1, 1:-1], rtol=1e-6)
    strongest = visualize.deconvolve(net, x, "2")
    channel, row, column = np.unravel_index(pooled.argmax(), pooled.shape)
    expected = visualize.deconvolve(net, x, "2", int(channel), (int(row), int(column)))
    np.testing.assert_array_equal(strongest, expected)


def test_what_a_relu_hands_back() -> None:
    # One unit a combination: what it saw (+, -), and what comes back (+, -).
    x = np.array([[1.0, 1.0, -1.0, -1.0]], np.float32)
    net = nn.Sequential(nn.ReLU(), nn.Linear(4, 1, bias=False)).eval()
    net[1].weight = [[2.0, -3.0, 5.0, -7.0]]
    image = x[:, :, None, None]
    net = nn.Sequential(nn.Flatten(), *net).eval()
    guided = visualize.guided_gradient(net, image, 0)
    np.testing.assert_array_equal(guided.ravel(), [2, 0, 0, 0])
    value = -1.0  # 2 - 3
    deconvolved = visualize.deconvolve(net, image, "2", 0)
    np.testing.assert_array_equal(
        deconvolved.ravel(), np.maximum(value * np.array([2, -3, 5, -7]), 0)
    )


def test_nothing_is_touched() -> None:
    net = models.resnet18(num_classes=5).train()
    x = np.random.default_rng(0).standard_normal((1, 3, 64, 64)).astype(np.float32)
    image, state = x.copy(), {key: value.copy() for key, value in net.state_dict().items()}
    first = visualize.guided_gradient(net, x)
    assert first.shape == (3, 64, 64)
    assert first.any()
    visualize.deconvolve(net, x, "layer2", 3)
    assert net.training
    assert net.layer1.training
    assert all(parameter.grad is None for parameter in net.parameters())
    np.testing.assert_array_equal(x, image)
    for key, value in net.state_dict().items():
        np.testing.assert_array_equal(value, state[key])
    # Only what the unit sees contributes.
    channel = int(
        create_feature_extractor(net.eval(), ["layer1"])(x)["layer1"][0, :, 8, 8].argmax()
    )
    x1, y1, x2, y2 = receptive_field(net, "layer1").box(8, 8)
    values = visualize.deconvolve(net, x, "layer1", channel, (8, 8))
    rows, columns = (np.flatnonzero(values.any(axis=axes)) for axes in ((0, 2), (0, 1)))
    assert y1 <= rows[0] <= rows[-1] < y2
    assert x1 <= columns[0] <= columns[-1] < x2


def test_frozen_networks_and_other_inputs() -> None:
    net = pretrained.digit_detector()
    net.requires_grad_(False)
    picture = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)
    kept = picture.copy()
    values = visualize.guided_gradient(net, picture, layer="extractor.3")
    assert values.shape[0] == 3
    assert values.any()
    np.testing.assert_array_equal(picture, kept)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda net, x: visualize.guided_gradient(net, x, 3),
            r"target: expected .* got 3",
        ),
        (lambda net, x: visualize.deconvolve(net, x, "2", 9), r"channel: expected"),
        (lambda net, x: visualize.deconvolve(net, x, "2", 0, (2, 0)), r"unit\[0\]: expected"),
        (lambda net, x: visualize.deconvolve(net, x, "nowhere"), r"got 'nowhere'"),
        (
            lambda net, x: visualize.deconvolve(net, x.repeat(2, 0), "2"),
            "expected one image",
        ),
        (lambda net, x: visualize.deconvolve(net, x[0], "2"), r"image: expected \(1, C, H, W\)"),
    ],
)
def test_bad_arguments(call: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call(one_layer(np.ones((3, 3))), ramp(1, 1, 4, 4))
