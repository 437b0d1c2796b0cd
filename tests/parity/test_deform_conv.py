"""Deformable convolution against torchvision: results and all gradients."""

from __future__ import annotations

import numpy as np
import pytest

from conftest import assert_close
from oxidet import nn, ops

torch = pytest.importorskip("torch")
theirs = pytest.importorskip("torchvision").ops

# (N, C, H, W), O, kernel, stride, padding, dilation, groups, offset groups.
CASES = [
    ((1, 1, 1, 1), 1, (1, 1), 1, 0, 1, 1, 1),
    ((2, 6, 9, 11), 4, (3, 3), 1, 1, 1, 1, 1),
    ((2, 6, 9, 11), 4, (3, 2), (2, 1), (1, 0), (1, 2), 2, 3),
    ((3, 12, 7, 5), 6, (1, 3), 1, (0, 1), 1, 3, 2),
    ((1, 64, 20, 21), 32, (3, 3), 1, 1, 1, 1, 4),
    ((1, 130, 8, 9), 10, (5, 5), 2, 2, 1, 10, 1),
]


@pytest.mark.parametrize("scale", [0.0, 0.5, 5.0])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_results_and_gradients(case, masked: bool, scale: float) -> None:
    shape, outputs, kernel, stride, padding, dilation, groups, offset_groups = case
    rng = np.random.default_rng(0)
    weight = rng.standard_normal((outputs, shape[1] // groups, *kernel))
    plain = torch.nn.functional.conv2d(
        torch.zeros(shape), torch.zeros(weight.shape), None, stride, padding, dilation, groups
    )
    samples, size = offset_groups * kernel[0] * kernel[1], plain.shape[2:]
    # A scale of 0: taps on pixels, and beside the image, where slopes have a side to choose.
    arrays = [
        rng.standard_normal(shape),
        scale * rng.standard_normal((shape[0], 2 * samples, *size)),
        weight,
        rng.standard_normal(outputs),
        *([rng.uniform(0, 1, (shape[0], samples, *size))] if masked else []),
    ]
    mine = [nn.Tensor(a, requires_grad=True) for a in arrays]
    others = [torch.tensor(a.astype(np.float32), requires_grad=True) for a in arrays]
    options = (stride, padding, dilation)
    got = ops.deform_conv2d(*mine[:4], *options, *mine[4:])
    expected = theirs.deform_conv2d(*others[:4], *options, *others[4:])
    assert_close(got, expected.detach(), 1e-5)
    grad = rng.standard_normal(expected.shape).astype(np.float32)
    got.backward(grad)
    expected.backward(torch.tensor(grad))
    names = ("input", "offset", "weight", "bias", "mask")
    for name, a, b in zip(names, mine, others, strict=False):
        assert_close(a.grad, b.grad, 1e-4 if name == "offset" else 2e-5, name)


def test_layer() -> None:
    ours = ops.DeformConv2d(6, 8, (3, 2), 2, 1, 2, 2)
    other = theirs.DeformConv2d(6, 8, (3, 2), 2, 1, 2, 2)
    assert repr(ours) == repr(other)
    assert list(ours.state_dict()) == list(other.state_dict())
    ours.load_state_dict({key: value.numpy() for key, value in other.state_dict().items()})
    x = np.random.default_rng(0).standard_normal((1, 6, 9, 9)).astype(np.float32)
    offset = np.random.default_rng(1).standard_normal((1, 12, 4, 5)).astype(np.float32)
    got = ours.eval()(x, offset)
    assert_close(got, other(torch.tensor(x), torch.tensor(offset)).detach(), 1e-5)
    assert repr(ops.DeformConv2d(4, 4, 1, bias=False)) == repr(
        theirs.DeformConv2d(4, 4, 1, bias=False)
    )
