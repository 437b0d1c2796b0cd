"""Box arithmetic: area, clipping, size filter, boxes of masks. Boxes are (x1, y1, x2, y2)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from oxidet import _core
from oxidet._arrays import as_array, choice, computed, number, real_pair
from oxidet._same_kind import same_kind

Array = NDArray[Any]

# Formats of four numbers: corners; upper left corner and size; centre and size.
FORMATS = ("xyxy", "xywh", "cxcywh")


def as_boxes(value: Any, argument: str, columns: int = 4) -> Array:
    """``value`` as an array of shape (..., columns)."""
    boxes = as_array(value, argument)
    if boxes.dtype == np.bool_:
        raise TypeError(f"{argument}: expected coordinates, got dtype bool")
    if boxes.ndim == 0 or boxes.shape[-1] != columns:
        raise ValueError(f"{argument}: expected shape (..., {columns}), got {boxes.shape}")
    return boxes


@same_kind
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
    if fmt not in FORMATS:
        choice(fmt, "fmt", FORMATS)
    area = _core.box_area(boxes, fmt)
    if area is not None:
        return area
    array = as_boxes(boxes, "boxes")
    least = np.float32 if array.dtype.kind == "f" else np.int32
    array = array.astype(np.promote_types(array.dtype, least), copy=False)
    if fmt == "xyxy":
        return (array[..., 2] - array[..., 0]) * (array[..., 3] - array[..., 1])
    return array[..., 2] * array[..., 3]


@same_kind
def clip_boxes_to_image(boxes: Any, size: tuple[int, int]) -> Array:
    """Boxes cut off at the image's border, as ``torchvision.ops.clip_boxes_to_image``.

    ``boxes`` is (..., 4), ``size`` is (height, width): x is clipped to [0, width] and y to
    [0, height]. The dtype stays, NaN stays NaN. Returns a new array. Raises ValueError for another
    shape or a negative size.

    >>> from oxidet import ops
    >>> ops.clip_boxes_to_image([[-5.0, 2.0, 120.0, 40.0]], (30, 100))
    array([[  0.,   2., 100.,  30.]])
    """
    height, width = real_pair(size, "size")
    if height < 0 or width < 0:
        raise ValueError(f"size: expected (height, width) of at least 0, got {size!r}")
    clipped = _core.clip_boxes(boxes, (width, height))
    if clipped is not None:
        return clipped
    array = as_boxes(boxes, "boxes")
    if array.dtype.kind != "f":
        limits = np.array([width, height, width, height])
        return np.clip(array, 0, limits).astype(array.dtype, copy=False)
    type_ = np.float64 if array.dtype.itemsize > 4 else np.float32
    rows = np.asarray(array, type_, order="C").reshape(-1, 4)
    clipped = computed(_core.clip_boxes(rows, (width, height)))
    return clipped.reshape(array.shape).astype(array.dtype, copy=False)


@same_kind
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
    if array.dtype.kind != "f":
        array = array.astype(np.float64)  # differences of unsigned integers would wrap
    least = number(min_size, "min_size")
    with np.errstate(invalid="ignore", over="ignore"):
        large = array[:, 2:] - array[:, :2] >= least
    return np.flatnonzero(large.all(axis=1)).astype(np.int64, copy=False)


@same_kind
def masks_to_boxes(masks: Any) -> NDArray[np.float32]:
    """The smallest box around each mask, as ``torchvision.ops.masks_to_boxes``.

    Parameters
    ----------
    masks
        (N, H, W) of any type; a pixel that is not 0 (so NaN, too) belongs to the mask.

    Returns
    -------
    (N, 4) float32, (x1, y1, x2, y2): the first and the last column and row of the mask, both of
    which belong to it, so that a single pixel has a box without extent. A mask without pixels has
    zeros; masks without any elements have no boxes, (0, 4).

    Raises
    ------
    ValueError
        For another shape.

    Examples
    --------
    >>> import numpy as np
    >>> from oxidet import ops
    >>> masks = np.zeros((1, 5, 6), bool)
    >>> masks[0, 1:3, 2:5] = True
    >>> ops.masks_to_boxes(masks)
    array([[2., 1., 4., 2.]], dtype=float32)
    """
    array = as_array(masks, "masks")
    if array.size == 0:
        return np.zeros((0, 4), np.float32)
    if array.ndim != 3:
        raise ValueError(f"masks: expected shape (N, H, W), got {array.shape}")
    if array.dtype not in (np.bool_, np.uint8, np.int8):
        array = array != 0
    return _core.mask_boxes(np.ascontiguousarray(array).view(np.uint8))
