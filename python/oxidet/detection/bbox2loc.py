"""Encoding of boxes as offsets."""

from __future__ import annotations

from typing import Any

from numpy.typing import ArrayLike, NDArray

from oxidet import _arrays, _core
from oxidet._same_kind import same_kind


@same_kind
def bbox2loc(src_bbox: ArrayLike, dst_bbox: ArrayLike) -> NDArray[Any]:
    """Offsets that take source boxes to destination boxes.

    With centres and sizes of source ``p`` and destination ``g``::

        t_y = (g_y - p_y) / p_h    t_x = (g_x - p_x) / p_w
        t_h = log(g_h / p_h)       t_w = log(g_w / p_w)

    Parameters
    ----------
    src_bbox
        Boxes, (R, 4). Sizes below the machine epsilon count as the epsilon.
    dst_bbox
        Boxes, (R, 4). Either side may be a single row, which then serves all.

    Returns
    -------
    ``(t_y, t_x, t_h, t_w)``, (R, 4), float32 or float64 as the boxes. A destination without size
    gives -inf, an inverted one NaN.

    Raises
    ------
    ValueError
        A shape is not (R, 4), or the row counts differ.

    Notes
    -----
    Girshick et al., "Rich feature hierarchies for accurate object detection and semantic
    segmentation", 2014, appendix C. As chainercv's ``bbox2loc``, which refuses integer boxes.

    Examples
    --------
    >>> from oxidet.detection import bbox2loc
    >>> bbox2loc([[10, 20, 30, 60]], [[12, 16, 40, 50]]).round(4)
    array([[ 0.3   , -0.175 ,  0.3365, -0.1625]])
    """
    loc = _core.bbox2loc(src_bbox, dst_bbox)
    if loc is None:
        src, dst = _arrays.boxes(src_bbox=src_bbox, dst_bbox=dst_bbox)
        loc = _core.bbox2loc(src, dst)
    return _arrays.computed(loc)
