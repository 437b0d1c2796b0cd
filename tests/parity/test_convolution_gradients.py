"""Convolutions of real networks against torch in float64, in either precision."""

from __future__ import annotations

import numpy as np
import pytest

import oxidet
from conftest import assert_close
from oxidet import nn
from oxidet.nn import functional as F

torch = pytest.importorskip("torch")

# name: input, output channels, kernel size, options
LAYERS = {
    "ResNet conv1": ((2, 3, 64, 64), 64, 7, {"stride": 2, "padding": 3}),
    "ResNet layer1": ((2, 64, 56, 56), 64, 3, {"padding": 1}),
    "ResNet layer2": ((2, 128, 28, 28), 128, 3, {"padding": 1}),
    "ResNet layer2, first": ((2, 64, 28, 28), 128, 3, {"padding": 1, "stride": 2}),
    "ResNet layer3": ((4, 256, 14, 14), 256, 3, {"padding": 1}),
    "ResNet layer4": ((4, 512, 7, 7), 512, 3, {"padding": 1}),
    "ResNet-50, wide": ((2, 64, 28, 28), 256, 1, {}),
    "ResNet-50, narrow": ((2, 256, 28, 28), 64, 1, {}),
    "ResNet-50 layer4": ((2, 512, 7, 7), 2048, 1, {}),
    "ResNet-50, shortcut": ((2, 256, 28, 28), 512, 1, {"stride": 2}),
    "ResNeXt layer1": ((2, 128, 28, 28), 128, 3, {"padding": 1, "groups": 32}),
    "VGG features.2": ((1, 64, 100, 96), 64, 3, {"padding": 1}),
    "VGG features.24": ((1, 512, 28, 28), 512, 3, {"padding": 1}),
    "RPN": ((1, 256, 50, 67), 256, 3, {"padding": 1}),
    "without padding": ((2, 48, 31, 30), 80, 3, {}),
}


@pytest.mark.parametrize("precision", ["direct", "winograd"])
@pytest.mark.parametrize("name", LAYERS)
def test_gradients_of_real_layers(name: str, precision: str) -> None:
    shape, out, kernel, options = LAYERS[name]
    rng = np.random.default_rng(0)
    weight_shape = (out, shape[1] // options.get("groups", 1), kernel, kernel)
    arrays = [rng.standard_normal(s).astype(np.float32) for s in (shape, weight_shape, (out,))]
    theirs = [torch.tensor(a, dtype=torch.float64, requires_grad=True) for a in arrays]
    ours = [nn.Tensor(a, requires_grad=True) for a in arrays]
    expected = torch.nn.functional.conv2d(*theirs, **options)
    grad = rng.standard_normal(expected.shape).astype(np.float32)
    expected.backward(torch.tensor(grad, dtype=torch.float64))
    with oxidet.precision(precision):
        got = F.conv2d(*ours, **options)
    # The gradients follow the precision of the forward pass, not the one in force now.
    with oxidet.precision("winograd" if precision == "direct" else "direct"):
        got.backward(grad)
    tolerance = 1e-5 if precision == "direct" else 1e-4
    assert_close(got, expected.detach().numpy(), tolerance, "output")
    for part, a, b in zip(("input", "weight", "bias"), ours, theirs, strict=True):
        assert_close(a.grad, b.grad.numpy(), tolerance, f"gradient of {part}")
