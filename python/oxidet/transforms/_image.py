"""What the transforms of single images take: ``(C, H, W)``, uint8 or float32 of 0..255."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from oxidet._arrays import as_array, number, shown

Image = NDArray[Any]

WHITE = 255.0


def as_image(img: Any) -> Image:
    """``(C, H, W)`` as it is if uint8 or float32, else as float32."""
    if hasattr(img, "bbox"):  # a Sample: its boxes would stay behind
        raise TypeError(f"img: expected an array (C, H, W), got {type(img).__name__}")
    image = as_array(img, "img")
    if image.ndim != 3:
        raise ValueError(f"img: expected 3 dimensions (C, H, W), got shape {image.shape}")
    return image if image.dtype == np.uint8 else image.astype(np.float32, copy=False)


def as_generator(rng: Any) -> np.random.Generator:
    """What random transforms draw from."""
    if not isinstance(rng, np.random.Generator):
        raise TypeError(f"rng: expected a numpy.random.Generator, got {type(rng).__name__}")
    return rng


def as_range(given: Any, argument: str) -> tuple[float, float]:
    """Two finite numbers, the lower first."""
    if not isinstance(given, (tuple, list)) or len(given) != 2:
        raise TypeError(f"{argument}: expected a pair (low, high), got {shown(given)}")
    low, high = (number(value, argument) for value in given)
    if not -np.inf < low <= high < np.inf:
        raise ValueError(f"{argument}: expected finite low <= high, got {shown(given)}")
    return low, high


def channels_last(image: Image) -> bool:
    """Whether the channels of a pixel lie side by side in memory."""
    return bool(image.strides[0] <= image.strides[2] and image.shape[0] > 1)
