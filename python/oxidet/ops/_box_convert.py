"""Boxes in other formats, upright and rotated.

Two upright formats convert through corners (x1, y1, x2, y2), two rotated ones through upper left
corner, size and angle (x1, y1, w, h, r). The angle is in degrees, counter-clockwise as seen in the
picture, where y points down; "upper left" is a corner of the box before it was turned.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from oxidet._arrays import choice
from oxidet._same_kind import same_kind
from oxidet.ops._boxes import FORMATS, as_boxes

Array = NDArray[Any]

# Rotated formats and the length of their rows.
ROTATED = {"xywhr": 5, "cxcywhr": 5, "xyxyxyxy": 8}


def _columns(*columns: Array) -> Array:
    return np.stack(columns, axis=-1)


def _unstacked(boxes: Array) -> Array:
    return np.moveaxis(boxes, -1, 0)


def _floating(boxes: Array) -> Array:
    """Integers as float32, where halves appear."""
    return boxes if boxes.dtype.kind == "f" else boxes.astype(np.float32)


def _xywh_to_xyxy(boxes: Array) -> Array:
    x, y, w, h = _unstacked(boxes)
    return _columns(x, y, x + w, y + h)


def _xyxy_to_xywh(boxes: Array) -> Array:
    x1, y1, x2, y2 = _unstacked(boxes)
    return _columns(x1, y1, x2 - x1, y2 - y1)


def _cxcywh_to_xyxy(boxes: Array) -> Array:
    cx, cy, w, h = _unstacked(_floating(boxes))
    return _columns(cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2)


def _xyxy_to_cxcywh(boxes: Array) -> Array:
    x1, y1, x2, y2 = _unstacked(_floating(boxes))
    return _columns((x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1)


def _turn(r: Array) -> tuple[Array, Array]:
    """Cosine and sine of an angle in degrees."""
    radians = r * r.dtype.type(np.pi) / r.dtype.type(180)
    return np.cos(radians), np.sin(radians)


def _cxcywhr_to_xywhr(boxes: Array) -> Array:
    cx, cy, w, h, r = _unstacked(boxes)
    cos, sin = _turn(r)
    return _columns(cx - w / 2 * cos - h / 2 * sin, cy - h / 2 * cos + w / 2 * sin, w, h, r)


def _xywhr_to_cxcywhr(boxes: Array) -> Array:
    x, y, w, h, r = _unstacked(boxes)
    cos, sin = _turn(r)
    return _columns(x + w / 2 * cos + h / 2 * sin, y - w / 2 * sin + h / 2 * cos, w, h, r)


def _xywhr_to_xyxyxyxy(boxes: Array) -> Array:
    x1, y1, w, h, r = _unstacked(boxes)
    cos, sin = _turn(r)
    x2, y2 = x1 + w * cos, y1 - w * sin
    return _columns(x1, y1, x2, y2, x2 + h * sin, y2 + h * cos, x1 + h * sin, y1 + h * cos)


def _xyxyxyxy_to_xywhr(boxes: Array) -> Array:
    x1, y1, x2, y2, x3, y3, _, _ = _unstacked(boxes)
    degrees = np.arctan2(y1 - y2, x2 - x1) * boxes.dtype.type(180) / boxes.dtype.type(np.pi)
    w = np.sqrt((x2 - x1) ** 2 + (y1 - y2) ** 2)
    h = np.sqrt((x3 - x2) ** 2 + (y3 - y2) ** 2)
    return _columns(x1, y1, w, h, degrees)


# Each format's way to the common one and back.
_Step = Callable[[Array], Array]
_TO_COMMON: dict[str, _Step] = {
    "xywh": _xywh_to_xyxy,
    "cxcywh": _cxcywh_to_xyxy,
    "cxcywhr": _cxcywhr_to_xywhr,
    "xyxyxyxy": _xyxyxyxy_to_xywhr,
}
_FROM_COMMON: dict[str, _Step] = {
    "xywh": _xyxy_to_xywh,
    "cxcywh": _xyxy_to_cxcywh,
    "cxcywhr": _xywhr_to_cxcywhr,
    "xyxyxyxy": _xywhr_to_xyxyxyxy,
}


def _turned(step: _Step | None, boxes: Array) -> Array:
    """A step between rotated formats. Integers are rounded, half to even, after each.

    Half floats are computed in float32: they know pi to three digits.
    """
    if step is None:
        return boxes
    if boxes.dtype == np.float16:
        return step(boxes.astype(np.float32)).astype(boxes.dtype)
    if boxes.dtype.kind == "f":
        return step(boxes)
    return np.rint(step(boxes.astype(np.float32))).astype(boxes.dtype)


@same_kind
def box_convert(boxes: Any, in_fmt: str, out_fmt: str) -> Array:
    """Boxes in another format, as ``torchvision.ops.box_convert``.

    Parameters
    ----------
    boxes
        (..., 4), (..., 5) or (..., 8), as ``in_fmt`` says.
    in_fmt, out_fmt
        Two of "xyxy" (corners), "xywh" (upper left corner and size) and "cxcywh" (centre and
        size); or two of "xywhr" and "cxcywhr" (the same with an angle in degrees, counter-clockwise
        in the picture, around which the box turns about its centre) and "xyxyxyxy" (corners in
        turn: upper left, upper right, lower right, lower left).

    Returns
    -------
    A new array. Floating types stay. Integers stay in upright formats unless a half may appear,
    where they become float32; in rotated ones they are rounded, half to even.

    Raises
    ------
    ValueError
        For another format or shape.
    NotImplementedError
        Between an upright and a rotated format.

    Examples
    --------
    >>> import numpy as np
    >>> from oxidet import ops
    >>> ops.box_convert([[10, 20, 30, 60]], "xyxy", "cxcywh")
    array([[20., 40., 20., 40.]], dtype=float32)
    >>> ops.box_convert(np.array([[20.0, 40, 20, 10, 90]]), "cxcywhr", "xyxyxyxy").round(3)
    array([[15., 50., 15., 30., 25., 30., 25., 50.]])
    """
    for fmt, argument in ((in_fmt, "in_fmt"), (out_fmt, "out_fmt")):
        choice(fmt, argument, (*FORMATS, *ROTATED))
    alike = tuple(ROTATED) if in_fmt in ROTATED else FORMATS
    if out_fmt not in alike:
        # torchvision's class of error: both formats are legal, only the way between them is not.
        raise NotImplementedError(
            f"out_fmt: expected one of {alike} for boxes in {in_fmt!r}, got {out_fmt!r}"
        )
    array = as_boxes(boxes, "boxes", ROTATED.get(in_fmt, 4))
    if in_fmt == out_fmt:
        return array.copy()
    there, back = _TO_COMMON.get(in_fmt), _FROM_COMMON.get(out_fmt)
    with np.errstate(all="ignore"):  # infinite boxes
        if in_fmt in ROTATED:
            return _turned(back, _turned(there, array))
        common = there(array) if there else array
        return back(common) if back else common
