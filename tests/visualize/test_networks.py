"""Pictures of networks: into the axes given, nothing else changed, and legible."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

from known_networks import blank
from oxidet import models, nn, visualize
from oxidet.visualize._networks import mosaic, signed_picture

matplotlib = pytest.importorskip("matplotlib")
matplotlib.use("Agg")
pyplot = pytest.importorskip("matplotlib.pyplot")

DRAWN = [
    name
    for name in (
        "lenet5", "nin", "googlenet", "inception_v3", "inception_v4", "inception_resnet_v2",
        "resnet18", "resnet50", "densenet121",
    )
    if name in models.list_models()
]  # fmt: skip
INSIDE = [
    (name, layer)
    for name, layer in (
        ("resnet18", "layer2.0"),
        ("resnet50", "layer1.0"),
        ("googlenet", "inception3a"),
        ("inception_v3", "Mixed_7b"),
        ("densenet121", "features.denseblock1.denselayer2"),
    )
    if name in models.list_models()
]


@pytest.fixture(autouse=True)
def _close() -> Any:
    yield
    pyplot.close("all")


def image(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


def lenet() -> nn.Module:
    return models.lenet5().eval()


CALLS = {
    "feature_maps": lambda ax: visualize.feature_maps(
        lenet(), image(1, 1, 32, 32), "features.0", ax=ax
    ),
    "filters": lambda ax: visualize.filters(lenet(), "features.0", ax=ax),
    "rows of filters": lambda ax: visualize.filters(lenet(), "features.3", ax=ax),
    "guided_backprop": lambda ax: visualize.guided_backprop(lenet(), image(1, 1, 32, 32), 3, ax=ax),
    "deconvolution": lambda ax: visualize.deconvolution(
        lenet(), image(1, 1, 32, 32), "features.4", 2, ax=ax
    ),
    "architecture": lambda ax: visualize.architecture(lenet(), ax=ax),
    "graph": lambda ax: visualize.architecture(lenet(), layer="classifier", ax=ax),
}  # fmt: skip


@pytest.mark.parametrize("name", list(CALLS))
def test_given_axes_are_used(name: str) -> None:
    figure, axes = pyplot.subplots()
    assert CALLS[name](axes) is axes
    assert figure.axes == [axes]
    assert pyplot.get_fignums() == [figure.number]
    assert axes.get_title()
    made = CALLS[name](None)
    assert made.figure is not figure
    made.figure.canvas.draw()


def test_feature_maps_show_the_maps() -> None:
    net, x = lenet(), image(1, 1, 32, 32)
    kept = x.copy()
    maps = np.asarray(net.features[0](x))[0]
    axes = visualize.feature_maps(net, x, "features.0", most=4)
    np.testing.assert_array_equal(x, kept)
    shown = axes.images[0].get_array().filled(np.nan)
    first = shown[:28, :28]
    np.testing.assert_allclose(first, (maps[0] - maps[0].min()) / np.ptp(maps[0]), atol=1e-6)
    assert [text.get_text() for text in axes.texts] == ["0", "1", "2", "3"]
    assert axes.get_title() == "features.0: 4 of 6 maps of 28 x 28"
    common = visualize.feature_maps(net, x, "features.0", common_scale=True)
    low, high = maps.min(), maps.max()
    shown = common.images[0].get_array().filled(np.nan)[:28, :28]
    np.testing.assert_allclose(shown, (maps[0] - low) / (high - low), atol=1e-6)


def test_pictures_are_prepared_as_the_network_says() -> None:
    net = models.resnet18().eval()
    picture = np.random.default_rng(0).integers(0, 256, (120, 160, 3), np.uint8)
    kept = picture.copy()
    prepared = np.asarray(net.preprocess(picture))[None]
    first, second = (visualize.feature_maps(net, x, "conv1", most=2) for x in (picture, prepared))
    np.testing.assert_array_equal(picture, kept)
    np.testing.assert_array_equal(first.images[0].get_array(), second.images[0].get_array())
    with pytest.raises(ValueError, match=r"image: expected \(1, C, H, W\) .* no preparation"):
        visualize.feature_maps(nn.Sequential(nn.Conv2d(3, 2, 1)), picture, "0")


def test_filters_in_colour() -> None:
    net = nn.Sequential(nn.Conv2d(3, 2, 2))
    weight = net[0].weight.numpy()
    shown = visualize.filters(net, "0").images[0].get_array()
    scale = 2 * np.abs(weight).max()
    np.testing.assert_allclose(shown[0, 0, :3], 0.5 + weight[0, :, 0, 0] / scale, atol=1e-6)
    with pytest.raises(ValueError, match=r"expected a convolution, such as 'features.0'.* a Tanh"):
        visualize.filters(lenet(), "features.1")
    with pytest.raises(ValueError, match=r"got 'features.99', which is no module"):
        visualize.filters(lenet(), "features.99")
    with pytest.raises(ValueError, match=r"with feature maps, got 'flatten' of shape \(1, 120\)"):
        visualize.feature_maps(lenet(), image(1, 1, 32, 32), "flatten")


def test_tiles_and_signed_pictures() -> None:
    tiles = np.arange(12.0).reshape(3, 2, 2)
    picture = mosaic(tiles, 2)
    assert picture.shape == (5, 5)
    np.testing.assert_array_equal(picture[:2, 3:], tiles[1])
    assert np.isnan(picture[2]).all()
    assert np.isnan(picture[3:, 2:]).all()
    values = np.zeros((3, 2, 2))
    np.testing.assert_array_equal(signed_picture(values), np.full((2, 2, 3), 0.5))
    values[0, 0, 0], values[1, 1, 1] = 4, -4
    picture = signed_picture(values)
    assert picture[0, 0].tolist() == [1, 0.5, 0.5]
    assert picture[1, 1].tolist() == [0.5, 0, 0.5]


def assert_legible(axes: Any) -> None:
    """No text over another, none outside of the figure, letters of at least 6 points."""
    figure = axes.figure
    figure.canvas.draw()
    renderer = figure.canvas.get_renderer()
    texts = [text for text in (*axes.texts, axes.title) if text.get_text()]
    boxes = [text.get_window_extent(renderer) for text in texts]
    for one, other in itertools.combinations(range(len(texts)), 2):
        a, b = boxes[one], boxes[other]
        width = min(a.x1, b.x1) - max(a.x0, b.x0)
        height = min(a.y1, b.y1) - max(a.y0, b.y0)
        assert width <= 0 or height <= 1, (texts[one].get_text(), texts[other].get_text())
    for text, box in zip(texts, boxes, strict=True):
        assert text.get_fontsize() >= 6
        assert figure.bbox.x0 - 1 <= box.x0, text.get_text()
        assert box.x1 <= figure.bbox.x1 + 1, text.get_text()
        assert figure.bbox.y0 - 1 <= box.y0, text.get_text()
        assert box.y1 <= figure.bbox.y1 + 1, text.get_text()


@pytest.mark.parametrize("name", DRAWN)
def test_blocks_are_legible(name: str) -> None:
    assert_legible(visualize.architecture(blank(name)))


@pytest.mark.parametrize(("name", "layer"), INSIDE)
def test_graphs_are_legible(name: str, layer: str) -> None:
    assert_legible(visualize.architecture(blank(name), layer=layer))


def test_what_the_blocks_say() -> None:
    axes = visualize.architecture(blank("resnet18"))
    texts = [text.get_text() for text in axes.texts if text.get_text()]
    names, details = texts[::2], texts[1::2]
    assert names == ["conv1", "maxpool", "layer1", "layer2", "layer3", "layer4", "avgpool", "fc"]
    assert details[0] == "7x7 conv /2\nbn relu\n64x112x112"
    assert details[2] == "2 x BasicBlock\n64x56x56"
    assert details[6] == "average pool\nflatten\n512x1x1"
    assert axes.get_title() == "ResNet, input 3x224x224: 11.7 M parameters, 1.8 G multiply-adds"


def test_what_a_graph_says() -> None:
    axes = visualize.architecture(blank("resnet18"), layer="layer2.0")
    texts = {text.get_text() for text in axes.texts if text.get_text()}
    assert texts == {
        "input\n64x56x56",
        "conv1\n3x3 conv /2 bn relu\n128x28x28",
        "conv2\n3x3 conv bn\n128x28x28",
        "downsample.0\n1x1 conv /2 bn\n128x28x28",
        "add relu\n128x28x28",
    }
    with pytest.raises(ValueError, match="got 'layer9', which does not exist"):
        visualize.architecture(blank("resnet18"), layer="layer9")
    with pytest.raises(ValueError, match=r"at most 60 operations, got '' of"):
        visualize.architecture(blank("resnet50"), layer="")


def test_the_layer_and_the_axes_are_named() -> None:
    model, image = models.lenet5(), np.zeros((1, 1, 32, 32), np.float32)
    for draw in (visualize.feature_maps, visualize.deconvolution):
        with pytest.raises(ValueError, match=r"^layer: expected nodes of this LeNet5, got 'nope'$"):
            draw(model, image, "nope")
    with pytest.raises(ValueError, match=r"^layer: expected nodes of this LeNet5, got 'nope'$"):
        visualize.guided_gradient(model, image, layer="nope")
    with pytest.raises(TypeError, match=r"^layer: expected the name of a node, got 3$"):
        visualize.feature_maps(model, image, 3)
    only_trained = models.googlenet(init_weights=False)
    with pytest.raises(
        ValueError, match=r"^layer: expected nodes that run in evaluation mode, got"
    ):
        visualize.feature_maps(only_trained, np.zeros((1, 3, 32, 32), np.float32), "aux1")
    message = r"^ax: expected the axes of a figure or None, got int$"
    with pytest.raises(TypeError, match=message):
        visualize.feature_maps(model, image, "features.0", ax=3)
    with pytest.raises(TypeError, match=message):
        visualize.vis_bbox(np.zeros((3, 8, 8), np.uint8), np.zeros((0, 4)), ax=3)
