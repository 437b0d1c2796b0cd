"""Weights that plans store in 16 bits: how much memory that saves, and how far results move."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

import oxidet
from conftest import relative_error
from oxidet import models, nn

RNG = np.random.default_rng(0)

#: Of logits against weights in float32, docs/numerics.md.
LIMITS = {"f16": 1e-3, "bf16": 6e-3}


def he(model: nn.Module) -> nn.Module:
    """He's weights, as torch draws them for a network to be trained."""
    for module in model.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            if module.bias is not None:
                nn.init.normal_(module.bias, 0, 0.1)
    return model.eval()


def weight_bytes(model: nn.Module, shape: tuple[int, ...], storage: str) -> int:
    with oxidet.weight_storage(storage):
        return model.plan(shape).memory["weights"]


def head(*features: int) -> nn.Module:
    """Fully connected layers with ReLU between them, as the ends of AlexNet and VGG."""
    layers: list[nn.Module] = []
    for a, b in itertools.pairwise(features):
        layers += [nn.Linear(a, b), nn.ReLU()]
    model = nn.Sequential(*layers[:-1])
    model.compiled = True
    return model


NETWORKS = {
    "head": (lambda: head(2304, 1024, 1024, 1000), (2304,), 0.51),
    "resnet18": (models.resnet18, (3, 64, 64), 0.7),
    "resnet50": (models.resnet50, (3, 224, 224), 0.65),
    "alexnet's head": (lambda: head(9216, 4096, 4096, 1000), (9216,), 0.51),
    "vgg16": (models.vgg16, (3, 224, 224), 0.65),
}
LONG = ("alexnet's head", "resnet50", "vgg16")


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[pytest.mark.slow] * (n in LONG)) for n in NETWORKS]
)
def test_error_and_memory(name: str) -> None:
    make, shape, part = NETWORKS[name]
    model = he(make())
    x = np.abs(RNG.standard_normal((1, *shape), np.float32))
    exact = np.asarray(model(x))
    for storage, limit in LIMITS.items():
        with oxidet.weight_storage(storage):
            error = relative_error(model(x), exact)
        # Above zero: the setting reaches the weights.
        assert 1e-6 < error <= limit, f"{storage}: {error:.2g}"
        saved = weight_bytes(model, x.shape, storage) / weight_bytes(model, x.shape, "f32")
        assert saved <= part, f"{storage}: {saved:.2g} of the memory"


def test_only_layers_with_few_pixels_are_rounded() -> None:
    layer = nn.Conv2d(8, 16, 3, padding=1).eval()
    layer.compiled = True
    for size, rounded in ((8, True), (9, False)):
        x = RNG.standard_normal((1, 8, size, size), np.float32)
        with oxidet.precision("direct"):
            exact = np.asarray(layer(x))
            with oxidet.weight_storage("f16"):
                assert np.array_equal(layer(x), exact) is not rounded


@pytest.mark.parametrize("batch_norm", [False, True])
def test_a_weight_beyond_the_range_of_f16_is_refused(batch_norm: bool) -> None:
    norm = nn.BatchNorm2d(4) if batch_norm else nn.Identity()
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Sequential(nn.Conv2d(4, 4, 1), norm)).eval()
    model.compiled = True
    weight = np.full((4, 4, 1, 1), 0.5, np.float32)
    weight[1, 2] = 7e4
    model[1][0].weight.copy_(weight)
    x = np.ones((1, 3, 4, 4), np.float32)
    expected = np.asarray(model(x))
    with oxidet.weight_storage("f16"):
        message = r"weight_storage: expected f32 or bf16, because f16 ends at 65504.0, got f16 "
        message += r"with a weight of (70000.0|69999\.\d+) in 1.0"
        with pytest.raises(ValueError, match=message):
            model(x)
        # A layer with more pixels keeps its weights.
        assert np.isfinite(model(np.ones((1, 3, 9, 9), np.float32))).all()
    with oxidet.weight_storage("bf16"):
        assert relative_error(model(x), expected) < 1e-2
