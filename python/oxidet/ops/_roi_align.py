"""RoI align: the primitive, the function, the layer."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from oxidet import _core
from oxidet._arrays import flag, nchw, nhwc
from oxidet._same_kind import same_kind
from oxidet.nn.primitive import Context, Primitive
from oxidet.ops._regions import as_nchw, empty_result, features, pooled
from oxidet.ops._roi_layer import RoILayer, checked_sampling_ratio

Array = NDArray[Any]


def _roi_align(
    ctx: Context,
    input: Any,
    rois: Any,
    *,
    output_size: tuple[int, int],
    spatial_scale: float,
    sampling_ratio: int,
    aligned: bool,
) -> Array:
    (x, first), regions = features(input), np.ascontiguousarray(rois, np.float32)
    n, c, h, w = np.shape(input)
    ctx.options = (spatial_scale, sampling_ratio, aligned)
    ctx.rois, ctx.input_shape = regions, (n, h, w, c)
    output = empty_result(len(regions), c, output_size, first)
    _core.roi_align(x, first, regions, output, output_size, *ctx.options)
    return as_nchw(output, first)


def _roi_align_backward(ctx: Context, grad: Array) -> tuple[Array | None, None]:
    # As in torchvision, regions are constants: only the features receive a gradient.
    if not ctx.needs_input_grad[0]:
        return None, None
    g = nhwc(grad, "grad")
    return nchw(_core.roi_align_backward(g, ctx.rois, ctx.input_shape, *ctx.options)), None


roi_align_ = Primitive("roi_align", _roi_align, _roi_align_backward)


@same_kind
def roi_align(
    input: Any,
    boxes: Any,
    output_size: Any,
    spatial_scale: float = 1.0,
    sampling_ratio: int = -1,
    aligned: bool = False,
) -> Any:
    """RoI align (Mask R-CNN, section 3), as ``torchvision.ops.roi_align``.

    Each bin is the average of a grid of bilinear samples; nothing is rounded. A sample more than
    one pixel outside the features counts as 0. A region of non-positive size gives 0 when
    ``aligned`` and the grid is adaptive; without ``aligned`` every region is at least one
    feature pixel wide and high. A region with a NaN coordinate gives 0.

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
    sampling_ratio
        Samples of a bin on each axis, at most 65536; 0 or less takes the bin's size in feature
        pixels, rounded up.
    aligned
        Whether feature pixel (0, 0) has its centre at (0.5, 0.5), which is geometrically right,
        or at (0, 0), with which older models were trained.

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
    >>> ops.roi_align(x, np.array([[0, 4, 2, 22, 15]]), (2, 3), 0.25, sampling_ratio=2)
    array([[[[12.25, 13.75, 15.25],
             [25.25, 26.75, 28.25]]]], dtype=float32)
    """
    return pooled(
        roi_align_,
        input,
        boxes,
        "boxes",
        output_size,
        spatial_scale,
        sampling_ratio=checked_sampling_ratio(sampling_ratio),
        aligned=flag(aligned, "aligned"),
    )


class RoIAlign(RoILayer):
    """RoI align with fixed options, as ``torchvision.ops.RoIAlign``; see :func:`roi_align`.

    >>> import numpy as np
    >>> from oxidet import ops
    >>> align = ops.RoIAlign(output_size=2, spatial_scale=0.25, sampling_ratio=2)
    >>> rois = [np.array([[0.0, 0.0, 16.0, 16.0]], np.float32)]
    >>> align(np.ones((1, 3, 8, 8), np.float32), rois).shape
    (1, 3, 2, 2)
    """

    _operator = roi_align_

    def __init__(
        self,
        output_size: Any,
        spatial_scale: float,
        sampling_ratio: int,
        aligned: bool = False,
    ) -> None:
        super().__init__(output_size, spatial_scale)
        checked_sampling_ratio(sampling_ratio)
        self.sampling_ratio = sampling_ratio
        self.aligned = aligned

    def _options(self) -> dict[str, Any]:
        ratio = checked_sampling_ratio(self.sampling_ratio)
        return {"sampling_ratio": ratio, "aligned": flag(self.aligned, "aligned")}

    def extra_repr(self) -> str:
        """Arguments in torchvision's form."""
        more = f"sampling_ratio={self.sampling_ratio}, aligned={self.aligned}"
        return f"{super().extra_repr()}, {more}"
