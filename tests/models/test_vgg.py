"""VGG: configurations, torchvision's text and keys, and the paper's way to start a deep network."""

from __future__ import annotations

import contextlib
from typing import Any

import numpy as np
import pytest

from networks import (
    check_batches,
    check_size,
    check_state,
    check_text,
    spread,
    thin,
    without_dropout,
)
from oxidet import models, nn
from oxidet.models import vgg
from training import check_gradients_along, learn_digits

# name: digests of the text, in the form of torch up to 2.12 and of torch 2.13
TEXTS = {
    "vgg11_bn": ("08550040c8794189", "a45245226f1806de"),
    "vgg13_bn": ("20dffe7e4d37a507", "150a2ffa03c913c7"),
    "vgg16_bn": ("8e2b426b78930c19", "de68bea10f12c3b8"),
    "vgg19_bn": ("bc2392e4890ae0a5", "aca2e40c329146a8"),
}
STATES = {
    "vgg11_bn": (62, 132_874_352, "e0cc1ed65c2a9e57"),
    "vgg13_bn": (76, 133_059_634, "6ebc0678c426ed68"),
    "vgg16_bn": (97, 138_374_453, "f04c840a06916acf"),
    "vgg19_bn": (118, 143_689_272, "f3aafe9c1dff22e3"),
}
# name: (parameters, MACs, keys)
SIZES = {
    "vgg11": (132_863_336, 7_609_090_048, 22),
    "vgg11_lrn": (132_863_336, 7_609_090_048, 22),
    "vgg13": (133_047_848, 11_308_466_176, 26),
    "vgg16": (138_357_544, 15_470_264_320, 32),
    "vgg16_c": (133_638_952, 11_770_888_192, 32),
    "vgg19": (143_667_240, 19_632_062_464, 38),
    "vgg11_bn": (132_868_840, 7_609_090_048, 62),
    "vgg13_bn": (133_053_736, 11_308_466_176, 76),
    "vgg16_bn": (138_365_992, 15_470_264_320, 97),
    "vgg19_bn": (143_678_248, 19_632_062_464, 118),
}


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[pytest.mark.slow] * (name != "vgg13_bn")) for name in TEXTS],
)
def test_text_and_state_are_torchvisions(name: str) -> None:
    model = getattr(models, name)(init_weights=False)
    check_text(model, *TEXTS[name])
    check_state(model, *STATES[name])


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[pytest.mark.slow] * (name != "vgg16_c")) for name in SIZES],
)
def test_sizes(name: str) -> None:
    model = getattr(models, name)(init_weights=False)
    check_size(model, (3, 224, 224), *SIZES[name])


def test_where_configuration_c_and_the_normalisation_differ() -> None:
    features = vgg.make_features("C")
    kernels = {i: m.kernel_size for i, m in enumerate(features) if isinstance(m, nn.Conv2d)}
    assert [i for i, kernel in kernels.items() if kernel == (1, 1)] == [14, 21, 28]
    plain, normalised = vgg.make_features("A"), vgg.make_features("A-LRN")
    assert isinstance(normalised[2], nn.LocalResponseNorm)
    without = [repr(layer) for i, layer in enumerate(normalised) if i != 2]
    assert without == [repr(layer) for layer in plain]


def narrow(name: str, factor: int) -> models.VGG:
    with thin(factor):
        return getattr(models, name)(num_classes=10)


@pytest.mark.parametrize("name", ["vgg11_lrn", "vgg16_c"])
def test_plan_gradients_and_training(name: str) -> None:
    pytest.importorskip("sklearn")
    check_batches(spread(narrow(name, 32)), (3, 50, 37))
    x = np.random.default_rng(0).standard_normal((1, 3, 32, 32)).astype(np.float32)
    check_gradients_along(spread(narrow(name, 32)), x)
    model = without_dropout(spread(narrow(name, 8)))
    assert learn_digits(model, 32, lr=0.001) > 0.5


def test_initial_weights() -> None:
    model = narrow("vgg11", 4)
    weight = np.asarray(model.features[11].weight)
    assert abs(weight.std() / (2 / (128 * 9)) ** 0.5 - 1) < 0.02
    assert abs(np.asarray(model.classifier[0].weight).std() / 0.01 - 1) < 0.02
    assert not np.asarray(model.classifier[0].bias).any()
    with thin(4):
        plain = models.vgg11(init_weights=False, num_classes=10)
    bound = 1 / 6272**0.5
    assert 0.99 < np.abs(np.asarray(plain.classifier[0].weight)).max() / bound <= 1


@pytest.mark.parametrize("name", ["vgg13", "vgg16", "vgg16_c", "vgg19", "vgg16_bn"])
def test_a_deeper_network_grows_from_net_a(name: str) -> None:
    net_a, deeper = vgg.initialize_as_paper(narrow("vgg11", 8)), narrow(name, 8)
    assert vgg.grow(net_a, deeper) is deeper
    copied = {  # of the convolutions of net A: first of stages 1, 2 and 3, second of stage 3
        "vgg13": (0, 5, 10, 12),
        "vgg16": (0, 5, 10, 12),
        "vgg16_c": (0, 5, 10, 12),
        "vgg19": (0, 5, 10, 12),
        "vgg16_bn": (0, 7, 14, 17),
    }[name]
    for source, target in zip((0, 3, 6, 8), copied, strict=True):
        for kind in ("weight", "bias"):
            np.testing.assert_array_equal(
                getattr(net_a.features[source], kind), getattr(deeper.features[target], kind)
            )
    for layer in (0, 3, 6):
        np.testing.assert_array_equal(
            net_a.classifier[layer].weight, deeper.classifier[layer].weight
        )
    between = [m for m in deeper.features[copied[3] + 1 :] if isinstance(m, nn.Conv2d)]
    for layer in between:
        assert abs(np.asarray(layer.weight).std() / 0.1 - 1) < 0.1
        assert not np.asarray(layer.bias).any()


def test_features_are_a_module() -> None:
    with pytest.raises(TypeError, match="features: expected a Module, got str"):
        models.VGG("A")  # type: ignore[arg-type]


def test_what_does_not_fit_is_not_grown() -> None:
    net_a, deeper = narrow("vgg11", 8), narrow("vgg13", 16)
    before = np.array(deeper.features[0].weight)
    with pytest.raises(ValueError, match=r"expected a layer of net A's shape \(8, 3, 3, 3\)"):
        vgg.grow(net_a, deeper)
    np.testing.assert_array_equal(deeper.features[0].weight, before)


@pytest.mark.parametrize("mode", [contextlib.nullcontext, nn.eager])
def test_too_small_an_image_is_refused_with_the_layer(mode: Any) -> None:
    model = narrow("vgg11", 16).eval()
    message = r"features\.20: input: expected at least one window of \(2, 2\).*got 1 x 2 pixels"
    with mode(), pytest.raises(ValueError, match=message):
        model(np.zeros((1, 3, 31, 40), np.float32))
    with mode(), pytest.raises(ValueError, match=r"features\.0: input: expected 3 channels"):
        model(np.zeros((1, 1, 32, 32), np.float32))
    with mode():
        assert model(np.zeros((1, 3, 32, 32), np.float32)).shape == (1, 10)


def test_only_a_vgg_is_grown() -> None:
    with pytest.raises(TypeError, match=r"^net_a: expected a VGG, got Module$"):
        vgg.grow(nn.Module(), narrow("vgg11", 8))  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"^deeper: expected a VGG, got Module$"):
        vgg.grow(narrow("vgg11", 8), nn.Module())  # type: ignore[arg-type]
