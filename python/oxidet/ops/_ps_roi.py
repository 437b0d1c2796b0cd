"""Position-sensitive RoI pooling and RoI align: primitives, functions, layers."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from oxidet import _core
from oxidet._arrays import nchw, nhwc, number, pair
from oxidet._kinds import same_kind
from oxidet.nn.primitive import Context, Primitive
from oxidet.ops._regions import as_nchw, as_rois, empty_result, features, rois_of
from oxidet.ops._roi_align import _sampling_ratio
from oxidet.ops._roi_layer import RoILayer

Array = NDArray[Any]


def _forward(
    kernel: Any,
    ctx: Context,
    input: Any,
    rois: Any,
    size: tuple[int, int],
    options: tuple[Any, ...],
) -> Array:
    (x, first), regions = features(input), as_rois(rois, "rois")
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


@same_kind(dtype_of="input")
def ps_roi_pool(input: Any, boxes: Any, output_size: Any, spatial_scale: float = 1.0) -> Any:
    """Position-sensitive RoI pooling (R-FCN, section 2.2), as ``torchvision.ops.ps_roi_pool``.

    Bin (row, column) of output channel k is the average over its pixels of input channel
    ``(k * rows + row) * columns + column``. Corners are scaled and rounded to pixels, halves away
    from zero; a bin without pixels gives 0. Two habits of torchvision's are kept: bins never read
    the last row and the last column of the features, and the gradient is spread as if they did.

    Parameters
    ----------
    input
        (N, C, H, W) float32 features; C is a multiple of rows * columns.
    boxes
        (R, 5) float32 rows (batch_index, x1, y1, x2, y2) in image pixels, or a list with an
        (L, 4) array of (x1, y1, x2, y2) for each image.
    output_size
        Bins of a region: an integer or a pair (rows, columns).
    spatial_scale
        Feature pixels per image pixel, such as 1/16.

    Returns
    -------
    (R, C / (rows * columns), rows, columns) float32, C-contiguous if ``input`` is, else
    channels-last in memory. Differentiable in ``input``.

    Raises
    ------
    ValueError
        If a shape is wrong, or a row has a batch index outside the batch or a coordinate that is
        not finite (the row is named).
    MemoryError
        If the result does not fit into memory.

    Examples
    --------
    >>> import numpy as np
    >>> from oxidet import ops
    >>> x = np.arange(192.0).reshape(1, 4, 6, 8)
    >>> ops.ps_roi_pool(x, np.array([[0, 4, 2, 22, 15]]), 2, spatial_scale=0.25)
    array([[[[ 14.,  64.],
             [118., 168.]]]], dtype=float32)
    """
    return ps_roi_pool_(
        input,
        rois_of(boxes, "boxes"),
        output_size=pair(output_size, "output_size"),
        spatial_scale=number(spatial_scale, "spatial_scale"),
    )


@same_kind(dtype_of="input")
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
    height or no width has no samples, whose average is NaN, as in torchvision.

    Parameters
    ----------
    input
        (N, C, H, W) float32 features; C is a multiple of rows * columns.
    boxes
        (R, 5) float32 rows (batch_index, x1, y1, x2, y2) in image pixels, or a list with an
        (L, 4) array of (x1, y1, x2, y2) for each image.
    output_size
        Bins of a region: an integer or a pair (rows, columns).
    spatial_scale
        Feature pixels per image pixel, such as 1/16.
    sampling_ratio
        Samples of a bin on each axis, at most 65536; 0 or less takes the bin's size in feature
        pixels, rounded up.

    Returns
    -------
    (R, C / (rows * columns), rows, columns) float32, C-contiguous if ``input`` is, else
    channels-last in memory. Differentiable in ``input``.

    Raises
    ------
    ValueError
        If a shape is wrong, or a row has a batch index outside the batch or a coordinate that is
        not finite (the row is named).
    MemoryError
        If the result does not fit into memory.

    Examples
    --------
    >>> import numpy as np
    >>> from oxidet import ops
    >>> x = np.arange(192.0).reshape(1, 4, 6, 8)
    >>> ops.ps_roi_align(x, np.array([[0, 4, 2, 22, 15]]), 2, 0.25, sampling_ratio=2)
    array([[[[  8.125,  58.375],
             [117.125, 167.375]]]], dtype=float32)
    """
    return ps_roi_align_(
        input,
        rois_of(boxes, "boxes"),
        output_size=pair(output_size, "output_size"),
        spatial_scale=number(spatial_scale, "spatial_scale"),
        sampling_ratio=_sampling_ratio(sampling_ratio),
    )


class PSRoIPool(RoILayer):
    """:func:`ps_roi_pool` with fixed options, as ``torchvision.ops.PSRoIPool``."""

    def forward(self, input: Any, rois: Any) -> Any:
        """(N, C, H, W) features and (R, 5) regions -> (R, C / bins, rows, columns)."""
        return ps_roi_pool(input, rois, self.output_size, self.spatial_scale)


class PSRoIAlign(RoILayer):
    """:func:`ps_roi_align` with fixed options, as ``torchvision.ops.PSRoIAlign``."""

    def __init__(self, output_size: Any, spatial_scale: float, sampling_ratio: int) -> None:
        super().__init__(output_size, spatial_scale)
        _sampling_ratio(sampling_ratio)
        self.sampling_ratio = sampling_ratio

    def forward(self, input: Any, rois: Any) -> Any:
        """(N, C, H, W) features and (R, 5) regions -> (R, C / bins, rows, columns)."""
        return ps_roi_align(input, rois, self.output_size, self.spatial_scale, self.sampling_ratio)

    def extra_repr(self) -> str:
        """Arguments in torchvision's form."""
        return f"{super().extra_repr()}, sampling_ratio={self.sampling_ratio}"
