"""RoI align: the primitive, the function, the layer."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from oxidet import _core
from oxidet._arrays import integer, nchw, nhwc, number, pair
from oxidet._kinds import same_kind
from oxidet.nn.primitive import Context, Primitive
from oxidet.ops._regions import as_nchw, as_rois, empty_result, features, rois_of
from oxidet.ops._roi_layer import RoILayer

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
    (x, first), regions = features(input), as_rois(rois, "rois")
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


def _sampling_ratio(value: Any) -> int:
    # 0 and every negative number mean the same.
    return max(integer(value, "sampling_ratio", maximum=2**16), 0)


@same_kind(dtype_of="input")
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
    feature pixel wide and high.

    Parameters
    ----------
    input
        (N, C, H, W) float32 features.
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
    aligned
        Whether feature pixel (0, 0) has its centre at (0.5, 0.5), which is geometrically right,
        or at (0, 0), with which older models were trained.

    Returns
    -------
    (R, C, rows, columns) float32, C-contiguous if ``input`` is, else channels-last in memory.
    Differentiable in ``input``.

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
    >>> x = np.arange(48.0).reshape(1, 1, 6, 8)
    >>> ops.roi_align(x, np.array([[0, 4, 2, 22, 15]]), (2, 3), 0.25, sampling_ratio=2)
    array([[[[12.25, 13.75, 15.25],
             [25.25, 26.75, 28.25]]]], dtype=float32)
    """
    return roi_align_(
        input,
        rois_of(boxes, "boxes"),
        output_size=pair(output_size, "output_size"),
        spatial_scale=number(spatial_scale, "spatial_scale"),
        sampling_ratio=_sampling_ratio(sampling_ratio),
        aligned=bool(aligned),
    )


class RoIAlign(RoILayer):
    """RoI align with fixed options, as ``torchvision.ops.RoIAlign``; see :func:`roi_align`."""

    def __init__(
        self,
        output_size: Any,
        spatial_scale: float,
        sampling_ratio: int,
        aligned: bool = False,
    ) -> None:
        super().__init__(output_size, spatial_scale)
        _sampling_ratio(sampling_ratio)
        self.sampling_ratio = sampling_ratio
        self.aligned = aligned

    def forward(self, input: Any, rois: Any) -> Any:
        """(N, C, H, W) features and (R, 5) regions -> (R, C, rows, columns)."""
        return roi_align(
            input,
            rois,
            self.output_size,
            self.spatial_scale,
            self.sampling_ratio,
            self.aligned,
        )

    def extra_repr(self) -> str:
        """Arguments in torchvision's form."""
        more = f"sampling_ratio={self.sampling_ratio}, aligned={self.aligned}"
        return f"{super().extra_repr()}, {more}"
