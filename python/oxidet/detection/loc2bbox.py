"""Decoding of offsets to boxes."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from oxidet import _arrays, _core
from oxidet._same_kind import same_kind


@same_kind
def loc2bbox(src_bbox: ArrayLike, loc: ArrayLike) -> NDArray[Any]:
    """Boxes that offsets make of source boxes, the inverse of :func:`bbox2loc`.

    Parameters
    ----------
    src_bbox
        Boxes, (R, 4); a single row serves all rows of ``loc``.
    loc
        ``(t_y, t_x, t_h, t_w)``, (R, 4), or (R, 4 K) for K offsets of each box one after the other.

    Returns
    -------
    Boxes in the shape and dtype of ``loc`` (an integer ``loc`` truncates), but (0, 4) whenever
    there are no source boxes. The exponent is not clamped: a huge ``t_h`` gives infinite corners,
    and NaN stays NaN.

    Raises
    ------
    ValueError
        ``src_bbox`` is not (R, 4), or ``loc`` not (R, 4 K).

    Notes
    -----
    As chainercv's ``loc2bbox``.

    Examples
    --------
    >>> import numpy as np
    >>> from oxidet.detection import loc2bbox
    >>> loc2bbox([[10, 20, 30, 60]], np.array([[0.5, 0, 0, np.log(2)]])).round(3)
    array([[20.,  0., 40., 80.]])
    """
    decoded = _core.loc2bbox(src_bbox, loc)
    return _converted(src_bbox, loc) if decoded is None else decoded


def _converted(src_bbox: ArrayLike, loc: ArrayLike) -> NDArray[Any]:
    kept_dtype = _arrays.as_array(loc, "loc").dtype
    src, offsets = _arrays.floats(src_bbox=src_bbox, loc=loc)
    src = _arrays.box_shape(src, "src_bbox")
    if len(src) == 0:
        return np.zeros((0, 4), kept_dtype)
    if offsets.ndim != 2 or offsets.shape[1] % 4 or len(src) not in (1, len(offsets)):
        rows = "R" if len(src) == 1 else len(src)
        raise ValueError(f"loc: expected shape ({rows}, 4 K), got {offsets.shape}")
    decoded = _arrays.computed(_core.loc2bbox(src, offsets))
    with np.errstate(over="ignore", invalid="ignore"):
        return decoded.astype(kept_dtype, copy=False)
