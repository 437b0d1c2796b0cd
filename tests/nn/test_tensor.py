"""The tape: arithmetic and its gradients, accumulation, freeing, what is read-only."""

from __future__ import annotations

import copy
import gc
import pickle
import weakref
from collections.abc import Callable
from typing import Any

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


@pytest.mark.parametrize("compiled", [False, True])
def test_a_parameter_written_between_the_ways_is_noticed(compiled: bool) -> None:
    layer = nn.Linear(3, 2)
    layer.compiled = compiled
    x = np.ones((4, 3), np.float32)
    loss = layer(x).sum()
    layer.weight = layer.weight.data * 2
    with pytest.raises(RuntimeError, match="written to after the call"):
        loss.backward()
    layer(x).sum().backward()
    assert layer.weight.grad is not None


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


STORED = {
    "vector": lambda: nn.Parameter(np.arange(3.0)),
    "number": lambda: nn.Parameter(2.0),
    "buffer": lambda: nn.Buffer(np.arange(4)),
    "linear": lambda: nn.Linear(3, 2).weight,
    "convolution": lambda: nn.Conv2d(3, 4, 2).weight,
}


def duplicates(stored: Any) -> dict[str, Any]:
    """A parameter or buffer and all kinds of copies of it."""
    protocols = range(2, pickle.HIGHEST_PROTOCOL + 1)
    unpickled = {f"pickle {n}": pickle.loads(pickle.dumps(stored, n)) for n in protocols}
    copies = {"copy": copy.copy(stored), "deep copy": copy.deepcopy(stored)}
    return {"itself": stored, **copies, **unpickled}


@pytest.mark.parametrize("make", STORED.values(), ids=STORED)
def test_no_array_of_a_parameter_can_be_written(make: Callable[[], Any]) -> None:
    for name, p in duplicates(make()).items():
        p.requires_grad = False
        permuted = p.permute(tuple(range(p.ndim)))
        views = [p.data, p.numpy(), np.asarray(p), p.detach().data, permuted]
        for view in views:
            for array in (view, view.base):
                assert not array.flags.writeable, name
                with pytest.raises(ValueError, match="read-only"):
                    array[...] = 5
            with pytest.raises(ValueError, match="cannot set WRITEABLE flag"):
                view.flags.writeable = True


@pytest.mark.parametrize("make", STORED.values(), ids=STORED)
def test_a_copy_of_a_parameter_changes_independently(make: Callable[[], Any]) -> None:
    p = make().copy_(3)
    for name, other in duplicates(p).items():
        if other is p:
            continue
        assert (type(other), other.version) == (type(p), p.version), name
        assert other.requires_grad == p.requires_grad, name
        assert other.serial != p.serial, name
        np.testing.assert_array_equal(other.data, p.data, err_msg=name)
        other.copy_(7).update_(lambda values: np.add(values, 1, out=values))
        assert (other.data == 8).all(), name
        assert (p.data == 3).all(), name


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


def test_integers_meet_floats_in_float32() -> None:
    numbers = nn.Tensor([1, 2, 3])
    cases = {
        "int * float": (numbers * 0.5, [0.5, 1, 1.5], np.float32),
        "float - int": (0.5 - numbers, [-0.5, -1.5, -2.5], np.float32),
        "int / int": (numbers / 2, [0.5, 1, 1.5], np.float32),
        "int * int": (numbers * 2, [2, 4, 6], np.int64),
        "small int + int": (nn.Tensor(np.array([1, 2], np.int8)) + 3, [4, 5], np.int8),
        "bool * int": (nn.Tensor([True, False]) * 2, [2, 0], np.int64),
        "array of float64": (nn.Tensor([1.0]) + np.array([2.0]), [3], np.float32),
        "zero-dimensional": (nn.Tensor([1.0]) * np.array(2.0), [2], np.float32),
        "array of int": (nn.Tensor([1.5]) - np.array([1]), [0.5], np.float32),
        "list": (nn.Tensor([1.5, 2.0]) * [2.0, 1.0], [3, 2], np.float32),
        "cat": (F.cat([numbers, np.array([0.5])]), [1, 2, 3, 0.5], np.float32),
        "cat of int": (F.cat([numbers, [4]]), [1, 2, 3, 4], np.int64),
        "sum of bool": (nn.Tensor([True, True]).sum(), 2, np.int64),
        "sum of int8": (nn.Tensor(np.array([100, 100], np.int8)).sum(), 200, np.int64),
    }
    for name, (got, expected, dtype) in cases.items():
        np.testing.assert_array_equal(got, expected, err_msg=name)
        assert got.dtype == dtype, name


def test_gradients_are_float32_whatever_the_other_operand() -> None:
    for other in (np.ones(2), np.ones(2, np.int64), 2, 2.0, np.array(2.0)):
        x = nn.Tensor([1.0, 2.0], requires_grad=True)
        ((x * other - other) / other).mean().backward()
        assert x.grad.dtype == np.float32
    p = nn.Parameter(1.0)  # NumPy turns sums without axes into scalars
    for _ in range(2):
        (p * p + p).backward()
    assert isinstance(p.grad, np.ndarray)
    assert p.grad == 6


def test_sums_keep_their_digits() -> None:
    x = np.full((1_000_000, 2), 0.1, np.float32)
    t = nn.Tensor(x)
    assert_close(t.sum(0), x.sum(0, dtype=np.float64), 1e-6)
    assert_close(t.mean(0), x.mean(0, dtype=np.float64), 1e-6)
    bias = nn.Tensor(np.zeros(2), requires_grad=True)
    (t + bias).backward(x)
    assert_close(bias.grad, x.sum(0, dtype=np.float64), 1e-6)


def test_sums_and_means_of_nothing(recwarn: pytest.WarningsRecorder) -> None:
    empty = nn.Tensor(np.zeros((3, 0)), requires_grad=True)
    np.testing.assert_array_equal(empty.sum(1), np.zeros(3))
    assert np.isnan(empty.mean().item())
    empty.mean(1).backward(np.ones(3))
    assert empty.grad.shape == (3, 0)
    assert not recwarn.list


def test_negative_axes_count_from_the_end() -> None:
    x = np.arange(24.0).reshape(2, 3, 4)
    weights = np.arange(24.0).reshape(3, 4, 2)
    t = nn.Tensor(x, requires_grad=True)
    y = t.permute(1, -1, 0)
    np.testing.assert_array_equal(y, x.transpose(1, 2, 0))
    y.backward(weights)
    np.testing.assert_array_equal(t.grad, weights.transpose(2, 0, 1))
    np.testing.assert_array_equal(t.sum((-1, 0)), x.sum((0, 2)))
    np.testing.assert_array_equal(t.sum([1, 2], keepdim=True), x.sum((1, 2), keepdims=True))
    np.testing.assert_array_equal(F.flatten(x, -2), x.reshape(2, 12))


def test_a_mask_or_index_selects_and_may_change_before_the_backward_pass() -> None:
    mask, rows = np.array([[True, False], [True, True]]), np.array([1, 1])
    for index, expected in [(mask, [[1, 0], [1, 1]]), (rows, [[0, 0], [2, 2]])]:
        x = nn.Tensor([[1.0, 2.0], [3.0, 4.0]], requires_grad=True)
        total = x[index].sum()
        index[...] = 0
        total.backward()
        np.testing.assert_array_equal(x.grad, expected)


def test_gradients_do_not_alias_what_was_passed_in() -> None:
    x, gradient = nn.Tensor(np.zeros(4), requires_grad=True), np.ones((2, 2), np.float32)
    x.reshape(2, 2).backward(gradient)
    gradient[:] = 7
    np.testing.assert_array_equal(x.grad, np.ones(4))
    x.grad = given = np.ones(4, np.float32)
    given[:] = 7
    np.testing.assert_array_equal(x.grad, np.ones(4))
    twin = copy.deepcopy(x)
    with pytest.raises(ValueError, match="read-only"):
        twin.grad[0] = 5


BAD = [
    (lambda t: t.sum(2), ValueError, "dim: expected an axis of 2 dimensions, got 2"),
    (lambda t: t.sum(0.5), TypeError, "dim: expected an integer, got 0.5"),
    (lambda t: t.mean((0, -2)), ValueError, r"dim: expected every axis once, got \(0, -2\)"),
    (lambda t: nn.Tensor([1, 2]).mean(), TypeError, "mean: expected floating-point values, got"),
    (lambda t: t.permute(0, 0), ValueError, "dims: expected every axis once"),
    (lambda t: t.permute(0), ValueError, r"dims: expected all 2 axes, got \(0,\)"),
    (lambda t: t.reshape(2.5, 2), TypeError, "shape: expected an integer, got 2.5"),
    (lambda t: t.reshape(-2, 2), ValueError, "shape: expected an integer of at least -1, got -2"),
    (lambda t: t + None, TypeError, "other: expected an array of numbers, got NoneType"),
    (lambda t: 1j * t, TypeError, "self: expected an array of numbers, got complex"),
    (lambda t: F.flatten(t, 7), ValueError, "start_dim: expected an axis of 2 dimensions, got 7"),
    (lambda t: F.flatten(t, 1, 0), ValueError, "start_dim: expected an axis up to end_dim=0"),
    (lambda t: F.cat([t, t], 2), ValueError, "dim: expected an axis of 2 dimensions, got 2"),
    (
        lambda t: F.cat([t, [[1.0]]]),
        ValueError,
        r"tensors\[1\]: expected the shape of tensors\[0\]",
    ),
    (lambda t: F.cat([t, t[0]]), ValueError, r"tensors\[1\]: expected the shape of tensors\[0\]"),
    (lambda t: F.cat([]), ValueError, "tensors: expected at least one array, got none"),
    (
        lambda t: nn.Tensor([1]).requires_grad_(),
        TypeError,
        "requires_grad_: expected floating-point",
    ),
]


@pytest.mark.parametrize(("call", "error", "message"), BAD, ids=[case[2] for case in BAD])
def test_bad_arguments_are_named(call, error, message: str) -> None:
    with pytest.raises(error, match=message):
        call(nn.Tensor([[1.0, 2.0], [3.0, 4.0]], requires_grad=True))
