"""Intersection over union of boxes (x1, y1, x2, y2)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from oxidet import _core
from oxidet.ops._boxes import as_boxes, box_convert

Array = NDArray[Any]


def _pairwise(a: Array, b: Array) -> Array:
    kernel = _core.box_iou_f64 if a.dtype == np.float64 else _core.box_iou_f32
    return kernel(np.ascontiguousarray(a), np.ascontiguousarray(b))


def box_iou(boxes1: Any, boxes2: Any, fmt: str = "xyxy") -> Array:
    """Intersection over union of every pair of boxes, as ``torchvision.ops.box_iou``.

    Nothing is added to the denominator: two boxes without area give NaN. Boxes that only touch
    give 0, as does an inverted box with anything.

    Parameters
    ----------
    boxes1, boxes2
        (..., N, 4) and (..., M, 4) with equal leading axes.
    fmt
        "xyxy", "xywh" or "cxcywh".

    Returns
    -------
    (..., N, M): float64 if either input is float64, else float32.

    Raises
    ------
    ValueError
        For another format, or shapes that do not fit.
    MemoryError
        If the matrix does not fit into memory.

    Examples
    --------
    >>> import numpy as np
    >>> from oxidet import ops
    >>> a = np.array([[0, 0, 4, 4], [10, 10, 12, 12]], np.float32)
    >>> ops.box_iou(a, np.array([[0, 2, 4, 6]], np.float32))
    array([[0.33333334],
           [0.        ]], dtype=float32)
    """
    a = box_convert(as_boxes(boxes1, "boxes1"), fmt, "xyxy")
    b = box_convert(as_boxes(boxes2, "boxes2"), fmt, "xyxy")
    for array, argument in ((a, "boxes1"), (b, "boxes2")):
        if array.ndim < 2:
            raise ValueError(f"{argument}: expected shape (..., N, 4), got {array.shape}")
    if a.shape[:-2] != b.shape[:-2]:
        raise ValueError(
            f"boxes2: expected leading axes {a.shape[:-2]} as boxes1 has, got {b.shape[:-2]}"
        )
    dtype = np.float64 if np.float64 in (a.dtype, b.dtype) else np.float32
    a, b = a.astype(dtype, copy=False), b.astype(dtype, copy=False)
    if a.ndim == 2:
        return _pairwise(a, b)
    result = np.empty((*a.shape[:-1], b.shape[-2]), dtype)
    for index in np.ndindex(a.shape[:-2]):
        result[index] = _pairwise(a[index], b[index])
    return result
