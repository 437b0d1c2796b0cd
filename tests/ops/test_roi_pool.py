"""RoI max pooling: the specification's values, gradients, edges, messages."""

from __future__ import annotations

import numpy as np
import pytest

import oxidet
from conftest import check_gradients
from oxidet import nn, ops
from oxidet.ops._roi_pool import roi_pool_

MAP = np.arange(48.0, dtype=np.float32).reshape(1, 1, 6, 8)


def test_values_of_the_specification() -> None:
    got = ops.roi_pool(MAP, [np.array([[4, 2, 22, 15]])], (2, 3), 0.25)
    np.testing.assert_array_equal(got, [[[[18, 20, 22], [34, 36, 38]]]])


def test_gradient() -> None:
    # Distinct values further apart than the step of the differences.
    x = np.random.default_rng(0).permutation(2 * 3 * 5 * 6).reshape(2, 3, 5, 6)
    rois = np.array([[0, 0, 0, 4, 3], [1, 1, 1, 9, 9], [1, 0, 0, 2, 2], [0, 9, 9, 12, 12]])
    check_gradients(lambda x: ops.roi_pool(x, rois, (2, 3)), x, step=0.25)


@pytest.mark.parametrize("corner", [8.0, 24.0, 40.0, 56.0])
def test_halves(corner: float) -> None:
    ramp = np.arange(16, dtype=np.float32).reshape(1, 1, 1, 16)
    rois = np.array([[0, corner, 0, corner, 0]], np.float32)
    options = {"output_size": (1, 1), "spatial_scale": 1 / 16, "float64_edges": False}
    away = roi_pool_(ramp, rois, half_to_even=False, **options)
    even = roi_pool_(ramp, rois, half_to_even=True, **options)
    assert away.item() == np.floor(corner / 16 + 0.5)
    assert even.item() == round(corner / 16)


def test_the_last_bin_ends_past_the_region_at_the_known_sizes() -> None:
    column = np.arange(300, dtype=np.float32).reshape(1, 1, 300, 1)
    overshooting: dict[bool, list[int]] = {False: [], True: []}
    for float64_edges, sizes in overshooting.items():
        for size in range(1, 200):
            bins = roi_pool_(
                column,
                np.array([[0, 0, 0, 0, size - 1]]),
                output_size=(7, 1),
                spatial_scale=1.0,
                half_to_even=False,
                float64_edges=float64_edges,
            )
            if bins[0, 0, -1, 0] != size - 1:
                sizes.append(size)
    assert overshooting == {False: [57, 114, 121], True: [29, 58, 116, 123]}


def test_ties_go_to_the_first_pixel() -> None:
    x = nn.Tensor(np.ones((1, 1, 3, 3), np.float32), requires_grad=True)
    ops.roi_pool(x, np.array([[0, 0, 0, 2, 2]]), 1).sum().backward()
    expected = np.zeros((1, 1, 3, 3))
    expected[0, 0, 0, 0] = 1
    np.testing.assert_array_equal(x.grad, expected)


def test_outside_and_empty() -> None:
    x = nn.Tensor(-np.ones((2, 3, 4, 4)), requires_grad=True)
    outside = ops.roi_pool(x, np.array([[1, 50, 50, 60, 60]]), 2)
    np.testing.assert_array_equal(outside, np.zeros((1, 3, 2, 2)))
    outside.sum().backward()
    np.testing.assert_array_equal(x.grad, np.zeros((2, 3, 4, 4)))
    for none in (np.zeros((0, 5)), [], [np.zeros((0, 4)), np.zeros((0, 4))]):
        for op in (ops.roi_pool, ops.roi_align):
            x.grad = None
            empty = op(x, none, (2, 5))
            assert empty.shape == (0, 3, 2, 5)
            empty.sum().backward()
            np.testing.assert_array_equal(x.grad, np.zeros((2, 3, 4, 4)))


def test_a_list_is_one_array_per_image() -> None:
    x = np.random.default_rng(0).standard_normal((3, 2, 6, 7)).astype(np.float32)
    images = [np.array([[0, 0, 3, 3], [1, 1, 5, 5]]), np.zeros((0, 4)), np.array([[2, 0, 6, 4.0]])]
    rois = np.array([[0, 0, 0, 3, 3], [0, 1, 1, 5, 5], [2, 2, 0, 6, 4]])
    for op in (ops.roi_pool, ops.roi_align):
        np.testing.assert_array_equal(op(x, images, 2), op(x, rois, 2))


@pytest.mark.parametrize("channels", [1, 31, 32, 33, 100])
def test_results_do_not_depend_on_the_number_of_threads(channels: int) -> None:
    rng = np.random.default_rng(channels)
    x = rng.standard_normal((2, channels, 9, 11)).astype(np.float32)
    corners = rng.uniform(0, 8, (40, 2, 2)).cumsum(axis=1).reshape(40, 4)
    rois = np.column_stack([rng.integers(0, 2, 40), corners]).astype(np.float32)
    grad = rng.standard_normal((40, channels, 3, 3)).astype(np.float32)

    def run(op, threads: int) -> tuple[bytes, bytes]:
        oxidet.set_num_threads(threads)
        tensor = nn.Tensor(x, requires_grad=True)
        out = op(tensor, rois, 3)
        out.backward(grad)
        assert tensor.grad is not None
        return out.numpy().tobytes(), tensor.grad.tobytes()

    for op in (ops.roi_pool, ops.roi_align):
        assert run(op, 1) == run(op, 2) == run(op, 5)


def test_layouts_and_types_of_the_input() -> None:
    x = np.random.default_rng(0).standard_normal((2, 3, 6, 7)).astype(np.float32)
    rois = np.array([[1, 0, 0, 5, 5]])
    for op in (ops.roi_pool, ops.roi_align):
        expected = op(x, rois, 2)
        for form in (np.asfortranarray(x), x.astype(np.float64), x.astype(">f4"), x.tolist()):
            np.testing.assert_array_equal(op(form, rois, 2), expected)


@pytest.mark.parametrize("count", [1, 40])  # read in place, or from a copy
@pytest.mark.parametrize("channels", [2, 63, 64, 65, 130])
def test_results_lie_in_memory_as_the_input_does(channels: int, count: int) -> None:
    rng = np.random.default_rng(channels)
    first = rng.standard_normal((3, channels, 9, 20)).astype(np.float32)
    last = np.ascontiguousarray(first.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
    corners = rng.uniform(0, 8, (count, 2, 2)).cumsum(axis=1).reshape(count, 4)
    rois = np.column_stack([rng.integers(0, 3, count), corners])
    for op in (ops.roi_pool, ops.roi_align):
        of_first, of_last = op(first, rois, (2, 3)), op(last, rois, (2, 3))
        assert of_first.flags.c_contiguous
        assert of_last.transpose(0, 2, 3, 1).flags.c_contiguous
        np.testing.assert_array_equal(of_first, of_last)


@pytest.mark.parametrize("op", [ops.roi_pool, ops.roi_align])
@pytest.mark.parametrize(
    ("rois", "options", "message"),
    [
        (np.zeros((3, 4)), {}, r"boxes: expected shape \(R, 5\)"),
        (np.zeros(5), {}, "boxes: expected 2 dimensions"),
        ([np.zeros((1, 4)), np.zeros((1, 5))], {}, r"boxes\[1\]: expected shape \(L, 4\)"),
        (np.array([[0, 0, 1, 1, 1], [2, 0, 0, 1, 1]]), {}, "in row 1"),
        (np.array([[-1, 0, 0, 1, 1]]), {}, "batch index of at least 0 and below 2, got -1"),
        (np.array([[0, np.nan, -np.inf, 1, 1]]), {}, "finite coordinates.*in row 0"),
        (np.array([[0, 0, 0, np.inf, 1]]), {}, "finite coordinates.*in row 0"),
        (np.zeros((1, 5)), {"output_size": (0, 2)}, "output_size: expected"),
        (np.zeros((1, 5)), {"spatial_scale": 0.0}, "spatial_scale: expected"),
        (np.zeros((1, 5)), {"spatial_scale": np.nan}, "spatial_scale: expected"),
    ],
)
def test_bad_input_is_named(op, rois, options, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        op(np.zeros((2, 1, 4, 4)), rois, **{"output_size": 2, **options})


@pytest.mark.parametrize("op", [ops.roi_pool, ops.roi_align])
def test_wrong_rank_and_wrong_type(op) -> None:
    with pytest.raises(ValueError, match="input: expected 4 dimensions"):
        op(np.zeros((1, 4, 4)), np.zeros((0, 5)), 2)
    with pytest.raises(TypeError, match="output_size: expected"):
        op(np.zeros((1, 1, 4, 4)), np.zeros((0, 5)), 2.5)
