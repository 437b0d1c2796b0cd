"""Primitives of pooling: sliding and adaptive, maximum and average."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from oxidet import _core
from oxidet._arrays import INT32_MAX, IntOrPair, integer, nchw, nhwc, pair
from oxidet.nn.primitive import Context, Primitive
from oxidet.nn.symbol import Symbol
from oxidet.nn.tensor import Tensor
from oxidet.nn.trace import Trace

Array = NDArray[Any]
Pair = tuple[int, int]


def _sliding(kernel_size: Any, stride: Any, padding: Any) -> tuple[Pair, Pair, Pair]:
    """The window as pairs; no stride means that windows do not overlap."""
    kernel = pair(kernel_size, "kernel_size")
    steps = kernel if stride is None else pair(stride, "stride")
    return kernel, steps, pair(padding, "padding", minimum=0)


def _flag(value: Any, argument: str) -> bool:
    if not isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{argument}: expected True or False, got {value!r}")
    return bool(value)


def _output_size(output_size: Any, size: Pair) -> Pair:
    """The output size of adaptive pooling; None keeps an axis of ``size``."""
    sizes = output_size
    if sizes is None or isinstance(sizes, (int, np.integer)):
        sizes = (sizes, sizes)
    if isinstance(sizes, (tuple, list)) and len(sizes) == 2:
        sizes = tuple(s if o is None else o for o, s in zip(sizes, size, strict=True))
    return pair(sizes, "output_size", minimum=0)


def _max_windows(
    kernel_size: Any, stride: Any, padding: Any, dilation: Any, ceil_mode: Any
) -> tuple[Pair, Pair, Pair, Pair, bool]:
    return (
        *_sliding(kernel_size, stride, padding),
        pair(dilation, "dilation"),
        _flag(ceil_mode, "ceil_mode"),
    )


def _average_windows(
    kernel_size: Any,
    stride: Any,
    padding: Any,
    ceil_mode: Any,
    count_include_pad: Any,
    divisor_override: Any,
) -> tuple[Pair, Pair, Pair, bool, bool, int | None]:
    if divisor_override is not None:
        divisor_override = integer(divisor_override, "divisor_override", -INT32_MAX, INT32_MAX)
    return (
        *_sliding(kernel_size, stride, padding),
        _flag(ceil_mode, "ceil_mode"),
        _flag(count_include_pad, "count_include_pad"),
        divisor_override,
    )


def _max_pool2d(
    ctx: Context,
    input: Any,
    *,
    kernel_size: Any,
    stride: Any,
    padding: Any,
    dilation: Any,
    ceil_mode: Any,
) -> Array:
    x = nhwc(input, "input")
    windows = _max_windows(kernel_size, stride, padding, dilation, ceil_mode)
    if not ctx.recording:
        return nchw(_core.max_pool2d(x, *windows))
    output, ctx.places = _core.max_pool2d_with_places(x, *windows)
    ctx.size, ctx.windows = x.shape[1:3], windows
    return nchw(output)


def _max_pool2d_backward(ctx: Context, grad: Array) -> tuple[Array]:
    g = nhwc(grad, "grad")
    return (nchw(_core.max_pool2d_backward(g, ctx.places, ctx.size, *ctx.windows)),)


def _adaptive_max_pool2d(ctx: Context, input: Any, *, output_size: Any) -> Array:
    x = nhwc(input, "input")
    size = _output_size(output_size, (x.shape[1], x.shape[2]))
    if not ctx.recording:
        return nchw(_core.adaptive_max_pool2d(x, size))
    output, ctx.places = _core.adaptive_max_pool2d_with_places(x, size)
    ctx.size = x.shape[1:3]
    return nchw(output)


def _adaptive_max_pool2d_backward(ctx: Context, grad: Array) -> tuple[Array]:
    g = nhwc(grad, "grad")
    return (nchw(_core.adaptive_max_pool2d_backward(g, ctx.places, ctx.size)),)


def _avg_pool2d(
    ctx: Context,
    input: Any,
    *,
    kernel_size: Any,
    stride: Any,
    padding: Any,
    ceil_mode: Any,
    count_include_pad: Any,
    divisor_override: Any,
) -> Array:
    x = nhwc(input, "input")
    ctx.size = x.shape[1:3]
    ctx.windows = _average_windows(
        kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override
    )
    return nchw(_core.avg_pool2d(x, *ctx.windows))


def _avg_pool2d_backward(ctx: Context, grad: Array) -> tuple[Array]:
    return (nchw(_core.avg_pool2d_backward(nhwc(grad, "grad"), ctx.size, *ctx.windows)),)


def _adaptive_avg_pool2d(ctx: Context, input: Any, *, output_size: Any) -> Array:
    x = nhwc(input, "input")
    ctx.size = (x.shape[1], x.shape[2])
    return nchw(_core.adaptive_avg_pool2d(x, _output_size(output_size, ctx.size)))


def _adaptive_avg_pool2d_backward(ctx: Context, grad: Array) -> tuple[Array]:
    return (nchw(_core.adaptive_avg_pool2d_backward(nhwc(grad, "grad"), ctx.size)),)


def _max_pool2d_graph(trace: Trace, input: Any, **window: Any) -> Symbol:
    windows = _max_windows(**window)
    name = trace.name("max_pool2d")
    return trace.symbol(trace.builder.max_pool2d(trace.image(input), *windows, name))


def _avg_pool2d_graph(trace: Trace, input: Any, **window: Any) -> Symbol:
    windows = _average_windows(**window)
    name = trace.name("avg_pool2d")
    return trace.symbol(trace.builder.avg_pool2d(trace.image(input), *windows, name))


def _adaptive_max_pool2d_graph(trace: Trace, input: Any, *, output_size: Any) -> Symbol:
    x, name = trace.image(input), trace.name("adaptive_max_pool2d")
    size = _output_size(output_size, input.shape[2:])
    return trace.symbol(trace.builder.adaptive_max_pool2d(x, size, name))


def _adaptive_avg_pool2d_graph(trace: Trace, input: Any, *, output_size: Any) -> Symbol:
    x, name = trace.image(input), trace.name("adaptive_avg_pool2d")
    size = _output_size(output_size, input.shape[2:])
    return trace.symbol(trace.builder.adaptive_avg_pool2d(x, size, name))


max_pool2d_ = Primitive(
    "max_pool2d", _max_pool2d, _max_pool2d_backward, _max_pool2d_graph, fresh_gradients=True
)
avg_pool2d_ = Primitive(
    "avg_pool2d", _avg_pool2d, _avg_pool2d_backward, _avg_pool2d_graph, fresh_gradients=True
)
adaptive_max_pool2d_ = Primitive(
    "adaptive_max_pool2d",
    _adaptive_max_pool2d,
    _adaptive_max_pool2d_backward,
    _adaptive_max_pool2d_graph,
    fresh_gradients=True,
)
adaptive_avg_pool2d_ = Primitive(
    "adaptive_avg_pool2d",
    _adaptive_avg_pool2d,
    _adaptive_avg_pool2d_backward,
    _adaptive_avg_pool2d_graph,
    fresh_gradients=True,
)


def max_pool2d(
    input: Any,
    kernel_size: IntOrPair,
    stride: IntOrPair | None = None,
    padding: IntOrPair = 0,
    dilation: IntOrPair = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Any:
    """Maximum under a sliding window, as ``torch.nn.functional.max_pool2d``.

    Parameters
    ----------
    input
        (N, C, H, W) float32. Channels-last memory is used without a copy.
    kernel_size, stride, dilation
        Integer of at least 1, or a pair (rows, columns). ``stride`` defaults to ``kernel_size``.
    padding
        Positions added on every side, which never win: integer or pair, at most half of
        ``kernel_size``.
    ceil_mode
        Whether a last window that hangs over the end counts (if it begins on a pixel).
    return_indices
        Whether to return where the maxima are, too.

    Returns
    -------
    (N, C, H_out, W_out) float32, channels-last in memory; with ``return_indices`` also an int64
    array of that shape, the places ``row * W + column`` in each input plane. Of equal values the
    first in row-major order wins and receives the gradient; a NaN wins over every number. An empty
    batch gives an empty batch.

    Raises
    ------
    ValueError
        If no window fits, or padding exceeds half of ``kernel_size``.

    Examples
    --------
    >>> import numpy as np
    >>> from oxidet.nn import functional as F
    >>> F.max_pool2d(np.arange(25.0).reshape(1, 1, 5, 5), 3, 2)
    array([[[[12., 14.],
             [22., 24.]]]], dtype=float32)
    """
    output = max_pool2d_(
        input,
        kernel_size=kernel_size,
        stride=stride,
        padding=padding,
        dilation=dilation,
        ceil_mode=ceil_mode,
    )
    if not return_indices:
        return output
    # A primitive has one output, so the rare wish for indices searches a second time.
    _, indices = _core.max_pool2d_with_indices(
        nhwc(input, "input"),
        *_sliding(kernel_size, stride, padding),
        pair(dilation, "dilation"),
        ceil_mode,
    )
    return output, _as_indices(indices, input)


def adaptive_max_pool2d(input: Any, output_size: Any, return_indices: bool = False) -> Any:
    """Maximum under windows that share the input evenly (torch's function of this name).

    ``input`` is (N, C, H, W) float32; ``output_size`` an integer or a pair (rows, columns), in
    which None keeps an axis. Window i covers rows ``floor(i * H / out)`` to
    ``ceil((i + 1) * H / out) - 1``. Returns (N, C, *output_size) float32, and with
    ``return_indices`` the int64 places ``row * W + column``. Raises ValueError for an image
    without pixels or a negative size.

    >>> import numpy as np
    >>> from oxidet.nn import functional as F
    >>> F.adaptive_max_pool2d(np.arange(5.0).reshape(1, 1, 1, 5), (1, 3))
    array([[[[1., 3., 4.]]]], dtype=float32)
    """
    output = adaptive_max_pool2d_(input, output_size=output_size)
    if not return_indices:
        return output
    x = nhwc(input, "input")
    size = _output_size(output_size, (x.shape[1], x.shape[2]))
    return output, _as_indices(_core.adaptive_max_pool2d_with_indices(x, size)[1], input)


def _as_indices(indices: Array, input: Any) -> Any:
    array = nchw(indices.astype(np.int64))
    return Tensor(array) if isinstance(input, Tensor) else array


def avg_pool2d(
    input: Any,
    kernel_size: IntOrPair,
    stride: IntOrPair | None = None,
    padding: IntOrPair = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Any:
    """Mean under a sliding window, as ``torch.nn.functional.avg_pool2d``.

    Parameters
    ----------
    input
        (N, C, H, W) float32. Channels-last memory is used without a copy.
    kernel_size, stride, padding, ceil_mode
        As for :func:`max_pool2d`; padding counts as zeros.
    count_include_pad
        Whether the divisor counts padding under the window. What ``ceil_mode`` adds beyond the
        padding never counts.
    divisor_override
        An integer to divide every sum by instead; not 0.

    Returns
    -------
    (N, C, H_out, W_out) float32, channels-last in memory.

    Raises
    ------
    ValueError
        If no window fits, padding exceeds half of ``kernel_size``, or the divisor is 0.

    Examples
    --------
    >>> import numpy as np
    >>> from oxidet.nn import functional as F
    >>> F.avg_pool2d(np.arange(16.0).reshape(1, 1, 4, 4), 3, 2, ceil_mode=True)
    array([[[[ 5. ,  6.5],
             [11. , 12.5]]]], dtype=float32)
    """
    return avg_pool2d_(
        input,
        kernel_size=kernel_size,
        stride=stride,
        padding=padding,
        ceil_mode=ceil_mode,
        count_include_pad=count_include_pad,
        divisor_override=divisor_override,
    )


def adaptive_avg_pool2d(input: Any, output_size: Any) -> Any:
    """Mean under windows that share the input evenly (torch's function of this name).

    ``input`` is (N, C, H, W) float32; ``output_size`` an integer or a pair (rows, columns), in
    which None keeps an axis. Window i covers rows ``floor(i * H / out)`` to
    ``ceil((i + 1) * H / out) - 1``; windows may overlap. Size 1 is the mean of each plane. Returns
    (N, C, *output_size) float32. Raises ValueError for an image without pixels or a negative size.

    >>> import numpy as np
    >>> from oxidet.nn import functional as F
    >>> F.adaptive_avg_pool2d(np.arange(5.0).reshape(1, 1, 1, 5), (1, 3))
    array([[[[0.5, 2. , 3.5]]]], dtype=float32)
    """
    return adaptive_avg_pool2d_(input, output_size=output_size)
