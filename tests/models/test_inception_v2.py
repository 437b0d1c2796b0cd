"""Inception v2 (BN-Inception) in its variants."""

from __future__ import annotations

import contextlib
from typing import Any

import numpy as np
import pytest

import oxidet
from networks import check_batches, check_size, layer_shapes, thin, without_dropout
from oxidet import models, nn
from training import check_gradients_along, learn_digits


def images(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize(
    ("options", "size"),
    [
        ({}, (11_194_984, 2_018_851_840, 416)),
        ({"separable_stem": True}, (11_188_288, 1_934_857_216, 417)),
        ({"variant": "caffe"}, (11_285_224, 2_032_600_064, 416)),
        ({"variant": "caffe", "conv_bias": True}, (11_295_240, 2_032_600_064, 485)),
    ],
)
def test_sizes(options: dict[str, Any], size: tuple[int, int, int]) -> None:
    model = models.inception_v2(**options)
    check_size(model, (3, 224, 224), *size)
    convolutions = [m for m in model.modules() if isinstance(m, nn.Conv2d)]
    assert len(convolutions) == 69 + ("separable_stem" in options)


def test_the_blocks_have_the_sizes_of_the_table() -> None:
    layers = ["conv1", "maxpool2", "inception3b", "inception3c", "inception4c", "inception4e"]
    with thin(8):
        slim, caffe = models.inception_v2(10), models.inception_v2(10, variant="caffe")
    assert layer_shapes(slim, (3, 224, 224), layers) == [
        (8, 112, 112),
        (24, 28, 28),
        (40, 28, 28),
        (72, 14, 14),
        (72, 14, 14),
        (128, 7, 7),
    ]
    wider = layer_shapes(caffe, (3, 224, 224), ["inception4c", "inception4d", "inception4e"])
    assert wider == [(76, 14, 14), (76, 14, 14), (132, 7, 7)]


def test_the_variants_differ_in_their_pools_and_norms() -> None:
    with thin(8):
        slim, caffe = models.inception_v2(10), models.inception_v2(10, variant="caffe")
    for model, padding_counts, eps in ((slim, False, 0.001), (caffe, True, 1e-5)):
        pools = [m for m in model.modules() if isinstance(m, nn.AvgPool2d)]
        assert [pool.count_include_pad for pool in pools] == [padding_counts] * 7
        assert {m.eps for m in model.modules() if isinstance(m, nn.BatchNorm2d)} == {eps}
        assert isinstance(model.inception5b.branch4[0], nn.MaxPool2d)


def test_pictures_are_prepared_as_each_variant_had_them() -> None:
    red = np.zeros((300, 260, 3), np.uint8)
    red[..., 0] = 255
    with thin(8):
        slim, caffe = models.inception_v2(10), models.inception_v2(10, variant="caffe")
    assert slim.preprocess(red)[:, 100, 100].tolist() == [1, -1, -1]
    assert caffe.preprocess(red)[:, 100, 100].tolist() == [-104, -117, 255 - 128]
    assert caffe.preprocess(red).shape == (3, 224, 224)


def test_keys_follow_the_branches() -> None:
    with thin(8):
        keys = list(models.inception_v2(10, separable_stem=True).state_dict())
    assert keys[:3] == ["conv1.depthwise.weight", "conv1.conv.weight", "conv1.bn.weight"]
    assert "inception3a.branch1.conv.weight" in keys
    assert "inception3a.branch4.1.bn.running_var" in keys
    assert "inception3c.branch3.2.conv.weight" in keys
    assert not any(key.startswith(("inception3c.branch1", "inception4e.branch4")) for key in keys)
    assert keys[-2:] == ["fc.weight", "fc.bias"]


def test_initial_weights_are_slims() -> None:
    model = models.inception_v2(separable_stem=True)
    # The standard deviation of a normal distribution that is cut off at two of them is 0.88 of it.
    for layer, std in (
        (model.conv1.conv, 1.0),
        (model.inception5a.branch2[0].conv, 0.09),
        (model.inception5a.branch4[1].conv, 0.1),
        (model.inception5a.branch2[1].conv, (2.6 / (192 * 9)) ** 0.5),
        (model.fc, (2.6 / 1024) ** 0.5),
    ):
        weight = np.asarray(layer.weight)
        assert abs(weight.std() / (0.88 * std) - 1) < 0.03
        assert np.abs(weight).max() <= 2 * std


@pytest.mark.parametrize("variant", ["slim", "caffe"])
def test_plan_and_gradients(variant: str) -> None:
    with thin(8):
        model = models.inception_v2(10, variant=variant, separable_stem=variant == "slim")
    check_batches(model, (3, 49, 70))
    with oxidet.precision("direct"):
        check_gradients_along(model, images(2, 3, 34, 48), most=12)


def test_it_learns_the_digits() -> None:
    pytest.importorskip("sklearn")
    with thin(8):
        model = without_dropout(models.inception_v2(10))
    assert learn_digits(model, 32, lr=0.005) > 0.5


@pytest.mark.parametrize("mode", [contextlib.nullcontext, nn.eager])
def test_sizes_of_images(mode: Any) -> None:
    with thin(8):
        model = models.inception_v2(10).eval()
    with mode():
        for height in (7, 31, 33, 47, 63):
            assert model(np.zeros((1, 3, height, 50), np.float32)).shape == (1, 10)
    with mode(), pytest.raises(ValueError, match="layer maxpool2: input: expected at least one"):
        model(np.zeros((1, 3, 3, 50), np.float32))
    with pytest.raises(ValueError, match="variant: expected one of"):
        models.InceptionV2(variant="torch")
