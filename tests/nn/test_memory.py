"""Arrays as memory, and gradients that are added in place where nobody else has them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from conftest import assert_close
from oxidet import nn
from oxidet.nn import _memory
from oxidet.nn import functional as F


def orders(shape: tuple[int, ...]) -> list[np.ndarray]:
    """An array of a shape in several orders of memory."""
    values = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    return [
        values,
        np.asfortranarray(values),
        np.ascontiguousarray(values.transpose(2, 3, 1, 0)).transpose(3, 2, 0, 1),
    ]


SHAPES = [(2, 3, 4, 5), (4, 3, 1, 1), (1, 1, 1, 1), (0, 3, 1, 2)]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_flat_is_a_view_in_any_order(shape: tuple[int, ...]) -> None:
    for array in orders(shape):
        view = _memory.flat(array)
        assert view.shape == (array.size,)
        view += 1
        assert array.size == 0 or np.shares_memory(view, array)


def test_flat_refuses_an_array_with_gaps() -> None:
    with pytest.raises(RuntimeError, match="without gaps"):
        _memory.flat(np.zeros((3, 4), np.float32)[:, :2])


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_elements_of_two_orders_meet(shape: tuple[int, ...]) -> None:
    for model in orders(shape):
        for array in orders(shape):
            (elements,) = _memory.flat_like([array], [model])
            np.testing.assert_array_equal(elements, _memory.flat(model))
            if array is model and array.size:
                assert np.shares_memory(elements, array)


@pytest.mark.parametrize("shape", [*SHAPES, (40, 40, 5, 5)], ids=str)
def test_sums_in_place_of_any_orders(shape: tuple[int, ...]) -> None:
    for total in orders(shape):
        for value in orders(shape):
            mine, expected = total.copy(order="K"), total + value
            _memory.add_to(mine, value)
            np.testing.assert_array_equal(mine, expected)
    spread = np.ones((*shape, 2), np.float32)[..., 0]
    _memory.add_to(spread, np.broadcast_to(np.float32(2), shape))
    np.testing.assert_array_equal(spread, np.full(shape, 3.0))


def test_gradients_shared_between_tensors_stay_apart() -> None:
    a, b = (nn.Tensor(np.zeros(3), requires_grad=True) for _ in range(2))
    (a + b).backward(np.ones(3))
    (2 * a).sum().backward()
    (3 * a).sum().backward()
    np.testing.assert_array_equal(a.grad, np.full(3, 6.0))
    np.testing.assert_array_equal(b.grad, np.ones(3))


def network() -> list[Any]:
    return [nn.Parameter(w) for w in orders((40, 40, 5, 5))[:2]]


def loss(x: Any, first: Any, second: Any) -> Any:
    """Every tensor is used more than once, so that gradients meet at leaves and at nodes."""
    y = F.relu(F.conv2d(x, first, padding=2))
    z = F.conv2d(y, second, padding=2) + y
    w = F.batch_norm(z, None, None, training=True) + z + y
    return (F.max_pool2d(w, 2) * F.avg_pool2d(z, 2)).sum() + F.conv2d(w, first, padding=2).sum()


def test_gradients_that_meet_are_those_of_separate_passes() -> None:
    x = np.random.default_rng(1).standard_normal((1, 40, 30, 30)).astype(np.float32)
    first, second = network()
    input = nn.Tensor(x, requires_grad=True)
    loss(input, first, second).backward()
    once = [np.array(t.grad) for t in (first, second, input)]
    held = [t.grad for t in (first, second, input)]
    loss(input, first, second).backward()
    for tensor, gradient in zip((first, second, input), once, strict=True):
        # Several gradients arrive at a leaf, and are now added to what is there already.
        assert_close(tensor.grad, gradient + gradient, 1e-6)
    assert all(not array.flags.writeable for array in held)


def test_gradients_that_meet_agree_with_torch() -> None:
    torch = pytest.importorskip("torch")
    T = torch.nn.functional
    x = np.random.default_rng(1).standard_normal((1, 40, 30, 30)).astype(np.float32)
    first, second = network()
    input = nn.Tensor(x, requires_grad=True)
    loss(input, first, second).backward()
    i, a, b = (
        torch.tensor(t.data.astype(np.float64), requires_grad=True) for t in (input, first, second)
    )
    y = torch.relu(T.conv2d(i, a, padding=2))
    z = T.conv2d(y, b, padding=2) + y
    w = T.batch_norm(z, None, None, training=True) + z + y
    total = (T.max_pool2d(w, 2) * T.avg_pool2d(z, 2)).sum() + T.conv2d(w, a, padding=2).sum()
    total.backward()
    for mine, theirs in zip((input, first, second), (i, a, b), strict=True):
        expected = theirs.grad.numpy()
        assert_close(mine.grad, expected, 1e-4)
