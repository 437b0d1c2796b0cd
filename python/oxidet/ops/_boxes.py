"""Box arithmetic: area, formats, clipping, size filter. Boxes are (x1, y1, x2, y2)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from oxidet._arrays import as_array, choice, number, real_pair

Array = NDArray[Any]


def as_boxes(value: Any, argument: str) -> Array:
    """``value`` as an array of shape (..., 4)."""
    boxes = as_array(value, argument)
    if boxes.ndim == 0 or boxes.shape[-1] != 4:
        raise ValueError(f"{argument}: expected shape (..., 4), got {boxes.shape}")
    return boxes


def box_area(boxes: Any, fmt: str = "xyxy") -> Array:
    """Area of boxes, as ``torchvision.ops.box_area``.

    ``boxes`` is (..., 4) in the format ``fmt``: "xyxy", "xywh" or "cxcywh". Returns (...): half
    floats as float32, small integers as int32, other types unchanged. An inverted box has the
    plain product of its sides, which is positive when both are negative. Raises ValueError for
    another format or shape.

    >>> from oxidet import ops
    >>> ops.box_area([[0.0, 0.0, 4.0, 3.0]])
    array([12.])
    """
    _check_format(fmt, "fmt")
    array = as_boxes(boxes, "boxes")
    if array.dtype.kind == "f":
        array = array.astype(np.promote_types(array.dtype, np.float32), copy=False)
    else:
        array = array.astype(np.promote_types(array.dtype, np.int32), copy=False)
    if fmt == "xyxy":
        return (array[..., 2] - array[..., 0]) * (array[..., 3] - array[..., 1])
    return array[..., 2] * array[..., 3]


def _columns(*columns: Array) -> Array:
    return np.stack(columns, axis=-1)


def _floating(boxes: Array) -> Array:
    """Integers as float32, where halves appear."""
    return boxes if boxes.dtype.kind == "f" else boxes.astype(np.float32)


def _xywh_to_xyxy(boxes: Array) -> Array:
    x, y, w, h = np.moveaxis(boxes, -1, 0)
    return _columns(x, y, x + w, y + h)


def _xyxy_to_xywh(boxes: Array) -> Array:
    x1, y1, x2, y2 = np.moveaxis(boxes, -1, 0)
    return _columns(x1, y1, x2 - x1, y2 - y1)


def _cxcywh_to_xyxy(boxes: Array) -> Array:
    half = boxes.dtype.type(0.5)
    cx, cy, w, h = np.moveaxis(boxes, -1, 0)
    return _columns(cx - half * w, cy - half * h, cx + half * w, cy + half * h)


def _xyxy_to_cxcywh(boxes: Array) -> Array:
    half = boxes.dtype.type(0.5)
    x1, y1, x2, y2 = np.moveaxis(boxes, -1, 0)
    return _columns((x1 + x2) * half, (y1 + y2) * half, x2 - x1, y2 - y1)


# Each format's way to corners and back; two other formats convert through corners.
_TO_CORNERS: dict[str, Callable[[Array], Array]] = {
    "xyxy": lambda boxes: boxes,
    "xywh": _xywh_to_xyxy,
    "cxcywh": lambda boxes: _cxcywh_to_xyxy(_floating(boxes)),
}
_FROM_CORNERS: dict[str, Callable[[Array], Array]] = {
    "xyxy": lambda boxes: boxes,
    "xywh": _xyxy_to_xywh,
    "cxcywh": lambda boxes: _xyxy_to_cxcywh(_floating(boxes)),
}


def _check_format(fmt: str, argument: str) -> None:
    choice(fmt, argument, tuple(_TO_CORNERS))


def box_convert(boxes: Any, in_fmt: str, out_fmt: str) -> Array:
    """Boxes in another format, as ``torchvision.ops.box_convert`` for axis-aligned boxes.

    Parameters
    ----------
    boxes
        (..., 4).
    in_fmt, out_fmt
        "xyxy" (corners), "xywh" (upper left corner and size) or "cxcywh" (centre and size).

    Returns
    -------
    A new (..., 4) array. Floating types stay; integers stay unless a half may appear, where they
    become float32.

    Raises
    ------
    ValueError
        For another format or shape.

    Examples
    --------
    >>> from oxidet import ops
    >>> ops.box_convert([[10, 20, 30, 60]], "xyxy", "cxcywh")
    array([[20., 40., 20., 40.]], dtype=float32)
    """
    _check_format(in_fmt, "in_fmt")
    _check_format(out_fmt, "out_fmt")
    array = as_boxes(boxes, "boxes")
    if in_fmt == out_fmt:
        return array.copy()
    return _FROM_CORNERS[out_fmt](_TO_CORNERS[in_fmt](array))


def clip_boxes_to_image(boxes: Any, size: tuple[float, float]) -> Array:
    """Boxes cut off at the image's border, as ``torchvision.ops.clip_boxes_to_image``.

    ``boxes`` is (..., 4), ``size`` is (height, width): x is clipped to [0, width] and y to
    [0, height]. The dtype stays, NaN stays NaN. Returns a new array. Raises ValueError for another
    shape or a negative size.

    >>> from oxidet import ops
    >>> ops.clip_boxes_to_image([[-5.0, 2.0, 120.0, 40.0]], (30, 100))
    array([[  0.,   2., 100.,  30.]])
    """
    array = as_boxes(boxes, "boxes")
    height, width = real_pair(size, "size")
    if height < 0 or width < 0:
        raise ValueError(f"size: expected (height, width) of at least 0, got {size!r}")
    limits = np.array([width, height, width, height])
    return np.clip(array, 0, limits).astype(array.dtype, copy=False)


def remove_small_boxes(boxes: Any, min_size: float) -> NDArray[np.int64]:
    """Indices of boxes that are large enough, as ``torchvision.ops.remove_small_boxes``.

    ``boxes`` is (R, 4). Keeps a box whose sides are both at least ``min_size``; a box with NaN is
    dropped. Returns int64 indices, ascending.

    >>> from oxidet import ops
    >>> ops.remove_small_boxes([[0.0, 0.0, 4.0, 3.0], [0.0, 0.0, 9.0, 2.9]], 3)
    array([0])
    """
    array = as_boxes(boxes, "boxes")
    if array.ndim != 2:
        raise ValueError(f"boxes: expected shape (R, 4), got {array.shape}")
    large = array[:, 2:] - array[:, :2] >= number(min_size, "min_size")
    return np.flatnonzero(large.all(axis=1)).astype(np.int64, copy=False)
