"""Rounding errors against torch in float64: every layer of the classifiers, and their logits.

The weights are He's and the inputs those of a layer behind a ReLU, so that the numbers of a test
have the sizes they have in a trained network. Errors are max|a - b| / max|b|; the limits are those
of docs/numerics.md.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import oxidet
from conftest import relative_error
from oxidet import models, nn

torch = pytest.importorskip("torch")
torchvision = pytest.importorskip("torchvision")

from parity.torch_weights import random_image  # noqa: E402

# Of a layer, and of the logits of a network.
LAYER_LIMITS = {"direct": 2e-6, "winograd": 5e-5}
LOGITS_LIMITS = {"resnet18": 2e-6, "resnet50": 2e-5, "vgg16": 2e-6}  # direct sums
DEFAULT_LIMIT = 1e-4


def in_float64(function: Callable[..., Any], *arrays: np.ndarray, **options: Any) -> np.ndarray:
    with torch.no_grad():
        return function(*(torch.tensor(a, dtype=torch.float64) for a in arrays), **options).numpy()


# --- layers

Conv = dict[str, Any]  # arguments of Conv2d, and the size of the image


def conv(
    channels: int, out: int, kernel: int | tuple[int, int], size: int, **options: Any
) -> tuple[str, Conv]:
    """A convolution to test, and its name."""
    name = f"{channels}-{out}-k{kernel}-{size}px" + "".join(f"-{k}{v}" for k, v in options.items())
    arguments = {"in_channels": channels, "out_channels": out, "kernel_size": kernel, **options}
    return name.replace(" ", ""), {"size": (size, size), **arguments}


def convolutions_of(name: str) -> dict[str, Conv]:
    """The distinct convolutions of torchvision's network at 224 x 224; nothing is computed."""
    found: dict[str, Conv] = {}

    def note(module: Any, inputs: Any, _: Any) -> None:
        channels, size = module.in_channels, inputs[0].shape[2]
        options = {"stride": module.stride[0], "padding": module.padding[0]}
        found.update([conv(channels, module.out_channels, module.kernel_size[0], size, **options)])

    with torch.device("meta"):
        net = getattr(torchvision.models, name)(weights=None)
        for module in net.modules():
            if isinstance(module, torch.nn.Conv2d):
                module.register_forward_hook(note)
        net.eval()(torch.empty(1, 3, 224, 224))
    return found


CONVOLUTIONS = {
    **convolutions_of("resnet18"),
    **convolutions_of("resnet50"),
    **convolutions_of("vgg16"),
    **dict(
        [
            # Inception v3 and v1.
            conv(128, 128, (1, 7), 17, padding=(0, 3)),
            conv(160, 192, (7, 1), 17, padding=(3, 0)),
            conv(384, 384, (1, 3), 8, padding=(0, 1)),
            conv(384, 384, (3, 1), 8, padding=(1, 0)),
            conv(48, 64, 5, 35, padding=2),
            conv(288, 384, 3, 35, stride=2),
            conv(32, 32, 3, 149),
            conv(32, 64, 3, 147, padding=1),
            # DenseNet's growth, AlexNet's first layer.
            conv(128, 32, 3, 28, padding=1),
            conv(3, 64, 11, 224, stride=4, padding=2),
            # Dilated, grouped, depthwise.
            conv(512, 512, 3, 28, padding=2, dilation=2),
            conv(256, 256, 3, 28, padding=4, dilation=4, stride=2),
            conv(128, 128, 3, 56, padding=1, groups=32),
            conv(256, 256, 3, 56, padding=1, groups=32, stride=2),
            conv(512, 512, 3, 14, padding=1, groups=2),
            conv(96, 96, 3, 112, padding=1, groups=96, stride=2),
            conv(144, 144, 5, 56, padding=2, groups=144),
        ]
    ),
}


def he_weights(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    terms = int(np.prod(shape[1:]))
    return rng.standard_normal(shape, np.float32) * np.float32(np.sqrt(2 / terms))


def check_layer(layer: nn.Module, x: np.ndarray, function: Callable[..., Any], **options) -> None:
    rng = np.random.default_rng(1)
    layer.weight.copy_(he_weights(rng, layer.weight.shape))
    layer.bias.copy_(rng.normal(0, 0.1, layer.bias.shape))
    layer.eval().compiled = True
    state = layer.state_dict()
    expected = in_float64(function, x, state["weight"], state["bias"], **options)
    for precision, limit in LAYER_LIMITS.items():
        with oxidet.precision(precision):
            error = relative_error(layer(x), expected)
            assert error <= limit, f"{precision}, {layer.plan(x.shape)[0].algorithm}: {error:.2g}"


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_convolution(name: str) -> None:
    options = dict(CONVOLUTIONS[name])
    size = options.pop("size")
    channels = options["in_channels"]
    rng = np.random.default_rng(0)
    x = np.maximum(rng.standard_normal((1, channels, *size), np.float32), 0)
    if channels == 3:
        x = random_image(*size)[None]
    passed_on = {
        k: v for k, v in options.items() if k in ("stride", "padding", "dilation", "groups")
    }
    check_layer(nn.Conv2d(**options), x, torch.nn.functional.conv2d, **passed_on)


@pytest.mark.parametrize(("features", "out"), [(512, 1000), (2048, 1000), (9216, 1000)])
def test_linear(features: int, out: int) -> None:
    x = np.maximum(np.random.default_rng(0).standard_normal((2, features), np.float32), 0)
    check_layer(nn.Linear(features, out), x, torch.nn.functional.linear)


# --- networks


def realistic(name: str) -> Any:
    """torchvision's network with He's weights and statistics of its own activations, in float64."""
    torch.manual_seed(0)
    arguments = {"init_weights": False} if name.startswith("vgg") else {}
    net = getattr(torchvision.models, name)(weights=None, **arguments)
    for module in net.modules():
        if isinstance(module, (torch.nn.Conv2d, torch.nn.Linear)):
            torch.nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            if module.bias is not None:
                torch.nn.init.normal_(module.bias, 0, 0.1)
        elif isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
            torch.nn.init.normal_(module.bias, 0, 0.1)
            module.momentum = None  # the statistics of what is shown, and no others
    if any(isinstance(module, torch.nn.BatchNorm2d) for module in net.modules()):
        with torch.no_grad():
            net.train()(torch.from_numpy(np.stack([random_image(96, 96, seed) for seed in (5, 6)])))
    return net.eval()


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("resnet18", 224),
        ("resnet50", 128),
        pytest.param("resnet50", 224, marks=pytest.mark.slow),
        pytest.param("vgg16", 224, marks=pytest.mark.slow),
    ],
)
def test_logits(name: str, size: int) -> None:
    theirs = realistic(name)
    ours = getattr(models, name)().eval()
    ours.load_state_dict({key: value.numpy() for key, value in theirs.state_dict().items()})
    x = np.abs(random_image(size, size, seed=1))[None]
    expected = in_float64(theirs.double(), x)
    logits = {}
    for precision in ("direct", "winograd", "bf16"):
        with oxidet.precision(precision):
            logits[precision] = np.asarray(ours(x))
    errors = {precision: relative_error(got, expected) for precision, got in logits.items()}
    assert errors["direct"] <= LOGITS_LIMITS[name], errors
    assert errors["winograd"] <= DEFAULT_LIMIT, errors
    # Until there are kernels for bfloat16.
    np.testing.assert_array_equal(logits["bf16"], logits["winograd"])
    assert any("winograd" in step.algorithm for step in ours.plan(x.shape))
