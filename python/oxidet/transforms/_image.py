"""What the transforms of single images take: ``(C, H, W)``, uint8 or float32 of 0..255."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from oxidet._arrays import as_array

Image = NDArray[Any]


def as_image(img: Any) -> Image:
    """``(C, H, W)`` as it is if uint8 or float32, else as float32."""
    if hasattr(img, "bbox"):  # a Sample: its boxes would stay behind
        raise TypeError(f"img: expected an array (C, H, W), got {type(img).__name__}")
    image = as_array(img, "img")
    if image.ndim != 3:
        raise ValueError(f"img: expected 3 dimensions (C, H, W), got shape {image.shape}")
    return image if image.dtype == np.uint8 else image.astype(np.float32, copy=False)


def channels_last(image: Image) -> bool:
    """Whether the channels of a pixel lie side by side in memory."""
    return bool(image.strides[0] <= image.strides[2] and image.shape[0] > 1)
