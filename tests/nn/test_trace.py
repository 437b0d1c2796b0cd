"""Tracing: what a forward may do with symbols, and errors that name the line."""

from __future__ import annotations

import inspect
import linecache
import re
from collections import namedtuple
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from conftest import assert_close
from oxidet import nn
from oxidet.nn import functional as F

IMAGE = np.random.default_rng(0).standard_normal((2, 6, 9, 8)).astype(np.float32)
ROWS = np.random.default_rng(1).standard_normal((3, 5)).astype(np.float32)


class Net(nn.Module):
    """A compiled module around one function of its input, with a few layers to use."""

    compiled = True

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.conv = nn.Conv2d(6, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(6)
        self.linear = nn.Linear(5, 7)
        self.alpha = nn.Parameter(np.float32(0.25))
        self.offset = nn.Buffer(np.array([3.0]))
        self.array = np.ones((1, 6, 1, 1), np.float32)
        self.channels = nn.Buffer(np.linspace(0.5, 2, 6).reshape(1, 6, 1, 1))
        self.four = nn.Parameter(np.array([0.5, -1, 2, 3]).reshape(4, 1, 1))
        self.columns = nn.Buffer(np.ones(8))
        self.function = function
        self.eval()

    def forward(self, *inputs: Any, **options: Any) -> Any:
        return self.function(self, *inputs, **options)


def has_plan(net: nn.Module) -> bool:
    cache = net.__dict__.get("_plan_cache")
    return cache is not None and any(made.plan is not None for made in cache.plans.values())


# --- what a forward may do

WORKS: dict[str, Callable[..., Any]] = {
    "conv2d": lambda net, x: net.conv(x),
    "conv2d without bias": lambda net, x: F.conv2d(x, net.conv.weight, stride=2, padding=(0, 1)),
    "conv2d same": lambda net, x: F.conv2d(x, net.conv.weight, padding="same", dilation=2),
    "conv2d uneven": lambda net, x: F.conv2d(x, net.conv.weight, padding=((0, 2), (1, 0))),
    "batch_norm": lambda net, x: net.norm(x),
    "relu": lambda net, x: F.relu(x),
    "tanh": lambda net, x: F.tanh(x),
    "sigmoid": lambda net, x: F.sigmoid(x),
    "clamp": lambda net, x: F.clamp(x, -0.5, 1),
    "clamp below": lambda net, x: F.clamp(x, min=-0.5),
    "softmax": lambda net, x: F.softmax(x, 1),
    "log_softmax": lambda net, x: F.log_softmax(x, dim=-3),
    "dropout": lambda net, x: F.dropout(x, 0.5, training=net.training),
    "max_pool2d": lambda net, x: F.max_pool2d(x, 3, 2, 1, ceil_mode=True),
    "max_pool2d dilated": lambda net, x: F.max_pool2d(x, (2, 3), (1, 2), 0, (2, 1)),
    "avg_pool2d": lambda net, x: F.avg_pool2d(x, 3, 2, 1, True, False),
    "avg_pool2d divided": lambda net, x: F.avg_pool2d(x, 2, divisor_override=3),
    "adaptive_avg_pool2d": lambda net, x: F.adaptive_avg_pool2d(x, (None, 3)),
    "adaptive_max_pool2d": lambda net, x: F.adaptive_max_pool2d(x, 2),
    "add": lambda net, x: F.relu(x) + F.tanh(x),
    "add itself": lambda net, x: x + x,
    "sub": lambda net, x: F.relu(x) - F.tanh(x),
    "neg": lambda net, x: -x,
    "numbers": lambda net, x: 2 * (1 - x) / 4.0 + 3 - 0.5,
    "numpy numbers": lambda net, x: np.float32(2) * x + np.int64(1) - np.float64(0.5) * x,
    "parameter of one element": lambda net, x: x * net.alpha + net.offset,
    "cat": lambda net, x: F.cat([x, F.relu(x), net.conv(x)], 1),
    "cat of one": lambda net, x: F.cat([x], dim=-3),
    "channels": lambda net, x: x[:, 1:4],
    "channels from the end": lambda net, x: x[:, -2:, :, :] + x[:, :2, ...],
    "all channels": lambda net, x: x[:, :],
    "rows": lambda net, x: x[:, :, 1:-1],
    "every other pixel": lambda net, x: x[:, :, ::2, ::2] + 1,
    "part of everything": lambda net, x: F.relu(x)[:, 1:3, 2:7:3, -3:],
    "columns by ellipsis": lambda net, x: x[..., 3:4],
    "affine of buffers": lambda net, x: x * net.channels + net.channels,
    "buffer and symbol": lambda net, x: net.channels * (net.channels - x) + net.channels,
    "affine behind a layer": lambda net, x: (net.conv(x) - net.four) / net.four,
    "pad": lambda net, x: F.pad(x, (1, 0, 2, 3), value=-1),
    "pad channels": lambda net, x: F.pad(F.relu(x), (0, 0, 1, 0, 1, 4)),
    "pad with nothing": lambda net, x: F.pad(x, (0, 0)),
    "pad before a convolution": lambda net, x: net.conv(F.pad(x, (0, 1, 2, 0))),
    "pad reflect": lambda net, x: F.pad(x, (1, 2, 3, 4), "reflect"),
    "pad replicate": lambda net, x: F.pad(x, (1, 2, 3, 4), "replicate"),
    "pad circular": lambda net, x: F.pad(x, (1, 2, 3, 4), "circular"),
    "local_response_norm": lambda net, x: F.local_response_norm(x, 4, 0.5, 0.75, 2.0),
    "interpolate nearest": lambda net, x: F.interpolate(x, scale_factor=(2, 0.6)),
    "interpolate exact": lambda net, x: F.interpolate(x, (4, 17), mode="nearest-exact"),
    "interpolate bilinear": lambda net, x: F.interpolate(x, scale_factor=1.7, mode="bilinear"),
    "interpolate area": lambda net, x: F.interpolate(x, 4, mode="area"),
    "scaled residual": lambda net, x: F.relu(x[:, :4] + 0.17 * net.conv(x)),
    "option A": lambda net, x: F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 3, 3)),
    "flatten": lambda net, x: F.flatten(x, 1),
    "method flatten": lambda net, x: x.flatten(1),
    "view": lambda net, x: x.view(x.size(0), -1),
    "reshape": lambda net, x: x.reshape(x.shape[0], 6 * 9 * 8),
    "reshape of the batch": lambda net, x: x.reshape((-1, 432)),
    "view that changes nothing": lambda net, x: x.view(x.shape[0], -1, 9, 8),
    "mean": lambda net, x: x.mean((2, 3)),
    "mean keepdim": lambda net, x: x.mean(dim=[-1, -2], keepdim=True),
    "the input": lambda net, x: x,
    "shape in python": lambda net, x: x * x.shape[2] if x.shape[1:] == (6, 9, 8) else None,
    "shapes compared": lambda net, x: F.relu(x) if x.shape == net.norm(x).shape else None,
    "np.shape": lambda net, x: x + len(np.shape(x)) + np.ndim(x),
    "nested": lambda net, x: {"a": [F.relu(x), (x, None)], "b": (1, 2.5, "c", True)},
    "one result twice": lambda net, x: (x + 1,) * 2,
    "a new layer": lambda net, x: nn.Sequential(nn.ReLU(), nn.Flatten())(x),
}


def flatten(value: Any) -> list[Any]:
    if isinstance(value, dict):
        value = list(value.values())
    if not isinstance(value, (list, tuple)):
        return [value]
    return [leaf for item in value for leaf in flatten(item)]


@pytest.mark.parametrize("name", WORKS)
def test_a_plan_does_what_the_layers_do(name: str) -> None:
    net = Net(WORKS[name])
    rng = np.random.default_rng(2)
    net.norm.running_mean = rng.standard_normal(6)
    net.norm.running_var = rng.uniform(0.5, 2, 6)
    # Some methods are torch's, which arrays do not have.
    of_tensors = name in ("view", "view that changes nothing", "method flatten", "mean keepdim")
    with nn.eager():
        expected = net(nn.Tensor(IMAGE)).numpy() if of_tensors else net(IMAGE)
    assert not has_plan(net)
    got = net(IMAGE)
    assert has_plan(net)
    assert type(got) is type(expected)
    for a, b in zip(flatten(got), flatten(expected), strict=True):
        if isinstance(b, np.ndarray):
            assert isinstance(a, np.ndarray)
            assert a.dtype == np.float32
            assert_close(a, b, 1e-5)
            assert not np.shares_memory(a, IMAGE)
        else:
            assert a == b
            assert type(a) is type(b)


def test_a_buffer_for_each_channel_may_be_a_row() -> None:
    net = Net(lambda net, x: (net.linear(x) * net.norm.weight + net.norm.bias) / net.wide)
    net.norm = nn.BatchNorm2d(7)
    net.norm.weight, net.norm.bias = np.linspace(1, 2, 7), np.linspace(-1, 1, 7)
    net.wide = nn.Buffer(np.linspace(3, 4, 7)[None])
    with nn.eager():
        expected = net(ROWS)
    assert_close(net(ROWS), expected, 1e-6)
    # It is part of the linear layer before, and its changes are noticed.
    assert "affine" in net.plan(ROWS.shape).rows[0].fused
    net.norm.bias = np.zeros(7)
    with nn.eager():
        expected = net(ROWS)
    assert_close(net(ROWS), expected, 1e-6)


def test_one_buffer_in_several_roles_is_packed_for_each() -> None:
    def forward(net: Net, x: Any) -> Any:
        return net.conv(x) * net.four, net.conv(x) + net.four, net.four - net.conv(x)

    net = Net(forward)
    with nn.eager():
        expected = net(IMAGE)
    for got, right in zip(net(IMAGE), expected, strict=True):
        assert_close(got, right, 1e-5)


def test_rows_go_through_linear_layers() -> None:
    net = Net(lambda net, x: F.log_softmax(F.relu(net.linear(x)) + 1, -1))
    with nn.eager():
        expected = net(ROWS)
    assert_close(net(ROWS), expected, 1e-5)
    assert has_plan(net)


Pair = namedtuple("Pair", "first second")


def test_inputs_and_outputs_may_be_nested() -> None:
    def forward(net: Net, a: Any, *, more: dict[str, Any], pair: Any, factor: float) -> Any:
        total = a + more["b"][0] + pair.second
        return Pair(total * factor, {"rows": net.linear(pair.first)})

    net = Net(forward)
    a, b, c = IMAGE[:, :6], IMAGE * 2, IMAGE - 1
    rows = ROWS[:2]
    for factor in (2.0, -0.0, 3):
        call = {"more": {"b": [b]}, "pair": Pair(rows, c), "factor": factor}
        with nn.eager():
            expected = net(a, **call)
        got = net(a, **call)
        assert type(got) is Pair
        assert_close(got.first, expected.first)
        np.testing.assert_array_equal(np.signbit(got.first), np.signbit(expected.first))
        assert_close(got.second["rows"], expected.second["rows"])
    assert len(net.__dict__["_plan_cache"].plans) == 3


@pytest.mark.parametrize("dtype", ["float64", "float16", "uint8", "int64", ">f4", "bool"])
@pytest.mark.parametrize("order", ["C", "F", "channels last", "strided"])
def test_any_array_of_numbers_is_an_input(dtype: str, order: str) -> None:
    x = np.random.default_rng(0).integers(0, 2, (2, 6, 9, 8)).astype(dtype)
    if order == "channels last":
        x = np.ascontiguousarray(x.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
    elif order == "strided":
        x = np.repeat(x, 2, axis=3)[..., ::2]
    else:
        x = np.asarray(x, order=order)  # type: ignore[call-overload]
    net = Net(lambda net, x: net.conv(x))
    with nn.eager():
        expected = net(x)
    assert_close(net(x), expected)
    assert has_plan(net)


# --- what runs eagerly


@pytest.mark.parametrize(
    ("name", "inputs"),
    [
        ("a list", ([[1.0] * 5],)),
        ("three axes", (np.ones((2, 3, 5), np.float32),)),
        ("an object", (ROWS, object())),
        ("different batches", (ROWS, ROWS[:1])),
        ("no features", (ROWS, np.zeros((3, 0), np.float32))),
    ],
)
def test_what_no_plan_takes_runs_eagerly(name: str, inputs: tuple[Any, ...]) -> None:
    net = Net(lambda net, x, *rest: net.linear(x))
    with nn.eager():
        expected = net(*inputs)
    np.testing.assert_array_equal(net(*inputs), expected)
    assert not has_plan(net)


def test_tensors_and_training_run_eagerly() -> None:
    net = Net(lambda net, x: net.linear(x))
    assert isinstance(net(nn.Tensor(ROWS)), nn.Tensor)
    net.train()
    loss = net(ROWS).sum()
    loss.backward()
    assert net.linear.weight.grad is not None
    assert not has_plan(net)


def test_a_compiled_module_inside_one_in_training_is_recorded() -> None:
    inner = Net(lambda net, x: net.linear(x))
    outer = nn.Sequential(inner, nn.Linear(7, 1))
    inner.eval()
    outer(ROWS).sum().backward()
    assert inner.linear.weight.grad is not None
    assert not has_plan(inner)
    with nn.no_grad():
        outer(ROWS)
    assert has_plan(inner)


def test_a_compiled_module_inside_another_is_part_of_its_plan() -> None:
    inner = Net(lambda net, x: net.linear(x))
    outer = nn.Sequential(inner, nn.ReLU()).eval()
    outer.compiled = True
    with nn.eager():
        expected = outer(ROWS)
    assert_close(outer(ROWS), expected)
    assert has_plan(outer)
    assert not has_plan(inner)


def test_a_compiled_module_inside_one_that_is_not_runs_a_plan() -> None:
    inner = Net(lambda net, x: net.linear(x))
    outer = nn.Sequential(inner, nn.ReLU()).eval()
    with nn.eager():
        expected = outer(ROWS)
    assert_close(outer(ROWS), expected)
    assert has_plan(inner)


def test_compiled_methods_are_the_boundaries() -> None:
    class Head(nn.Module):
        compiled = True

        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(5, 2)

        @nn.compiled_method
        def score(self, x: Any) -> Any:
            return self.linear(x), x + 1

        def forward(self, x: Any) -> Any:
            first, second = self.score(np.asarray(x) * 2)
            return first, float(np.sum(second))

    head = Head().eval()
    head.linear.bias = [1.0, -1.0]
    expected = head.linear(ROWS * 2)
    got, total = head(ROWS)
    assert_close(got, expected)
    assert_close(total, (ROWS * 2 + 1).sum())
    assert has_plan(head)
    head.linear.bias = [2.0, -1.0]
    assert_close(head(ROWS)[0], expected + np.float32([1, 0]))
    assert_close(head.score(ROWS * 2)[0], expected + np.float32([1, 0]))
    assert [key[0] for key in head.__dict__["_plan_cache"].plans] == [Head.score.__qualname__]


# --- what a forward may not do


def branch(net: Net, x: Any) -> Any:
    if x.sum() > 0:
        return x
    return -x


def writes(net: Net, x: Any) -> Any:
    net.calls = 1
    return x


FAILS: dict[str, tuple[Callable[..., Any], str]] = {
    "bool": (lambda net, x: x if x else None, r"bool\(\) of a symbol needs a value"),
    "float": (lambda net, x: float(x), r"float\(\) of a symbol needs a value"),
    "int": (lambda net, x: int(x), r"int\(\) of a symbol needs a value"),
    "asarray": (lambda net, x: np.asarray(x), "turning a symbol into an array"),
    "array of symbols": (lambda net, x: np.array([x, x]), "symbol"),
    "concatenate": (lambda net, x: np.concatenate([x, x]), "numpy.concatenate needs"),
    "np.mean": (lambda net, x: np.mean(x), "numpy.mean needs values"),
    "ufunc": (lambda net, x: np.exp(x), "numpy.exp needs values"),
    "ufunc out": (lambda net, x: np.add(x, 1, out=np.zeros(3)), "numpy.add needs values"),
    "len": (lambda net, x: len(x), r"len\(\) of a symbol needs the batch size"),
    "iteration": (lambda net, x: list(x), "iterating over a symbol"),
    "comparison": (lambda net, x: x > 0, r"comparing a symbol \(>\)"),
    "equality": (lambda net, x: x == x, r"comparing a symbol \(==\)"),
    "item": (lambda net, x: x.item(), r"\.item\(\) of a symbol"),
    "branch": (branch, "sum over all axes has no graph form"),
    "batch as number": (lambda net, x: range(x.shape[0]), "as a number needs the batch size"),
    "batch in arithmetic": (lambda net, x: x.view(x.size(0) * 6, -1), r"x.shape\[0\] \* ..."),
    "batch compared": (lambda net, x: x if x.shape[0] == 1 else -x, "comparing x.shape"),
    "batch in numpy": (lambda net, x: np.zeros(x.shape), "as a number needs the batch size"),
    "batch returned": (lambda net, x: (x, x.shape[0]), "returns a BatchSize"),
    "unknown method": (lambda net, x: x.transpose(0, 1), "no attribute 'transpose'"),
    "no graph form": (lambda net, x: x.permute(0, 2, 3, 1), "'permute' has no graph form"),
    "bad reshape": (lambda net, x: x.reshape(2, -1), r"reshaping \(N, 6, 9, 8\) to \(2, -1\)"),
    "reshape across": (lambda net, x: x.view(-1, 9, 8), "reshaping"),
    "flatten all": (lambda net, x: F.flatten(x), "needs the batch size"),
    "softmax over rows": (lambda net, x: F.softmax(x, 2), "softmax along axis 2"),
    "softmax over the batch": (lambda net, x: F.softmax(x, 0), "softmax along axis 0"),
    "cat of batches": (lambda net, x: F.cat([x, x]), "concatenation along axis 0"),
    "cat of an array": (lambda net, x: F.cat([x, IMAGE], 1), r"tensors\[1\]: .* got ndarray"),
    "product": (lambda net, x: x * x, "a product of symbols has no graph form"),
    "quotient": (lambda net, x: 1 / x, "a division by something other than a number"),
    "broadcast": (lambda net, x: x + x.mean((2, 3), True), "add of symbols of two shapes"),
    "array": (lambda net, x: x + net.array, "other: .* got ndarray, whose changes a plan"),
    "array first": (lambda net, x: net.array * x, "self: .* got ndarray, whose changes a plan"),
    "weight": (
        lambda net, x: F.conv2d(x, np.zeros((4, 6, 3, 3))),
        "weight: .* got ndarray, whose changes a plan",
    ),
    "derived weight": (
        lambda net, x: F.conv2d(x, net.conv.weight * 2),
        "weight: .* got ndarray, whose changes a plan",
    ),
    "tensor": (lambda net, x: x + nn.Tensor(IMAGE), "other: .* got Tensor"),
    "one channel": (lambda net, x: x[:, 0], "not slices of channels"),
    "every other channel": (lambda net, x: x[:, ::2], "not slices of channels"),
    "rows backwards": (lambda net, x: x[:, :, ::-1], "not slices of channels"),
    "no rows": (lambda net, x: x[:, :, 20:], "an index that leaves nothing"),
    "first image": (lambda net, x: x[0:1], "not slices of channels"),
    "list index": (lambda net, x: x[:, [2, 1, 0]], "not slices of channels"),
    "padded batch": (lambda net, x: F.pad(x, (0,) * 7 + (1,)), "padding of the batch"),
    "buffer along a row": (
        lambda net, x: x + net.columns,
        r"a Buffer of shape \(8,\) .* of shape \(1, 6, 1, 1\)",
    ),
    "quotient of a buffer": (
        lambda net, x: net.channels / x,
        "a division by something other than a number",
    ),
    "drops": (lambda net, x: F.dropout(x), "dropout in training, which differs"),
    "batch statistics": (
        lambda net, x: F.batch_norm(x, None, None, training=True),
        "statistics of the batch",
    ),
    "assignment": (writes, "assigns 'calls' of a Net"),
    "deletion": (lambda net, x: delattr(net, "array"), "assigns 'array'"),
    "mode": (lambda net, x: net.conv.train(), "assigns 'training'"),
    "write": (lambda net, x: net.alpha.copy_(1), "writes to a parameter or buffer"),
    "constant result": (lambda net, x: (x, net.array), "returns a ndarray"),
    "no result": (lambda net, x: None, "returns nothing that it computes"),
}


@pytest.mark.parametrize("name", FAILS)
def test_what_needs_values_names_the_line(name: str) -> None:
    function, message = FAILS[name]
    net = Net(function)
    with pytest.raises(nn.TraceError, match=message) as caught:
        net(IMAGE)
    text = str(caught.value)
    assert "compiled = False" in text or "use -1" in text
    found = re.match(r"(.*), line (\d+), in ", text)
    assert found is not None
    assert found[1] == __file__
    if "returns" not in text:  # known only when forward is over
        source, first = inspect.getsourcelines(function)
        assert first <= int(found[2]) < first + len(source), linecache.getline(
            __file__, int(found[2])
        )
    # Eagerly, or after the advice was taken, there is no such error.
    net.compiled = False
    try:
        net(IMAGE)
    except nn.TraceError as error:
        pytest.fail(str(error))
    except (TypeError, ValueError, AttributeError):
        pass


def test_the_error_names_the_layer() -> None:
    class Gate(nn.Module):
        def forward(self, x: Any) -> Any:
            return x * F.sigmoid(x)

    net = nn.Sequential(nn.Conv2d(6, 4, 1), nn.Sequential(nn.ReLU(), Gate())).eval()
    net.compiled = True
    with pytest.raises(nn.TraceError, match=r"in forward \(in layer '1.1'\): a product"):
        net(IMAGE)


def test_hasattr_of_a_symbol_is_a_question() -> None:
    net = Net(lambda net, x: x if not hasattr(x, "numpy_like") else None)
    np.testing.assert_array_equal(net(IMAGE), IMAGE)


def test_a_symbol_prints_and_stays_in_its_call() -> None:
    seen: list[Any] = []

    def forward(net: Net, x: Any) -> Any:
        seen.append(x)
        return F.relu(x)

    net = Net(forward)
    net(IMAGE)
    assert repr(seen[0]) == "Symbol(shape=(N, 6, 9, 8), dtype=float32)"
    assert (seen[0].dtype, seen[0].ndim, len({seen[0]})) == (np.float32, 4, 1)
    with pytest.raises(nn.TraceError, match="left behind by another call"):
        F.relu(seen[0])
    other = Net(lambda net, x: x + seen[0])
    with pytest.raises(nn.TraceError, match="left behind by another call"):
        other(IMAGE)


@pytest.mark.parametrize(
    ("forward", "message"),
    [
        (lambda net, x: net.conv(x[:, :5]), "channels|input"),
        (lambda net, x: net.norm(net.conv(x)), "input: expected 6 channels"),
        (lambda net, x: net.linear(F.flatten(x, 1)), r"input: expected shape \(..., 5\)"),
        (lambda net, x: F.max_pool2d(x, 20), "kernel|window|input"),
        (lambda net, x: F.conv2d(F.flatten(x, 1), net.conv.weight), "input: expected 4 dim"),
        (lambda net, x: F.batch_norm(x, net.offset, net.offset), "running_mean: expected shape"),
        (lambda net, x: F.conv2d(x, net.conv.weight, net.offset), "bias: expected"),
        (lambda net, x: F.cat([x, F.max_pool2d(x, 2)], 1), r"tensors\[1\]: expected the shape"),
        (lambda net, x: F.softmax(x, 4), "dim: expected an axis"),
    ],
)
def test_what_is_wrong_eagerly_is_as_wrong_in_a_plan(
    forward: Callable[..., Any], message: str
) -> None:
    net = Net(forward)
    with nn.eager(), pytest.raises(ValueError, match=message):
        net(IMAGE)
    with pytest.raises(ValueError, match=message):
        net(IMAGE)
