"""Conv2d as a layer."""

from __future__ import annotations

from typing import Any

from oxidet._arrays import IntOrPair, choice, extent, flag, pair
from oxidet.nn import _convolution
from oxidet.nn._default_weights import default_weights
from oxidet.nn._resampling import PADDING_MODES, pad
from oxidet.nn.module import Module
from oxidet.nn.tensor import Parameter


class Conv2d(Module):
    """Two-dimensional convolution, as ``torch.nn.Conv2d``.

    Parameters
    ----------
    in_channels, out_channels
        C and O, each a multiple of ``groups``.
    kernel_size, stride, dilation
        Integer or pair (rows, columns).
    padding
        Integer, pair, pair of pairs, ``"same"`` or ``"valid"``; see ``functional.conv2d``.
    groups
        Number of channel groups that do not see each other.
    bias
        Whether to add a trainable bias per output channel.
    padding_mode
        ``"zeros"``, or what stands around the image instead: ``"reflect"``, ``"replicate"`` or
        ``"circular"``, as in ``functional.pad``.

    Notes
    -----
    Weight (O, C / groups, kh, kw) and bias (O,) start uniform within 1 / sqrt(fan_in).

    Examples
    --------
    >>> import numpy as np
    >>> from oxidet import nn
    >>> layer = nn.Conv2d(3, 8, kernel_size=3, stride=2, padding=1)
    >>> layer.weight.shape, layer.eval()(np.zeros((1, 3, 32, 48), np.float32)).shape
    ((8, 3, 3, 3), (1, 8, 16, 24))
    """

    weight: Parameter
    bias: Parameter | None
    in_channels: int
    out_channels: int
    kernel_size: tuple[int, int]
    stride: tuple[int, int]
    dilation: tuple[int, int]
    groups: int
    padding_mode: str

    _mode_matters = False

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: IntOrPair,
        stride: IntOrPair = 1,
        padding: IntOrPair | tuple[IntOrPair, IntOrPair] | str = 0,
        dilation: IntOrPair = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: str = "zeros",
    ) -> None:
        super().__init__()
        self.in_channels = extent(in_channels, "in_channels")
        self.out_channels = extent(out_channels, "out_channels")
        self.kernel_size = pair(kernel_size, "kernel_size")
        self.stride = pair(stride, "stride")
        self.dilation = pair(dilation, "dilation")
        self.groups = extent(groups, "groups")
        top, bottom, left, right = _convolution._resolve_padding(
            padding, self.kernel_size, self.stride, self.dilation
        )
        # As it is printed: a word, a pair, or a pair of pairs.
        self.padding: Any = padding
        if not isinstance(padding, str):
            symmetric = top == bottom and left == right
            self.padding = (top, left) if symmetric else ((top, bottom), (left, right))
        self.padding_mode = choice(padding_mode, "padding_mode", ("zeros", *PADDING_MODES[1:]))
        for name in ("in_channels", "out_channels"):
            if getattr(self, name) % self.groups:
                raise ValueError(
                    f"{name}: expected a multiple of groups={groups}, got {getattr(self, name)}"
                )
        depth = self.in_channels // self.groups
        fan_in = depth * self.kernel_size[0] * self.kernel_size[1]
        # In memory (kh, kw, C / groups, O), the order the kernels read.
        weight = default_weights((*self.kernel_size, depth, self.out_channels), fan_in)
        self.weight = Parameter._adopt(weight.transpose(3, 2, 0, 1))
        shift = default_weights((self.out_channels,), fan_in) if flag(bias, "bias") else None
        self.register_parameter("bias", None if shift is None else Parameter(shift))

    def forward(self, input: Any) -> Any:
        """(N, C, H, W) -> (N, O, H_out, W_out)."""
        padding = self.padding
        if self.padding_mode != "zeros":
            top, bottom, left, right = _convolution._resolve_padding(
                padding, self.kernel_size, self.stride, self.dilation
            )
            input = pad(input, (left, right, top, bottom), self.padding_mode)
            padding = 0
        return _convolution.conv2d(
            input, self.weight, self.bias, self.stride, padding, self.dilation, self.groups
        )

    def extra_repr(self) -> str:
        """Arguments in torch's form: those at their default are left out."""
        text = (
            f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, "
            f"stride={self.stride}"
        )
        if self.padding != (0, 0):
            text += f", padding={self.padding}"
        if self.dilation != (1, 1):
            text += f", dilation={self.dilation}"
        if self.groups != 1:
            text += f", groups={self.groups}"
        if self.bias is None:
            text += ", bias=False"
        if self.padding_mode != "zeros":
            text += f", padding_mode={self.padding_mode}"
        return text
