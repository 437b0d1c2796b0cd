"""Overlap of every pair of boxes (x1, y1, x2, y2): intersection over union and its relatives."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from oxidet import _core
from oxidet._arrays import choice, computed, is_double, number
from oxidet._same_kind import same_kind
from oxidet.ops._box_convert import ROTATED, box_convert
from oxidet.ops._boxes import FORMATS, as_boxes
from oxidet.ops._rotated import rotated_box_iou

Array = NDArray[Any]


def _converted(kernel: Callable[[Array, Array], Array | None], boxes1: Any, boxes2: Any) -> Array:
    """The kernel's matrices for boxes of any type, layout and number of leading axes."""
    a, b = as_boxes(boxes1, "boxes1"), as_boxes(boxes2, "boxes2")
    for array, argument in ((a, "boxes1"), (b, "boxes2")):
        if array.ndim < 2:
            raise ValueError(f"{argument}: expected shape (..., N, 4), got {array.shape}")
    try:
        leading = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    except ValueError:
        raise ValueError(
            f"boxes2: expected leading axes that go with {a.shape[:-2]} of boxes1, "
            f"got {b.shape[:-2]}"
        ) from None
    # Integers give float32, but what they are multiplied to needs the digits of float64.
    wide = is_double(a) or is_double(b)
    integers = a.dtype.kind != "f" or b.dtype.kind != "f"
    type_ = np.float64 if wide or integers else np.float32
    a, b = np.asarray(a, type_, order="C"), np.asarray(b, type_, order="C")
    if not leading:
        result = computed(kernel(a, b))
    else:
        a, b = (np.broadcast_to(array, (*leading, *array.shape[-2:])) for array in (a, b))
        result = np.empty((*a.shape[:-1], b.shape[-2]), type_)
        for index in np.ndindex(leading):
            result[index] = computed(kernel(a[index], b[index]))
    return result if wide else result.astype(np.float32, copy=False)


@same_kind
def box_iou(boxes1: Any, boxes2: Any, fmt: str = "xyxy") -> Array:
    """Intersection over union of every pair of boxes, as ``torchvision.ops.box_iou``.

    Nothing is added to the denominator: two boxes without area give NaN. Boxes that only touch
    give 0, as does an inverted box with anything.

    Parameters
    ----------
    boxes1, boxes2
        (..., N, 4) and (..., M, 4), leading axes broadcast; rotated ones (N, 5) or (N, 8).
    fmt
        "xyxy", "xywh" or "cxcywh"; for rotated boxes "xywhr", "cxcywhr" or "xyxyxyxy", see
        :func:`box_convert` and :func:`rotated_box_iou`.

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
    if fmt in ROTATED:
        named = {"boxes1": boxes1, "boxes2": boxes2}
        for argument, boxes in named.items():
            named[argument] = rows = as_boxes(boxes, argument, ROTATED[fmt])
            if rows.ndim != 2:
                expected = f"shape (R, {ROTATED[fmt]})"
                raise ValueError(f"{argument}: expected {expected}, got {rows.shape}")
        return rotated_box_iou(*(box_convert(rows, fmt, "cxcywhr") for rows in named.values()))
    if fmt not in FORMATS:
        choice(fmt, "fmt", (*FORMATS, *ROTATED))
    iou = _core.box_iou(boxes1, boxes2, fmt)
    if iou is None:
        return _converted(lambda a, b: _core.box_iou(a, b, fmt), boxes1, boxes2)
    return iou


@same_kind
def generalized_box_iou(boxes1: Any, boxes2: Any) -> Array:
    """Generalized IoU of every pair of boxes, as ``torchvision.ops.generalized_box_iou``.

    The IoU, less the share of the smallest enclosing box that the union leaves empty (Rezatofighi
    et al., "Generalized Intersection over Union", 2019): from -1, for boxes far apart, to 1.
    Nothing is added to a denominator: where union or enclosing box have no area, it is NaN.

    Parameters
    ----------
    boxes1, boxes2
        (..., N, 4) and (..., M, 4), leading axes broadcast.

    Returns
    -------
    (..., N, M): float64 if either input is float64, else float32.

    Raises
    ------
    ValueError
        For shapes that do not fit.
    MemoryError
        If the matrix does not fit into memory.

    Examples
    --------
    >>> from oxidet import ops
    >>> ops.generalized_box_iou([[0.0, 0, 4, 4]], [[2.0, 1, 6, 5], [8, 0, 12, 4]]).round(4)
    array([[ 0.0974, -0.3333]])
    """
    iou = _core.generalized_box_iou(boxes1, boxes2)
    return _converted(_core.generalized_box_iou, boxes1, boxes2) if iou is None else iou


@same_kind
def distance_box_iou(boxes1: Any, boxes2: Any, eps: float = 1e-7) -> Array:
    """Distance IoU of every pair of boxes, as ``torchvision.ops.distance_box_iou``.

    The IoU, less the squared distance of the centres divided by the squared diagonal of the
    smallest enclosing box (Zheng et al., "Distance-IoU Loss", 2019). ``eps`` is added to that
    diagonal, but nothing to the union: two boxes without area give NaN.

    Parameters
    ----------
    boxes1, boxes2
        (..., N, 4) and (..., M, 4), leading axes broadcast.
    eps
        A small number that keeps a quotient from 0 / 0.

    Returns
    -------
    (..., N, M): float64 if either input is float64, else float32.

    Raises
    ------
    ValueError
        For shapes that do not fit.
    MemoryError
        If the matrix does not fit into memory.

    Examples
    --------
    >>> from oxidet import ops
    >>> ops.distance_box_iou([[0.0, 0, 4, 4]], [[2.0, 1, 6, 5], [8, 0, 12, 4]]).round(4)
    array([[ 0.1488, -0.4   ]])
    """
    eps = number(eps, "eps")
    iou = _core.distance_box_iou(boxes1, boxes2, eps)
    if iou is None:
        return _converted(lambda a, b: _core.distance_box_iou(a, b, eps), boxes1, boxes2)
    return iou


@same_kind
def complete_box_iou(boxes1: Any, boxes2: Any, eps: float = 1e-7) -> Array:
    """Complete IoU of every pair of boxes, as ``torchvision.ops.complete_box_iou``.

    The distance IoU, less ``alpha * v`` for different aspect ratios (Zheng et al., "Distance-IoU
    Loss", 2019): ``v = 4 / pi**2 * (atan(w1 / h1) - atan(w2 / h2))**2`` and
    ``alpha = v / (1 - IoU + v + eps)``.

    Parameters
    ----------
    boxes1, boxes2
        (..., N, 4) and (..., M, 4), leading axes broadcast.
    eps
        A small number that keeps the two quotients that have it from 0 / 0. Heights are divided
        by as they are, and so is the union: two boxes without area give NaN.

    Returns
    -------
    (..., N, M): float64 if either input is float64, else float32.

    Raises
    ------
    ValueError
        For shapes that do not fit.
    MemoryError
        If the matrix does not fit into memory.

    Examples
    --------
    >>> from oxidet import ops
    >>> ops.complete_box_iou([[0.0, 0, 4, 4]], [[2.0, 1, 6, 4]]).round(4)
    array([[0.1909]])
    """
    eps = number(eps, "eps")
    iou = _core.complete_box_iou(boxes1, boxes2, eps)
    if iou is None:
        return _converted(lambda a, b: _core.complete_box_iou(a, b, eps), boxes1, boxes2)
    return iou
