"""The anchors of a whole feature map."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from oxidet import _arrays, _core
from oxidet._same_kind import same_kind


@same_kind
def enumerate_shifted_anchor(
    anchor_base: ArrayLike, feat_stride: float, height: int, width: int
) -> NDArray[np.float32]:
    """The base anchors at every cell of a feature map.

    Parameters
    ----------
    anchor_base
        Anchors of the first cell, (A, 4), see :func:`generate_anchor_base`.
    feat_stride
        Pixels of the image between neighbouring cells.
    height
        Rows of the feature map.
    width
        Columns of the feature map.

    Returns
    -------
    float32 boxes, (height * width * A, 4): row ``(y * width + x) * A + a`` is base anchor ``a``
    moved by ``(y * feat_stride, x * feat_stride)``. Many lie partly outside the image.

    Raises
    ------
    ValueError
        ``anchor_base`` is not (A, 4), the stride not positive, or a size negative.
    MemoryError
        The anchors do not fit into memory.

    Notes
    -----
    As chainercv's and simple-faster-rcnn's ``_enumerate_shifted_anchor``.

    Examples
    --------
    >>> from oxidet.detection import enumerate_shifted_anchor
    >>> enumerate_shifted_anchor([[0, 0, 8, 8]], 16, 1, 2)
    array([[ 0.,  0.,  8.,  8.],
           [ 0., 16.,  8., 24.]], dtype=float32)
    """
    (base,) = _arrays.boxes(anchor_base=anchor_base)
    stride = _arrays.number(feat_stride, "feat_stride")
    if not 0 < stride < float("inf"):
        raise ValueError(f"feat_stride: expected positive finite numbers, got {feat_stride}")
    size = (
        _arrays.integer(height, "height", 0, _arrays.INT32_MAX),
        _arrays.integer(width, "width", 0, _arrays.INT32_MAX),
    )
    return _core.shifted_anchors(base.astype(np.float64, copy=False), (stride, stride), size, False)
