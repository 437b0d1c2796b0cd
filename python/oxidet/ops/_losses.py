"""Losses of dense detectors: of boxes by their overlap, of logits by focal cross-entropy."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from oxidet import _core
from oxidet._arrays import as_array, choice, computed, is_double, number
from oxidet._same_kind import same_kind
from oxidet.nn._losses import REDUCTIONS, reduce, spread
from oxidet.nn.primitive import Context, Primitive

Array = NDArray[Any]


def _pair(a: Any, b: Any, names: tuple[str, str]) -> tuple[Array, Array]:
    """Two arrays of one shape: float64 if either is, else float32."""
    x, y = as_array(a, names[0]), as_array(b, names[1])
    if x.shape != y.shape:
        raise ValueError(f"{names[1]}: expected shape {x.shape} as {names[0]} has, got {y.shape}")
    dtype = np.float64 if is_double(x) or is_double(y) else np.float32
    return np.asarray(x, dtype, order="C"), np.asarray(y, dtype, order="C")


def _weights(ctx: Context, grad: Array) -> Array:
    """The gradient of every single loss, flat."""
    single = spread(grad, *ctx.reduction)
    return np.ascontiguousarray(np.broadcast_to(single, ctx.shape).reshape(-1), np.float32)


# --- of boxes


def _box_loss(
    ctx: Context, boxes1: Any, boxes2: Any, *, kind: str, reduction: str, eps: float
) -> Array:
    a, b = _pair(boxes1, boxes2, ("boxes1", "boxes2"))
    if a.ndim == 0 or a.shape[-1] != 4:
        raise ValueError(f"boxes1: expected shape (..., 4), got {a.shape}")
    shape = a.shape[:-1]
    rows = a.reshape(-1, 4), b.reshape(-1, 4)
    losses = computed(_core.box_loss(kind, *rows, eps)).reshape(shape)
    # The mean of no boxes is 0, as in torchvision.
    ctx.reduction = (reduction, max(losses.size, 1))
    if ctx.recording:
        ctx.shape, ctx.arguments = shape, (kind, *(r.astype(np.float32) for r in rows), eps)
    return reduce(losses, *ctx.reduction)


def _box_loss_backward(ctx: Context, grad: Array) -> tuple[Array | None, Array | None]:
    kind, a, b, eps = ctx.arguments
    gradient = _core.box_loss_backward(kind, a, b, eps, _weights(ctx, grad))
    shape = (*ctx.shape, 4)
    first, second = ctx.needs_input_grad
    return (
        gradient[:, :4].reshape(shape) if first else None,
        gradient[:, 4:].reshape(shape) if second else None,
    )


box_loss_ = Primitive("box_loss", _box_loss, _box_loss_backward)


def _checked_box_loss(kind: str, boxes1: Any, boxes2: Any, reduction: str, eps: float) -> Any:
    reduction = choice(reduction, "reduction", REDUCTIONS)
    return box_loss_(boxes1, boxes2, kind=kind, reduction=reduction, eps=number(eps, "eps"))


@same_kind
def generalized_box_iou_loss(
    boxes1: Any, boxes2: Any, reduction: str = "none", eps: float = 1e-7
) -> Any:
    """1 - generalized IoU of each pair, as ``torchvision.ops.generalized_box_iou_loss``.

    "Generalized Intersection over Union", Rezatofighi et al., 2019.

    Parameters
    ----------
    boxes1, boxes2
        (R, 4) or (4,), (x1, y1, x2, y2), arrays or tensors. Both are differentiated.
    reduction
        ``"none"``, ``"mean"`` (of no boxes: 0) or ``"sum"``.
    eps
        Added to the areas that are divided by, so that boxes without area give no NaN.

    Returns
    -------
    The loss of each pair, (R,) or (), or a single number: float64 if either input is, else float32.
    Inside it is computed in float64. Where corners coincide, each gets half the gradient.

    Raises
    ------
    ValueError
        If shapes differ or are no boxes, or for another reduction.

    Examples
    --------
    >>> from oxidet import ops
    >>> ops.generalized_box_iou_loss([[0.0, 0, 4, 4]], [[2.0, 1, 6, 5]]).round(4)
    array([0.9026])
    """
    return _checked_box_loss("generalized", boxes1, boxes2, reduction, eps)


@same_kind
def distance_box_iou_loss(
    boxes1: Any, boxes2: Any, reduction: str = "none", eps: float = 1e-7
) -> Any:
    """1 - distance IoU of each pair, as ``torchvision.ops.distance_box_iou_loss``.

    "Distance-IoU Loss", Zheng et al., 2019.

    Parameters, result and errors are those of :func:`generalized_box_iou_loss`; ``eps`` is added to
    union and diagonal.

    Examples
    --------
    >>> from oxidet import ops
    >>> ops.distance_box_iou_loss([[0.0, 0, 4, 4]], [[2.0, 1, 6, 5]]).round(4)
    array([0.8512])
    """
    return _checked_box_loss("distance", boxes1, boxes2, reduction, eps)


@same_kind
def complete_box_iou_loss(
    boxes1: Any, boxes2: Any, reduction: str = "none", eps: float = 1e-7
) -> Any:
    """1 - complete IoU of each pair, as ``torchvision.ops.complete_box_iou_loss``.

    "Distance-IoU Loss", Zheng et al., 2019. The weight ``alpha`` of the aspect ratios' term counts
    as a constant in the gradient.

    Parameters, result and errors are those of :func:`generalized_box_iou_loss`; ``eps`` is added to
    the denominator of ``alpha``, while union and diagonal get 1e-7 whatever it is, as in
    torchvision. A box without height has no aspect ratio: its gradient is NaN, as in torch, that of
    the other box is not.

    Examples
    --------
    >>> from oxidet import ops
    >>> ops.complete_box_iou_loss([[0.0, 0, 4, 4]], [[2.0, 1, 6, 4]]).round(4)
    array([0.8091])
    """
    return _checked_box_loss("complete", boxes1, boxes2, reduction, eps)


# --- of logits


def _focal_loss(
    ctx: Context, inputs: Any, targets: Any, *, alpha: float, gamma: float, reduction: str
) -> Array:
    x, t = _pair(inputs, targets, ("inputs", "targets"))
    flat = x.reshape(-1), t.reshape(-1)
    losses = computed(_core.sigmoid_focal_loss(*flat, alpha, gamma)).reshape(x.shape)
    ctx.reduction = (reduction, losses.size)
    if ctx.recording:
        ctx.shape, ctx.arguments = x.shape, (*(f.astype(np.float32) for f in flat), alpha, gamma)
    return reduce(losses, *ctx.reduction)


def _focal_loss_backward(ctx: Context, grad: Array) -> tuple[Array | None, ...]:
    (x, t, alpha, gamma), weights = ctx.arguments, _weights(ctx, grad)
    return tuple(
        _core.sigmoid_focal_gradient(x, t, alpha, gamma, weights, by_target).reshape(ctx.shape)
        if needed
        else None
        for needed, by_target in zip(ctx.needs_input_grad, (False, True), strict=True)
    )


sigmoid_focal_loss_ = Primitive("sigmoid_focal_loss", _focal_loss, _focal_loss_backward)


@same_kind
def sigmoid_focal_loss(
    inputs: Any,
    targets: Any,
    alpha: float = 0.25,
    gamma: float = 2,
    reduction: str = "none",
) -> Any:
    """Focal loss of logits, as ``torchvision.ops.sigmoid_focal_loss``.

    With ``p = sigmoid(inputs)`` and ``p_t = p t + (1 - p)(1 - t)``, an element costs its binary
    cross-entropy times ``(1 - p_t)**gamma``, times ``alpha`` if positive or ``1 - alpha`` if
    negative ("Focal Loss for Dense Object Detection", Lin et al., 2017).

    Parameters
    ----------
    inputs
        Logits of any shape, an array or tensor.
    targets
        As many numbers, 1 for a positive and 0 for a negative. Both are differentiated.
    alpha
        From 0 to 1; -1 for no such weight.
    gamma
        At least 0.
    reduction
        ``"none"``, ``"mean"`` (of nothing: NaN) or ``"sum"``.

    Returns
    -------
    The loss of each element, or a single number: float64 if either input is, else float32.
    Inside it is computed in float64.

    Raises
    ------
    ValueError
        If shapes differ, a parameter is out of range, or for another reduction.

    Examples
    --------
    >>> from oxidet import ops
    >>> ops.sigmoid_focal_loss([0.0, 2.0, -2.0], [1, 1, 1]).round(4)
    array([0.0433, 0.0005, 0.4125])
    """
    weight = number(alpha, "alpha")
    if weight != -1:
        number(weight, "alpha", 0, 1)
    return sigmoid_focal_loss_(
        inputs,
        targets,
        alpha=weight,
        gamma=number(gamma, "gamma", 0),
        reduction=choice(reduction, "reduction", REDUCTIONS),
    )
