"""The anchors of one cell."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from oxidet import _arrays, _core
from oxidet._same_kind import same_kind


@same_kind
def generate_anchor_base(
    base_size: float = 16,
    ratios: Sequence[float] = (0.5, 1, 2),
    anchor_scales: Sequence[float] = (8, 16, 32),
) -> NDArray[np.float32]:
    """Anchors around the centre of the first cell.

    Parameters
    ----------
    base_size
        Side of the cell in pixels.
    ratios
        Height / width of the anchors.
    anchor_scales
        Side of the square of equal area, in units of ``base_size``.

    Returns
    -------
    float32 boxes, ``(len(ratios) * len(anchor_scales), 4)``: row ``i * len(anchor_scales) + j`` has
    ratio ``i`` and scale ``j``. The centre lies at ``base_size / 2``; corners are not rounded.

    Raises
    ------
    ValueError
        A size, ratio or scale is not positive and finite.

    Notes
    -----
    Ren et al., "Faster R-CNN", 2015, section 3.1.1. As chainercv's ``generate_anchor_base``, whose
    documentation calls the ratio width / height.

    Examples
    --------
    >>> from oxidet.detection import generate_anchor_base
    >>> generate_anchor_base(anchor_scales=[8]).round(2)
    array([[-37.25, -82.51,  53.25,  98.51],
           [-56.  , -56.  ,  72.  ,  72.  ],
           [-82.51, -37.25,  98.51,  53.25]], dtype=float32)
    """
    (ratio_list,) = _arrays.floats(ratios=ratios)
    (scale_list,) = _arrays.floats(anchor_scales=anchor_scales)
    for values, argument in ((ratio_list, "ratios"), (scale_list, "anchor_scales")):
        if values.ndim != 1:
            raise ValueError(f"{argument}: expected a sequence of numbers, got {values.shape}")
    return _core.anchor_base(
        _arrays.number(base_size, "base_size"), ratio_list.tolist(), scale_list.tolist()
    )
