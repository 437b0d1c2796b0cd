"""Pooling layers. Arguments are kept, and printed, as they were given."""

from __future__ import annotations

from typing import Any

from oxidet._arrays import IntOrPair
from oxidet.nn import _pooling
from oxidet.nn.module import Module

# None keeps the length of the input.
OutputSize = int | tuple[int | None, int | None] | list[int | None] | None


class MaxPool2d(Module):
    """Maximum under a sliding window, as ``torch.nn.MaxPool2d``; see ``functional.max_pool2d``.

    >>> from oxidet import nn
    >>> nn.MaxPool2d(3, stride=2, padding=1)
    MaxPool2d(kernel_size=3, stride=2, padding=1, dilation=1, ceil_mode=False)
    """

    stride: IntOrPair

    _mode_matters = False

    def __init__(
        self,
        kernel_size: IntOrPair,
        stride: IntOrPair | None = None,
        padding: IntOrPair = 0,
        dilation: IntOrPair = 1,
        return_indices: bool = False,
        ceil_mode: bool = False,
    ) -> None:
        super().__init__()
        self.kernel_size = kernel_size
        self.stride = kernel_size if stride is None else stride
        self.padding = padding
        self.dilation = dilation
        self.return_indices = return_indices
        self.ceil_mode = ceil_mode

    def forward(self, input: Any) -> Any:
        """(N, C, H, W) -> (N, C, H_out, W_out)."""
        return _pooling.max_pool2d(
            input,
            self.kernel_size,
            self.stride,
            self.padding,
            self.dilation,
            self.ceil_mode,
            self.return_indices,
        )

    def extra_repr(self) -> str:
        """Arguments in torch's form."""
        return (
            f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}, "
            f"dilation={self.dilation}, ceil_mode={self.ceil_mode}"
        )


class AvgPool2d(Module):
    """Mean under a sliding window, as ``torch.nn.AvgPool2d``; see ``functional.avg_pool2d``."""

    stride: IntOrPair

    _mode_matters = False

    def __init__(
        self,
        kernel_size: IntOrPair,
        stride: IntOrPair | None = None,
        padding: IntOrPair = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
        divisor_override: int | None = None,
    ) -> None:
        super().__init__()
        self.kernel_size = kernel_size
        self.stride = kernel_size if stride is None else stride
        self.padding = padding
        self.ceil_mode = ceil_mode
        self.count_include_pad = count_include_pad
        self.divisor_override = divisor_override

    def forward(self, input: Any) -> Any:
        """(N, C, H, W) -> (N, C, H_out, W_out)."""
        return _pooling.avg_pool2d(
            input,
            self.kernel_size,
            self.stride,
            self.padding,
            self.ceil_mode,
            self.count_include_pad,
            self.divisor_override,
        )

    def extra_repr(self) -> str:
        """Arguments in torch's form, which leaves out the last three."""
        return f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}"


class AdaptiveAvgPool2d(Module):
    """Mean under evenly shared windows; see ``functional.adaptive_avg_pool2d``."""

    _mode_matters = False

    def __init__(self, output_size: OutputSize) -> None:
        super().__init__()
        self.output_size = output_size

    def forward(self, input: Any) -> Any:
        """(N, C, H, W) -> (N, C, *output_size)."""
        return _pooling.adaptive_avg_pool2d(input, self.output_size)

    def extra_repr(self) -> str:
        """Arguments in torch's form."""
        return f"output_size={self.output_size}"


class AdaptiveMaxPool2d(Module):
    """Maximum under evenly shared windows; see ``functional.adaptive_max_pool2d``."""

    _mode_matters = False

    def __init__(self, output_size: OutputSize, return_indices: bool = False) -> None:
        super().__init__()
        self.output_size = output_size
        self.return_indices = return_indices

    def forward(self, input: Any) -> Any:
        """(N, C, H, W) -> (N, C, *output_size)."""
        return _pooling.adaptive_max_pool2d(input, self.output_size, self.return_indices)

    def extra_repr(self) -> str:
        """Arguments in torch's form."""
        return f"output_size={self.output_size}"
