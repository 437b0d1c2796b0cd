"""Layers that pad and resize images."""

from __future__ import annotations

from typing import Any

from oxidet._arrays import choice, integer
from oxidet.nn import _resampling
from oxidet.nn.module import Module


class ZeroPad2d(Module):
    """Zeros around every image, as ``torch.nn.ZeroPad2d``; see ``functional.pad``.

    In a plan, the convolution behind it adds the zeros itself.

    Parameters
    ----------
    padding
        Integer of at least 0 for all sides, or (left, right, top, bottom).

    Examples
    --------
    >>> from oxidet import nn
    >>> nn.ZeroPad2d((0, 1, 0, 1))
    ZeroPad2d((0, 1, 0, 1))
    """

    padding: tuple[int, ...]

    _mode_matters = False

    def __init__(self, padding: Any) -> None:
        super().__init__()
        sides = padding if isinstance(padding, (tuple, list)) else (padding,) * 4
        if len(sides) != 4:
            raise ValueError(
                f"padding: expected an integer or (left, right, top, bottom), got {padding!r}"
            )
        self.padding = tuple(integer(side, "padding", 0) for side in sides)

    def forward(self, input: Any) -> Any:
        """(N, C, H, W) -> (N, C, H + top + bottom, W + left + right)."""
        return _resampling.pad(input, self.padding)

    def extra_repr(self) -> str:
        """Arguments in torch's form."""
        return f"{self.padding}"


class Upsample(Module):
    """Resizing, as ``torch.nn.Upsample``; see ``functional.interpolate``.

    >>> from oxidet import nn
    >>> nn.Upsample(scale_factor=2, mode="bilinear")
    Upsample(scale_factor=2.0, mode='bilinear')
    """

    mode: str

    _mode_matters = False

    def __init__(
        self,
        size: Any = None,
        scale_factor: Any = None,
        mode: str = "nearest",
        align_corners: bool | None = None,
        recompute_scale_factor: bool | None = None,
    ) -> None:
        super().__init__()
        self.size = size
        factors = None if scale_factor is None else _resampling._factors(scale_factor)
        self.scale_factor: Any = factors
        if factors is not None and not isinstance(scale_factor, (tuple, list)):
            self.scale_factor = factors[0]
        self.mode = choice(mode, "mode", _resampling.INTERPOLATION_MODES)
        self.align_corners = align_corners
        self.recompute_scale_factor = recompute_scale_factor

    def forward(self, input: Any) -> Any:
        """(N, C, H, W) -> (N, C, H_out, W_out)."""
        return _resampling.interpolate(
            input,
            self.size,
            self.scale_factor,
            self.mode,
            self.align_corners,
            self.recompute_scale_factor,
        )

    def extra_repr(self) -> str:
        """Arguments in torch's form."""
        given = f"scale_factor={self.scale_factor!r}"
        if self.scale_factor is None:
            given = f"size={self.size!r}"
        return f"{given}, mode={self.mode!r}"
