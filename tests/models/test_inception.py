"""Inception v3, v4 and Inception-ResNet v1, v2: text, keys, sizes, initial weights, errors."""

from __future__ import annotations

import numpy as np
import pytest

import oxidet
from models.zoo_identity import State, Text, macs, parameters, sizes, state_of, text_of
from oxidet import models, nn
from oxidet.models.inception_resnet import Block8, Block17, Block35
from training import check_descent, learn_digits

CANONICAL = (1, 3, 299, 299)


def test_inception_v3() -> None:
    model = models.inception_v3(init_weights=False)
    assert text_of(model) == Text(416, 21600, "46db3db5660a1511", "1ad0ac8f1ccb2b6a")
    assert state_of(model) == State(580, 27_197_584, "0ddb00d778aac7f2")
    assert parameters(model) == 27_161_264
    assert macs(model, CANONICAL) == 5_713_216_096
    assert parameters(model.AuxLogits) == 3_326_696
    layers = ("Conv2d_4a_3x3", "Mixed_5d", "Mixed_6e", "Mixed_7a", "Mixed_7c", "fc")
    assert sizes(model, CANONICAL, *layers) == [
        (192, 71, 71),
        (288, 35, 35),
        (768, 17, 17),
        (1280, 8, 8),
        (2048, 8, 8),
        (1000,),
    ]


def test_inception_v3_without_its_auxiliary_head() -> None:
    model = models.inception_v3(aux_logits=False, init_weights=False)
    assert text_of(model) == Text(405, 21097, "41b60a3cd2184666", "1732f195d92fb119")
    assert (len(model.state_dict()), parameters(model)) == (566, 23_834_568)
    assert "AuxLogits" not in dict(model.named_children())


def test_inception_v4() -> None:
    model = models.inception_v4()
    assert state_of(model) == State(896, 42_743_133, "613b51bdc0f07e68")
    assert parameters(model) == 42_679_816
    assert macs(model, CANONICAL) == 12_253_974_624
    assert "features.19.branch2_3b.bn.running_var" in model.state_dict()
    layers = [f"features.{i}" for i in (3, 4, 5, 9, 10, 17, 18, 21)]
    assert sizes(model, CANONICAL, *layers) == [
        (160, 73, 73),
        (192, 71, 71),
        (384, 35, 35),
        (384, 35, 35),
        (1024, 17, 17),
        (1024, 17, 17),
        (1536, 8, 8),
        (1536, 8, 8),
    ]


def test_inception_resnet_v1() -> None:
    model = models.inception_resnet_v1()
    assert (len(model.state_dict()), parameters(model)) == (710, 24_357_096)
    assert macs(model, CANONICAL) == 6_308_597_856
    assert {"repeat_1.0.conv2d.bias", "mixed_6a.branch1.2.bn.weight", "fc.weight"} <= set(
        model.state_dict()
    )
    expected = {
        "repeat_1.0": 77_440,
        "mixed_6a": 1_710_080,
        "repeat_2.0": 690_048,
        "mixed_7a": 3_346_176,
        "repeat_3.0": 1_600_768,
        "block8": 1_600_768,
    }
    assert {path: parameters(model.get_submodule(path)) for path in expected} == expected
    layers = ("conv2d_4a", "repeat_1", "repeat_2", "repeat_3", "avgpool_1a")
    assert sizes(model, CANONICAL, *layers) == [
        (192, 71, 71),
        (256, 35, 35),
        (896, 17, 17),
        (1792, 8, 8),
        (1792,),
    ]
    weight = np.asarray(model.mixed_6a.branch0.conv.weight)
    assert np.abs(weight).max() <= 0.2
    assert abs(weight.std() / 0.0880 - 1) < 0.01  # of N(0, 0.1^2) cut off at two deviations
    assert not np.asarray(model.repeat_1[0].conv2d.bias).any()


def test_inception_resnet_v1_as_printed_in_the_paper() -> None:
    model = models.inception_resnet_v1(final_block=False)
    assert (len(model.state_dict()), parameters(model)) == (684, 22_756_328)
    assert macs(model, CANONICAL) == 6_206_361_696


def test_inception_resnet_v2() -> None:
    model = models.inception_resnet_v2()
    assert state_of(model) == State(1306, 55_904_212, "9fe5b56933541592")
    assert parameters(model) == 55_843_464
    assert macs(model, CANONICAL) == 13_155_794_016
    layers = ("mixed_5b", "repeat", "repeat_1", "block8", "conv2d_7b", "classif")
    assert sizes(model, CANONICAL, *layers) == [
        (320, 35, 35),
        (320, 35, 35),
        (1088, 17, 17),
        (2080, 8, 8),
        (1536, 8, 8),
        (1000,),
    ]


def test_inception_resnet_v2_as_printed_in_the_paper() -> None:
    model = models.inception_resnet_v2(variant="paper")
    assert parameters(model) == 32_433_928
    assert macs(model, CANONICAL) == 9_257_953_632
    assert sizes(model, CANONICAL, "stem", "repeat_1", "repeat_2") == [
        (384, 35, 35),
        (1152, 17, 17),
        (2144, 8, 8),
    ]


def test_initial_weights_of_inception_v3() -> None:
    oxidet.manual_seed(0)
    model = models.inception_v3(num_classes=50)
    assert abs(np.asarray(model.Mixed_7c.branch3x3_2a.conv.weight).std() / 0.1 - 1) < 0.01
    assert abs(np.asarray(model.AuxLogits.conv1.conv.weight).std() / 0.1 - 1) < 0.01
    assert abs(np.asarray(model.AuxLogits.fc.weight).std() / 0.001 - 1) < 0.02
    assert abs(np.asarray(model.fc.weight).std() / 0.1 - 1) < 0.02


def test_options() -> None:
    model = models.inception_v4(num_classes=7, in_chans=1, drop_rate=0.2, norm_eps=1e-5)
    assert {m.eps for m in model.modules() if isinstance(m, nn.BatchNorm2d)} == {1e-5}
    assert model.head_drop.p == 0.2
    assert model.eval()(np.zeros((1, 1, 75, 75), np.float32)).shape == (1, 7)
    with pytest.raises(ValueError, match=r"global_pool: expected .*'avg'.*'max'.* got 'mean'"):
        models.inception_v4(global_pool="mean")
    with pytest.raises(ValueError, match=r"variant: expected .*'released'.*'paper'.* got 'slim'"):
        models.inception_resnet_v2(variant="slim")
    with pytest.raises(ValueError, match=r"blocks: expected three counts, got \[1, 2\]"):
        models.InceptionResnetV1(blocks=(1, 2))
    with pytest.raises(ValueError, match="blocks: expected an integer of at least 0, got -1"):
        models.InceptionResnetV1(blocks=(1, -1, 1))
    with pytest.raises(ValueError, match="inception_blocks: expected 7 classes, got 1"):
        models.Inception3(inception_blocks=[nn.Conv2d])


def test_the_maximum_instead_of_the_mean_at_the_end() -> None:
    model = models.InceptionResnetV2(num_classes=3, global_pool="max").eval()
    x = np.random.default_rng(0).standard_normal((1, 3, 107, 107)).astype(np.float32)
    with nn.eager():
        features = x
        for name, layer in model.named_children():
            if name == "global_pool":
                break
            features = layer(features)
        pooled = model.global_pool(features)
    assert features.shape[2:] == (2, 2)
    np.testing.assert_array_equal(pooled, features.max(axis=(2, 3)))


SMALLEST = {
    "inception_v3": (75, r"layer Mixed_7a\.branch3x3_2\.conv: .* 3 x 3 pixels .* got 2 x 2"),
    "inception_v4": (75, r"layer features\.18\..*: .* 3 x 3 pixels .* got 2 x 2"),
    "inception_resnet_v1": (75, r"layer mixed_7a\..*: .* 3 x 3 pixels .* got 2 x 2"),
    "inception_resnet_v2": (75, r"layer mixed_7a\..*: .* 3 x 3 pixels .* got 2 x 2"),
}


@pytest.mark.parametrize("name", SMALLEST)
def test_the_smallest_image(name: str) -> None:
    size, message = SMALLEST[name]
    model = models.get_model(name, num_classes=3).eval()
    assert model(np.zeros((1, 3, size, size), np.float32)).shape == (1, 3)
    small = np.zeros((1, 3, size - 1, size - 1), np.float32)
    with pytest.raises(ValueError, match=message):
        model(small)
    with nn.eager(), pytest.raises(ValueError, match=message):
        model(small)


def test_the_auxiliary_head_needs_the_papers_size_in_training() -> None:
    model = models.inception_v3(num_classes=3, init_weights=False)
    with pytest.raises(ValueError, match=r"layer AuxLogits\.conv1\.conv: .* 5 x 5 .* got 4 x 4"):
        model(np.zeros((2, 3, 283, 283), np.float32))


@pytest.mark.parametrize(
    "block",
    [
        lambda: Block35(6, (4, 5, 7)),
        lambda: Block17(6, (4, 5, 7)),
        lambda: Block8(6, (4, 5, 7)),
        lambda: Block8(6, (4, 5, 7), scale=1.0, no_relu=True),
    ],
    ids=["Block35", "Block17", "Block8", "last"],
)
def test_gradients_of_residual_blocks(block: object) -> None:
    check_descent(block(), (2, 6, 9, 9))  # type: ignore[operator]


@pytest.mark.slow
def test_inception_resnet_v1_learns_the_digits() -> None:
    model = models.InceptionResnetV1(num_classes=10, blocks=(1, 1, 1), dropout=0.0)
    assert learn_digits(model, 75, steps=60, batch=24) > 0.7


def test_recipes() -> None:
    sizes_of = {
        "inception_v3": (299, 342),
        "inception_v4": (299, 341),
        "inception_resnet_v1": (299, 341),
        "inception_resnet_v2": (299, 333),
    }
    classes = (models.Inception3, models.InceptionV4, models.InceptionResnetV1)
    recipes = [cls.preprocess for cls in (*classes, models.InceptionResnetV2)]
    assert [(r.crop_size, r.resize_size) for r in recipes] == list(sizes_of.values())
    assert [r.mean for r in recipes[1:]] == [0.5] * 3
    assert models.Inception3.auxiliary_weight == 0.4
