"""Primitives of activations: ReLU, tanh, sigmoid, softmax, log-softmax, dropout.

Except for the dropouts, each gradient is a function of the output, which is all that is saved.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from oxidet import _core, _random
from oxidet._arrays import as_float32, axis, from_memory, number, to_memory
from oxidet.nn.primitive import Context, Primitive
from oxidet.nn.symbol import Symbol, trace_error
from oxidet.nn.trace import Trace

Array = NDArray[Any]


def _elementwise(
    name: str, function: Callable[[Array], Array], gradient: Callable[[Array, Array], Array]
) -> Primitive:
    """A primitive of single elements, in any shape."""

    def forward(ctx: Context, input: Any) -> Array:
        output = function(to_memory(input, "input"))
        if ctx.recording:
            ctx.output = output
        return from_memory(output)

    def backward(ctx: Context, grad: Array) -> tuple[Array]:
        return (from_memory(gradient(ctx.output, to_memory(grad, "grad"))),)

    def graph(trace: Trace, input: Any) -> Symbol:
        # The limits are those of "clamp" and "relu"; others take no notice of them.
        x = trace.value(input, "input")
        return trace.symbol(trace.builder.activation(x, name, 0.0, np.inf, trace.name(name)))

    return Primitive(name, forward, backward, graph, fresh_gradients=True)


def _rowwise(
    name: str, function: Callable[[Array], Array], gradient: Callable[[Array, Array], Array]
) -> Primitive:
    """A primitive of rows along one axis, which the kernels want last."""

    def forward(ctx: Context, input: Any, *, dim: Any) -> Array:
        x = as_float32(input, "input")
        ctx.dim = axis(dim, "dim", x.ndim)
        output = function(np.ascontiguousarray(np.moveaxis(x, ctx.dim, -1)))
        if ctx.recording:
            ctx.output = output
        return np.moveaxis(output, -1, ctx.dim)

    def backward(ctx: Context, grad: Array) -> tuple[Array]:
        rows = np.ascontiguousarray(np.moveaxis(grad, ctx.dim, -1))
        return (np.moveaxis(gradient(ctx.output, rows), -1, ctx.dim),)

    def graph(trace: Trace, input: Any, *, dim: Any) -> Symbol:
        x = trace.value(input, "input")
        if axis(dim, "dim", input.ndim) != 1:
            raise trace_error(f"{name} along axis {dim} of shape {input.shape}, not along axis 1")
        log = name == "log_softmax"
        return trace.symbol(trace.builder.softmax(x, log, trace.name(name)))

    return Primitive(name, forward, backward, graph, fresh_gradients=True)


def _dropout(ctx: Context, input: Any, *, p: float) -> Array:
    # The mask is a function of these three, so the backward pass makes it again.
    ctx.mask = (p, *_random.default.next_mask())
    return from_memory(_core.dropout(to_memory(input, "input"), *ctx.mask))


def _dropout_backward(ctx: Context, grad: Array) -> tuple[Array]:
    return (from_memory(_core.dropout(to_memory(grad, "grad"), *ctx.mask)),)


def _dropout_graph(trace: Trace, input: Any, *, p: float) -> Symbol:
    return trace.random_drop(input, p, channels=False)


def _dropout2d_graph(trace: Trace, input: Any, *, p: float) -> Symbol:
    return trace.random_drop(input, p, channels=True)


def _dropout2d(ctx: Context, input: Any, *, p: float) -> Array:
    x = as_float32(input, "input", ndim=4, form="(N, C, H, W)")
    # The factor of each channel: what dropout makes of a 1.
    ones = np.ones(x.shape[:2], np.float32)
    ctx.factors = _core.dropout(ones, p, *_random.default.next_mask())[:, :, None, None]
    return np.asarray(x * ctx.factors)


def _dropout2d_backward(ctx: Context, grad: Array) -> tuple[Array]:
    return (np.asarray(grad * ctx.factors),)


relu_ = _elementwise("relu", _core.relu, _core.relu_backward)
tanh_ = _elementwise("tanh", _core.tanh, _core.tanh_backward)
sigmoid_ = _elementwise("sigmoid", _core.sigmoid, _core.sigmoid_backward)
softmax_ = _rowwise("softmax", _core.softmax, _core.softmax_backward)
log_softmax_ = _rowwise("log_softmax", _core.log_softmax, _core.log_softmax_backward)
dropout_ = Primitive("dropout", _dropout, _dropout_backward, _dropout_graph)
dropout2d_ = Primitive("dropout2d", _dropout2d, _dropout2d_backward, _dropout2d_graph)


def relu(input: Any, inplace: bool = False) -> Any:
    """``max(input, 0)`` for float32 of any shape; a NaN stays NaN, the gradient at 0 is 0.

    ``inplace`` is accepted for torch's sake: arrays are values here, and the result is a new one.

    >>> from oxidet.nn import functional as F
    >>> F.relu([-1.0, 0.0, 2.0])
    array([0., 0., 2.], dtype=float32)
    """
    return relu_(input)


def tanh(input: Any) -> Any:
    """Hyperbolic tangent of float32 of any shape; values in [-1, 1].

    >>> from oxidet.nn import functional as F
    >>> F.tanh([0.0, 100.0])
    array([0., 1.], dtype=float32)
    """
    return tanh_(input)


def sigmoid(input: Any) -> Any:
    """``1 / (1 + exp(-input))`` of float32 of any shape; values in [0, 1].

    >>> from oxidet.nn import functional as F
    >>> F.sigmoid([-200.0, 0.0, 200.0])
    array([0. , 0.5, 1. ], dtype=float32)
    """
    return sigmoid_(input)


def softmax(input: Any, dim: int) -> Any:
    """``exp(x) / sum(exp(x))`` along axis ``dim`` of float32 of any shape.

    Results lie in [0, 1] and add up to 1; large inputs do not overflow. A row of minus infinities
    becomes NaN, as in torch. Raises ValueError if there is no axis ``dim``. torch's implicit choice
    of an axis, long deprecated there, does not exist here.

    >>> from oxidet.nn import functional as F
    >>> F.softmax([[1000.0, 1000.0], [0.0, -1000.0]], dim=1)
    array([[0.5, 0.5],
           [1. , 0. ]], dtype=float32)
    """
    return softmax_(input, dim=dim)


def log_softmax(input: Any, dim: int) -> Any:
    """``x - log(sum(exp(x)))`` along axis ``dim``, more exact than the log of :func:`softmax`.

    ``input`` is float32 of any shape; results are at most 0. Raises ValueError if there is no axis
    ``dim``.

    >>> from oxidet.nn import functional as F
    >>> F.log_softmax([0.0, -1000.0], dim=0)
    array([    0., -1000.], dtype=float32)
    """
    return log_softmax_(input, dim=dim)


def dropout(input: Any, p: float = 0.5, training: bool = True, inplace: bool = False) -> Any:
    """Set elements to 0 with probability ``p`` and divide the rest by ``1 - p``.

    ``input`` is float32 of any shape; without ``training`` it is returned as it is. The mask
    depends on ``oxidet.manual_seed`` and on how many masks were drawn since, not on the number of
    threads. ``inplace`` is accepted for torch's sake and changes nothing. Raises ValueError unless
    ``0 <= p <= 1``.

    >>> import oxidet
    >>> from oxidet.nn import functional as F
    >>> oxidet.manual_seed(0)
    >>> sorted(set(F.dropout([1.0] * 100, p=0.75).tolist()))
    [0.0, 4.0]
    """
    p = number(p, "p", 0, 1)
    return dropout_(input, p=p) if training and p > 0 else input


def dropout2d(input: Any, p: float = 0.5, training: bool = True, inplace: bool = False) -> Any:
    """Set whole channels to 0 with probability ``p`` and divide the rest by ``1 - p``.

    ``input`` is (N, C, H, W) float32, each channel of each image dropped or kept by itself;
    everything else is as for :func:`dropout`.

    >>> import oxidet
    >>> from oxidet.nn import functional as F
    >>> oxidet.manual_seed(0)
    >>> sorted(set(F.dropout2d([[[[1.0, 1.0]]] * 9]).sum(axis=(2, 3)).ravel().tolist()))
    [0.0, 4.0]
    """
    p = number(p, "p", 0, 1)
    return dropout2d_(input, p=p) if training and p > 0 else input
