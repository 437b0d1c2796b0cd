"""Tools for whole layers: folding batch normalisation."""

from __future__ import annotations

import numpy as np

from oxidet import _core
from oxidet.nn.linear import Conv2d
from oxidet.nn.normalization import BatchNorm2d


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
