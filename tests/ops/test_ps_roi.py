"""Position-sensitive RoI pooling and align: the specification's values, gradients, messages."""

from __future__ import annotations

import numpy as np
import pytest

import oxidet
from conftest import check_gradients
from oxidet import nn, ops

MAP = np.arange(192.0, dtype=np.float32).reshape(1, 4, 6, 8)
ROI = np.array([[0, 4, 2, 22, 15]])


def test_values_of_the_specification() -> None:
    got = ops.ps_roi_pool(MAP, ROI, 2, 0.25)
    np.testing.assert_array_equal(got, [[[[14, 64], [118, 168]]]])
    got = ops.ps_roi_align(MAP, ROI, 2, 0.25, 2)
    np.testing.assert_array_equal(got, [[[[8.125, 58.375], [117.125, 167.375]]]])


@pytest.mark.parametrize("ratio", [-1, 1, 3])
def test_gradient_of_align(ratio: int) -> None:
    x = np.random.default_rng(0).standard_normal((2, 12, 5, 4))
    rois = np.array([[0, 0.3, 0.2, 3.1, 4.4], [1, 2, 2, 9, 9], [1, -3, 1, 1, 1.5]])
    check_gradients(lambda x: ops.ps_roi_align(x, rois, (2, 3), 1.0, ratio), x, step=0.1)


def test_gradient_of_pooling() -> None:
    # Regions away from the last row and column, where torchvision's gradient is not that of its
    # forward pass (and ours is torchvision's).
    x = np.random.default_rng(0).standard_normal((2, 12, 7, 6))
    rois = np.array([[0, 0, 0, 4, 3], [1, 1, 1, 5, 5], [1, 0, 0, 0, 0], [0, -9, -9, -2, -2]])
    check_gradients(lambda x: ops.ps_roi_pool(x, rois, (2, 3)), x, step=0.1)


def test_the_last_row_and_column_are_left_out_of_the_forward_pass_only() -> None:
    ramp = np.zeros((1, 1, 4, 4), np.float32)
    ramp[0, 0, 3] = ramp[0, 0, :, 3] = 9
    x = nn.Tensor(ramp, requires_grad=True)
    out = ops.ps_roi_pool(x, np.array([[0, 0, 0, 4, 4]]), 1)
    assert out.item() == 0
    out.backward(np.full((1, 1, 1, 1), 16))
    np.testing.assert_array_equal(x.grad, np.ones((1, 1, 4, 4)))


def test_degenerate_regions() -> None:
    ones = np.ones((1, 1, 4, 4))
    point = [np.array([[2, 2, 2, 2]])]
    assert np.isnan(ops.ps_roi_align(ones, point, 1).item())
    assert ops.ps_roi_align(ones, point, 1, 1.0, 2).item() == 1
    assert ops.ps_roi_pool(ones, point, 1).item() == 1  # at least one pixel
    assert ops.ps_roi_pool(ones, [np.array([[9, 9, 12, 12]])], 1).item() == 0
    for far in (1e6, 1e12, 3e38):
        huge = [np.array([[-far, -far, far, far]])]
        assert 0 <= ops.ps_roi_align(ones, huge, 1).item() < 1
        assert ops.ps_roi_pool(ones, huge, 1).item() in (0, 1)


def test_layouts_types_and_no_regions() -> None:
    x = np.random.default_rng(0).standard_normal((2, 12, 6, 7)).astype(np.float32)
    last = np.ascontiguousarray(x.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
    rois = np.array([[1, 0, 0, 5, 5], [0, 2, 1, 6, 4]])
    for op in (ops.ps_roi_pool, ops.ps_roi_align):
        expected = op(x, rois, (2, 3))
        assert expected.shape == (2, 2, 2, 3)
        assert expected.flags.c_contiguous
        for form in (last, np.asfortranarray(x), x.astype(np.float64), x.astype(">f4")):
            np.testing.assert_array_equal(op(form, rois, (2, 3)), expected)
        tensor = nn.Tensor(x, requires_grad=True)
        empty = op(tensor, np.zeros((0, 5)), (2, 3))
        assert empty.shape == (0, 2, 2, 3)
        empty.sum().backward()
        np.testing.assert_array_equal(tensor.grad, np.zeros_like(x))


def test_results_do_not_depend_on_the_number_of_threads() -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2, 98, 20, 21)).astype(np.float32)
    corners = rng.uniform(0, 12, (60, 2, 2)).cumsum(axis=1).reshape(60, 4)
    rois = np.column_stack([rng.integers(0, 2, 60), corners]).astype(np.float32)

    def run(op, threads: int) -> tuple[bytes, bytes]:
        oxidet.set_num_threads(threads)
        tensor = nn.Tensor(x, requires_grad=True)
        out = op(tensor, rois, 7)
        out.sum().backward()
        assert tensor.grad is not None
        return out.numpy().tobytes(), tensor.grad.tobytes()

    for op in (ops.ps_roi_pool, ops.ps_roi_align):
        assert run(op, 1) == run(op, 2) == run(op, 5)


def test_layers_print_as_torchvisions_and_call_the_functions() -> None:
    pool, align = ops.PSRoIPool(2, 0.25), ops.PSRoIAlign((2, 2), 0.25, 2)
    assert repr(pool) == "PSRoIPool(output_size=2, spatial_scale=0.25)"
    assert repr(align) == "PSRoIAlign(output_size=(2, 2), spatial_scale=0.25, sampling_ratio=2)"
    np.testing.assert_array_equal(pool(MAP, ROI), ops.ps_roi_pool(MAP, ROI, 2, 0.25))
    np.testing.assert_array_equal(align(MAP, ROI), ops.ps_roi_align(MAP, ROI, 2, 0.25, 2))


@pytest.mark.parametrize("op", [ops.ps_roi_pool, ops.ps_roi_align])
def test_bad_input_is_named(op) -> None:
    bad = [
        (np.zeros((1, 5, 4, 4)), np.zeros((1, 5)), 2, "input: expected channels in a multiple of"),
        (np.zeros((1, 4, 4, 4)), np.zeros((1, 4)), 2, r"boxes: expected shape \(R, 5\)"),
        (np.zeros((1, 4, 4, 4)), np.array([[1, 0, 0, 1, 1]]), 2, "batch index.*in row 0"),
        (np.zeros((1, 4, 4, 4)), np.array([[0, 0, np.inf, 1, 1]]), 2, "finite.*in row 0"),
        (np.zeros((1, 4, 4, 4)), np.zeros((1, 5)), 0, "output_size: expected"),
        (np.zeros((4, 4, 4)), np.zeros((1, 5)), 2, "input: expected 4 dimensions"),
    ]
    for x, rois, size, message in bad:
        with pytest.raises(ValueError, match=message):
            op(x, rois, size)
    with pytest.raises(ValueError, match="spatial_scale: expected"):
        op(np.zeros((1, 4, 4, 4)), np.zeros((1, 5)), 2, -1.0)
