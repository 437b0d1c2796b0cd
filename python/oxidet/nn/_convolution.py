"""Primitives of convolution and linear layers: the border between NCHW arrays and the kernels.

Weights are (O, C / groups, kh, kw) in shape, as torch's; the kernels read (kh, kw, C / groups, O).
``Conv2d`` keeps its weight in that memory order, so the transposition below is a view.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from oxidet import _core
from oxidet._arrays import INT32_MAX, IntOrPair, as_float32, integer, nchw, nhwc, pair
from oxidet._precision import get_precision
from oxidet.nn.primitive import Context, Primitive
from oxidet.nn.symbol import Symbol
from oxidet.nn.trace import Trace

Array = NDArray[Any]


def _hwio(weight: Any) -> Array:
    weight = as_float32(weight, "weight", ndim=4, form="(O, C / groups, kh, kw)")
    return np.ascontiguousarray(weight.transpose(2, 3, 1, 0))


def _oihw(weight: Array) -> Array:
    return weight.transpose(3, 2, 0, 1)


def _resolve_padding(
    padding: Any, kernel_size: tuple[int, int], stride: tuple[int, int], dilation: tuple[int, int]
) -> tuple[int, int, int, int]:
    """``padding`` as (top, bottom, left, right)."""
    if isinstance(padding, str) and padding == "valid":
        return 0, 0, 0, 0
    if isinstance(padding, str) and padding == "same":
        if stride != (1, 1):
            raise ValueError(f"padding: expected a number with stride {stride}, got 'same'")
        (top, bottom), (left, right) = (
            (d * (k - 1) // 2, d * (k - 1) - d * (k - 1) // 2)
            for k, d in zip(kernel_size, dilation, strict=True)
        )
        return top, bottom, left, right
    if isinstance(padding, str):
        raise ValueError(f"padding: expected 'same', 'valid' or integers, got {padding!r}")
    if (
        isinstance(padding, (tuple, list))
        and len(padding) == 2
        and any(isinstance(p, (tuple, list)) for p in padding)
    ):
        top, bottom = pair(padding[0], "padding", minimum=0)
        left, right = pair(padding[1], "padding", minimum=0)
        return top, bottom, left, right
    vertical, horizontal = pair(padding, "padding", minimum=0)
    return vertical, vertical, horizontal, horizontal


def _conv2d(
    ctx: Context,
    input: Any,
    weight: Any,
    bias: Any,
    *,
    stride: Any,
    padding: Any,
    dilation: Any,
    groups: int,
) -> Array:
    x, w = nhwc(input, "input"), _hwio(weight)
    steps, spread = pair(stride, "stride"), pair(dilation, "dilation")
    sides = _resolve_padding(padding, w.shape[:2], steps, spread)
    # The precision in force now holds for the gradients too.
    ctx.options = (steps, sides, spread, groups, get_precision())
    b = None if bias is None else as_float32(bias, "bias", ndim=1, form="(O,)")
    result = _core.conv2d(x, w, None if b is None else np.ascontiguousarray(b), *ctx.options)
    ctx.size, ctx.kernel_size = x.shape[1:3], w.shape[:2]
    # Each gradient needs the other operand only.
    ctx.weight = w if ctx.needs_input_grad[0] else None
    ctx.input = x if ctx.needs_input_grad[1] else None
    return nchw(result)


def _conv2d_backward(ctx: Context, grad: Array) -> tuple[Array | None, Array | None, Array | None]:
    g = nhwc(grad, "grad")
    need_input, need_weight, need_bias = ctx.needs_input_grad
    grad_input = grad_weight = grad_bias = None
    if need_input:
        grad_input = nchw(_core.conv2d_backward_data(g, ctx.weight, ctx.size, *ctx.options))
    if need_weight:
        grad_weight = _oihw(
            _core.conv2d_backward_weight(ctx.input, g, ctx.kernel_size, *ctx.options)
        )
    if need_bias:
        grad_bias = _core.conv2d_backward_bias(g)
    return grad_input, grad_weight, grad_bias


def _conv2d_graph(
    trace: Trace,
    input: Any,
    weight: Any,
    bias: Any,
    *,
    stride: Any,
    padding: Any,
    dilation: Any,
    groups: int,
) -> Symbol:
    x = trace.image(input)
    values, key = trace.constant(weight, "weight")
    w = _hwio(values)
    b, bias_key = trace.vector(bias, "bias", w.shape[3])
    steps, spread = pair(stride, "stride"), pair(dilation, "dilation")
    sides = _resolve_padding(padding, w.shape[:2], steps, spread)
    return trace.symbol(
        trace.builder.conv2d(
            x, w, b, steps, sides, spread, groups, (key, bias_key), trace.name("conv2d")
        )
    )


def _linear(ctx: Context, input: Any, weight: Any, bias: Any) -> Array:
    x = as_float32(input, "input")
    w = np.ascontiguousarray(as_float32(weight, "weight", ndim=2, form="(out, in)"))
    _check_features(x.shape, w)
    flat = np.ascontiguousarray(x.reshape(math.prod(x.shape[:-1]), w.shape[1]))
    result = _core.matmul(flat, w, False, True)
    if bias is not None:
        b = as_float32(bias, "bias", ndim=1, form="(out,)")
        if b.shape != (w.shape[0],):
            raise ValueError(f"bias: expected shape ({w.shape[0]},), got {b.shape}")
        result += b
    ctx.shape = x.shape
    ctx.weight = w if ctx.needs_input_grad[0] else None
    ctx.input = flat if ctx.needs_input_grad[1] else None
    return result.reshape(*x.shape[:-1], w.shape[0])


def _linear_backward(ctx: Context, grad: Array) -> tuple[Array | None, Array | None, Array | None]:
    g = np.ascontiguousarray(grad.reshape(math.prod(grad.shape[:-1]), grad.shape[-1]))
    need_input, need_weight, need_bias = ctx.needs_input_grad
    return (
        _core.matmul(g, ctx.weight, False, False).reshape(ctx.shape) if need_input else None,
        _core.matmul(g, ctx.input, True, False) if need_weight else None,
        g.sum(axis=0, dtype=np.float64).astype(np.float32) if need_bias else None,
    )


def _linear_graph(trace: Trace, input: Any, weight: Any, bias: Any) -> Symbol:
    values, key = trace.constant(weight, "weight")
    w = np.ascontiguousarray(as_float32(values, "weight", ndim=2, form="(out, in)"))
    if isinstance(input, Symbol):
        _check_features(input.shape, w)
    x = trace.value(input, "input", 2, "(N, in) in a compiled module")
    b, bias_key = trace.vector(bias, "bias", w.shape[0])
    return trace.symbol(trace.builder.linear(x, w, b, (key, bias_key), trace.name("linear")))


def _check_features(shape: tuple[Any, ...], weight: Array) -> None:
    if not shape or shape[-1] != weight.shape[1]:
        raise ValueError(
            f"input: expected shape (..., {weight.shape[1]}) for a weight of shape {weight.shape}, "
            f"got {shape}"
        )


conv2d_ = Primitive("conv2d", _conv2d, _conv2d_backward, _conv2d_graph, fresh_gradients=True)
linear_ = Primitive("linear", _linear, _linear_backward, _linear_graph, fresh_gradients=True)


def conv2d(
    input: Any,
    weight: Any,
    bias: Any = None,
    stride: IntOrPair = 1,
    padding: IntOrPair | tuple[IntOrPair, IntOrPair] | str = 0,
    dilation: IntOrPair = 1,
    groups: int = 1,
) -> Any:
    """Two-dimensional convolution (cross-correlation), as ``torch.nn.functional.conv2d``.

    Parameters
    ----------
    input
        (N, C, H, W) float32. Channels-last memory is used without a copy.
    weight
        (O, C / groups, kh, kw) float32.
    bias
        (O,) float32, or None.
    stride, dilation
        Integer of at least 1, or a pair (rows, columns).
    padding
        Zeros around the input: an integer of at least 0, a pair (rows, columns), a pair of pairs
        ((top, bottom), (left, right)), ``"valid"``, or ``"same"`` (stride 1 only; an odd total
        puts the extra zero at the bottom and right).
    groups
        Number of channel groups that do not see each other; divides C and O.

    Returns
    -------
    (N, O, H_out, W_out) float32, channels-last in memory, with
    ``H_out = (H + top + bottom - dilation * (kh - 1) - 1) // stride + 1``.

    Raises
    ------
    ValueError
        If shapes do not fit or an output size would be less than 1.
    MemoryError
        If the output does not fit into memory.

    Examples
    --------
    >>> import numpy as np
    >>> from oxidet.nn import functional as F
    >>> x = np.arange(1.0, 10.0).reshape(1, 1, 3, 3)
    >>> F.conv2d(x, np.arange(4.0).reshape(1, 1, 2, 2))
    array([[[[25., 31.],
             [43., 49.]]]], dtype=float32)
    """
    return conv2d_(
        input,
        weight,
        bias,
        stride=stride,
        padding=padding,
        dilation=dilation,
        groups=integer(groups, "groups", 1, INT32_MAX),
    )


def linear(input: Any, weight: Any, bias: Any = None) -> Any:
    """``input @ weight.T + bias``, as ``torch.nn.functional.linear``.

    ``input`` is (..., in), ``weight`` (out, in), ``bias`` (out,) or None; all float32. Returns
    (..., out). Raises ValueError if the shapes do not fit.

    >>> from oxidet.nn import functional as F
    >>> F.linear([[1.0, 2.0]], [[3.0, 4.0], [5.0, 6.0]], [0.5, 0.0])
    array([[11.5, 17. ]], dtype=float32)
    """
    return linear_(input, weight, bias)
