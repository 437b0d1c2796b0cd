"""Deformable convolution: against the ordinary one, gradients, messages, text."""

from __future__ import annotations

import numpy as np
import pytest

import oxidet
from conftest import assert_close, check_gradients
from oxidet import nn, ops
from oxidet.nn import functional as F


def random(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape)


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("dilation", [1, 2])
def test_without_offsets_it_is_a_convolution(groups: int, dilation: int) -> None:
    x, weight, bias = random(2, 4, 9, 8), random(6, 4 // groups, 3, 2), random(6)
    expected = F.conv2d(x, weight, bias, (2, 1), (1, 2), dilation, groups)
    offset = np.zeros((2, 2 * 6, *expected.shape[2:]))
    options = {"stride": (2, 1), "padding": (1, 2), "dilation": dilation}
    assert_close(ops.deform_conv2d(x, offset, weight, bias, **options), expected, 1e-5)
    mask = np.full((2, 2 * 6, *expected.shape[2:]), 0.5)
    twice = ops.deform_conv2d(x, np.tile(offset, (1, 2, 1, 1)), weight, mask=mask, **options)
    assert_close(2 * twice + bias.astype(np.float32)[:, None, None], expected, 1e-5)


def test_whole_offsets_move_the_input() -> None:
    x, weight = random(1, 3, 8, 9), random(4, 3, 3, 3)
    moved = np.zeros_like(x)
    moved[:, :, :6, 1:] = x[:, :, 2:, :8]
    offset = np.tile(np.array([2.0, -1.0]), 9)[None, :, None, None] * np.ones((1, 1, 8, 9))
    got = ops.deform_conv2d(x, offset, weight, padding=1)
    # Away from the border, where the moved taps of one and the zeros of the other differ.
    expected = F.conv2d(moved, weight, padding=1)
    assert_close(got[:, :, 1:5, 2:8], expected[:, :, 1:5, 2:8], 1e-5)


@pytest.mark.parametrize(("groups", "offset_groups"), [(1, 1), (2, 1), (1, 2), (2, 4)])
def test_gradients(groups: int, offset_groups: int) -> None:
    x, weight, bias = random(2, 4, 4, 5), random(2, 4 // groups, 2, 2, seed=1), random(2, seed=2)
    shape = (2, offset_groups * 4, 3, 4)
    # No sample within a step of a pixel, where the slope changes.
    offset = np.random.default_rng(3).choice([-1.5, -0.6, 0.4, 0.7], (2, shape[1] * 2, 3, 4))
    mask = np.random.default_rng(4).uniform(0.5, 1.5, shape)

    def function(x, offset, weight, bias, mask):  # type: ignore[no-untyped-def]
        return ops.deform_conv2d(x, offset, weight, bias, (2, 1), (1, 0), 1, mask)

    check_gradients(function, x, offset, weight, bias, mask, step=0.05)


def test_results_do_not_depend_on_the_number_of_threads() -> None:
    x, weight = random(2, 70, 9, 9).astype(np.float32), random(8, 70, 3, 3).astype(np.float32)
    offset = 2 * random(2, 18, 9, 9).astype(np.float32)

    def run(threads: int) -> list[bytes]:
        oxidet.set_num_threads(threads)
        tensors = [nn.Tensor(a, requires_grad=True) for a in (x, offset, weight)]
        out = ops.deform_conv2d(*tensors, padding=1)
        out.sum().backward()
        return [out.numpy().tobytes(), *(np.asarray(t.grad).tobytes() for t in tensors)]

    assert run(1) == run(2) == run(5)


def test_offsets_of_any_size_read_nothing() -> None:
    for wild in (np.nan, np.inf, -np.inf, 1e30, -1e30):
        offset = np.full((1, 2, 3, 3), wild)
        tensors = [nn.Tensor(a, requires_grad=True) for a in (np.ones((1, 1, 3, 3)), offset)]
        out = ops.deform_conv2d(*tensors, np.ones((1, 1, 1, 1)))
        np.testing.assert_array_equal(out, np.zeros((1, 1, 3, 3)))
        out.sum().backward()
        for tensor in tensors:
            np.testing.assert_array_equal(tensor.grad, np.zeros(tensor.shape))


def test_an_empty_batch() -> None:
    out = ops.deform_conv2d(np.zeros((0, 2, 5, 5)), np.zeros((0, 18, 3, 3)), np.ones((4, 2, 3, 3)))
    assert out.shape == (0, 4, 3, 3)


def test_layer() -> None:
    layer = ops.DeformConv2d(4, 6, 3, padding=1, groups=2)
    assert repr(layer) == (
        "DeformConv2d(4, 6, kernel_size=(3, 3), stride=(1, 1), padding=(1, 1), groups=2)"
    )
    assert {k: v.shape for k, v in layer.state_dict().items()} == {
        "weight": (6, 2, 3, 3),
        "bias": (6,),
    }
    x, offset, mask = random(1, 4, 5, 5), random(1, 18, 5, 5), random(1, 9, 5, 5)
    expected = ops.deform_conv2d(x, offset, layer.weight.data, layer.bias.data, 1, 1, 1, mask)
    np.testing.assert_array_equal(layer.eval()(x, offset, mask), expected)
    layer.train()(x, offset).sum().backward()
    assert layer.weight.grad is not None
    with pytest.raises(ValueError, match="in_channels: expected a multiple of groups=2, got 3"):
        ops.DeformConv2d(3, 6, 3, groups=2)


def test_bad_input_is_named() -> None:
    good = {
        "input": np.zeros((1, 4, 5, 5)),
        "offset": np.zeros((1, 18, 3, 3)),
        "weight": np.zeros((2, 4, 3, 3)),
        "mask": np.zeros((1, 9, 3, 3)),
    }
    ops.deform_conv2d(**good)
    for change, message in [
        ({"offset": np.zeros((1, 17, 3, 3))}, r"offset: expected channels in a multiple of 2"),
        ({"offset": np.zeros((1, 0, 3, 3))}, r"offset: expected channels in a multiple of 2"),
        ({"offset": np.zeros((1, 54, 3, 3))}, "offset: expected offset groups that divide 4"),
        ({"offset": np.zeros((1, 18, 5, 5))}, r"offset: expected shape \(1, 18, 3, 3\)"),
        ({"offset": np.zeros((2, 18, 3, 3))}, "offset: expected shape"),
        ({"mask": np.zeros((1, 18, 3, 3))}, "mask: expected shape"),
        ({"mask": np.zeros((1, 9, 3, 2))}, "mask: expected shape"),
        ({"weight": np.zeros((2, 3, 3, 3))}, "weight: expected a divisor of 4 channels"),
        ({"weight": np.zeros((3, 2, 3, 3))}, "groups: expected a divisor"),
        ({"bias": np.zeros(3)}, r"bias: expected shape \(2,\)"),
        ({"input": np.zeros((1, 4, 2, 2))}, "input: expected at least 3 x 3 pixels"),
        ({"stride": 0}, "stride: expected values of at least 1"),
    ]:
        with pytest.raises(ValueError, match=message):
            ops.deform_conv2d(**{**good, **change})
