"""Tools for whole layers and networks: folding batch normalisation, limiting gradients."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np

from oxidet import _core
from oxidet._arrays import number
from oxidet.nn._memory import flat
from oxidet.nn.convolution import Conv2d
from oxidet.nn.module import Module
from oxidet.nn.normalization import BatchNorm2d
from oxidet.nn.tensor import Tensor

__all__ = [
    "clip_filter_rms_",
    "clip_grad_norm_",
    "clip_grad_value_",
    "fuse_conv_bn_eval",
]


def clip_grad_norm_(
    parameters: Tensor | Iterable[Tensor],
    max_norm: float,
    norm_type: float = 2.0,
    error_if_nonfinite: bool = False,
) -> float:
    """Scale all gradients by one factor, so that their joint norm is at most ``max_norm``.

    As ``torch.nn.utils.clip_grad_norm_``, with the norm summed in float64. Tensors without a
    gradient count as zero. Gradients below the limit are not touched.

    Parameters
    ----------
    parameters
        Tensors whose ``grad`` is scaled.
    max_norm
        The limit.
    norm_type
        p of the norm, ``inf`` for the largest absolute value.
    error_if_nonfinite
        Raise ValueError where the norm is NaN or infinite, before anything is scaled.

    Returns
    -------
    The norm before scaling.

    Examples
    --------
    >>> from oxidet import nn
    >>> weight = nn.Parameter([0.0, 0.0])
    >>> weight.grad = [3.0, 4.0]
    >>> nn.utils.clip_grad_norm_([weight], 1.0)
    5.0
    >>> weight.grad.round(3)
    array([0.6, 0.8], dtype=float32)
    """
    tensors = _with_gradient(parameters)
    number(max_norm, "max_norm", 0)
    total = _norm([tensor._grad for tensor in tensors], norm_type)
    if error_if_nonfinite and not math.isfinite(total):
        raise ValueError(f"parameters: expected a finite norm of their gradients, got {total}")
    factor = max_norm / (total + 1e-6)  # torch's guard against a division by zero
    if not factor >= 1:  # NaN counts as too large
        _core.scale_arrays([flat(tensor._grad_to_change()) for tensor in tensors], factor)
    return total


def _with_gradient(parameters: Tensor | Iterable[Tensor]) -> list[Tensor]:
    tensors = [parameters] if isinstance(parameters, Tensor) else list(parameters)
    # Each once, as it is changed in place.
    return list({id(tensor): tensor for tensor in tensors if tensor.grad is not None}.values())


def _norm(gradients: list[Any], norm_type: float) -> float:
    """The norm of all elements, in float64 and apart from the number of threads."""
    if norm_type not in (2, math.inf):
        norms = [
            np.linalg.norm(gradient.astype(np.float64).ravel(), norm_type) for gradient in gradients
        ]
        return float(np.linalg.norm(norms, norm_type)) if norms else 0.0
    arrays = [gradient.ravel(order="K") for gradient in gradients]
    if norm_type == 2:
        return math.sqrt(_core.sum_of_squares(arrays))
    return _core.largest_magnitude(arrays)


def clip_grad_value_(parameters: Tensor | Iterable[Tensor], clip_value: float) -> None:
    """Bring every element of all gradients into ``-clip_value .. clip_value``.

    As ``torch.nn.utils.clip_grad_value_``. Tensors without a gradient are left alone; NaN stays.

    >>> from oxidet import nn
    >>> weight = nn.Parameter([0.0, 0.0])
    >>> weight.grad = [3.0, -0.5]
    >>> nn.utils.clip_grad_value_(weight, 1.0)
    >>> weight.grad
    array([ 1. , -0.5], dtype=float32)
    """
    tensors = _with_gradient(parameters)
    limit = number(clip_value, "clip_value", 0)
    _core.clamp_arrays([flat(tensor._grad_to_change()) for tensor in tensors], limit)


def clip_filter_rms_(module: Module, max_rms: float = 0.1) -> int:
    """Scale down every filter of the convolutions whose root mean square exceeds ``max_rms``.

    Zeiler and Fergus keep filters of the first layer from dominating so, after every step of
    training ("Visualizing and understanding convolutional networks", 2013, section 3). A filter is
    the weight of one output channel. Returns how many were scaled.

    >>> import numpy as np
    >>> from oxidet import nn
    >>> net = nn.Sequential(nn.Conv2d(1, 2, 2, bias=False))
    >>> net[0].weight = np.array([[[[0.3, 0.3], [-0.3, 0.3]]], [[[0.1, 0.0], [0.0, 0.1]]]])
    >>> nn.utils.clip_filter_rms_(net), net[0].weight.data[0].ravel().round(3).tolist()[:1]
    (1, [0.10000000149011612])
    """
    limit = number(max_rms, "max_rms", 0)
    clipped = 0
    for inner in module.modules():
        if not isinstance(inner, Conv2d):
            continue
        axes = tuple(range(1, inner.weight.ndim))
        rms = np.sqrt(np.square(inner.weight.data, dtype=np.float64).mean(axis=axes, keepdims=True))
        above = rms > limit
        if above.any():
            factor = np.where(above, limit / np.where(above, rms, 1), 1).astype(np.float32)
            inner.weight.copy_(inner.weight.data * factor)
            clipped += int(above.sum())
    return clipped


def fuse_conv_bn_eval(conv: Conv2d, bn: BatchNorm2d) -> Conv2d:
    """One convolution that does what ``bn(conv(x))`` does in evaluation mode.

    As ``torch.nn.utils.fuse_conv_bn_eval``. Computed in float64 and rounded once; neither argument
    is changed, and the result (in evaluation mode, with a bias) shares nothing with them.

    Raises
    ------
    ValueError
        If ``bn`` has another number of channels than ``conv`` has outputs, or keeps no running
        statistics, or either is in training mode.

    Examples
    --------
    >>> from oxidet import nn
    >>> conv, bn = nn.Conv2d(3, 8, 3, bias=False).eval(), nn.BatchNorm2d(8).eval()
    >>> nn.utils.fuse_conv_bn_eval(conv, bn)
    Conv2d(3, 8, kernel_size=(3, 3), stride=(1, 1))
    """
    for name, module in (("conv", conv), ("bn", bn)):
        if module.training:
            raise ValueError(f"{name}: expected a module in evaluation mode, got one in training")
    if bn.running_mean is None or bn.running_var is None:
        raise ValueError("bn: expected running statistics, got a batch norm that keeps none")
    if bn.num_features != conv.out_channels:
        raise ValueError(
            f"bn: expected {conv.out_channels} channels, as conv has outputs, got {bn.num_features}"
        )
    weight, bias = _core.fold_batch_norm(
        np.ascontiguousarray(conv.weight.data),
        None if conv.bias is None else conv.bias.data,
        bn.running_mean.data,
        bn.running_var.data,
        None if bn.weight is None else bn.weight.data,
        None if bn.bias is None else bn.bias.data,
        bn.eps,
    )
    fused = Conv2d(
        conv.in_channels,
        conv.out_channels,
        conv.kernel_size,
        conv.stride,
        conv.padding,
        conv.dilation,
        conv.groups,
    )
    fused.load_state_dict({"weight": weight, "bias": bias})
    return fused.eval()
