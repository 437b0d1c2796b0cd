"""Operators of single elements, and arithmetic."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from oxidet.nn import _arithmetic
from oxidet.nn import functional as F
from oxidet.nn.symbol import Symbol
from oxidet.nn.tensor import Stored
from oxidet.onnx._table import OPERATORS, Run, operator
from oxidet.onnx._values import Value, axis_of, plain, whole

if TYPE_CHECKING:
    from oxidet.onnx._graph import Operation

Array = NDArray[Any]


def _unary(*ops: str, **attributes: Any) -> Callable[[Run], Run]:
    """An operator of single elements, whose axes are those of its input."""

    def register(function: Run) -> Run:
        def run(op: Operation, x: Value, *rest: Any, **options: Any) -> Value:
            return x._replace(data=function(x.data, *rest, **options))

        return operator(*ops, **attributes)(functools.wraps(function)(run))

    return register


_unary("Relu")(F.relu)
_unary("Sigmoid")(F.sigmoid)
_unary("Tanh")(F.tanh)
_unary("Neg")(lambda x: _arithmetic.mul_(x, -1.0))
_unary("Identity")(lambda x: x)


@_unary("Clip")
def _clip(x: Any, low: Array | None = None, high: Array | None = None) -> Any:
    limits = [None if limit is None else float(limit.item()) for limit in (low, high)]
    return x if limits == [None, None] else F.clamp(x, *limits)


@_unary("LeakyRelu", alpha=0.01)
def _leaky_relu(x: Any, *, alpha: float) -> Any:
    # relu(x) - alpha * relu(-x)
    below = _arithmetic.mul_(F.relu(_arithmetic.mul_(x, -1.0)), -alpha)
    return _arithmetic.add_(F.relu(x), below)


def _sigmoid_of_lines(x: Any, alpha: float, beta: float) -> Any:
    return F.clamp(_arithmetic.add_(_arithmetic.mul_(x, alpha), beta), 0, 1)


@_unary("HardSigmoid", alpha=0.2, beta=0.5)
def _hard_sigmoid(x: Any, *, alpha: float, beta: float) -> Any:
    return _sigmoid_of_lines(x, alpha, beta)


@_unary("HardSwish")
def _hard_swish(x: Any) -> Any:
    return _arithmetic.mul_(x, _sigmoid_of_lines(x, 1 / 6, 0.5))


@_unary("Cast", to=1, saturate=1)
def _cast(x: Any, *, to: int, saturate: int) -> Any:
    if to not in (1, 10, 11, 16):
        raise ValueError(f"to: expected a cast of activations to a floating type, got type {to}")
    return x


@operator("Dropout", seed=0)
def _dropout(
    op: Operation, x: Value, ratio: Array | None = None, mode: Any = None, *, seed: int
) -> Value:
    p = 0.5 if ratio is None else float(ratio.item())
    return x._replace(data=F.dropout(x.data, p, op.training))


def _softmax(function: Callable[..., Any]) -> Run:
    def run(op: Operation, x: Value, *, axis: int, coerce: int) -> Value:
        at = axis_of(axis, len(x.axes))
        if coerce and any(n != 1 for n in x.shape[at + 1 :]):
            raise ValueError(
                f"axis: expected nothing behind the axis of a softmax before version 13, got axis "
                f"{axis} of shape {x.shape}"
            )
        return Value(function(x.data, x.axes[at]), x.axes)

    return run


# Before version 13 a softmax was over all axes from one on, which `coerce` says.
operator("Softmax", axis=-1, coerce=0)(_softmax(F.softmax))
operator("LogSoftmax", axis=-1, coerce=0)(_softmax(F.log_softmax))


# --- arithmetic


def _binary(function: Callable[[Any, Any], Any], kind: str) -> Run:
    def run(op: Operation, a: Any, b: Any) -> Value:
        if isinstance(a, Value) and isinstance(b, Value):
            return _of_two(function, a, b)
        if isinstance(a, Value):
            return _with_constant(op, function, kind, a, b, swapped=False)
        return _with_constant(op, function, kind, b, a, swapped=True)

    return run


def _of_two(function: Callable[[Any, Any], Any], a: Value, b: Value) -> Value:
    if a.axes == b.axes and len(a.data.shape) == len(b.data.shape):
        return Value(function(a.data, b.data), a.axes)
    left, right = plain(a), plain(b)
    rank = max(len(left.shape), len(right.shape))
    left, right = (
        value
        if len(value.shape) == rank
        else _arithmetic.reshape(value, (1,) * (rank - len(value.shape)) + tuple(value.shape))
        for value in (left, right)
    )
    return whole(function(left, right))


def _with_constant(
    op: Operation,
    function: Callable[[Any, Any], Any],
    kind: str,
    x: Value,
    constant: Any,
    swapped: bool,
) -> Value:
    """Arithmetic with a number, one number a channel, or an array that broadcasts."""
    if isinstance(constant, np.ndarray):
        if constant.size != 1:
            raise ValueError(f"expected a number, got a constant of shape {constant.shape}")
        other: Any = float(constant.item())
    else:
        data, shape = constant
        rank = len(x.axes)
        if len(shape) > rank:
            x = whole(_arithmetic.reshape(plain(x), (1,) * (len(shape) - rank) + x.shape))
            rank = len(shape)
        shape = (1,) * (rank - len(shape)) + shape
        long = [i for i, n in enumerate(shape) if n != 1]
        if len(long) == 1 and x.axes[long[0]] == 1 and isinstance(x.data, Symbol):
            done = _per_channel(kind, x.data, data, swapped, op.op)
            if done is not None:
                return Value(done, x.axes)
        # Into the order of the activation's own axes.
        ours = [1] * len(x.data.shape)
        for axis, length in zip(x.axes, shape, strict=True):
            ours[axis] = length
        order = sorted(range(rank), key=lambda i: x.axes[i])
        other = _arithmetic.reshape(data, shape)
        if order != sorted(order):
            other = _arithmetic.permute(other, order)
        other = _arithmetic.reshape(other, ours)
    left, right = (other, x.data) if swapped else (x.data, other)
    return Value(function(left, right), x.axes)


def _per_channel(kind: str, x: Symbol, vector: Stored, swapped: bool, name: str) -> Symbol | None:
    """Arithmetic with one number a channel in a graph, if there is such an operation."""
    if swapped and kind in ("sub", "div"):
        kind = f"r{kind}"
    if kind == "rdiv":
        return None
    trace = x._trace
    values, key = trace.constant(vector, "other")
    value = trace.value(x, "self")
    return trace.symbol(trace.builder.channelwise(value, kind, values, [key], trace.name(name)))


_ELEMENT = {0: "element", 1: "element"}
operator("Add", weights=_ELEMENT)(_binary(_arithmetic.add_, "add"))
operator("Sub", weights=_ELEMENT)(_binary(_arithmetic.sub_, "sub"))
operator("Mul", weights=_ELEMENT)(_binary(_arithmetic.mul_, "mul"))
operator("Div", weights=_ELEMENT)(_binary(_arithmetic.div_, "div"))


@operator("Sum", weights=dict.fromkeys(range(16), "element"))
def _sum(op: Operation, *terms: Any) -> Any:
    add = OPERATORS["Add"].run
    assert add is not None
    return functools.reduce(functools.partial(add, op), terms)
