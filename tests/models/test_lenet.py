"""LeNet-5 in its two forms, and Caffe's LeNet."""

from __future__ import annotations

import math

import numpy as np
import pytest

from conftest import assert_close
from networks import check_size, layer_shapes, spread
from oxidet import models, nn
from oxidet.models.lenet import (
    C3_INPUTS,
    ScaledTanh,
    Subsampling,
    digit_bitmaps,
    map_loss,
)
from training import check_gradients_along, learn_digits


def images(count: int, size: int = 32) -> np.ndarray:
    return np.random.default_rng(0).standard_normal((count, 1, size, size)).astype(np.float32)


def test_lenet5_has_the_size_of_the_paper() -> None:
    check_size(models.lenet5(), (1, 32, 32), 61_706, 416_520, 10)
    layers = [f"features.{i}" for i in (0, 2, 3, 5, 6)]
    assert layer_shapes(models.lenet5(), (1, 32, 32), layers) == [
        (6, 28, 28),
        (6, 14, 14),
        (16, 10, 10),
        (16, 5, 5),
        (120, 1, 1),
    ]


def test_lenet5_can_take_maxima() -> None:
    model = models.lenet5(pool="max")
    assert isinstance(model.features[2], nn.MaxPool2d)
    assert model.eval()(images(2)).shape == (2, 10)


def test_lenet_has_the_size_of_caffes() -> None:
    check_size(models.lenet(), (1, 28, 28), 431_080, 2_293_000, 8)
    layers = [f"features.{i}" for i in range(4)]
    assert layer_shapes(models.lenet(), (1, 28, 28), layers) == [
        (20, 24, 24),
        (20, 12, 12),
        (50, 8, 8),
        (50, 4, 4),
    ]


def test_lenet_starts_as_in_caffe() -> None:
    model = models.lenet()
    for layer, fan_in in ((model.features[2], 500), (model.classifier[0], 800)):
        weight = np.abs(np.asarray(layer.weight))
        assert 0.99 < weight.max() / math.sqrt(3 / fan_in) <= 1
        assert not np.asarray(layer.bias).any()


# --- the form of 1998


def test_the_original_has_the_parameters_of_the_paper() -> None:
    model = models.lenet5(original=True)
    count = {
        name: sum(p.numel() for p in model.features[i].parameters())
        for name, i in (("C1", 0), ("S2", 2), ("C3", 4), ("S4", 6), ("C5", 8), ("F6", 11))
    }
    assert count == {"C1": 156, "S2": 12, "C3": 1516, "S4": 32, "C5": 48_120, "F6": 10_164}
    assert sum(p.numel() for p in model.parameters()) == 60_000


def test_the_original_has_the_connections_of_the_paper() -> None:
    model = models.lenet5(original=True)
    trainable = sum(
        # One connection per weight and one per bias, at every place.
        (math.prod(layer.weight.shape[1:]) + 1) * math.prod(shape)
        for layer, shape in (
            (model.features[0], (6, 28, 28)),
            (model.features[4].three, (6, 10, 10)),
            (model.features[4].four, (9, 10, 10)),
            (model.features[4].six, (1, 10, 10)),
            (model.features[8], (120,)),
            (model.features[11], (84,)),
        )
    )
    pools = sum((4 + 1) * math.prod(shape) for shape in ((6, 14, 14), (16, 5, 5)))
    distances = model.classifier[0].centers.shape
    assert trainable + pools + math.prod(distances) == 340_908


def test_c3_sees_the_maps_of_the_table() -> None:
    c3 = models.lenet5(original=True).features[4]
    base = np.asarray(c3(images(1, 14).repeat(6, axis=1)))
    assert base.shape == (1, 16, 10, 10)
    for c in range(6):
        x = images(1, 14).repeat(6, axis=1)
        x[:, c] += 1
        changed = (np.asarray(c3(x)) != base).any(axis=(0, 2, 3))
        assert [c in inputs for inputs in C3_INPUTS] == changed.tolist()
    assert sorted(map(len, C3_INPUTS)) == [3] * 6 + [4] * 9 + [6]
    assert len({frozenset(inputs) for inputs in C3_INPUTS}) == 16


def test_subsampling_adds_scales_and_shifts() -> None:
    layer = Subsampling(2)
    layer.coefficient.weight = np.array([0.5, 2.0]).reshape(2, 1, 1, 1)
    layer.coefficient.bias = [1.0, -1.0]
    x = np.arange(16.0, dtype=np.float32).reshape(1, 2, 2, 4)
    got = layer.eval()(x)
    np.testing.assert_allclose(got, [[[[10 / 2 + 1, 18 / 2 + 1]], [[42 * 2 - 1, 50 * 2 - 1]]]])


def test_the_squashing_function_of_the_paper() -> None:
    x = np.linspace(-3, 3, 13).astype(np.float32)
    got = ScaledTanh()(nn.Tensor(x, requires_grad=True))
    assert_close(got, 1.7159 * np.tanh(2 / 3 * x), 1e-6)
    assert_close(ScaledTanh().eval()(np.array([1.0, -1.0])), [1.0, -1.0], 1e-4)
    got.sum().backward()


def test_every_digit_has_a_picture_of_its_own() -> None:
    pictures = digit_bitmaps()
    assert pictures.shape == (10, 84)
    assert set(np.unique(pictures)) == {-1.0, 1.0}
    apart = (pictures[:, None] != pictures).sum(2) + 84 * np.eye(10, dtype=int)
    assert apart.min() >= 4  # as between a 3 and a 9; a distance is four times that
    for picture in pictures.reshape(10, 12, 7) > 0:
        assert 10 < picture.sum() < 42
        assert not picture[[0, -1]].any()


def test_logits_of_the_original_are_negated_distances() -> None:
    model = models.lenet5(original=True).eval()
    x = images(3)
    f6 = np.asarray(model.features(x), np.float64)
    expected = -((f6[:, None] - digit_bitmaps()) ** 2).sum(2)
    assert_close(model(x), expected, 1e-5)
    centers = model.classifier[0]
    np.testing.assert_array_equal(centers(digit_bitmaps()).argmin(1), range(10))
    assert np.diag(np.asarray(centers(digit_bitmaps()))).max() == 0


def test_the_pictures_are_stored_and_not_trained() -> None:
    model = models.lenet5(original=True)
    assert "classifier.0.centers" in model.state_dict()
    assert "classifier.0.centers" not in dict(model.named_parameters())


def test_the_map_loss_is_that_of_equation_9() -> None:
    rng = np.random.default_rng(0)
    distances, target, j = rng.uniform(0, 5, (4, 10)), np.array([3, 0, 9, 3]), 0.7
    right = distances[np.arange(4), target]
    expected = (right + np.log(np.exp(-j) + np.exp(-distances).sum(1))).mean()
    assert_close(map_loss((-distances).astype(np.float32), target, j), expected, 1e-6)

    y = nn.Tensor((-distances).astype(np.float32), requires_grad=True)
    map_loss(y, target, j).backward()
    wrong = np.exp(-distances) / (np.exp(-j) + np.exp(-distances).sum(1, keepdims=True))
    wrong[np.arange(4), target] -= 1
    assert_close(y.grad, wrong / 4, 1e-5)
    with pytest.raises(ValueError, match="j: expected a positive number, got 0"):
        map_loss(y, target, 0)
    with pytest.raises(ValueError, match="target: expected classes below 10, got 10"):
        map_loss(y, [3, 0, 10, 3])
    with pytest.raises(ValueError, match=r"logits: expected shape \(N, classes\), got \(4,\)"):
        map_loss(np.zeros(4, np.float32), target)


def test_the_original_starts_as_in_the_paper() -> None:
    model = models.lenet5(original=True)
    for layer, fan_in in ((model.features[8], 400), (model.features[11], 120)):
        weight = np.abs(np.asarray(layer.weight))
        assert 0.99 < weight.max() / (2.4 / fan_in) <= 1


def test_plan_and_layers_of_the_original_agree() -> None:
    model = models.lenet5(original=True).eval()
    x = images(3)
    with nn.eager():
        expected = model(x)
    assert_close(model(x), expected, 1e-5)


def test_pictures_are_prepared_as_the_papers_had_them() -> None:
    picture = np.zeros((28, 28, 3), np.uint8)
    picture[10:18, 10:18] = 255
    x = models.lenet5().preprocess(picture)
    assert x.shape == (1, 32, 32)
    np.testing.assert_allclose([x[0, 0, 0], x[0, 16, 16]], [-0.1, 1.175], atol=1e-5)
    x = models.lenet().preprocess(picture)
    assert x.shape == (1, 28, 28)
    assert (x.min(), x.max()) == (0, np.float32(255 / 256))
    assert len(models.lenet5(original=True).classify(picture, top=3)) == 3


# --- training


def test_gradients() -> None:
    for model, size in (
        (models.lenet5(), 32),
        (models.lenet5(activation="sigmoid", pool="max"), 32),
        (models.lenet5(original=True), 32),
        (models.lenet(), 28),
    ):
        check_gradients_along(model, images(2, size))


def test_lenet5_learns_the_digits() -> None:
    pytest.importorskip("sklearn")
    assert learn_digits(models.lenet5(), 32, channels=1, steps=40) > 0.8


def test_the_original_learns_the_digits() -> None:
    pytest.importorskip("sklearn")
    # The paper's small weights would want more steps to begin with.
    model = spread(models.lenet5(original=True))
    assert learn_digits(model, 32, channels=1, steps=40, loss=map_loss) > 0.8


def test_lenet_learns_the_digits() -> None:
    pytest.importorskip("sklearn")
    assert learn_digits(models.lenet(), 28, channels=1, steps=40) > 0.8


# --- bad arguments


def test_bad_arguments_are_named() -> None:
    with pytest.raises(ValueError, match="pool: expected one of"):
        models.LeNet5(pool="min")
    with pytest.raises(ValueError, match="num_classes: expected 10 with original=True, got 5"):
        models.LeNet5(5, original=True)
    with pytest.raises(ValueError, match="pool: expected 'avg' with original=True, got 'max'"):
        models.LeNet5(pool="max", original=True)
    with pytest.raises(
        ValueError, match=r"x: expected shape \(N, 1, 28, 28\), got \(N, 1, 32, 32\)"
    ):
        models.lenet().eval()(np.zeros((1, 1, 32, 32)))
