"""RoI max pooling with Chainer's name and arguments."""

from __future__ import annotations

from typing import Any, Literal

from oxidet._arrays import as_array, pair
from oxidet._same_kind import same_kind
from oxidet.ops._regions import pooled
from oxidet.ops._roi_pool import roi_pool_


@same_kind
def roi_pooling_2d(
    x: Any,
    rois: Any,
    outh: int,
    outw: int,
    spatial_scale: float,
    *,
    convention: Literal["gpu", "cpu"] = "gpu",
) -> Any:
    """RoI max pooling, as ``chainer.functions.roi_pooling_2d``.

    Chainer's two implementations round differently, so the same weights give slightly different
    features on a CPU and on a GPU. Published weights were trained on GPUs, hence the default.

    Parameters
    ----------
    x
        (N, C, H, W) features.
    rois
        (R, 5) rows (batch_index, x_min, y_min, x_max, y_max) in image pixels: the one
        place of this package where boxes do not start with y.
    outh, outw
        Rows and columns of bins.
    spatial_scale
        Feature pixels per image pixel, such as 1/16.
    convention
        "gpu": halves round away from zero and bin edges are float32 (Chainer on a GPU,
        simple-faster-rcnn, torchvision). "cpu": halves round to even and bin edges are float64
        (Chainer on a CPU).

    Returns
    -------
    (R, C, outh, outw) in the floating type of ``x`` (float32 for integers). Features and boxes are
    converted to float32 first, so float64 comes back with the precision of float32. C-contiguous
    if ``x`` is, else channels-last in memory. 0 for a bin without pixels and for a region with a
    NaN coordinate. Differentiable in ``x``. NaN never is the maximum (on a CPU Chainer propagates
    it).

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
    >>> from oxidet.detection import roi_pooling_2d
    >>> ramp = np.arange(8.0).reshape(1, 1, 1, 8)
    >>> rois = np.array([[0, 40, 0, 40, 0]])  # 40 / 16 = 2.5
    >>> roi_pooling_2d(ramp, rois, 1, 1, 1 / 16).item()
    3.0
    >>> roi_pooling_2d(ramp, rois, 1, 1, 1 / 16, convention="cpu").item()
    2.0
    """
    if convention not in ("gpu", "cpu"):
        raise ValueError(f"convention: expected 'gpu' or 'cpu', got {convention!r}")
    on_cpu = convention == "cpu"
    size = pair((outh, outw), "outh, outw")
    if isinstance(rois, (list, tuple)):  # of rows; torchvision's lists are of images
        rois = as_array(rois, "rois")
    options = {"half_to_even": on_cpu, "float64_edges": on_cpu}
    return pooled(roi_pool_, x, rois, "rois", size, spatial_scale, features="x", **options)
