"""Primitives of batch normalisation, with its running statistics, and of local response
normalisation."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from oxidet import _core
from oxidet._arrays import INT32_MAX, as_float32, integer, number, vector
from oxidet.nn.primitive import Context, Primitive
from oxidet.nn.symbol import Symbol, trace_error
from oxidet.nn.tensor import Stored
from oxidet.nn.trace import Trace

Array = NDArray[Any]


def _channels_last(value: Any, argument: str) -> Array:
    """(N, C, ...) as contiguous (N, ..., C) float32."""
    array = as_float32(value, argument)
    if array.ndim < 2:
        raise ValueError(
            f"{argument}: expected at least 2 dimensions (N, C, ...), got shape {array.shape}"
        )
    return np.ascontiguousarray(np.moveaxis(array, 1, -1))


def _batch_norm(
    ctx: Context,
    input: Any,
    weight: Any,
    bias: Any,
    *,
    mean: Any,
    var: Any,
    eps: float,
    training: bool,
) -> Array:
    x = _channels_last(input, "input")
    channels = x.shape[-1]
    mean = vector(mean, "running_mean", channels)
    var = vector(var, "running_var", channels)
    w = None if weight is None else vector(weight, "weight", channels)
    b = None if bias is None else vector(bias, "bias", channels)
    output = _core.batch_norm(x, mean, var, w, b, eps)
    if ctx.recording:
        ctx.input, ctx.statistics = x, (mean, var, w, eps, training)
    return np.moveaxis(output, -1, 1)


def _batch_norm_backward(
    ctx: Context, grad: Array
) -> tuple[Array | None, Array | None, Array | None]:
    g = _channels_last(grad, "grad")
    grad_input, grad_weight, grad_bias = _core.batch_norm_backward(ctx.input, g, *ctx.statistics)
    need_input, need_weight, need_bias = ctx.needs_input_grad
    return (
        np.moveaxis(grad_input, -1, 1) if need_input else None,
        grad_weight if need_weight else None,
        grad_bias if need_bias else None,
    )


def _batch_norm_graph(
    trace: Trace,
    input: Any,
    weight: Any,
    bias: Any,
    *,
    mean: Any,
    var: Any,
    eps: float,
    training: bool,
) -> Symbol:
    x = trace.value(input, "input")
    channels = input.shape[1]
    m, mean_key = trace.vector(mean, "running_mean", channels)
    v, var_key = trace.vector(var, "running_var", channels)
    w, weight_key = trace.vector(weight, "weight", channels)
    b, bias_key = trace.vector(bias, "bias", channels)
    key = (mean_key, var_key, weight_key, bias_key)
    name = trace.name("batch_norm")
    return trace.symbol(trace.builder.batch_norm(x, m, v, w, b, eps, key, name))


batch_norm_ = Primitive(
    "batch_norm", _batch_norm, _batch_norm_backward, _batch_norm_graph, fresh_gradients=True
)


def average(running: Any, statistic: Array, momentum: float) -> None:
    """Move ``running`` towards ``statistic``; both (C,). None stays None."""
    if running is None:
        return
    mixed = (1 - momentum) * np.asarray(running, np.float64) + momentum * statistic
    if isinstance(running, Stored):
        running.copy_(mixed)
    else:
        running[...] = mixed


def batch_norm(
    input: Any,
    running_mean: Any,
    running_var: Any,
    weight: Any = None,
    bias: Any = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Any:
    """Normalise each channel, as ``torch.nn.functional.batch_norm``.

    ``(x - mean) / sqrt(var + eps) * weight + bias``, channel by channel. With ``training``, mean
    and (biased) variance are those of the batch over all axes but the second, gradients flow
    through them, and the running statistics move towards them by ``momentum`` (the variance
    unbiased, times m / (m - 1) for m values a channel). Without, the running statistics are used.

    Parameters
    ----------
    input
        (N, C, ...) float32. Channels-last memory is used without a copy.
    running_mean, running_var
        (C,) float32 arrays or buffers, changed in place by ``training``; None in training keeps no
        statistics.
    weight, bias
        (C,) float32, or None for 1 and 0.
    training, momentum, eps
        See above; ``eps`` is at least 0.

    Returns
    -------
    Float32 of the input's shape. An empty batch gives an empty batch and changes no statistics.

    Raises
    ------
    TypeError
        If training cannot change the running statistics in place.
    ValueError
        If shapes do not fit, running statistics are missing outside of training, or training sees
        a single value per channel (whose variance would be 0). Nothing is changed then.

    Examples
    --------
    >>> import numpy as np
    >>> from oxidet.nn import functional as F
    >>> x = np.array([[1.0], [2.0], [3.0], [6.0]])
    >>> F.batch_norm(x, None, None, training=True).round(4).ravel()
    array([-1.069 , -0.5345,  0.    ,  1.6036], dtype=float32)
    """
    eps = number(eps, "eps", 0)
    if not training:
        _check_present(input, running_mean, running_var)
        return batch_norm_(
            input, weight, bias, mean=running_mean, var=running_var, eps=eps, training=False
        )
    momentum = number(momentum, "momentum")
    if isinstance(input, Symbol):
        raise trace_error("batch norm by the statistics of the batch, which mixes its images")
    x = _channels_last(input, "input")
    channels = x.shape[-1]
    count = x.size // max(channels, 1)
    if count == 1:
        raise ValueError(
            f"input: expected more than 1 value per channel when training, got shape "
            f"{np.shape(input)}"
        )
    _check_running(running_mean, "running_mean", channels)
    _check_running(running_var, "running_var", channels)
    mean, var = _core.batch_norm_statistics(x)
    output = batch_norm_(input, weight, bias, mean=mean, var=var, eps=eps, training=True)
    # Last, so that a call that fails changes nothing.
    if count:
        average(running_mean, mean, momentum)
        average(running_var, var * (count / max(count - 1, 1)), momentum)
    return output


def _check_running(running: Any, argument: str, channels: int) -> None:
    """Whether training can move ``running`` towards the batch."""
    if running is None:
        return
    vector(running, argument, channels)
    if isinstance(running, Stored):
        return
    if not isinstance(running, np.ndarray) or running.dtype.kind != "f":
        got = getattr(running, "dtype", type(running).__name__)
        raise TypeError(f"{argument}: expected an array of floats to change in place, got {got}")
    if not running.flags.writeable:
        raise ValueError(f"{argument}: expected an array to change in place, got a read-only one")


def _check_present(input: Any, running_mean: Any, running_var: Any) -> None:
    shape = np.shape(input)
    if len(shape) < 2:
        raise ValueError(f"input: expected at least 2 dimensions (N, C, ...), got shape {shape}")
    for name, running in (("running_mean", running_mean), ("running_var", running_var)):
        if running is None:
            raise ValueError(f"{name}: expected an array of shape ({shape[1]},), got None")


def _local_response_norm(
    ctx: Context, input: Any, *, size: int, alpha: float, beta: float, k: float
) -> Array:
    _check_planes(np.shape(input))
    x = _channels_last(input, "input")
    if ctx.recording:
        ctx.input, ctx.constants = x, (size, alpha, beta, k)
    return np.moveaxis(_core.local_response_norm(x, size, alpha, beta, k), -1, 1)


def _local_response_norm_backward(ctx: Context, grad: Array) -> tuple[Array]:
    g = _channels_last(grad, "grad")
    return (np.moveaxis(_core.local_response_norm_backward(ctx.input, g, *ctx.constants), -1, 1),)


def _local_response_norm_graph(
    trace: Trace, input: Any, *, size: int, alpha: float, beta: float, k: float
) -> Symbol:
    x, name = trace.image(input), trace.name("local_response_norm")
    return trace.symbol(trace.builder.local_response_norm(x, size, alpha, beta, k, name))


def _check_planes(shape: tuple[int, ...]) -> None:
    if len(shape) < 3:
        raise ValueError(f"input: expected at least 3 dimensions (N, C, ...), got shape {shape}")


local_response_norm_ = Primitive(
    "local_response_norm",
    _local_response_norm,
    _local_response_norm_backward,
    _local_response_norm_graph,
)


def local_response_norm(
    input: Any, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0
) -> Any:
    """Divide each channel by what its neighbours among the channels amount to.

    ``x[c] / (k + alpha / size * sum of x[c'] ** 2) ** beta``, the sum over the channels from
    ``c - size // 2`` to ``c + (size - 1) // 2`` that exist (Krizhevsky et al. 2012, section 3.3;
    torch's function of this name). The paper's formula does not divide by ``size``: its alpha of
    1e-4 with five channels is 5e-4 here.

    Parameters
    ----------
    input
        (N, C, ...) float32 with at least three axes. Channels-last memory is used without a copy.
    size
        Number of channels in a window, at least 1.
    alpha, beta, k
        Numbers as in the formula.

    Returns
    -------
    float32 of the shape of ``input``; NaN and infinities are what the formula makes of them.

    Raises
    ------
    ValueError
        For fewer axes, or a ``size`` below 1.

    Examples
    --------
    >>> import numpy as np
    >>> from oxidet.nn import functional as F
    >>> x = np.arange(1.0, 8.0).reshape(1, 7, 1, 1)
    >>> F.local_response_norm(x, 5, alpha=1.0, k=2.0).ravel().round(4)
    array([0.3084, 0.4204, 0.4382, 0.4229, 0.4001, 0.5038, 0.6456], dtype=float32)
    """
    return local_response_norm_(
        input,
        size=integer(size, "size", 1, INT32_MAX),
        alpha=number(alpha, "alpha"),
        beta=number(beta, "beta"),
        k=number(k, "k"),
    )
