"""ZFNet, and its wider form."""

from __future__ import annotations

import numpy as np
import pytest

from networks import check_batches, check_size, layer_shapes, spread, thin, without_dropout
from oxidet import models, nn
from training import check_gradients_along, learn_digits


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("zfnet", (62_357_608, 1_168_032_896, 16)),
        pytest.param("zfnet_wide", (107_627_624, 2_476_704_896, 16), marks=pytest.mark.slow),
    ],
)
def test_sizes(name: str, size: tuple[int, int, int]) -> None:
    model = getattr(models, name)()
    check_size(model, (3, 224, 224), *size)
    for module in model.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            assert abs(np.asarray(module.weight).std() / 0.01 - 1) < 0.02
            assert not np.asarray(module.bias).any()


def test_the_maps_have_the_sizes_of_the_paper() -> None:
    with thin(8):
        model, wide = models.zfnet(num_classes=10), models.zfnet_wide(num_classes=10)
    layers = ["features.0", "features.2", "features.4", "features.6", "features.12", "features.14"]
    assert layer_shapes(model, (3, 224, 224), layers) == [
        (12, 110, 110),
        (12, 55, 55),
        (32, 26, 26),
        (32, 13, 13),
        (32, 13, 13),
        (32, 6, 6),
    ]
    assert layer_shapes(wide, (3, 224, 224), ["features.8", "features.10", "features.12"]) == [
        (64, 13, 13),
        (128, 13, 13),
        (64, 13, 13),
    ]


def test_plan_gradients_and_training() -> None:
    pytest.importorskip("sklearn")
    with thin(8):
        model = spread(models.zfnet(num_classes=10))
    check_batches(model, (3, 224, 224))
    model.classifier[0] = nn.Linear(32, 512)  # 64 x 64 images leave one place
    x = np.random.default_rng(0).standard_normal((1, 3, 64, 64)).astype(np.float32)
    check_gradients_along(spread(model), x, most=20)
    assert learn_digits(without_dropout(spread(model)), 64, lr=0.001) > 0.5


def test_bad_arguments_are_named() -> None:
    with pytest.raises(ValueError, match=r"widths: expected three numbers of channels, got \[1\]"):
        models.ZFNet(widths=[1])
    with thin(8):
        model = models.zfnet(num_classes=10).eval()
    with pytest.raises(ValueError, match=r"layer \S+: input: expected"):
        model(np.zeros((1, 3, 20, 224), np.float32))
