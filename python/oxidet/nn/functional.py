"""Functions on arrays and tensors with torch.nn.functional's names, argument order and defaults.

Called with arrays they return arrays; called with tensors (or parameters, while recording is on)
they record and return tensors. The losses take what follows their target (and class weight) by
keyword only: torch has two retired arguments in between.
"""

from __future__ import annotations

from oxidet.nn._activation import dropout, dropout2d, log_softmax, relu, sigmoid, softmax, tanh
from oxidet.nn._arithmetic import cat, clamp, flatten
from oxidet.nn._convolution import conv2d, linear
from oxidet.nn._losses import (
    binary_cross_entropy_with_logits,
    cross_entropy,
    mse_loss,
    nll_loss,
    smooth_l1_loss,
)
from oxidet.nn._normalization import batch_norm, local_response_norm
from oxidet.nn._pooling import adaptive_avg_pool2d, adaptive_max_pool2d, avg_pool2d, max_pool2d
from oxidet.nn._resampling import interpolate, pad

__all__ = [
    "adaptive_avg_pool2d",
    "adaptive_max_pool2d",
    "avg_pool2d",
    "batch_norm",
    "binary_cross_entropy_with_logits",
    "cat",
    "clamp",
    "conv2d",
    "cross_entropy",
    "dropout",
    "dropout2d",
    "flatten",
    "interpolate",
    "linear",
    "local_response_norm",
    "log_softmax",
    "max_pool2d",
    "mse_loss",
    "nll_loss",
    "pad",
    "relu",
    "sigmoid",
    "smooth_l1_loss",
    "softmax",
    "tanh",
]
