"""Position-sensitive RoI pooling and RoI align: primitives, functions, layers."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from oxidet import _core
from oxidet._arrays import nchw, nhwc
from oxidet._same_kind import same_kind
from oxidet.nn.primitive import Context, Primitive
from oxidet.ops._regions import as_nchw, empty_result, features, pooled
from oxidet.ops._roi_layer import RoILayer, checked_sampling_ratio

Array = NDArray[Any]


def _forward(
    kernel: Any,
    ctx: Context,
    input: Any,
    rois: Any,
    size: tuple[int, int],
    options: tuple[Any, ...],
) -> Array:
    (x, first), regions = features(input), np.ascontiguousarray(rois, np.float32)
    n, c, h, w = np.shape(input)
    if c % (size[0] * size[1]):
        raise ValueError(
            f"input: expected channels in a multiple of the {size[0] * size[1]} bins of a region, "
            f"got {c}"
        )
    ctx.rois, ctx.input_shape, ctx.options = regions, (n, h, w, c), options
    output = empty_result(len(regions), c // (size[0] * size[1]), size, first)
    kernel(x, first, regions, output, size, *options)
    return as_nchw(output, first)


def _backward(kernel: Any, ctx: Context, grad: Array) -> tuple[Array | None, None]:
    # As in torchvision, regions are constants: only the features receive a gradient.
    if not ctx.needs_input_grad[0]:
        return None, None
    return nchw(kernel(nhwc(grad, "grad"), ctx.rois, ctx.input_shape, *ctx.options)), None


def _ps_roi_pool(
    ctx: Context, input: Any, rois: Any, *, output_size: tuple[int, int], spatial_scale: float
) -> Array:
    return _forward(_core.ps_roi_pool, ctx, input, rois, output_size, (spatial_scale,))


def _ps_roi_pool_backward(ctx: Context, grad: Array) -> tuple[Array | None, None]:
    return _backward(_core.ps_roi_pool_backward, ctx, grad)


def _ps_roi_align(
    ctx: Context,
    input: Any,
    rois: Any,
    *,
    output_size: tuple[int, int],
    spatial_scale: float,
    sampling_ratio: int,
) -> Array:
    options = (spatial_scale, sampling_ratio)
    return _forward(_core.ps_roi_align, ctx, input, rois, output_size, options)


def _ps_roi_align_backward(ctx: Context, grad: Array) -> tuple[Array | None, None]:
    return _backward(_core.ps_roi_align_backward, ctx, grad)


ps_roi_pool_ = Primitive("ps_roi_pool", _ps_roi_pool, _ps_roi_pool_backward)
ps_roi_align_ = Primitive("ps_roi_align", _ps_roi_align, _ps_roi_align_backward)


@same_kind
def ps_roi_pool(input: Any, boxes: Any, output_size: Any, spatial_scale: float = 1.0) -> Any:
    """Position-sensitive RoI pooling (R-FCN, section 2.2), as ``torchvision.ops.ps_roi_pool``.

    Bin (row, column) of output channel k is the average over its pixels of input channel
    ``(k * rows + row) * columns + column``. Corners are scaled and rounded to pixels, halves away
    from zero; a bin without pixels gives 0, as does every bin of a region with a NaN coordinate.
    Two habits of torchvision's are kept: bins never read the last row and the last column of the
    features, and the gradient is spread as if they did.

    Parameters
    ----------
    input
        (N, C, H, W) features; C is a multiple of rows * columns.
    boxes, output_size, spatial_scale
        As of :func:`roi_pool`.

    Returns
    -------
    (R, C / (rows * columns), rows, columns) of the type and in the memory order that
    :func:`roi_pool` has, with float32's precision. Differentiable in ``input``.

    Raises
    ------
    ValueError, MemoryError
        As :func:`roi_pool`, and for a number of channels that the bins do not divide.

    Examples
    --------
    >>> import numpy as np
    >>> from oxidet import ops
    >>> x = np.arange(192, dtype=np.float32).reshape(1, 4, 6, 8)
    >>> ops.ps_roi_pool(x, np.array([[0, 4, 2, 22, 15]]), 2, spatial_scale=0.25)
    array([[[[ 14.,  64.],
             [118., 168.]]]], dtype=float32)
    """
    return pooled(ps_roi_pool_, input, boxes, "boxes", output_size, spatial_scale)


@same_kind
def ps_roi_align(
    input: Any,
    boxes: Any,
    output_size: Any,
    spatial_scale: float = 1.0,
    sampling_ratio: int = -1,
) -> Any:
    """Position-sensitive RoI align (Light-Head R-CNN), as ``torchvision.ops.ps_roi_align``.

    Like :func:`roi_align` with ``aligned=True``, but bin (row, column) of output channel k samples
    input channel ``(k * rows + row) * columns + column``. With an adaptive grid a region of no
    height or no width has no samples, whose average is NaN, as in torchvision. A region with a NaN
    coordinate gives 0.

    Parameters
    ----------
    input
        (N, C, H, W) features; C is a multiple of rows * columns.
    boxes, output_size, spatial_scale, sampling_ratio
        As of :func:`roi_align`.

    Returns
    -------
    (R, C / (rows * columns), rows, columns) of the type and in the memory order that
    :func:`roi_align` has, with float32's precision. Differentiable in ``input``.

    Raises
    ------
    ValueError, MemoryError
        As :func:`roi_align`, and for a number of channels that the bins do not divide.

    Examples
    --------
    >>> import numpy as np
    >>> from oxidet import ops
    >>> x = np.arange(192, dtype=np.float32).reshape(1, 4, 6, 8)
    >>> ops.ps_roi_align(x, np.array([[0, 4, 2, 22, 15]]), 2, 0.25, sampling_ratio=2)
    array([[[[  8.125,  58.375],
             [117.125, 167.375]]]], dtype=float32)
    """
    ratio = checked_sampling_ratio(sampling_ratio)
    return pooled(
        ps_roi_align_, input, boxes, "boxes", output_size, spatial_scale, sampling_ratio=ratio
    )


class PSRoIPool(RoILayer):
    """:func:`ps_roi_pool` with fixed options, as ``torchvision.ops.PSRoIPool``."""

    _operator = ps_roi_pool_


class PSRoIAlign(RoILayer):
    """:func:`ps_roi_align` with fixed options, as ``torchvision.ops.PSRoIAlign``."""

    _operator = ps_roi_align_

    def __init__(self, output_size: Any, spatial_scale: float, sampling_ratio: int) -> None:
        super().__init__(output_size, spatial_scale)
        checked_sampling_ratio(sampling_ratio)
        self.sampling_ratio = sampling_ratio

    def _options(self) -> dict[str, Any]:
        return {"sampling_ratio": checked_sampling_ratio(self.sampling_ratio)}

    def extra_repr(self) -> str:
        """Arguments in torchvision's form."""
        return f"{super().extra_repr()}, sampling_ratio={self.sampling_ratio}"
