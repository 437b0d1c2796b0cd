"""Network in Network, for ImageNet and for CIFAR-10."""

from __future__ import annotations

import numpy as np
import pytest

from networks import check_batches, check_size, layer_shapes, spread, thin, without_dropout
from oxidet import models, nn
from oxidet.nn import init
from training import check_gradients_along, learn_digits


def test_sizes() -> None:
    check_size(models.nin(), (3, 224, 224), 7_595_176, 1_100_188_800, 24)
    check_size(models.nin_cifar10(), (3, 32, 32), 966_986, 222_486_528, 18)


def test_the_maps_have_the_sizes_of_the_table() -> None:
    with thin(8):
        model = models.nin(num_classes=10)
        small = models.nin_cifar10()
    assert layer_shapes(model, (3, 224, 224), ["features.5", "features.6", "features.13"]) == [
        (12, 54, 54),
        (12, 27, 27),
        (32, 13, 13),
    ]
    assert layer_shapes(model, (3, 227, 227), ["features.5", "features.6", "features.20"]) == [
        (12, 55, 55),
        (12, 27, 27),
        (48, 6, 6),
    ]
    assert layer_shapes(small, (3, 32, 32), ["features.6", "features.14", "features.21"]) == [
        (12, 16, 16),
        (24, 8, 8),
        (10, 8, 8),
    ]


def test_keys_stand_where_the_convolutions_do() -> None:
    def places(model: nn.Module) -> list[int]:
        return [int(key.split(".")[1]) for key in model.state_dict() if key.endswith("weight")]

    with thin(8):
        assert places(models.nin()) == [0, 2, 4, 7, 9, 11, 14, 16, 18, 22, 24, 26]
        assert places(models.nin_cifar10()) == [0, 2, 4, 8, 10, 12, 16, 18, 20]
        assert isinstance(models.nin_cifar10().features[14], nn.AvgPool2d)


def test_initial_weights_are_those_of_the_caffe_file() -> None:
    model = models.nin()
    deviations = {i: float(np.asarray(model.features[i].weight).std()) for i in (0, 2, 14, 24, 26)}
    expected = {0: 0.01, 2: 0.05, 14: 0.01, 24: 0.05, 26: 0.01}
    for i, std in expected.items():
        assert abs(deviations[i] / std - 1) < 0.05, i
    assert not np.asarray(model.features[26].bias).any()


@pytest.mark.parametrize(("name", "size"), [("nin", 71), ("nin_cifar10", 19)])
def test_plan_and_gradients(name: str, size: int) -> None:
    with thin(16):
        model = spread(getattr(models, name)(num_classes=10))
    check_batches(model, (3, size, size + 6))
    assert (np.asarray(model(np.ones((1, 3, size, size), np.float32))) >= 0).all()
    x = np.random.default_rng(0).standard_normal((1, 3, size, size)).astype(np.float32)
    check_gradients_along(model, x)


@pytest.mark.parametrize(("name", "size"), [("nin", 80), ("nin_cifar10", 16)])
def test_it_learns_the_digits(name: str, size: int) -> None:
    pytest.importorskip("sklearn")
    with thin(8):
        model = without_dropout(spread(getattr(models, name)(num_classes=10)))
    # The last ReLU lets nothing learn where a map is below 0.
    init.constant_([m for m in model.modules() if isinstance(m, nn.Conv2d)][-1].bias, 3.0)
    assert (
        learn_digits(
            model,
            size,
        )
        > 0.5
    )


def test_too_small_an_image_is_refused_with_the_layer() -> None:
    with thin(8):
        model = models.nin(num_classes=10).eval()
    assert model(np.zeros((1, 3, 39, 39), np.float32)).shape == (1, 10)
    with pytest.raises(ValueError, match=r"features\.0: input: expected at least 11 x 11 pix"):
        model(np.zeros((1, 3, 10, 40), np.float32))
    with pytest.raises(ValueError, match="dataset: expected one of"):
        models.NiN(dataset="svhn")
