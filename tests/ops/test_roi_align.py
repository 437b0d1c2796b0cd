"""RoI align: the specification's values, gradients, degenerate regions; both layers' text."""

from __future__ import annotations

import numpy as np
import pytest

from conftest import check_gradients
from oxidet import nn, ops

MAP = np.arange(48.0, dtype=np.float32).reshape(1, 1, 6, 8)


def test_values_of_the_specification() -> None:
    rois = np.array([[0, 4, 2, 22, 15]])
    got = ops.roi_align(MAP, rois, (2, 3), 0.25, 2)
    np.testing.assert_allclose(got[0, 0], [[12.25, 13.75, 15.25], [25.25, 26.75, 28.25]])
    got = ops.roi_align(MAP, rois, (2, 3), 0.25, 2, aligned=True)
    np.testing.assert_allclose(got[0, 0], [[7.75, 9.25, 10.75], [20.75, 22.25, 23.75]])


@pytest.mark.parametrize(("ratio", "aligned"), [(-1, False), (2, True), (3, False), (0, True)])
def test_gradient(ratio: int, aligned: bool) -> None:
    x = np.random.default_rng(0).standard_normal((2, 2, 5, 4))
    rois = np.array([[0, 0.3, 0.2, 3.1, 4.4], [1, 2, 2, 9, 9], [1, -3, 1, 1, 1.5]])
    check_gradients(lambda x: ops.roi_align(x, rois, (2, 3), 1.0, ratio, aligned), x, step=0.1)


def on_ones(roi: list[float], ratio: int, aligned: bool) -> float:
    boxes = [np.array([roi])]
    return ops.roi_align(np.ones((1, 1, 4, 4)), boxes, 1, 1.0, ratio, aligned).item()


def test_samples_outside_count_in_the_divisor() -> None:
    assert on_ones([3, 3, 5, 5], 2, False) == 0.25


def test_degenerate_regions() -> None:
    point = [2, 2, 2, 2]
    assert on_ones(point, 0, True) == 0  # no samples
    assert on_ones(point, 2, True) == 1  # four samples at the point
    assert on_ones(point, 0, False) == 1  # one pixel large
    assert on_ones([3, 1, 1, 3], 0, True) == 0
    assert on_ones([3, 3, 1, 1], 0, True) == 0


@pytest.mark.parametrize("far", [1e6, 1e12, 3e38])
def test_a_region_of_any_size_ends(far: float) -> None:
    assert 0 <= on_ones([-far, -far, far, far], 0, True) < 1


def test_regions_are_constants() -> None:
    rois = nn.Tensor(np.array([[0.0, 0, 0, 2, 2]]), requires_grad=True)
    for op in (ops.roi_pool, ops.roi_align):
        features = nn.Tensor(np.ones((1, 1, 4, 4)), requires_grad=True)
        op(features, rois, 2).sum().backward()
        assert rois.grad is None
        assert features.grad is not None
        np.testing.assert_allclose(features.grad.sum(), 4)


def test_sampling_ratio_is_checked() -> None:
    features, rois = np.ones((1, 1, 4, 4)), np.zeros((0, 5))
    with pytest.raises(TypeError, match="sampling_ratio: expected an integer"):
        ops.roi_align(features, rois, 2, 1.0, 2.5)
    for huge in (65537, 2**40, 2**70):
        with pytest.raises(ValueError, match="sampling_ratio: expected an integer of at most"):
            ops.roi_align(features, rois, 2, 1.0, huge)


def test_layers_print_as_torchvisions_and_call_the_functions() -> None:
    assert repr(ops.RoIPool(7, 1 / 16)) == "RoIPool(output_size=7, spatial_scale=0.0625)"
    assert repr(ops.RoIAlign((7, 7), 0.25, 2)) == (
        "RoIAlign(output_size=(7, 7), spatial_scale=0.25, sampling_ratio=2, aligned=False)"
    )
    rois = np.array([[0, 4, 2, 22, 15]])
    np.testing.assert_array_equal(
        ops.RoIAlign((2, 3), 0.25, 2, True)(MAP, rois),
        ops.roi_align(MAP, rois, (2, 3), 0.25, 2, True),
    )
    np.testing.assert_array_equal(
        ops.RoIPool((2, 3), 0.25)(MAP, rois), ops.roi_pool(MAP, rois, (2, 3), 0.25)
    )


@pytest.mark.parametrize("function", [ops.roi_pool, ops.roi_align])
def test_arguments_of_both_operators_are_named(function) -> None:
    features, rois = np.ones((1, 1, 4, 4)), np.array([[0, 0, 0, 3, 3]])
    bad = [
        (MemoryError, "output_size: .* fits into memory", lambda: function(features, rois, 2**22)),
        (ValueError, "output_size: .* be addressed", lambda: function(features, rois, 2**31 - 1)),
        (ValueError, "output_size: expected values", lambda: function(features, rois, 2**70)),
        (TypeError, "spatial_scale: expected a", lambda: function(features, rois, 2, "1")),
        (ValueError, r"boxes: expected .*\(R, 5\)", lambda: function(features, rois[:, 1:], 2)),
        (
            ValueError,
            r"boxes: expected .*\(R, 5\)",
            lambda: function(features, nn.Tensor(rois[:, 1:]), 2),
        ),
        (ValueError, r"boxes\[0\]: expected", lambda: function(features, [[[1], [1, 2]]], 2)),
    ]
    for error, message, call in bad:
        with pytest.raises(error, match=message):
            call()


@pytest.mark.parametrize("layer", [ops.RoIPool, ops.RoIAlign, ops.PSRoIPool, ops.PSRoIAlign])
def test_a_layer_refuses_a_scale_that_is_no_number(layer: type) -> None:
    more = () if layer in (ops.RoIPool, ops.PSRoIPool) else (2,)
    with pytest.raises(ValueError, match="spatial_scale: expected a number, got nan"):
        layer(2, float("nan"), *more)
