"""Regions of interest as the kernels read them: rows (batch_index, x1, y1, x2, y2)."""

from __future__ import annotations

from typing import Any

import numpy as np

from oxidet._arrays import F32, as_array, as_float32
from oxidet.nn.tensor import Tensor


def as_rois(rois: Any, argument: str) -> F32:
    """``rois`` as C-contiguous (R, 5) float32."""
    array = as_float32(rois, argument, ndim=2, form="(R, 5)")
    if array.shape[1] != 5:
        raise ValueError(
            f"{argument}: expected shape (R, 5), rows (batch_index, x1, y1, x2, y2), "
            f"got {array.shape}"
        )
    return np.ascontiguousarray(array)


def rois_of(boxes: Any, argument: str) -> Any:
    """``boxes`` in either of torchvision's forms, as one (R, 5) array (or tensor).

    A list or tuple holds one (L, 4) array per image; anything else is one (R, 5) array.
    """
    if isinstance(boxes, Tensor):
        as_rois(boxes, argument)
        return boxes
    if not isinstance(boxes, (list, tuple)):
        return as_rois(boxes, argument)
    images = [as_array(image, f"{argument}[{i}]") for i, image in enumerate(boxes)]
    for i, image in enumerate(images):
        if image.ndim != 2 or image.shape[1] != 4:
            raise ValueError(
                f"{argument}[{i}]: expected shape (L, 4), rows (x1, y1, x2, y2), got {image.shape}"
            )
    counts = [len(image) for image in images]
    rois = np.empty((sum(counts), 5), np.float32)
    rois[:, 0] = np.repeat(np.arange(len(images)), counts)
    rois[:, 1:] = np.concatenate([np.empty((0, 4), np.float32), *images])
    return rois
