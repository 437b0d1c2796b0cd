"""AlexNet: torchvision's, and the paper's with two groups and local response normalisation."""

from __future__ import annotations

import numpy as np
import pytest

from networks import (
    check_batches,
    check_size,
    check_state,
    check_text,
    layer_shapes,
    spread,
    thin,
    without_dropout,
)
from oxidet import models, nn
from training import check_gradients_along, learn_digits


def images(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


def test_torchvisions_text_state_and_size() -> None:
    model = models.alexnet()
    check_text(model, "2891f54c81b8aa3e", "2891f54c81b8aa3e")
    check_state(model, 16, 61_100_840, "9a2aa6ced03bb8ea")
    check_size(model, (3, 224, 224), 61_100_840, 714_188_480, 16)


def test_the_papers_size() -> None:
    model = models.alexnet_2012()
    check_size(model, (3, 227, 227), 60_965_224, 724_406_816, 16)
    deviation = np.asarray(model.classifier[3].weight).std()
    assert abs(deviation / 0.01 - 1) < 0.01
    biased = [
        i
        for i, layer in enumerate([*model.features, *model.classifier])
        if isinstance(layer, (nn.Conv2d, nn.Linear)) and (np.asarray(layer.bias) == 1).all()
    ]
    assert biased == [4, 10, 12, 15, 18]  # conv2, conv4, conv5, fc6, fc7


def test_the_maps_have_the_sizes_of_the_paper() -> None:
    with thin(8):
        model = models.alexnet_2012(num_classes=10)
    layers = ["features.0", "features.3", "features.7", "features.14"]
    assert layer_shapes(model, (3, 227, 227), layers) == [
        (12, 55, 55),
        (12, 27, 27),
        (32, 13, 13),
        (32, 6, 6),
    ]


def test_halves_meet_in_the_third_convolution_only() -> None:
    with thin(8):
        model = models.alexnet_2012(num_classes=10).eval()
    groups = {i: m.groups for i, m in enumerate(model.features) if isinstance(m, nn.Conv2d)}
    assert groups == {0: 1, 4: 2, 8: 1, 10: 2, 12: 2}
    x = nn.Tensor(images(1, 12, 9, 9), requires_grad=True)
    model.features[4](x)[:, :16].sum().backward()
    assert x.grad[:, :6].any()
    assert not x.grad[:, 6:].any()


def test_the_constants_of_the_normalisation() -> None:
    """The paper's formula, k=2, n=5, alpha=1e-4, beta=0.75, alpha not divided by n."""
    with thin(8):
        norm = models.alexnet_2012(num_classes=10).features[2].eval()
    a = 100 * images(1, 12, 2, 2).astype(np.float64)
    squares = np.pad(a**2, ((0, 0), (2, 2), (0, 0), (0, 0)))
    total = sum(squares[:, i : i + 12] for i in range(5))
    expected = a / (2 + 1e-4 * total) ** 0.75
    np.testing.assert_allclose(norm(a.astype(np.float32)), expected, rtol=1e-4, atol=1e-5)


def test_plan_gradients_and_training() -> None:
    pytest.importorskip("sklearn")
    with thin(8):
        model = spread(models.alexnet_2012(num_classes=10))
    check_batches(model, (3, 227, 227))
    model.classifier[0] = nn.Linear(32, 512)  # 67 x 67 images leave one place
    check_gradients_along(spread(model), images(1, 3, 67, 67), most=20)
    assert learn_digits(without_dropout(spread(model)), 67, lr=0.001) > 0.5


def test_a_wrong_size_is_refused_with_the_layer() -> None:
    with thin(8):
        model, paper = models.alexnet(num_classes=10), models.alexnet_2012(num_classes=10)
    assert model.eval()(np.zeros((1, 3, 63, 63), np.float32)).shape == (1, 10)
    with pytest.raises(ValueError, match=r"layer features\.12: input: expected at least one wind"):
        model(np.zeros((1, 3, 62, 63), np.float32))
    with pytest.raises(ValueError, match=r"layer classifier\.0: input: expected shape .*1152"):
        paper.eval()(np.zeros((1, 3, 195, 227), np.float32))
