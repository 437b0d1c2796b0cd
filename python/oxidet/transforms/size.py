"""How large an image enters a detector: one scale, three ways to make pixels of it."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

Rounding = Literal["trunc", "round", "floor", "ceil"]

ROUNDINGS: dict[str, Callable[[float], int]] = {
    "trunc": int,
    "round": round,
    "floor": math.floor,
    "ceil": math.ceil,
}


def scaled_size(
    height: int,
    width: int,
    min_size: float = 600,
    max_size: float = 1000,
    rounding: Rounding = "trunc",
) -> tuple[int, int]:
    """Height and width after scaling the short side to ``min_size``, the long within ``max_size``.

    The scale is ``s = min(min_size / min(H, W), max_size / max(H, W))`` and the exact size
    ``(H * s, W * s)``, both in double precision and in this order: ``281 * (600 / 281)`` is just
    below 600, and the detectors differ in what they make of that.

    A side that would come out as 0 becomes 1.

    Parameters
    ----------
    height
        H, in pixels, at least 1.
    width
        W, in pixels, at least 1.
    min_size
        Wanted length of the short side.
    max_size
        Largest length of the long side.
    rounding
        How the exact size becomes whole pixels.

        - ``"trunc"``: towards zero, chainercv.
        - ``"round"``: to the nearest, halves to even, simple-faster-rcnn with a recent skimage.
        - ``"ceil"``: upwards, simple-faster-rcnn with an old skimage.
        - ``"floor"``: downwards, torchvision; for sizes the same as ``"trunc"``.

    Examples
    --------
    >>> from oxidet.transforms import scaled_size
    >>> scaled_size(333, 500), scaled_size(333, 500, rounding="round")
    ((600, 900), (600, 901))
    >>> scaled_size(281, 300)[0], scaled_size(281, 300, rounding="round")[0]
    (599, 600)
    """
    if rounding not in ROUNDINGS:
        raise ValueError(f"rounding: expected one of {list(ROUNDINGS)}, got {rounding!r}")
    for name, value in (
        ("height", height),
        ("width", width),
        ("min_size", min_size),
        ("max_size", max_size),
    ):
        if not value > 0 or math.isinf(value):
            raise ValueError(f"{name}: expected a positive number, got {value!r}")
    scale = min(min_size / min(height, width), max_size / max(height, width))
    whole = ROUNDINGS[rounding]
    return max(1, whole(height * scale)), max(1, whole(width * scale))
