"""Primitives of padding and resizing."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from oxidet import _core
from oxidet._arrays import INT32_MAX, as_float32, choice, integer, nchw, nhwc, number, pair
from oxidet.nn._pooling import adaptive_avg_pool2d
from oxidet.nn.primitive import Context, Primitive
from oxidet.nn.symbol import Symbol, trace_error
from oxidet.nn.trace import Trace

Array = NDArray[Any]

PADDING_MODES = ("constant", "reflect", "replicate", "circular")
INTERPOLATION_MODES = ("nearest", "nearest-exact", "bilinear", "area")


# --- padding


def _planes(pad: tuple[int, ...]) -> tuple[tuple[int, int, int, int], tuple[int, int]]:
    """(top, bottom, left, right) and (in front, behind) of torch's order, last axis first."""
    left, right, top, bottom, front, behind = pad + (0,) * (6 - len(pad))
    return (top, bottom, left, right), (front, behind)


def _pad(ctx: Context, input: Any, *, pad: tuple[int, ...], mode: str, value: float) -> Array:
    x = as_float32(input, "input")
    _check_pad(pad, mode, x.ndim)
    ctx.shape, ctx.pad, ctx.mode = x.shape, pad, mode
    if x.ndim == 4 and len(pad) <= 6:
        return nchw(_core.pad2d(nhwc(x, "input"), *_planes(pad), mode, value))
    # Axes that images do not have; copying is all there is to it.
    result = np.full([n + a + b for n, (a, b) in zip(x.shape, _sides(ctx), strict=True)], value)
    result = result.astype(np.float32)
    result[_inside(ctx)] = x
    return result


def _sides(ctx: Context) -> list[tuple[int, int]]:
    """What is added before and after each axis, first axis first."""
    ends = ctx.pad + (0, 0) * (len(ctx.shape) - len(ctx.pad) // 2)
    return [(ends[i], ends[i + 1]) for i in range(len(ends) - 2, -2, -2)]


def _inside(ctx: Context) -> tuple[slice, ...]:
    """Where the input lies in the output."""
    sides = zip(ctx.shape, _sides(ctx), strict=True)
    return tuple(slice(before, before + n) for n, (before, _) in sides)


def _pad_backward(ctx: Context, grad: Array) -> tuple[Array]:
    if ctx.mode == "constant":
        return (grad[_inside(ctx)],)
    _, channels, height, width = ctx.shape
    g = nhwc(grad, "grad")
    padding, around = _planes(ctx.pad)
    shape = (height, width, channels)
    return (nchw(_core.pad2d_backward(g, shape, padding, around, ctx.mode)),)


def _check_pad(pad: tuple[int, ...], mode: str, ndim: int) -> None:
    if len(pad) > 2 * ndim:
        raise ValueError(f"pad: expected at most {2 * ndim} values for {ndim} axes, got {pad}")
    if mode != "constant" and (ndim != 4 or len(pad) != 4):
        raise ValueError(
            f"pad: expected (left, right, top, bottom) of an input (N, C, H, W) with "
            f"mode={mode!r}, got {pad} and {ndim} axes"
        )


def _pad_graph(
    trace: Trace, input: Any, *, pad: tuple[int, ...], mode: str, value: float
) -> Symbol:
    if isinstance(input, Symbol):
        _check_pad(pad, mode, input.ndim)
        if not any(pad):
            return input
    x = trace.image(input)
    if any(pad[6:]):
        raise trace_error("padding of the batch")
    return trace.symbol(trace.builder.pad(x, *_planes(pad[:6]), mode, value, trace.name("pad")))


pad_ = Primitive("pad", _pad, _pad_backward, _pad_graph)


def pad(input: Any, pad: Any, mode: str = "constant", value: float | None = None) -> Any:
    """Add to the ends of axes, as ``torch.nn.functional.pad``.

    Parameters
    ----------
    input
        float32 of any shape; (N, C, H, W) for the modes other than ``"constant"``.
    pad
        Pairs of what is added before and after an axis, the last axis first: (left, right), then
        (top, bottom), then channels (in front, behind). Integers of at least 0: to crop, slice.
    mode
        ``"constant"``; or for rows and columns ``"reflect"`` (mirrored at the border pixels, which
        are not repeated), ``"replicate"`` (the border pixels) or ``"circular"`` (the opposite
        side).
    value
        The constant; 0 by default.

    Returns
    -------
    float32, the input with longer axes; (N, C, H, W) is channels-last in memory.

    Raises
    ------
    ValueError
        For more pairs than axes, a negative number, or more than there is to mirror or repeat.

    Examples
    --------
    >>> from oxidet.nn import functional as F
    >>> F.pad([[[[1.0, 2.0]]]], (1, 2, 0, 1))
    array([[[[0., 1., 2., 0., 0.],
             [0., 0., 0., 0., 0.]]]], dtype=float32)
    """
    if not isinstance(pad, (tuple, list)) or len(pad) % 2:
        raise ValueError(f"pad: expected an even number of integers, got {pad!r}")
    ends = tuple(integer(n, "pad", 0, INT32_MAX) for n in pad)
    mode = choice(mode, "mode", PADDING_MODES)
    if value is not None and mode != "constant":
        raise ValueError(f"value: expected None with mode={mode!r}, got {value!r}")
    return pad_(input, pad=ends, mode=mode, value=0.0 if value is None else number(value, "value"))


# --- resizing


def _interpolate(
    ctx: Context,
    input: Any,
    *,
    mode: str,
    size: tuple[int, int],
    scales: tuple[float | None, float | None],
    align_corners: bool,
) -> Array:
    x = nhwc(input, "input")
    ctx.size, ctx.mode, ctx.scales, ctx.align_corners = x.shape[1:3], mode, scales, align_corners
    if mode == "bilinear":
        return nchw(_core.bilinear2d(x, size, scales, align_corners))
    return nchw(_core.nearest2d(x, size, scales, mode == "nearest-exact"))


def _interpolate_backward(ctx: Context, grad: Array) -> tuple[Array]:
    g = nhwc(grad, "grad")
    if ctx.mode == "bilinear":
        return (nchw(_core.bilinear2d_backward(g, ctx.size, ctx.scales, ctx.align_corners)),)
    centres = ctx.mode == "nearest-exact"
    return (nchw(_core.nearest2d_backward(g, ctx.size, ctx.scales, centres)),)


def _interpolate_graph(
    trace: Trace,
    input: Any,
    *,
    mode: str,
    size: tuple[int, int],
    scales: tuple[float | None, float | None],
    align_corners: bool,
) -> Symbol:
    x, name = trace.image(input), trace.name("interpolate")
    if mode == "bilinear":
        return trace.symbol(trace.builder.bilinear2d(x, size, scales, align_corners, name))
    centres = mode == "nearest-exact"
    return trace.symbol(trace.builder.nearest2d(x, size, scales, centres, name))


interpolate_ = Primitive("interpolate", _interpolate, _interpolate_backward, _interpolate_graph)


def _factors(scale_factor: Any) -> tuple[float, float]:
    """The factors of rows and columns."""
    factors = scale_factor if isinstance(scale_factor, (tuple, list)) else (scale_factor,) * 2
    if len(factors) != 2:
        raise ValueError(f"scale_factor: expected a number or a pair, got {scale_factor!r}")
    rows, cols = (number(factor, "scale_factor") for factor in factors)
    if not (0 < rows < math.inf and 0 < cols < math.inf):
        raise ValueError(f"scale_factor: expected numbers above 0, got {scale_factor!r}")
    return rows, cols


def interpolate(
    input: Any,
    size: Any = None,
    scale_factor: Any = None,
    mode: str = "nearest",
    align_corners: bool | None = None,
    recompute_scale_factor: bool | None = None,
    antialias: bool = False,
) -> Any:
    """Resize images, as ``torch.nn.functional.interpolate``.

    Parameters
    ----------
    input
        (N, C, H, W) float32. Channels-last memory is used without a copy.
    size
        The output's (rows, columns), or one integer for both.
    scale_factor
        Instead of ``size``: the factor of rows and columns, or a pair of them. The output has
        ``floor(H * factor)`` rows; places are computed from the factor itself.
    mode
        ``"nearest"``, ``"nearest-exact"`` (which measures from the centres of pixels),
        ``"bilinear"``, or ``"area"`` (:func:`adaptive_avg_pool2d`).
    align_corners
        For ``"bilinear"``: whether the centres of the corner pixels stay where they are, rather
        than the corners of the image (the default).
    recompute_scale_factor
        Whether places are computed from the sizes although ``scale_factor`` is given.
    antialias
        Only False: pictures are resized with antialiasing by ``oxidet.transforms``.

    Returns
    -------
    (N, C, H_out, W_out) float32, channels-last in memory.

    Raises
    ------
    ValueError
        Unless just one of ``size`` and ``scale_factor`` is given, for an empty result, or for an
        option that the mode does not have.

    Examples
    --------
    >>> from oxidet.nn import functional as F
    >>> F.interpolate([[[[1.0, 2.0]]]], scale_factor=2)
    array([[[[1., 1., 2., 2.],
             [1., 1., 2., 2.]]]], dtype=float32)
    >>> F.interpolate([[[[1.0, 2.0]]]], (1, 3), mode="bilinear", align_corners=True)
    array([[[[1. , 1.5, 2. ]]]], dtype=float32)
    """
    mode = choice(mode, "mode", INTERPOLATION_MODES)
    if antialias:
        raise ValueError(f"antialias: expected False, got {antialias!r}")
    if align_corners is not None and mode != "bilinear":
        raise ValueError(f"align_corners: expected None with mode={mode!r}, got {align_corners!r}")
    shape = np.shape(input)
    if len(shape) != 4:
        raise ValueError(f"input: expected 4 dimensions (N, C, H, W), got shape {shape}")
    if (size is None) == (scale_factor is None):
        raise ValueError(
            f"size: expected either a size or a scale_factor, got {size!r} and {scale_factor!r}"
        )
    scales: tuple[float | None, float | None] = (None, None)
    if scale_factor is None:
        if recompute_scale_factor:
            raise ValueError("recompute_scale_factor: expected a scale_factor with it, got none")
        output = pair(size, "size")
    else:
        scales = factors = _factors(scale_factor)
        rows, cols = (math.floor(n * factor) for n, factor in zip(shape[2:], factors, strict=True))
        if not (1 <= rows <= INT32_MAX and 1 <= cols <= INT32_MAX):
            raise ValueError(
                f"scale_factor: expected one that makes at least 1 x 1 pixels of "
                f"{shape[2]} x {shape[3]}, got {scale_factor!r}"
            )
        output = rows, cols
        if recompute_scale_factor:
            scales = (None, None)
    if mode == "area":
        return adaptive_avg_pool2d(input, output)
    return interpolate_(
        input, mode=mode, size=output, scales=scales, align_corners=bool(align_corners)
    )
