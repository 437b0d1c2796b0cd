"""Primitives of losses, and their reductions.

Kernels give the loss of every row or element; the reduction adds in float64.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from oxidet import _core
from oxidet._arrays import as_array, as_float32, choice, integer, number, vector
from oxidet.nn.primitive import Context, Primitive

Array = NDArray[Any]

REDUCTIONS = ("mean", "sum", "none")


def reduce(losses: Array, reduction: str, divisor: float) -> Array:
    """``losses`` as they are, their sum, or their sum divided; nothing divided by 0 is NaN."""
    if reduction == "none":
        return losses
    total = losses.sum(dtype=np.float64)
    if reduction == "mean":
        with np.errstate(divide="ignore", invalid="ignore"):
            total = total / np.float64(divisor)
    return np.asarray(total, losses.dtype)


def spread(grad: Array, reduction: str, divisor: float) -> Array:
    """The gradient of every single loss, broadcastable to their shape."""
    if reduction != "mean":
        return grad
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(grad / np.float64(divisor), np.float32)


# --- classification


def _labels(target: Any, shape: tuple[int, ...], axes: str) -> Array:
    """Class numbers of the given shape, flattened to int64."""
    labels = as_array(target, "target")
    if labels.dtype.kind not in "iu":
        raise TypeError(f"target: expected integer class numbers, got dtype {labels.dtype}")
    if labels.shape != shape:
        raise ValueError(f"target: expected shape {shape} {axes}, got {labels.shape}")
    if labels.dtype.kind == "u":  # a label too large for int64 is out of range in any case
        labels = np.minimum(labels, np.uint64(2**63 - 1))
    return np.ascontiguousarray(labels.reshape(-1), np.int64)


class _Rows:
    """Scores (N, K, ...) as the rows (R, K) that the kernels read, with one label a row."""

    def __init__(self, input: Any, target: Any) -> None:
        x = as_float32(input, "input")
        if x.ndim == 0:
            raise ValueError("input: expected shape (N, K, ...) or (K,), got a single number")
        # A single sample has no batch axis.
        last = x if x.ndim == 1 else np.moveaxis(x, 1, -1)
        self.shape = last.shape
        count = math.prod(last.shape[:-1])
        self.scores = np.ascontiguousarray(last.reshape(count, last.shape[-1]))
        self.labels = _labels(target, last.shape[:-1], "(one class for each sample)")

    def restore(self, rows: Array) -> Array:
        """Rows (R, K) in the shape of the input."""
        result = rows.reshape(self.shape)
        return result if result.ndim == 1 else np.moveaxis(result, -1, 1)


def _class_weight(weight: Any, rows: _Rows) -> Array | None:
    return None if weight is None else vector(weight, "weight", rows.shape[-1])


def _cross_entropy(
    ctx: Context,
    input: Any,
    *,
    target: Any,
    weight: Any,
    ignore_index: int,
    reduction: str,
    label_smoothing: float,
) -> Array:
    rows = _Rows(input, target)
    arguments = (rows.labels, _class_weight(weight, rows), ignore_index, label_smoothing)
    losses, divisor = _core.cross_entropy(rows.scores, *arguments)
    if ctx.recording:
        ctx.rows, ctx.arguments, ctx.reduction = rows, arguments, (reduction, divisor)
    return reduce(losses.reshape(rows.shape[:-1]), reduction, divisor)


def _factors(ctx: Context, grad: Array) -> Array:
    """The gradient of every row's loss, (R,)."""
    shape = ctx.rows.shape[:-1]
    single = spread(grad, *ctx.reduction)
    return np.ascontiguousarray(np.broadcast_to(single, shape).reshape(-1))


def _cross_entropy_backward(ctx: Context, grad: Array) -> tuple[Array]:
    scores, (labels, weight, ignore_index, label_smoothing) = ctx.rows.scores, ctx.arguments
    gradient = _core.cross_entropy_backward(
        scores, labels, weight, ignore_index, label_smoothing, _factors(ctx, grad)
    )
    return (ctx.rows.restore(gradient),)


def _nll_loss(
    ctx: Context, input: Any, *, target: Any, weight: Any, ignore_index: int, reduction: str
) -> Array:
    rows = _Rows(input, target)
    arguments = (rows.labels, _class_weight(weight, rows), ignore_index)
    losses, divisor = _core.nll_loss(rows.scores, *arguments)
    if ctx.recording:
        ctx.rows, ctx.arguments, ctx.reduction = rows, arguments, (reduction, divisor)
    return reduce(losses.reshape(rows.shape[:-1]), reduction, divisor)


def _nll_loss_backward(ctx: Context, grad: Array) -> tuple[Array]:
    classes, (labels, weight, ignore_index) = ctx.rows.shape[-1], ctx.arguments
    gradient = _core.nll_loss_backward(classes, labels, weight, ignore_index, _factors(ctx, grad))
    return (ctx.rows.restore(gradient),)


# --- regression


def _operands(input: Any, target: Any) -> tuple[Array, Array]:
    x, t = as_float32(input, "input"), as_float32(target, "target")
    if x.shape != t.shape:
        raise ValueError(f"target: expected shape {x.shape}, as input has, got {t.shape}")
    return x, t


def _signed(ctx: Context, gradient: Array) -> tuple[Array | None, Array | None]:
    """Gradients of input and target of a function of ``input - target``."""
    need_input, need_target = ctx.needs_input_grad
    return gradient if need_input else None, -gradient if need_target else None


def _smooth_l1_loss(
    ctx: Context, input: Any, target: Any, *, inside_weight: Any, beta: float, reduction: str
) -> Array:
    x, t = _operands(input, target)
    difference, weight = x - t, None
    if inside_weight is not None:
        weight = as_float32(inside_weight, "inside_weight")
        try:
            difference = difference * np.broadcast_to(weight, x.shape)
        except ValueError:
            raise ValueError(
                f"inside_weight: expected a shape that broadcasts to {x.shape}, got {weight.shape}"
            ) from None
    difference = np.asarray(difference, order="C")
    if ctx.recording:
        ctx.difference, ctx.weight, ctx.beta = difference, weight, beta
        ctx.reduction = (reduction, difference.size)
    return reduce(_core.smooth_l1(difference, beta), reduction, difference.size)


def _smooth_l1_loss_backward(ctx: Context, grad: Array) -> tuple[Array | None, Array | None]:
    slope = _core.smooth_l1_derivative(ctx.difference, ctx.beta)
    gradient = slope * spread(grad, *ctx.reduction)
    return _signed(ctx, gradient if ctx.weight is None else gradient * ctx.weight)


def _mse_loss(ctx: Context, input: Any, target: Any, *, reduction: str) -> Array:
    x, t = _operands(input, target)
    difference = np.asarray(x - t)
    if ctx.recording:
        ctx.difference, ctx.reduction = difference, (reduction, difference.size)
    return reduce(np.asarray(difference * difference), reduction, difference.size)


def _mse_loss_backward(ctx: Context, grad: Array) -> tuple[Array | None, Array | None]:
    return _signed(ctx, 2 * ctx.difference * spread(grad, *ctx.reduction))


# --- two classes


def _binary_cross_entropy(ctx: Context, input: Any, target: Any, *, reduction: str) -> Array:
    x, t = _operands(input, target)
    if ctx.recording:
        ctx.operands, ctx.reduction = (x, t), (reduction, x.size)
    # Neither exponential can overflow.
    losses = np.maximum(x, 0) - x * t + np.log1p(np.exp(-np.abs(x)))
    return reduce(np.asarray(losses, np.float32), reduction, x.size)


def _binary_cross_entropy_backward(ctx: Context, grad: Array) -> tuple[Array | None, Array | None]:
    x, t = ctx.operands
    need_input, need_target = ctx.needs_input_grad
    single = spread(grad, *ctx.reduction)
    with np.errstate(over="ignore"):
        by_input = single * (1 / (1 + np.exp(-x)) - t) if need_input else None
    return by_input, single * -x if need_target else None


cross_entropy_ = Primitive("cross_entropy", _cross_entropy, _cross_entropy_backward)
nll_loss_ = Primitive("nll_loss", _nll_loss, _nll_loss_backward)
smooth_l1_loss_ = Primitive("smooth_l1_loss", _smooth_l1_loss, _smooth_l1_loss_backward)
mse_loss_ = Primitive("mse_loss", _mse_loss, _mse_loss_backward)
binary_cross_entropy_ = Primitive(
    "binary_cross_entropy_with_logits", _binary_cross_entropy, _binary_cross_entropy_backward
)


def _index(ignore_index: Any) -> int:
    return integer(ignore_index, "ignore_index", -(2**63), 2**63 - 1)


def cross_entropy(
    input: Any,
    target: Any,
    weight: Any = None,
    *,
    ignore_index: int = -100,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Any:
    """Softmax cross-entropy of logits, as ``torch.nn.functional.cross_entropy``.

    A sample of class t costs ``(1 - e) * w[t] * -log p[t] + e / K * sum_k(w[k] * -log p[k])`` with
    e the label smoothing and w the class weights.

    Parameters
    ----------
    input
        Logits, (N, K) float32; also (N, K, ...) with one label per pixel, or (K,).
    target
        Class numbers from 0 to K - 1 or ``ignore_index``, of any integer type and the shape of
        ``input`` without its class axis. Class probabilities are not supported.
    weight
        (K,) float32 factor of each class, or None for 1. Not differentiated.
    ignore_index
        Samples of this class cost nothing and do not count.
    reduction
        ``"mean"`` divides by the sum of ``weight[target]`` over the samples that count (their
        number, without weights); ``"sum"``; ``"none"`` gives the loss of each sample.
    label_smoothing
        From 0 to 1.

    Returns
    -------
    Float32, a single number or the shape of ``target``. The mean of no samples (an empty batch, or
    all ignored) is NaN, as in torch; its gradient is 0.

    Raises
    ------
    TypeError
        If ``target`` is not of an integer type.
    ValueError
        If shapes do not fit or a class is out of range; the first such row is named.

    Examples
    --------
    >>> from oxidet.nn import functional as F
    >>> F.cross_entropy([[1.0, 2.0, 3.0]], [2])
    array(0.40760598, dtype=float32)
    """
    return cross_entropy_(
        input,
        target=target,
        weight=weight,
        ignore_index=_index(ignore_index),
        reduction=choice(reduction, "reduction", REDUCTIONS),
        label_smoothing=number(label_smoothing, "label_smoothing", 0, 1),
    )


def nll_loss(
    input: Any,
    target: Any,
    weight: Any = None,
    *,
    ignore_index: int = -100,
    reduction: str = "mean",
) -> Any:
    """``-weight[t] * input[t]`` of log-probabilities, as ``torch.nn.functional.nll_loss``.

    Arguments, result and errors are those of :func:`cross_entropy`, which is this loss of the
    log-softmax; ``input`` holds log-probabilities.

    >>> import numpy as np
    >>> from oxidet.nn import functional as F
    >>> F.nll_loss(np.log([[0.25, 0.75], [0.5, 0.5]]), [0, 1], reduction="none").round(4)
    array([1.3863, 0.6931], dtype=float32)
    """
    return nll_loss_(
        input,
        target=target,
        weight=weight,
        ignore_index=_index(ignore_index),
        reduction=choice(reduction, "reduction", REDUCTIONS),
    )


def smooth_l1_loss(
    input: Any,
    target: Any,
    *,
    reduction: str = "mean",
    beta: float = 1.0,
    sigma: float | None = None,
    inside_weight: Any = None,
) -> Any:
    """Smooth L1 loss (Fast R-CNN, 2015), as ``torch.nn.functional.smooth_l1_loss``.

    With ``d = (input - target) * inside_weight``, an element costs ``d**2 / (2 * beta)`` where
    ``|d| < beta`` and ``|d| - beta / 2`` elsewhere; ``beta = 0`` is the L1 loss.

    Parameters
    ----------
    input, target
        Float32 of one shape. Both are differentiated.
    reduction
        ``"mean"`` (over all elements), ``"sum"`` or ``"none"``.
    beta
        Where the parabola ends, at least 0.
    sigma
        Faster R-CNN's parameter, above 1e-18 and below 1e18; if given, ``beta = 1 / sigma**2``.
    inside_weight
        Broadcastable to ``input``; 0 takes an element out of the loss (though not out of the mean).

    Returns
    -------
    Float32, a single number or the shape of ``input``. The mean of no elements is NaN.

    Raises
    ------
    ValueError
        If shapes differ or a parameter is out of range.

    Examples
    --------
    >>> from oxidet.nn import functional as F
    >>> F.smooth_l1_loss([0.5, 2.0], [0.0, 0.0], reduction="none")
    array([0.125, 1.5  ], dtype=float32)
    >>> F.smooth_l1_loss([0.25, 1.0], [0.0, 0.0], reduction="none", sigma=2)
    array([0.125, 0.875], dtype=float32)
    """
    if sigma is not None:
        if not 1e-18 < number(sigma, "sigma") < 1e18:  # the square stays within float32
            raise ValueError(f"sigma: expected a number above 1e-18 and below 1e18, got {sigma!r}")
        beta = 1.0 / sigma**2
    return smooth_l1_loss_(
        input,
        target,
        inside_weight=inside_weight,
        beta=number(beta, "beta", 0),
        reduction=choice(reduction, "reduction", REDUCTIONS),
    )


def mse_loss(input: Any, target: Any, *, reduction: str = "mean") -> Any:
    """Squared error, as ``torch.nn.functional.mse_loss``.

    ``input`` and ``target`` are float32 of one shape; ``reduction`` is ``"mean"`` (over all
    elements), ``"sum"`` or ``"none"``. Raises ValueError if shapes differ.

    >>> from oxidet.nn import functional as F
    >>> F.mse_loss([1.0, 4.0], [0.0, 2.0])
    array(2.5, dtype=float32)
    """
    return mse_loss_(input, target, reduction=choice(reduction, "reduction", REDUCTIONS))


def binary_cross_entropy_with_logits(input: Any, target: Any, *, reduction: str = "mean") -> Any:
    """``-t log(p) - (1 - t) log(1 - p)`` with p the sigmoid of the input.

    As ``torch.nn.functional.binary_cross_entropy_with_logits``.

    ``input`` holds logits and ``target`` probabilities, float32 of one shape; both are
    differentiated. ``reduction`` is ``"mean"`` (over all elements; of none it is NaN), ``"sum"`` or
    ``"none"``. Raises ValueError if shapes differ.

    >>> from oxidet.nn import functional as F
    >>> F.binary_cross_entropy_with_logits([0.0, 2.0], [1.0, 0.0], reduction="none")
    array([0.6931472, 2.126928 ], dtype=float32)
    """
    return binary_cross_entropy_(
        input, target, reduction=choice(reduction, "reduction", REDUCTIONS)
    )
