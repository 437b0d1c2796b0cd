"""What is known of the networks: parameters, multiply-adds, receptive fields.

Numbers of the papers' networks, computed by hand or from other implementations. Networks that the
package does not have are left out by those who read this.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import pytest

from oxidet import _random, models, nn


class Known(NamedTuple):
    """One network on one square image: totals, and size and stride of receptive fields."""

    side: int
    parameters: int
    macs: int
    fields: dict[str, tuple[int, int]]


def _stages(*sizes: int) -> dict[str, tuple[int, int]]:
    strides = (4, 8, 16, 32)
    return {f"layer{i + 1}": (size, strides[i]) for i, size in enumerate(sizes)}


def _blocks(*sizes: int) -> dict[str, tuple[int, int]]:
    strides = (4, 8, 16, 32)
    return {f"features.denseblock{i + 1}": (size, strides[i]) for i, size in enumerate(sizes)}


_VGG11 = {
    "features.2": (4, 2), "features.5": (10, 4), "features.10": (30, 8), "features.15": (70, 16),
    "features.18": (134, 16), "features.20": (150, 32), "classifier.0": (342, 32),
}  # fmt: skip
_VGG13 = {"features.22": (140, 16), "features.24": (156, 32), "classifier.0": (348, 32)}
_VGG16 = {
    "features.0": (3, 1), "features.2": (5, 1), "features.4": (6, 2), "features.5": (10, 2),
    "features.7": (14, 2), "features.9": (16, 4), "features.10": (24, 4), "features.12": (32, 4),
    "features.14": (40, 4), "features.16": (44, 8), "features.17": (60, 8), "features.19": (76, 8),
    "features.21": (92, 8), "features.23": (100, 16), "features.24": (132, 16),
    "features.26": (164, 16), "features.28": (196, 16), "features.30": (212, 32),
    "classifier.0": (404, 32),
}  # fmt: skip
_VGG19 = {
    "features.16": (48, 4), "features.25": (116, 8), "features.34": (252, 16),
    "features.36": (268, 32), "classifier.0": (460, 32),
}  # fmt: skip
_ALEXNET_2012 = {
    "features.0": (11, 4), "features.3": (19, 8), "features.4": (51, 8), "features.7": (67, 16),
    "features.8": (99, 16), "features.10": (131, 16), "features.12": (163, 16),
    "features.14": (195, 32), "classifier.0": (355, 32),
}  # fmt: skip
_ALEXNET = {
    "features.0": (11, 4), "features.2": (19, 8), "features.3": (51, 8), "features.5": (67, 16),
    "features.6": (99, 16), "features.8": (131, 16), "features.10": (163, 16),
    "features.12": (195, 32), "classifier.1": (355, 32),
}  # fmt: skip
_ZFNET = {
    "features.0": (7, 2), "features.2": (11, 4), "features.4": (27, 8), "features.6": (43, 16),
    "features.8": (75, 16), "features.10": (107, 16), "features.12": (139, 16),
    "features.14": (171, 32), "classifier.0": (331, 32),
}  # fmt: skip
_NIN = {
    "features.0": (11, 4), "features.6": (19, 8), "features.7": (51, 8), "features.13": (67, 16),
    "features.14": (99, 16), "features.20": (131, 32), "features.22": (195, 32),
}  # fmt: skip
_INCEPTION_V3 = {
    "maxpool2": (31, 8), "Mixed_5d": (127, 8), "Mixed_6a": (159, 16), "Mixed_6e": (927, 16),
    "Mixed_7a": (1055, 32), "Mixed_7c": (1311, 32),
}  # fmt: skip
_INCEPTION_V4 = {
    "features.5": (55, 8), "features.9": (183, 8), "features.10": (215, 16),
    "features.17": (1559, 16), "features.18": (1687, 32), "features.21": (2071, 32),
}  # fmt: skip

KNOWN = {
    "lenet5": Known(32, 61_706, 416_520, {
        "features.0": (5, 1), "features.2": (6, 2), "features.3": (14, 2), "features.5": (16, 4),
        "features.6": (32, 4),
    }),
    "lenet": Known(28, 431_080, 2_293_000, {}),
    "alexnet_2012": Known(227, 60_965_224, 724_406_816, _ALEXNET_2012),
    "alexnet": Known(224, 61_100_840, 714_188_480, _ALEXNET),
    "zfnet": Known(224, 62_357_608, 1_168_032_896, _ZFNET),
    "zfnet_wide": Known(224, 107_627_624, 2_476_704_896, _ZFNET),
    "vgg11": Known(224, 132_863_336, 7_609_090_048, _VGG11),
    "vgg11_bn": Known(224, 132_868_840, 7_609_090_048, {"classifier.0": (342, 32)}),
    "vgg11_lrn": Known(224, 132_863_336, 7_609_090_048, {"classifier.0": (342, 32)}),
    "vgg13": Known(224, 133_047_848, 11_308_466_176, _VGG13),
    "vgg13_bn": Known(224, 133_053_736, 11_308_466_176, {"classifier.0": (348, 32)}),
    "vgg16_c": Known(224, 133_638_952, 11_770_888_192, {"features.26": (140, 16)}),
    "vgg16": Known(224, 138_357_544, 15_470_264_320, _VGG16),
    "vgg16_bn": Known(224, 138_365_992, 15_470_264_320, {"classifier.0": (404, 32)}),
    "vgg19": Known(224, 143_667_240, 19_632_062_464, _VGG19),
    "vgg19_bn": Known(224, 143_678_248, 19_632_062_464, {"classifier.0": (460, 32)}),
    "nin": Known(224, 7_595_176, 1_100_188_800, _NIN),
    "nin_cifar10": Known(32, 966_986, 222_486_528, {}),
    "googlenet": Known(224, 13_004_888, 1_498_376_192, {
        "inception3b": (59, 8), "inception4e": (235, 16), "inception5b": (379, 32),
    }),
    "googlenet_paper": Known(224, 13_378_280, 1_582_671_872, {
        "inception3b": (91, 8), "inception4e": (427, 16), "maxpool4": (459, 32),
        "inception5b": (715, 32),
    }),
    "inception_v2": Known(224, 11_194_984, 2_018_851_840, {
        "inception3a": (59, 8), "inception3b": (91, 8), "inception3c": (123, 16),
        "inception4d": (379, 16), "inception4e": (443, 32), "inception5b": (699, 32),
    }),
    "inception_v3": Known(299, 27_161_264, 5_713_216_096, _INCEPTION_V3),
    "inception_v4": Known(299, 42_679_816, 12_253_974_624, _INCEPTION_V4),
    "inception_resnet_v1": Known(299, 24_357_096, 6_308_597_856, {
        "repeat_2": (1183, 16), "mixed_7a": (1247, 32), "repeat_3": (1567, 32),
        "block8": (1631, 32),
    }),
    "inception_resnet_v2": Known(299, 55_843_464, 13_155_794_016, {
        "repeat_1": (2335, 16), "mixed_7a": (2399, 32), "block8": (3039, 32),
    }),
    "resnet18": Known(224, 11_689_512, 1_814_073_344, _stages(43, 99, 211, 435)),
    "resnet34": Known(224, 21_797_672, 3_663_761_408, _stages(59, 179, 547, 899)),
    "resnet50": Known(224, 25_557_032, 4_089_184_256, _stages(35, 91, 267, 427)),
    "resnet101": Known(224, 44_549_160, 7_801_405_440, _stages(35, 91, 811, 971)),
    "resnet152": Known(224, 60_192_808, 11_513_626_624, _stages(35, 155, 1291, 1451)),
    "resnext50_32x4d": Known(224, 25_028_904, 4_230_479_872, _stages(35, 91, 267, 427)),
    "resnext101_32x8d": Known(224, 88_791_336, 16_414_015_488, _stages(35, 91, 811, 971)),
    "resnext101_64x4d": Known(224, 83_455_272, 15_460_270_080, _stages(35, 91, 811, 971)),
    "wide_resnet50_2": Known(224, 68_883_240, 11_398_021_120, _stages(35, 91, 267, 427)),
    "wide_resnet101_2": Known(224, 126_886_696, 22_753_050_624, _stages(35, 91, 811, 971)),
    "densenet121": Known(224, 7_978_856, 2_834_161_664, _blocks(59, 255, 1031, 2071)),
    "densenet161": Known(224, 28_681_000, 7_727_907_072, _blocks(59, 255, 1415, 2967)),
    "densenet169": Known(224, 14_149_480, 3_359_843_328, _blocks(59, 255, 1287, 3351)),
    "densenet201": Known(224, 20_013_928, 4_291_365_888, _blocks(59, 255, 1799, 3863)),
}  # fmt: skip

#: Those that exist; of the large ones, whose weights take a while to fill in, some are slow tests.
NAMES: list[Any] = [
    pytest.param(name, marks=pytest.mark.slow)
    if KNOWN[name].parameters > 50e6 and name != "vgg16"
    else name
    for name in sorted(set(KNOWN) & set(models.list_models()))
]


class _Zeros:
    """A generator that draws nothing: the weights of large networks take seconds to draw."""

    def __getattr__(self, name: str) -> Any:
        raise AssertionError(f"expected a network that starts from uniform or normal: {name}")

    def uniform(self, low: float, high: float, size: Any = None) -> Any:
        return np.zeros(size)

    def random(self, size: Any = None, dtype: Any = float) -> Any:
        return np.full(size, 0.5, dtype)

    def standard_normal(self, size: Any = None, dtype: Any = float) -> Any:
        return np.zeros(size, dtype)


@contextmanager
def blank_weights() -> Iterator[None]:
    """Networks that are built inside have no random weights, which makes that quick."""
    generator = _random.default.generator
    _random.default.generator = _Zeros()  # type: ignore[assignment]
    try:
        yield
    finally:
        _random.default.generator = generator


def blank(name: str, **options: Any) -> nn.Module:
    """A network by name, without random weights."""
    with blank_weights():
        return models.get_model(name, **options)
