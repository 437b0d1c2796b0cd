"""The ResNet family beyond the five of torchvision's first paper: counts, sizes, gradients."""

from __future__ import annotations

import numpy as np
import pytest

from conftest import assert_close
from models.zoo_identity import macs, parameters, sizes
from oxidet import models, nn
from oxidet.models.resnet import BasicBlock, Bottleneck, PadShortcut, PlainBlock, make_shortcut
from training import check_descent, learn_digits

# name: parameters, MACs for 224 x 224, keys
COUNTS = {
    "resnet18": (11_689_512, 1_814_073_344, 122),
    "resnet34": (21_797_672, 3_663_761_408, 218),
    "resnet50": (25_557_032, 4_089_184_256, 320),
    "resnet101": (44_549_160, 7_801_405_440, 626),
    "resnet152": (60_192_808, 11_513_626_624, 932),
    "resnext50_32x4d": (25_028_904, 4_230_479_872, 320),
    "resnext101_32x8d": (88_791_336, 16_414_015_488, 626),
    "resnext101_64x4d": (83_455_272, 15_460_270_080, 626),
    "wide_resnet50_2": (68_883_240, 11_398_021_120, 320),
    "wide_resnet101_2": (126_886_696, 22_753_050_624, 626),
    # Without the three projections 64-128, 128-256, 256-512, of 6 422 528 MACs each.
    "plain18": (11_689_512 - 173_824, 1_814_073_344 - 3 * 6_422_528, 122 - 18),
    "plain34": (21_797_672 - 173_824, 3_663_761_408 - 3 * 6_422_528, 218 - 18),
}


HUGE = ("resnet152", "resnext101_32x8d", "resnext101_64x4d", "wide_resnet101_2")


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[pytest.mark.slow] * (n in HUGE)) for n in COUNTS]
)
def test_counts_and_sizes(name: str) -> None:
    model, shape = models.get_model(name), (1, 3, 224, 224)
    assert (parameters(model), macs(model, shape), len(model.state_dict())) == COUNTS[name]
    e = model.layer1[0].expansion
    assert sizes(model, shape, "maxpool", "layer1", "layer2", "layer3", "layer4", "fc") == [
        (64, 56, 56),
        (64 * e, 56, 56),
        (128 * e, 28, 28),
        (256 * e, 14, 14),
        (512 * e, 7, 7),
        (1000,),
    ]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("resnet50", 3_857_973_248),
        pytest.param("resnet101", 7_570_194_432, marks=pytest.mark.slow),
        pytest.param("resnet152", 11_282_415_616, marks=pytest.mark.slow),
    ],
)
def test_the_papers_stride(name: str, expected: int) -> None:
    model = models.get_model(name, stride_1x1=True)
    assert macs(model, (1, 3, 224, 224)) == expected
    assert parameters(model) == COUNTS[name][0]
    first = model.layer2[0]
    assert (first.conv1.stride, first.conv2.stride) == ((2, 2), (1, 1))


def test_shortcuts() -> None:
    a, b, c = (models.resnet34(shortcut=option) for option in "ABC")
    assert parameters(a) == parameters(models.plain34())
    assert parameters(b) == COUNTS["resnet34"][0]
    widths = [64] * 3 + [128] * 3 + [256] * 5 + [512] * 2
    assert parameters(c) == parameters(b) + sum(w * w + 2 * w for w in widths)
    assert list(a.state_dict()) == list(models.plain34().state_dict())
    assert make_shortcut(8, 8, 1, "A") is None
    assert isinstance(a.layer2[0].downsample, PadShortcut)
    with pytest.raises(ValueError, match=r"shortcut: expected .*'A'.*'B'.*'C'.* got 'D'"):
        models.resnet18(shortcut="D")


def test_option_a_takes_every_second_pixel_and_adds_channels_of_zeros() -> None:
    x = np.random.default_rng(0).standard_normal((2, 3, 5, 6)).astype(np.float32)
    expected = np.concatenate([x[:, :, ::2, ::2], np.zeros((2, 2, 3, 3), np.float32)], axis=1)
    layer = PadShortcut(3, 5, stride=2).eval()
    np.testing.assert_array_equal(layer(x), expected)
    layer.compiled = True
    np.testing.assert_array_equal(layer(x), expected)
    assert str(layer) == "PadShortcut(extra=2, stride=2)"


def test_plain_blocks_are_residual_ones_without_the_sum() -> None:
    plain = PlainBlock(4, 4).eval()
    residual = BasicBlock(4, 4).eval()
    residual.load_state_dict(plain.state_dict())
    x = np.abs(np.random.default_rng(0).standard_normal((1, 4, 6, 6))).astype(np.float32)
    inner = plain.bn2(plain.conv2(nn.functional.relu(plain.bn1(plain.conv1(x)))))
    assert_close(plain(x), np.maximum(inner, 0))
    assert_close(residual(x), np.maximum(inner + x, 0))


def test_dilation_instead_of_stride() -> None:
    model = models.resnet50(replace_stride_with_dilation=[False, True, True])
    assert sizes(model, (1, 3, 64, 64), "layer2", "layer3", "layer4") == [
        (512, 8, 8),
        (1024, 8, 8),
        (2048, 8, 8),
    ]
    dilations = [model.layer3[0], model.layer3[1], model.layer4[0], model.layer4[1]]
    assert [block.conv2.dilation for block in dilations] == [(1, 1), (2, 2), (2, 2), (4, 4)]


def test_another_normalisation() -> None:
    model = models.resnet18(norm_layer=lambda channels: nn.BatchNorm2d(channels, eps=0.1))
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    assert len(norms) == 20
    assert {m.eps for m in norms} == {0.1}
    assert not any(
        isinstance(m, nn.BatchNorm2d)
        for m in models.resnet18(
            norm_layer=lambda _: nn.Identity(), zero_init_residual=True
        ).modules()
    )


def test_bad_arguments_are_named() -> None:
    with pytest.raises(ValueError, match=r"layers: expected four block counts, got \[1, 2\]"):
        models.ResNet(BasicBlock, [1, 2])
    with pytest.raises(ValueError, match="layers: expected an integer of at least 1, got -2"):
        models.ResNet(BasicBlock, [1, -2, 1, 1])
    with pytest.raises(ValueError, match="replace_stride_with_dilation: expected three booleans"):
        models.resnet50(replace_stride_with_dilation=[True])
    with pytest.raises(ValueError, match="expected 1, 64 and 1 for a BasicBlock, got 32, 4 and 1"):
        models.resnet18(groups=32, width_per_group=4)
    with pytest.raises(ValueError, match="stride_1x1: expected False for blocks without a 1 x 1"):
        models.resnet18(stride_1x1=True)
    with pytest.raises(ValueError, match="zero_init_residual: expected False"):
        models.plain18(zero_init_residual=True)
    with pytest.raises(ValueError, match=r"depth: expected 6n \+ 2, such as .*, got 19"):
        models.CifarResNet(19)


def test_any_size_of_image_will_do() -> None:
    for name in ("resnet18", "resnet50", "plain18", "resnet20_cifar10"):
        model = models.get_model(name, num_classes=3).eval()
        assert model(np.zeros((1, 3, 1, 1), np.float32)).shape == (1, 3)


CIFAR = {20: 269_722, 32: 464_154, 44: 658_586, 56: 853_018}


@pytest.mark.parametrize("depth", CIFAR)
def test_the_networks_for_cifar(depth: int) -> None:
    plain = models.get_model(f"plain{depth}_cifar10")
    residual = models.get_model(f"resnet{depth}_cifar10")
    assert parameters(plain) == parameters(residual) == CIFAR[depth]
    assert list(plain.state_dict()) == list(residual.state_dict())
    weighted = [m for m in plain.modules() if isinstance(m, (nn.Conv2d, nn.Linear))]
    assert len(weighted) == depth
    shape = (1, 3, 32, 32)
    assert sizes(residual, shape, "layer1", "layer2", "layer3") == [
        (16, 32, 32),
        (32, 16, 16),
        (64, 8, 8),
    ]
    assert macs(plain, shape) == macs(residual, shape)


NARROW = {
    "plain": {"residual": False},
    "A": {"shortcut": "A"},
    "B": {"shortcut": "B"},
    "C": {"shortcut": "C"},
}


@pytest.mark.parametrize("option", NARROW)
def test_gradients(option: str) -> None:
    check_descent(models.CifarResNet(8, width=4, **NARROW[option]), (2, 3, 9, 10))


@pytest.mark.parametrize("options", [{}, {"stride_1x1": True}, {"groups": 2}], ids=str)
def test_gradients_of_a_bottleneck(options: dict[str, int]) -> None:
    downsample = make_shortcut(6, 16, 2)
    check_descent(Bottleneck(6, 4, 2, downsample, **options), (2, 6, 9, 8))


@pytest.mark.parametrize("option", NARROW)
def test_they_learn_the_digits(option: str) -> None:
    model = models.CifarResNet(8, in_channels=1, width=8, **NARROW[option])
    assert learn_digits(model, 8, channels=1, steps=40, batch=64, lr=0.02) > 0.85


@pytest.mark.slow
def test_the_papers_stride_learns_the_digits() -> None:
    model = models.ResNet(Bottleneck, [1, 1, 1, 1], num_classes=10, stride_1x1=True)
    assert learn_digits(model, 32) > 0.9


@pytest.mark.slow
def test_plain18_learns_the_digits() -> None:
    assert learn_digits(models.plain18(num_classes=10), 32, steps=60, batch=64, lr=0.0005) > 0.9


def test_odd_arguments_are_named() -> None:
    for message, arguments, options in [
        ("block: expected BasicBlock, .* got None", (None, [2, 2, 2, 2]), {}),
        ("layers: expected a list of four block counts, got int", (Bottleneck, 3), {}),
        (
            "replace_stride_with_dilation: expected a list of three booleans, got int",
            (Bottleneck, [1, 1, 1, 1]),
            {"replace_stride_with_dilation": 3},
        ),
    ]:
        with pytest.raises(TypeError, match=f"^{message}$"):
            models.ResNet(*arguments, **options)
