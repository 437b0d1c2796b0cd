"""Linear as a layer."""

from __future__ import annotations

from typing import Any

from oxidet._arrays import extent, flag
from oxidet.nn import _convolution
from oxidet.nn._default_weights import default_weights
from oxidet.nn.module import Module
from oxidet.nn.tensor import Parameter


class Linear(Module):
    """``x @ weight.T + bias``, as ``torch.nn.Linear``; weight (out, in), bias (out,).

    Parameters
    ----------
    in_features, out_features
        Length of the last axis of the input (..., in) and of the output (..., out).
    bias
        Whether to add a trainable bias.

    Notes
    -----
    Both start uniform within 1 / sqrt(in_features).

    Examples
    --------
    >>> import numpy as np
    >>> from oxidet import nn
    >>> nn.Linear(3, 2).eval()(np.zeros((5, 3), np.float32)).shape
    (5, 2)
    """

    weight: Parameter
    bias: Parameter | None
    in_features: int
    out_features: int

    _mode_matters = False

    def __init__(self, in_features: int, out_features: int, bias: bool = True) -> None:
        super().__init__()
        self.in_features = extent(in_features, "in_features")
        self.out_features = extent(out_features, "out_features")
        self.weight = Parameter._adopt(default_weights((out_features, in_features), in_features))
        shift = default_weights((out_features,), in_features) if flag(bias, "bias") else None
        self.register_parameter("bias", None if shift is None else Parameter(shift))

    def forward(self, input: Any) -> Any:
        """(..., in) -> (..., out)."""
        return _convolution.linear(input, self.weight, self.bias)

    def extra_repr(self) -> str:
        """Arguments in torch's form."""
        return (
            f"in_features={self.in_features}, out_features={self.out_features}, "
            f"bias={self.bias is not None}"
        )
