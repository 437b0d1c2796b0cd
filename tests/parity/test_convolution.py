"""conv2d and linear against torch: outputs and all gradients."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from conftest import assert_close
from oxidet import nn
from oxidet.nn import functional as F

torch = pytest.importorskip("torch")

# (input, weight, options): every layer form of the zoo, and the edges around one.
CASES = [
    ((2, 3, 8, 8), (5, 3, 3, 3), {}),
    ((1, 3, 33, 35), (16, 3, 7, 7), {"stride": 2, "padding": 3}),
    ((1, 3, 23, 23), (6, 3, 11, 11), {"stride": 4, "padding": 2}),
    ((2, 64, 14, 14), (32, 64, 1, 1), {}),
    ((2, 64, 15, 13), (32, 64, 1, 1), {"stride": 2}),
    ((1, 128, 7, 7), (96, 128, 3, 3), {"padding": 1}),
    ((1, 32, 17, 17), (24, 32, 1, 7), {"padding": (0, 3)}),
    ((1, 32, 17, 17), (24, 32, 7, 1), {"padding": (3, 0)}),
    ((1, 12, 9, 9), (12, 1, 3, 3), {"padding": 1, "groups": 12}),
    ((1, 12, 9, 9), (24, 1, 3, 3), {"padding": 1, "groups": 12, "stride": 2}),
    ((2, 8, 10, 11), (12, 4, 3, 3), {"groups": 2, "padding": 1}),
    ((1, 4, 16, 16), (4, 4, 3, 3), {"dilation": 2, "padding": 2}),
    ((1, 4, 16, 13), (4, 4, 3, 3), {"dilation": (3, 2), "stride": (2, 3), "padding": (0, 4)}),
    ((1, 2, 3, 3), (3, 2, 3, 3), {}),
    ((3, 1, 1, 1), (1, 1, 1, 1), {}),
    ((1, 3, 6, 6), (4, 3, 4, 4), {"padding": "same"}),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case[0]} * {case[1]} {case[2]}")
@pytest.mark.parametrize("with_bias", [True, False])
def test_conv2d(case, with_bias: bool) -> None:
    input_shape, weight_shape, options = case
    rng = np.random.default_rng(0)
    arrays = [rng.standard_normal(s).astype(np.float32) for s in (input_shape, weight_shape)]
    if with_bias:
        arrays.append(rng.standard_normal(weight_shape[0]).astype(np.float32))
    theirs = [torch.tensor(a, requires_grad=True) for a in arrays]
    ours = [nn.Tensor(a, requires_grad=True) for a in arrays]
    expected = torch.nn.functional.conv2d(*theirs, **options)
    got = F.conv2d(*ours, **options)
    assert_close(got, expected.detach(), 1e-5, "output")
    layer = nn.Conv2d(
        input_shape[1], weight_shape[0], weight_shape[2:], bias=with_bias, **options
    ).eval()
    layer.weight = arrays[1]
    if with_bias:
        layer.bias = arrays[2]
    layer.compiled = True
    assert_close(layer(arrays[0]), expected.detach(), 1e-4, "plan")
    grad = rng.standard_normal(expected.shape).astype(np.float32)
    expected.backward(torch.tensor(grad))
    got.backward(grad)
    for name, a, b in zip(("input", "weight", "bias"), ours, theirs, strict=False):
        assert_close(a.grad, b.grad, 1e-5, f"gradient of {name}")


@pytest.mark.parametrize(
    ("batch", "sizes"),
    list(itertools.product([1, 2, 257], [(1, 1), (3, 5), (256, 255), (100, 300)])),
)
def test_linear(batch: int, sizes: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    shapes = [(batch, sizes[0]), (sizes[1], sizes[0]), (sizes[1],)]
    arrays = [rng.standard_normal(s).astype(np.float32) for s in shapes]
    theirs = [torch.tensor(a, requires_grad=True) for a in arrays]
    ours = [nn.Tensor(a, requires_grad=True) for a in arrays]
    expected, got = torch.nn.functional.linear(*theirs), F.linear(*ours)
    assert_close(got, expected.detach(), 1e-5, "output")
    expected.square().sum().backward()
    (got * got).sum().backward()
    for name, a, b in zip(("input", "weight", "bias"), ours, theirs, strict=True):
        assert_close(a.grad, b.grad, 1e-5, f"gradient of {name}")


def test_text_of_layers_is_torchs() -> None:
    pairs = [
        (nn.Conv2d(3, 4, 3), torch.nn.Conv2d(3, 4, 3)),
        (
            nn.Conv2d(4, 8, (1, 7), 2, (0, 3), 2, 4, False),
            torch.nn.Conv2d(4, 8, (1, 7), 2, (0, 3), 2, 4, False),
        ),
        (
            nn.Conv2d(4, 6, 3, padding="same", groups=2, bias=False, padding_mode="reflect"),
            torch.nn.Conv2d(4, 6, 3, padding="same", groups=2, bias=False, padding_mode="reflect"),
        ),
        (nn.Conv2d(4, 6, 3, padding="valid"), torch.nn.Conv2d(4, 6, 3, padding="valid")),
        (nn.Linear(3, 4, bias=False), torch.nn.Linear(3, 4, bias=False)),
        (
            nn.ModuleList([nn.Linear(1, 1), nn.Linear(1, 1)]),
            torch.nn.ModuleList([torch.nn.Linear(1, 1), torch.nn.Linear(1, 1)]),
        ),
    ]
    for ours, theirs in pairs:
        assert str(ours) == str(theirs)


def test_asymmetric_padding_is_printed_by_sides() -> None:
    text = "Conv2d(3, 4, kernel_size=(3, 3), stride=(2, 2), padding=((0, 1), (2, 3)))"
    assert str(nn.Conv2d(3, 4, 3, 2, ((0, 1), (2, 3)))) == text
    assert str(nn.Conv2d(3, 4, 3, 2, ((1, 1), (2, 2)))).endswith("padding=(1, 2))")
