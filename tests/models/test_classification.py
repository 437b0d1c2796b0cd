"""LeNet-5, VGG and ResNet: text, keys and sizes against torchvision's recorded checksums."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

import oxidet
from oxidet import models, nn
from oxidet.models import vgg

# name: (lines, characters, SHA-256 of the text in the classic form, the same in torch 2.13's)
TEXTS = {
    "vgg11": (35, 1713, "b38617afb5581bf3", "b38617afb5581bf3"),
    "vgg13": (39, 1925, "20ce33fda78f78a8", "20ce33fda78f78a8"),
    "vgg16": (45, 2246, "b628f277d195f69a", "b628f277d195f69a"),
    "vgg19": (51, 2567, "d889f0547ed59fbd", "d889f0547ed59fbd"),
    "resnet18": (84, 4651, "11f0e9e3d3003859", "78a0ce552ae923a0"),
    "resnet34": (140, 8149, "85df0c4aa09e1018", "a60cf71e278ea118"),
    "resnet50": (176, 10904, "3ba0a6851a3fc3fd", "11201e7f2419f050"),
    "resnet101": (329, 21083, "285cd579c7a38ac7", "72376a8a23df2e9b"),
    "resnet152": (482, 31250, "c732f78029420877", "de32e2bfc835d938"),
}
# name: (keys, elements, SHA-256 of the listing "key d0,d1,...")
STATES = {
    "vgg11": (22, 132_863_336, "6bea93bab7e6f453"),
    "vgg13": (26, 133_047_848, "f594910b564c6093"),
    "vgg16": (32, 138_357_544, "39eff0b6d5c9fdf2"),
    "vgg19": (38, 143_667_240, "da1b75d8526f4714"),
    "resnet18": (122, 11_699_132, "d50237547253251c"),
    "resnet34": (218, 21_814_732, "d1b8c819ce5c294e"),
    "resnet50": (320, 25_610_205, "d315d42faada74d4"),
    "resnet101": (626, 44_654_608, "7ed4a498b9658fa6"),
    "resnet152": (932, 60_344_387, "eca32f1fc2b852eb"),
}


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@pytest.mark.parametrize("name", TEXTS)
def test_text_and_state_are_torchvisions(name: str) -> None:
    model = getattr(models, name)()
    lines, characters, classic, newest = TEXTS[name]
    text = str(model)
    assert (text.count("\n") + 1, len(text), digest(text)) == (lines, characters, classic)
    with nn.repr_style("torch2.13"):
        assert digest(str(model)) == newest

    keys, elements, expected = STATES[name]
    state = model.state_dict()
    listing = "\n".join(f"{key} {','.join(map(str, v.shape))}" for key, v in state.items())
    assert (len(state), sum(v.size for v in state.values())) == (keys, elements)
    assert digest(listing) == expected


def test_lenet5_has_the_layers_of_the_paper() -> None:
    model = models.lenet5()
    assert sum(p.numel() for p in model.parameters()) == 61_706
    assert list(model.state_dict()) == [
        f"{layer}.{kind}"
        for layer in (
            "features.0",
            "features.3",
            "features.6",
            "classifier.0",
            "classifier.2",
        )
        for kind in ("weight", "bias")
    ]
    x = np.zeros((2, 1, 32, 32), np.float32)
    shapes = []
    for layer in model.eval().features:
        x = layer(x)
        shapes.append(x.shape[1:])
    assert shapes[2::3] == [(6, 14, 14), (16, 5, 5)]
    assert shapes[-1] == (120, 1, 1)


def test_bad_arguments_are_named() -> None:
    with pytest.raises(ValueError, match=r"x: expected shape \(N, 1, 32, 32\), got \(1, 28, 28\)"):
        models.lenet5().eval()(np.zeros((1, 28, 28)))
    with pytest.raises(ValueError, match=r"activation: expected one of .*, got 'relu'"):
        models.LeNet5(activation="relu")
    with pytest.raises(ValueError, match=r"layers: expected four block counts, got \[1, 2\]"):
        models.ResNet(models.resnet.BasicBlock, [1, 2])


def test_initialisation_follows_torchvisions_rules() -> None:
    model = models.resnet18(zero_init_residual=True)
    weight = np.asarray(model.layer2[0].conv1.weight)
    deviation = (2 / (128 * 9)) ** 0.5  # fan out, gain of ReLU
    assert abs(weight.std() / deviation - 1) < 0.02
    assert (np.asarray(model.layer1[0].bn2.weight) == 0).all()
    assert (np.asarray(model.layer1[0].bn1.weight) == 1).all()
    bound = 1 / 512**0.5
    assert abs(np.abs(np.asarray(model.fc.weight)).max() / bound - 1) < 0.01


def test_a_seed_fixes_the_initial_weights() -> None:
    states = []
    for _ in range(2):
        oxidet.manual_seed(7)
        states.append(models.lenet5().state_dict())
    for key, value in states[0].items():
        np.testing.assert_array_equal(value, states[1][key])


def test_bad_arguments_of_builders_are_named() -> None:
    with pytest.raises(ValueError, match="configuration: expected one of"):
        vgg.make_features("Z")
    with pytest.raises(ValueError, match=r"x: expected shape \(N, 1, 32, 32\), got \(1,\)"):
        models.LeNet5()([1.0])
