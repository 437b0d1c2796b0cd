"""Feature pyramids and pooling from them against torchvision: state, text, results, gradients."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import numpy as np
import pytest

from conftest import assert_close
from oxidet import nn, ops

torch = pytest.importorskip("torch")
theirs = pytest.importorskip("torchvision").ops
their_extra = pytest.importorskip("torchvision.ops.feature_pyramid_network")


def load(ours: nn.Module, other: Any) -> None:
    """Random state for theirs, the same for ours; equal keys."""
    state = {
        key: torch.rand_like(value) + 0.5 if value.is_floating_point() else value
        for key, value in other.state_dict().items()
    }
    other.load_state_dict(state)
    assert list(ours.state_dict()) == list(state)
    ours.load_state_dict({key: value.numpy() for key, value in state.items()})


EXTRA = {
    "none": lambda module: None,
    "pool": lambda module: module.LastLevelMaxPool(),
    "p6p7, from the pyramid": lambda module: module.LastLevelP6P7(8, 8),
    "p6p7, from the maps": lambda module: module.LastLevelP6P7(16, 8),
}


@pytest.mark.parametrize("norm", [False, True])
@pytest.mark.parametrize("extra", EXTRA)
def test_feature_pyramid(extra: str, norm: bool) -> None:
    torch.manual_seed(0)
    make = EXTRA[extra]
    ours = ops.FeaturePyramidNetwork([4, 12, 16], 8, make(ops), nn.BatchNorm2d if norm else None)
    other = theirs.FeaturePyramidNetwork(
        [4, 12, 16], 8, make(their_extra), torch.nn.BatchNorm2d if norm else None
    )
    load(ours, other)
    if not norm:  # torch 2.13 prints one more argument of batch norm
        assert repr(ours) == repr(other)
    ours.eval(), other.eval()
    # Sizes that are not multiples of each other.
    shapes = {"a": (2, 4, 21, 30), "b": (2, 12, 11, 15), "c": (2, 16, 5, 8)}
    x = {
        name: np.random.default_rng(0).standard_normal(s).astype(np.float32)
        for name, s in shapes.items()
    }
    mine = {name: nn.Tensor(v, requires_grad=True) for name, v in x.items()}
    tensors = OrderedDict((name, torch.tensor(v, requires_grad=True)) for name, v in x.items())
    got, expected = ours(mine), other(tensors)
    assert list(got) == list(expected)
    for name, level in expected.items():
        assert_close(got[name], level.detach(), 2e-5, name)
    sum((level * level).sum() for level in got.values()).backward()
    sum((level * level).sum() for level in expected.values()).backward()
    for name in shapes:
        assert_close(mine[name].grad, tensors[name].grad, 5e-5, name)


def test_blocks_print_as_torchvisions() -> None:
    for make in (
        lambda o, n: o.FrozenBatchNorm2d(5, 1e-3),
        lambda o, n: o.Conv2dNormActivation(4, 6, 5, 2, dilation=2, norm_layer=None),
        lambda o, n: o.Conv2dNormActivation(4, 6, norm_layer=None, inplace=None, groups=2),
        lambda o, n: o.Conv2dNormActivation(4, 6, 1, padding=0, activation_layer=None, bias=True),
        lambda o, n: o.MultiScaleRoIAlign(["a", "b"], 3, 2),
        lambda o, n: o.MultiScaleRoIAlign(["a"], (3, 4), -1, canonical_scale=100),
    ):
        with nn.repr_style("torch2.13"):
            assert repr(make(ops, nn)) == repr(make(theirs, torch.nn))


def test_frozen_batch_norm() -> None:
    ours, other = ops.FrozenBatchNorm2d(7), theirs.FrozenBatchNorm2d(7)
    load(ours, other)
    x = np.random.default_rng(0).standard_normal((2, 7, 5, 6)).astype(np.float32)
    assert_close(ours.eval()(x), other(torch.tensor(x)), 1e-6)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("names", [["0", "1", "2", "3"], ["1", "3"], ["2"]], ids=str)
def test_multi_scale_roi_align(names: list[str], seed: int) -> None:
    rng = np.random.default_rng(seed)
    sizes = {"0": (50, 76), "1": (25, 38), "2": (13, 19), "3": (7, 10)}
    x = {n: rng.standard_normal((2, 5, *s)).astype(np.float32) for n, s in sizes.items()}
    corners = rng.uniform(0, 200, (2, 30, 2))
    extents = np.exp(rng.uniform(0, 6, (2, 30, 2)))
    extents[:, ::9] = 0
    boxes = list(np.concatenate([corners, corners + extents], 2).astype(np.float32))
    shapes = [(200, 300), (190, 304)]
    ours = ops.MultiScaleRoIAlign(names, (3, 4), 2)
    other = theirs.MultiScaleRoIAlign(names, (3, 4), 2)
    mine = {n: nn.Tensor(v, requires_grad=True) for n, v in x.items()}
    tensors = {n: torch.tensor(v, requires_grad=True) for n, v in x.items()}
    got = ours(mine, boxes, shapes)
    expected = other(tensors, [torch.tensor(b) for b in boxes], shapes)
    assert ours.scales == other.scales
    assert_close(got, expected.detach(), 2e-6)
    grad = rng.standard_normal(expected.shape).astype(np.float32)
    got.backward(grad)
    expected.backward(torch.tensor(grad))
    for name in names:
        assert_close(mine[name].grad, tensors[name].grad, 1e-5, name)
