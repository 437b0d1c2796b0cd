"""Primitives that NumPy computes: arithmetic with broadcasting, sums, and changes of shape.

NumPy keeps the memory order of its operands in element-wise results, so channels-last activations
stay channels-last. Importing this module completes the operators of :class:`Tensor` and
:class:`Symbol`.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from oxidet._arrays import as_array, as_float32, axis, integer, number
from oxidet.nn.primitive import Context, Primitive
from oxidet.nn.symbol import BatchSize, Symbol, trace_error
from oxidet.nn.tensor import Tensor
from oxidet.nn.trace import Trace

Array = NDArray[Any]


def _numbers(value: Any, argument: str) -> Array:
    """``value`` as an array of float32 or of an integer type."""
    array = as_array(value, argument)
    return array.astype(np.float32, copy=False) if array.dtype.kind == "f" else array


def _operands(a: Any, b: Any) -> tuple[Array, Array]:
    """Both operands as arrays of float32, or of integers (a Python int takes the other's type)."""
    left, right = _numbers(a, "self"), _numbers(b, "other")
    if "f" in (left.dtype.kind, right.dtype.kind):
        return left.astype(np.float32, copy=False), right.astype(np.float32, copy=False)
    if type(a) is int and right.dtype.kind in "iu":
        left = left.astype(right.dtype)
    if type(b) is int and left.dtype.kind in "iu":
        right = right.astype(left.dtype)
    return left, right


def _unbroadcast(gradient: Array, shape: tuple[int, ...]) -> Array:
    """Sum a gradient over the axes along which its operand was repeated."""
    if gradient.shape == shape:
        return gradient
    extra = gradient.ndim - len(shape)
    axes = tuple(range(extra)) + tuple(
        i + extra for i, n in enumerate(shape) if n == 1 and gradient.shape[i + extra] != 1
    )
    total = gradient.sum(axis=axes, keepdims=True, dtype=np.float64)
    return total.astype(np.float32).reshape(shape)


def _add(ctx: Context, a: Any, b: Any) -> Array:
    a, b = _operands(a, b)
    ctx.shapes = a.shape, b.shape
    return np.asarray(a + b)


def _add_backward(ctx: Context, grad: Array) -> tuple[Array, Array]:
    return _unbroadcast(grad, ctx.shapes[0]), _unbroadcast(grad, ctx.shapes[1])


def _sub(ctx: Context, a: Any, b: Any) -> Array:
    a, b = _operands(a, b)
    ctx.shapes = a.shape, b.shape
    return np.asarray(a - b)


def _sub_backward(ctx: Context, grad: Array) -> tuple[Array, Array | None]:
    right = _unbroadcast(-grad, ctx.shapes[1]) if ctx.needs_input_grad[1] else None
    return _unbroadcast(grad, ctx.shapes[0]), right


def _mul(ctx: Context, a: Any, b: Any) -> Array:
    ctx.operands = a, b = _operands(a, b)
    return np.asarray(a * b)


def _mul_backward(ctx: Context, grad: Array) -> tuple[Array | None, Array | None]:
    a, b = ctx.operands
    return (
        _unbroadcast(grad * b, a.shape) if ctx.needs_input_grad[0] else None,
        _unbroadcast(grad * a, b.shape) if ctx.needs_input_grad[1] else None,
    )


def _div(ctx: Context, a: Any, b: Any) -> Array:
    ctx.operands = a, b = as_float32(a, "self"), as_float32(b, "other")
    return np.asarray(a / b)


def _div_backward(ctx: Context, grad: Array) -> tuple[Array | None, Array | None]:
    a, b = ctx.operands
    return (
        _unbroadcast(grad / b, a.shape) if ctx.needs_input_grad[0] else None,
        _unbroadcast(-grad * a / (b * b), b.shape) if ctx.needs_input_grad[1] else None,
    )


def _sum(ctx: Context, x: Array, *, dim: Any, keepdims: bool, mean: bool) -> Array:
    ctx.shape, ctx.keepdims, ctx.dim = x.shape, keepdims, _axes(dim, x.ndim)
    if x.dtype.kind != "f":
        if mean:
            raise TypeError(f"mean: expected floating-point values, got dtype {x.dtype}")
        return np.asarray(np.sum(x, axis=ctx.dim, keepdims=keepdims))
    total = np.asarray(np.sum(x, axis=ctx.dim, keepdims=keepdims, dtype=np.float64))
    ctx.count = x.size // max(total.size, 1) if mean else 1
    with np.errstate(invalid="ignore"):  # the mean of nothing is NaN, as in torch
        return np.asarray(total / ctx.count, dtype=np.float32)


def _sum_backward(ctx: Context, grad: Array) -> tuple[Array]:
    if not ctx.keepdims:
        grad = np.expand_dims(grad, ctx.dim)
    return (np.broadcast_to(grad / np.float32(max(ctx.count, 1)), ctx.shape),)


def _axes(dim: Any, ndim: int, argument: str = "dim") -> tuple[int, ...]:
    """The axes that ``dim`` names: one, several, or with None all."""
    if dim is None:
        return tuple(range(ndim))
    dims = tuple(dim) if isinstance(dim, (tuple, list)) else (dim,)
    axes = tuple(axis(d, argument, ndim) for d in dims)
    if len(set(axes)) != len(axes):
        raise ValueError(f"{argument}: expected every axis once, got {dim}")
    return axes


def _reshape(ctx: Context, x: Array, *, shape: tuple[int, ...]) -> Array:
    x = as_array(x, "input")
    ctx.shape = x.shape
    try:
        return x.reshape(shape)
    except ValueError:
        raise ValueError(
            f"shape: expected one that holds {x.size} values (input has shape {x.shape}), "
            f"got {shape}"
        ) from None


def _reshape_backward(ctx: Context, grad: Array) -> tuple[Array]:
    return (grad.reshape(ctx.shape),)


def _permute(ctx: Context, x: Array, *, dims: tuple[int, ...]) -> Array:
    axes = _axes(dims, x.ndim, "dims")
    if len(axes) != x.ndim:
        raise ValueError(f"dims: expected all {x.ndim} axes, got {dims}")
    ctx.inverse = np.argsort(axes)
    return x.transpose(axes)


def _permute_backward(ctx: Context, grad: Array) -> tuple[Array]:
    return (grad.transpose(ctx.inverse),)


def _getitem(ctx: Context, x: Array, *, index: Any) -> Array:
    # A copy of the index, which the caller may change before the backward pass.
    ctx.shape, ctx.index = x.shape, copy.deepcopy(index) if ctx.recording else index
    return np.asarray(x[index])


def _getitem_backward(ctx: Context, grad: Array) -> tuple[Array]:
    full = np.zeros(ctx.shape, np.float32)
    parts = ctx.index if isinstance(ctx.index, tuple) else (ctx.index,)
    if any(isinstance(part, (np.ndarray, list)) for part in parts):
        np.add.at(full, ctx.index, grad)  # an array may name an element more than once
    else:
        full[ctx.index] = grad
    return (full,)


def _cat(ctx: Context, *tensors: Any, dim: Any) -> Array:
    arrays = [_numbers(tensor, f"tensors[{i}]") for i, tensor in enumerate(tensors)]
    if any(array.dtype.kind == "f" for array in arrays):
        arrays = [array.astype(np.float32, copy=False) for array in arrays]
    ctx.dim = _cat_axis([array.shape for array in arrays], dim)
    ctx.ends = np.cumsum([array.shape[ctx.dim] for array in arrays])[:-1]
    return np.concatenate(arrays, axis=ctx.dim)


def _cat_axis(shapes: Sequence[tuple[Any, ...]], dim: Any) -> int:
    """The axis that ``dim`` names, if the shapes are the same along the others."""
    shape = shapes[0]
    joined = axis(dim, "dim", len(shape))
    for i, other in enumerate(shapes):
        if other != (*shape[:joined], *other[joined : joined + 1], *shape[joined + 1 :]):
            raise ValueError(
                f"tensors[{i}]: expected the shape of tensors[0], {shape}, except along axis "
                f"{joined}, got {other}"
            )
    return joined


def _cat_backward(ctx: Context, grad: Array) -> tuple[Array, ...]:
    return tuple(np.split(grad, ctx.ends, axis=ctx.dim))


def _clamp(ctx: Context, input: Any, *, low: float, high: float) -> Array:
    x = as_float32(input, "input")
    if ctx.recording:
        ctx.inside = (x >= low) & (x <= high)
    return np.clip(x, np.float32(low), np.float32(high))


def _clamp_backward(ctx: Context, grad: Array) -> tuple[Array]:
    return (grad * ctx.inside,)


# --- on symbols: what keeps the images of a batch apart, and what networks use


def _affine(trace: Trace, x: Any, factor: float, offset: float, name: str) -> Symbol:
    # To add nothing is to add -0.0, which leaves the sign of every zero.
    value = trace.value(x, "self")
    return trace.symbol(trace.builder.scale(value, factor, offset, trace.name(name)))


def _channelwise(
    trace: Trace, a: Any, b: Any, kinds: tuple[str | None, str | None], name: str
) -> Symbol | None:
    """A symbol with a parameter or buffer that has a value for each channel; None without one.

    ``kinds`` are what this is called with the symbol on the left and on the right.
    """
    for x, other, kind in ((a, b, kinds[0]), (b, a, kinds[1])):
        found = None if kind is None else trace.channels(other, x)
        if found is not None:
            values, key = found
            value = trace.value(x, "self")
            node = trace.builder.channelwise(value, str(kind), values, [key], trace.name(name))
            return trace.symbol(node)
    return None


def _sum_of(trace: Trace, a: Any, b: Any, name: str) -> Symbol:
    left, right = trace.value(a, "self"), trace.value(b, "other")
    if a.shape != b.shape:
        raise trace_error(f"{name} of symbols of two shapes, {a.shape} and {b.shape}")
    return trace.symbol(trace.builder.add(left, right, trace.name(name)))


def _add_graph(trace: Trace, a: Any, b: Any) -> Symbol:
    left, right = trace.number(a), trace.number(b)
    if right is not None:
        return _affine(trace, a, 1.0, right, "add")
    if left is not None:
        return _affine(trace, b, 1.0, left, "add")
    affine = _channelwise(trace, a, b, ("add", "add"), "add")
    if affine is not None:
        return affine
    return _sum_of(trace, a, b, "add")


def _sub_graph(trace: Trace, a: Any, b: Any) -> Symbol:
    left, right = trace.number(a), trace.number(b)
    if right is not None:
        return _affine(trace, a, 1.0, -right, "sub")
    if left is not None:
        return _affine(trace, b, -1.0, left, "sub")
    affine = _channelwise(trace, a, b, ("sub", "rsub"), "sub")
    if affine is not None:
        return affine
    return _sum_of(trace, a, _affine(trace, b, -1.0, -0.0, "neg"), "sub")


def _mul_graph(trace: Trace, a: Any, b: Any) -> Symbol:
    left, right = trace.number(a), trace.number(b)
    if right is not None:
        return _affine(trace, a, right, -0.0, "mul")
    if left is not None:
        return _affine(trace, b, left, -0.0, "mul")
    affine = _channelwise(trace, a, b, ("mul", "mul"), "mul")
    if affine is not None:
        return affine
    trace.value(a, "self")
    trace.value(b, "other")
    raise trace_error("a product of symbols has no graph form")


def _div_graph(trace: Trace, a: Any, b: Any) -> Symbol:
    right = trace.number(b)
    if right is None:
        affine = _channelwise(trace, a, b, ("div", None), "div")
        if affine is not None:
            return affine
        raise trace_error("a division by something other than a number has no graph form")
    if right == 0:
        raise trace_error("a division by 0")
    return _affine(trace, a, 1.0 / right, -0.0, "div")


def _sum_graph(trace: Trace, x: Any, *, dim: Any, keepdims: bool, mean: bool) -> Symbol:
    value = trace.value(x, "self")
    if not mean or x.ndim != 4 or sorted(_axes(dim, 4)) != [2, 3]:
        what = f"{'mean' if mean else 'sum'} over {'all axes' if dim is None else f'dim={dim}'}"
        raise trace_error(f"{what} has no graph form; the mean over dim=(2, 3) has")
    pooled = trace.builder.adaptive_avg_pool2d(value, (1, 1), trace.name("mean"))
    if not keepdims:
        pooled = trace.builder.flatten(pooled, trace.name("flatten"))
    return trace.symbol(pooled)


def _reshape_graph(trace: Trace, x: Any, *, shape: tuple[Any, ...]) -> Symbol:
    value = trace.value(x, "self")
    if not shape:
        raise trace_error(f"reshaping {x.shape} to ()")
    batch, *lengths = shape
    count = math.prod(x.shape[1:])
    if batch is trace.batch and lengths.count(-1) == 1:
        known = -math.prod(lengths)
        if known > 0 and count % known == 0:
            lengths[lengths.index(-1)] = count // known
    # A batch of -1 is right if everything else is accounted for.
    fits = (batch is trace.batch or batch == -1) and count > 0 and math.prod(lengths) == count
    if fits and tuple(lengths) == x.shape[1:]:
        return trace.symbol(value)
    if fits and len(lengths) == 1:
        return trace.symbol(trace.builder.flatten(value, trace.name("flatten")))
    raise trace_error(
        f"reshaping {x.shape} to {tuple(shape)}; a plan can only flatten all but the batch, as in "
        "x.view(x.shape[0], -1)"
    )


def _getitem_graph(trace: Trace, x: Any, *, index: Any) -> Symbol:
    value = trace.value(x, "self")
    ranges = _ranges(index, x.shape)
    if ranges is None:
        raise trace_error(
            "an index that is not slices of channels, rows or columns, as in x[:, 2:5] or "
            "x[:, :, ::2, ::2]"
        )
    if any(count == 0 for _, count, _ in ranges):
        raise trace_error(f"an index that leaves nothing of the shape {x.shape}")
    first, count, _ = ranges[0]
    if count < x.shape[1]:
        value = trace.builder.channels(value, first, count, trace.name("channels"))
    if any(r != (0, n, 1) for r, n in zip(ranges[1:], x.shape[2:], strict=True)):
        rows, cols = ranges[1:]
        value = trace.builder.slice(value, rows, cols, trace.name("slice"))
    return trace.symbol(value)


def _ranges(index: Any, shape: tuple[Any, ...]) -> list[tuple[int, int, int]] | None:
    """(first, count, step) of each axis but the batch, if that is what an index means."""
    parts = list(index) if isinstance(index, tuple) else [index]
    if parts.count(...) == 1:
        place = parts.index(...)
        parts[place : place + 1] = [slice(None)] * (len(shape) - len(parts) + 1)
    parts += [slice(None)] * (len(shape) - len(parts))
    if len(parts) != len(shape) or parts[0] != slice(None):
        return None
    if not all(isinstance(part, slice) for part in parts):
        return None
    ranges = [range(n)[part] for n, part in zip(shape[1:], parts[1:], strict=True)]
    if ranges[0].step != 1 or any(r.step < 1 for r in ranges):
        return None
    return [(r.start, len(r), r.step) for r in ranges]


def _cat_graph(trace: Trace, *tensors: Any, dim: Any) -> Symbol:
    values = [trace.value(tensor, f"tensors[{i}]") for i, tensor in enumerate(tensors)]
    joined = _cat_axis([tensor.shape for tensor in tensors], dim)
    if joined != 1:
        raise trace_error(f"concatenation along axis {joined}, not along axis 1")
    return trace.symbol(trace.builder.concat(values, trace.name("cat")))


def _clamp_graph(trace: Trace, input: Any, *, low: float, high: float) -> Symbol:
    x = trace.value(input, "input")
    return trace.symbol(trace.builder.activation(x, "clamp", low, high, trace.name("clamp")))


add_ = Primitive("add", _add, _add_backward, _add_graph)
sub_ = Primitive("sub", _sub, _sub_backward, _sub_graph)
mul_ = Primitive("mul", _mul, _mul_backward, _mul_graph)
div_ = Primitive("div", _div, _div_backward, _div_graph)
sum_ = Primitive("sum", _sum, _sum_backward, _sum_graph)
reshape_ = Primitive("reshape", _reshape, _reshape_backward, _reshape_graph)
permute_ = Primitive("permute", _permute, _permute_backward)
getitem_ = Primitive("getitem", _getitem, _getitem_backward, _getitem_graph)
cat_ = Primitive("cat", _cat, _cat_backward, _cat_graph)
clamp_ = Primitive("clamp", _clamp, _clamp_backward, _clamp_graph)


def cat(tensors: Sequence[Any], dim: int = 0) -> Any:
    """Concatenate arrays or tensors along axis ``dim``, as ``torch.cat``.

    ``tensors`` have one shape except along that axis. Floating types become float32, and with
    them integers beside them; integers alone stay integers. Raises ValueError without tensors, for
    shapes that do not fit, or if there is no axis ``dim``.

    >>> from oxidet.nn import functional as F
    >>> F.cat([[[1.0, 2.0]], [[3.0]]], dim=1)
    array([[1., 2., 3.]], dtype=float32)
    """
    if len(tensors) == 0:
        raise ValueError("tensors: expected at least one array, got none")
    return cat_(*tensors, dim=dim)


def clamp(input: Any, min: float | None = None, max: float | None = None) -> Any:
    """``input``, but at least ``min`` and at most ``max``, as ``torch.clamp`` with numbers.

    ``input`` is float32 of any shape; a limit that is None does not hold. A NaN stays NaN, and the
    gradient is 0 outside of the limits. Raises ValueError if both limits are None or ``min`` is
    larger than ``max``.

    >>> from oxidet.nn import functional as F
    >>> F.clamp([-1.0, 3.0, 7.0], 0, 6)
    array([0., 3., 6.], dtype=float32)
    """
    if min is None and max is None:
        raise ValueError("min: expected a number unless max is one, got None")
    low = -math.inf if min is None else number(min, "min")
    high = math.inf if max is None else number(max, "max")
    if low > high:
        raise ValueError(f"min: expected at most max={high}, got {low}")
    return clamp_(input, low=low, high=high)


def reshape(x: Any, *shape: Any) -> Any:
    """The same values, C-order, in another shape; one length may be -1."""
    lengths = shape[0] if len(shape) == 1 and isinstance(shape[0], (tuple, list)) else shape
    return reshape_(
        x, shape=tuple(n if isinstance(n, BatchSize) else integer(n, "shape", -1) for n in lengths)
    )


def flatten(x: Any, start_dim: int = 0, end_dim: int = -1) -> Any:
    """Join the axes from ``start_dim`` to ``end_dim`` into one, as ``torch.flatten``.

    The values keep their order: C, H, W, however they lie in memory. A single number becomes an
    array of one. Raises ValueError if there is no such axis, or ``start_dim`` lies behind
    ``end_dim``.

    >>> import numpy as np
    >>> from oxidet.nn import functional as F
    >>> F.flatten(np.zeros((2, 3, 4, 4)), 1).shape
    (2, 48)
    """
    shape = np.shape(x)
    start = axis(start_dim, "start_dim", max(len(shape), 1))
    end = axis(end_dim, "end_dim", max(len(shape), 1))
    if start > end:
        raise ValueError(f"start_dim: expected an axis up to end_dim={end_dim}, got {start_dim}")
    joined = int(np.prod(shape[start : end + 1], dtype=np.int64))
    return reshape_(x, shape=(*shape[:start], joined, *shape[end + 1 :]))


def permute(x: Any, *dims: Any) -> Any:
    """The axes in another order."""
    order = dims[0] if len(dims) == 1 and isinstance(dims[0], (tuple, list)) else dims
    return permute_(x, dims=tuple(order))


def _plain_index(index: Any) -> Any:
    if isinstance(index, tuple):
        return tuple(_plain_index(i) for i in index)
    return index._array if isinstance(index, Tensor) else index


def _reduce(mean: bool) -> Any:
    def method(self: Any, dim: int | tuple[int, ...] | None = None, keepdim: bool = False) -> Any:
        return sum_(self, dim=dim, keepdims=keepdim, mean=mean)

    method.__doc__ = f"The {'mean' if mean else 'sum'} over all axes, or over ``dim``."
    method.__name__ = "mean" if mean else "sum"
    return method


def _complete(cls: Any) -> None:
    cls.__add__ = lambda self, other: add_(self, other)
    cls.__radd__ = lambda self, other: add_(other, self)
    cls.__sub__ = lambda self, other: sub_(self, other)
    cls.__rsub__ = lambda self, other: sub_(other, self)
    cls.__mul__ = lambda self, other: mul_(self, other)
    cls.__rmul__ = lambda self, other: mul_(other, self)
    cls.__truediv__ = lambda self, other: div_(self, other)
    cls.__rtruediv__ = lambda self, other: div_(other, self)
    cls.__neg__ = lambda self: mul_(self, -1.0)
    cls.__getitem__ = lambda self, index: getitem_(self, index=_plain_index(index))
    cls.sum = _reduce(mean=False)
    cls.mean = _reduce(mean=True)
    cls.reshape = reshape
    cls.view = reshape
    cls.flatten = flatten
    cls.permute = permute


_complete(Tensor)
_complete(Symbol)
