"""DenseNet: text, keys, sizes, initial weights, old files, errors."""

from __future__ import annotations

import numpy as np
import pytest

from models.zoo_identity import State, Text, macs, parameters, sizes, state_of, text_of
from oxidet import models, nn
from training import check_descent, learn_digits

# name: text, state, parameters, MACs for 224 x 224, channels behind blocks and transitions
NETWORKS = {
    "densenet121": (
        Text(500, 29843, "d5f7254d7221c235", "86b22cc67387a261"),
        State(727, 8_062_625, "f61f1924c112eb64"),
        (7_978_856, 2_834_161_664),
        (256, 128, 512, 256, 1024, 512, 1024),
    ),
    "densenet161": (
        Text(660, 39700, "6c360ce54f75b054", "dc4f327189dbcb4c"),
        State(967, 28_901_097, "28992a542ce16f4f"),
        (28_681_000, 7_727_907_072),
        (384, 192, 768, 384, 2112, 1056, 2208),
    ),
    "densenet169": (
        Text(692, 41611, "ccd997cb208e4cd4", "648eb480a9e2f25f"),
        State(1015, 14_308_049, "089ff1410bc7e7ec"),
        (14_149_480, 3_359_843_328),
        (256, 128, 512, 256, 1280, 640, 1664),
    ),
    "densenet201": (
        Text(820, 49467, "e355a66c9f816868", "4197f53101994ee8"),
        State(1207, 20_243_185, "6780db81247c73e2"),
        (20_013_928, 4_291_365_888),
        (256, 128, 512, 256, 1792, 896, 1920),
    ),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_identity(name: str) -> None:
    text, state, counts, channels = NETWORKS[name]
    model = models.get_model(name)
    assert text_of(model) == text
    assert state_of(model) == state
    shape = (1, 3, 224, 224)
    assert (parameters(model), macs(model, shape)) == counts
    layers = ["denseblock1", "transition1", "denseblock2", "transition2"]
    layers += ["denseblock3", "transition3", "denseblock4"]
    sides = (56, 28, 28, 14, 14, 7, 7)
    assert sizes(model, shape, *(f"features.{layer}" for layer in layers)) == [
        (c, side, side) for c, side in zip(channels, sides, strict=True)
    ]


def test_initial_weights() -> None:
    model = models.densenet121()
    weight = np.asarray(model.features.denseblock1.denselayer1.conv2.weight)
    assert abs(weight.std() / (2 / (128 * 9)) ** 0.5 - 1) < 0.02  # fan in, gain of ReLU
    assert not np.asarray(model.classifier.bias).any()
    bound = np.abs(np.asarray(model.classifier.weight)).max()
    assert abs(bound * 1024**0.5 - 1) < 0.01


def test_old_files_load() -> None:
    def small() -> nn.Module:
        return models.DenseNet(4, (2, 3), 8, num_classes=5)

    model = small()
    old = {}
    for key, value in model.state_dict().items():
        for kind in ("norm", "conv"):
            for i in "12":
                key = key.replace(f".{kind}{i}.", f".{kind}.{i}.")
        old[key] = value
    assert "features.denseblock2.denselayer3.norm.2.running_mean" in old
    assert "features.denseblock1.denselayer1.conv.1.weight" in old
    assert len(old) == len(model.state_dict())
    other = nn.Sequential(nn.ReLU(), small())  # also as a part of something
    assert not any(other[1].load_state_dict(old))
    for key, value in other[1].state_dict().items():
        np.testing.assert_array_equal(value, model.state_dict()[key])
    assert not any(other.load_state_dict({f"1.{key}": value for key, value in old.items()}))


def test_options() -> None:
    model = models.densenet121(num_classes=3, drop_rate=0.5, memory_efficient=True)
    x = np.random.default_rng(0).standard_normal((2, 3, 64, 64)).astype(np.float32)
    block = model.features.denseblock1
    features = model.features.pool0(model.features.conv0(x))
    with nn.no_grad():
        dropped = np.asarray(block.denselayer1.train()(features))
        kept = np.asarray(block.denselayer1.eval()(features))
    assert 0.4 < (dropped == 0).mean() < 0.6
    assert (kept == 0).mean() < 0.1
    with pytest.raises(ValueError, match="drop_rate: expected"):
        models.densenet121(drop_rate=1.5)


def test_bad_arguments_are_named() -> None:
    with pytest.raises(ValueError, match="block_config: expected an integer of at least 1, got 0"):
        models.DenseNet(block_config=(1, 0))
    with pytest.raises(TypeError, match=r"block_config: expected an integer, got 1\.5"):
        models.DenseNet(block_config=(1.5, 1))


def test_the_smallest_image() -> None:
    model = models.densenet121(num_classes=3).eval()
    assert model(np.zeros((1, 3, 29, 29), np.float32)).shape == (1, 3)
    small = np.zeros((1, 3, 28, 28), np.float32)
    message = r"layer features\.transition3\.pool: .* got 1 x 1 pixels"
    with pytest.raises(ValueError, match=message):
        model(small)
    with nn.eager(), pytest.raises(ValueError, match=message):
        model(small)


def test_gradients() -> None:
    check_descent(models.DenseNet(3, (2, 2), 6, num_classes=4), (2, 3, 24, 20))


def test_it_learns_the_digits() -> None:
    model = models.DenseNet(8, (2, 2), 16, num_classes=10)
    assert learn_digits(model, 16, steps=100) > 0.85


def test_odd_blocks_are_named() -> None:
    with pytest.raises(
        TypeError, match=r"^block_config: expected a list of numbers of layers, got"
    ):
        models.DenseNet(block_config=3)  # type: ignore[arg-type]
