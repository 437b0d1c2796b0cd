"""Building blocks of torchvision.ops.misc: frozen batch norm, and convolution with what follows."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from oxidet._arrays import as_array, extent, number, pair, shown
from oxidet._same_kind import same_kind
from oxidet.nn._normalization import batch_norm
from oxidet.nn.activation import ReLU
from oxidet.nn.containers import Sequential
from oxidet.nn.convolution import Conv2d
from oxidet.nn.module import Module
from oxidet.nn.normalization import BatchNorm2d
from oxidet.nn.symbol import Symbol
from oxidet.nn.tensor import Buffer, Tensor


class FrozenBatchNorm2d(Module):
    """Batch normalisation whose statistics and factors are fixed.

    As ``torchvision.ops.FrozenBatchNorm2d``: ``weight``, ``bias``, ``running_mean`` and
    ``running_var`` are buffers (C,), so nothing here is trained and the mode does not matter. The
    ``num_batches_tracked`` of an ordinary batch norm's checkpoint is ignored.

    Parameters
    ----------
    num_features
        C.
    eps
        Added to the variance; at least 0.

    Examples
    --------
    >>> from oxidet import ops
    >>> ops.FrozenBatchNorm2d(64)
    FrozenBatchNorm2d(64, eps=1e-05)
    """

    weight: Buffer
    bias: Buffer
    running_mean: Buffer
    running_var: Buffer

    _mode_matters = False

    def __init__(self, num_features: int, eps: float = 1e-5) -> None:
        super().__init__()
        extent(num_features, "num_features")
        number(eps, "eps", 0)
        self.eps = eps
        self.register_buffer("weight", np.ones(num_features, np.float32))
        self.register_buffer("bias", np.zeros(num_features, np.float32))
        self.register_buffer("running_mean", np.zeros(num_features, np.float32))
        self.register_buffer("running_var", np.ones(num_features, np.float32))

    @same_kind
    def forward(self, x: Any) -> Any:
        """(N, C, H, W); the same out, computed in float32 and of this type."""
        if not isinstance(x, (Tensor, Symbol)):
            x = as_array(x, "x")
        shape = x.shape
        if len(shape) != 4 or shape[1] != len(self.weight):
            raise ValueError(f"x: expected shape (N, {len(self.weight)}, H, W), got {shape}")
        return batch_norm(
            x, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps
        )

    def _adapt_state_dict(self, state_dict: Mapping[str, Any], prefix: str) -> Mapping[str, Any]:
        counter = prefix + "num_batches_tracked"
        if counter not in state_dict:
            return state_dict
        return {key: value for key, value in state_dict.items() if key != counter}

    def extra_repr(self) -> str:
        """Arguments in torchvision's form."""
        return f"{len(self.weight)}, eps={self.eps}"


class Conv2dNormActivation(Sequential):
    """Convolution, normalisation and activation, as ``torchvision.ops.Conv2dNormActivation``.

    Parameters
    ----------
    in_channels, out_channels, kernel_size, stride, groups, dilation
        As for :class:`~oxidet.nn.Conv2d`.
    padding
        As there; by default what keeps the size at stride 1, for an odd kernel.
    norm_layer
        Called with ``out_channels``; None for no normalisation.
    activation_layer
        Called with ``inplace=inplace`` (without arguments if that is None); None for none.
    inplace
        Taken as torchvision takes it; in place or not, the results are the same.
    bias
        Whether the convolution has one; by default only without normalisation.

    Examples
    --------
    >>> from oxidet import ops
    >>> ops.Conv2dNormActivation(3, 8, norm_layer=None)
    Conv2dNormActivation(
      (0): Conv2d(3, 8, kernel_size=(3, 3), stride=(1, 1), padding=(1, 1))
      (1): ReLU(inplace=True)
    )
    """

    _mode_matters = False

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Any = 3,
        stride: Any = 1,
        padding: Any = None,
        groups: int = 1,
        norm_layer: Callable[..., Module] | None = BatchNorm2d,
        activation_layer: Callable[..., Module] | None = ReLU,
        dilation: Any = 1,
        inplace: bool | None = True,
        bias: bool | None = None,
    ) -> None:
        for layer, argument in (
            (norm_layer, "norm_layer"),
            (activation_layer, "activation_layer"),
        ):
            if layer is not None and not callable(layer):
                raise TypeError(
                    f"{argument}: expected a class of layers or None, got {shown(layer)}"
                )
        if padding is None:
            kernel, spread = pair(kernel_size, "kernel_size"), pair(dilation, "dilation")
            padding = tuple((k - 1) // 2 * d for k, d in zip(kernel, spread, strict=True))
        if bias is None:
            bias = norm_layer is None
        layers: list[Module] = [
            Conv2d(
                in_channels,
                out_channels,
                kernel_size,
                stride,
                padding,
                dilation=dilation,
                groups=groups,
                bias=bias,
            )
        ]
        if norm_layer is not None:
            layers.append(norm_layer(out_channels))
        if activation_layer is not None:
            layers.append(activation_layer(**({} if inplace is None else {"inplace": inplace})))
        super().__init__(*layers)
        self.out_channels = out_channels

    @same_kind
    def forward(self, input: Any) -> Any:
        """The layers one after the other, (N, C, H, W) in and out."""
        return super().forward(input)
