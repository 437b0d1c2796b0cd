"""RoI max pooling: the primitive, the function, the layer."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from oxidet import _core
from oxidet._arrays import nchw, nhwc
from oxidet._same_kind import same_kind
from oxidet.nn.primitive import Context, Primitive
from oxidet.ops._regions import as_nchw, empty_result, features, pooled
from oxidet.ops._roi_layer import RoILayer

Array = NDArray[Any]


def _roi_pool(
    ctx: Context,
    input: Any,
    rois: Any,
    *,
    output_size: tuple[int, int],
    spatial_scale: float,
    half_to_even: bool,
    float64_edges: bool,
) -> Array:
    regions = np.ascontiguousarray(rois, np.float32)
    options = (output_size, spatial_scale, half_to_even, float64_edges)
    if ctx.recording:
        last = nhwc(input, "input")
        ctx.rois, ctx.input_shape = regions, last.shape
        output, ctx.argmax = _core.roi_pool_with_argmax(last, regions, *options)
        return nchw(output)
    x, first = features(input)
    output = empty_result(len(regions), np.shape(input)[1], output_size, first)
    _core.roi_pool(x, first, regions, output, *options)
    return as_nchw(output, first)


def _roi_pool_backward(ctx: Context, grad: Array) -> tuple[Array | None, None]:
    # No gradient reaches the regions: rounding makes the result piecewise constant in them.
    if not ctx.needs_input_grad[0]:
        return None, None
    g = nhwc(grad, "grad")
    return nchw(_core.roi_pool_backward(g, ctx.argmax, ctx.rois, ctx.input_shape)), None


roi_pool_ = Primitive("roi_pool", _roi_pool, _roi_pool_backward)

# torchvision's rounding; there are others, see oxidet.detection.roi_pooling_2d.
_TORCHVISION: dict[str, Any] = {"half_to_even": False, "float64_edges": False}


@same_kind
def roi_pool(input: Any, boxes: Any, output_size: Any, spatial_scale: float = 1.0) -> Any:
    """RoI max pooling (Fast R-CNN, section 2.1), as ``torchvision.ops.roi_pool``.

    Corners are scaled and rounded to pixels, halves away from zero; both end pixels belong to the
    region. Each bin takes the maximum of its pixels; bins may share pixels, and a bin without
    pixels gives 0, as does every bin of a region with a NaN coordinate. NaN never is the maximum.

    Parameters
    ----------
    input
        (N, C, H, W) features.
    boxes
        (R, 5) rows (batch_index, x1, y1, x2, y2) in image pixels, or a list with an
        (L, 4) array of (x1, y1, x2, y2) for each image.
    output_size
        Bins of a region: an integer or a pair (rows, columns).
    spatial_scale
        Feature pixels per image pixel, such as 1/16.

    Returns
    -------
    (R, C, rows, columns) in the floating type of ``input`` (float32 for integers). Features and
    boxes are converted to float32 first, so float64 comes back with the precision of float32.
    C-contiguous if ``input`` is, else channels-last in memory. Differentiable in ``input``.

    Raises
    ------
    ValueError
        If a shape is wrong, or a row has a batch index outside the batch or an infinite coordinate
        (the row is named).
    MemoryError
        If the result does not fit into memory.

    Examples
    --------
    >>> import numpy as np
    >>> from oxidet import ops
    >>> x = np.arange(48, dtype=np.float32).reshape(1, 1, 6, 8)
    >>> ops.roi_pool(x, np.array([[0, 4, 2, 22, 15]]), (2, 3), spatial_scale=0.25)
    array([[[[18., 20., 22.],
             [34., 36., 38.]]]], dtype=float32)
    """
    return pooled(roi_pool_, input, boxes, "boxes", output_size, spatial_scale, **_TORCHVISION)


class RoIPool(RoILayer):
    """RoI max pooling with fixed options, as ``torchvision.ops.RoIPool``; see :func:`roi_pool`."""

    _operator = roi_pool_

    def _options(self) -> dict[str, Any]:
        return _TORCHVISION
