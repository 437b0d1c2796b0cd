"""The tape: arithmetic and its gradients, accumulation, freeing, what is read-only."""

from __future__ import annotations

import gc
import weakref

import numpy as np
import pytest

from conftest import assert_close, check_gradients
from oxidet import nn
from oxidet.nn import functional as F

RNG = np.random.default_rng(0)
A, B = RNG.standard_normal((2, 3, 4)) + 3, RNG.standard_normal((3, 1)) + 3


@pytest.mark.parametrize(
    "function",
    [
        lambda a, b: a + b,
        lambda a, b: a - b,
        lambda a, b: b - a,
        lambda a, b: a * b,
        lambda a, b: a / b,
        lambda a, b: b / a,
        lambda a, b: 2.0 * a - b / 4 + 1,
    ],
)
def test_arithmetic_with_broadcasting(function) -> None:
    assert_close(function(nn.Tensor(A), nn.Tensor(B)), function(A, B), 1e-6)
    check_gradients(function, A, B, tolerance=3e-3)


SHAPES = {
    "sum": lambda a: nn.Tensor.sum(nn.tensor.as_tensor(a)),
    "sum of axes": lambda a: nn.Tensor.sum(nn.tensor.as_tensor(a), (0, 2)),
    "mean": lambda a: nn.Tensor.mean(nn.tensor.as_tensor(a), 1, keepdim=True),
    "reshape": lambda a: nn.tensor.as_tensor(a).reshape(6, -1),
    "flatten": lambda a: F.flatten(a, 1),
    "permute": lambda a: nn.tensor.as_tensor(a).permute(2, 0, 1),
    "slice": lambda a: nn.tensor.as_tensor(a)[:, 1:, ::2],
    "repeated index": lambda a: nn.tensor.as_tensor(a)[np.array([0, 1, 1, 0, 1])],
    "cat": lambda a: F.cat([a, a], 2),
}


@pytest.mark.parametrize("name", SHAPES)
def test_gradients_through_shapes_and_sums(name: str) -> None:
    check_gradients(SHAPES[name], A, tolerance=3e-3)


def test_results_stay_float32_with_python_numbers_and_scalars() -> None:
    total = nn.Tensor(A, requires_grad=True).sum()
    for value in (total, total * 2.0, total / 3, 1.0 - total, total.mean()):
        assert value.dtype == np.float32


def test_gradients_of_a_shared_tensor_add_up() -> None:
    x = nn.Tensor([2.0], requires_grad=True)
    y = x * x
    (y * y + y).sum().backward()
    np.testing.assert_array_equal(x.grad, [4 * 8 + 2 * 2])
    (x * 1.0).sum().backward()
    np.testing.assert_array_equal(x.grad, [37])


def test_a_deep_chain_needs_no_recursion() -> None:
    x = nn.Tensor([1.0], requires_grad=True)
    y = x
    for _ in range(20_000):
        y = y + 1.0
    y.backward()
    np.testing.assert_array_equal(x.grad, [1])


def test_activations_are_freed_by_backward() -> None:
    x = nn.Tensor(np.ones(4), requires_grad=True)
    middle = x * 3.0
    reference = weakref.ref(middle)
    loss = (middle * middle).sum()
    del middle
    gc.collect()
    assert reference() is not None
    loss.backward()
    gc.collect()
    assert reference() is None


def test_a_second_backward_needs_retain_graph() -> None:
    x = nn.Tensor([3.0], requires_grad=True)
    y = x * x
    y.backward(retain_graph=True)
    y.backward()
    np.testing.assert_array_equal(x.grad, [12])
    with pytest.raises(RuntimeError, match="already used and freed; pass retain_graph=True"):
        y.backward()


def test_no_grad_and_detach_record_nothing() -> None:
    x = nn.Tensor([1.0], requires_grad=True)
    with nn.no_grad():
        assert not (x * 2).requires_grad
    assert (x * 2).requires_grad
    assert not (x.detach() * 2).requires_grad


def test_backward_refuses_what_makes_no_sense() -> None:
    x = nn.Tensor([1.0, 2.0], requires_grad=True)
    with pytest.raises(ValueError, match="gradient: expected an array of shape"):
        (x * 2).backward()
    with pytest.raises(ValueError, match=r"gradient: expected shape \(2,\), got \(3,\)"):
        (x * 2).backward([1.0, 2.0, 3.0])
    with pytest.raises(RuntimeError, match="one without history"):
        nn.Tensor([1.0]).backward()
    with pytest.raises(TypeError, match="requires_grad: expected floating-point data"):
        nn.Tensor([1, 2], requires_grad=True)


def test_arrays_that_are_handed_out_cannot_be_written() -> None:
    p = nn.Parameter([1.0, 2.0])
    (p * 2).sum().backward()
    for array in (p.data, p.numpy(), np.asarray(p), p.grad, (p * 2).numpy()):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 5


def test_every_write_of_a_parameter_raises_its_version() -> None:
    source = np.array([1.0, 2.0], np.float32)
    p = nn.Parameter(source)
    source[0] = 9  # the parameter has its own copy
    assert p.numpy()[0] == 1
    assert p.version == 0
    p.copy_([3.0, 4.0])
    p.update_(lambda values: values.__imul__(2))
    assert p.version == 2
    np.testing.assert_array_equal(p.data, [6, 8])
    with pytest.raises(ValueError, match=r"value: expected shape \(2,\), got \(3,\)"):
        p.copy_([1.0, 2.0, 3.0])


def test_recording_follows_parameters_but_stored_arrays_alone_give_arrays() -> None:
    p = nn.Parameter([[1.0]])
    assert isinstance(F.linear([[2.0]], p), nn.Tensor)
    with nn.no_grad():
        assert isinstance(F.linear([[2.0]], p), np.ndarray)
        assert isinstance(F.linear(nn.Tensor([[2.0]]), p), nn.Tensor)


def test_an_array_on_the_left_does_not_swallow_the_tensor() -> None:
    x = nn.Tensor([1.0, 2.0], requires_grad=True)
    assert isinstance(np.array([1.0, 2.0], np.float32) * x, nn.Tensor)
    assert isinstance(np.float32(2) - x, nn.Tensor)
