"""Regions of interest as the kernels read them: rows (batch_index, x1, y1, x2, y2)."""

from __future__ import annotations

from typing import Any

import numpy as np

from oxidet._arrays import F32, as_array, as_float32, nchw, nhwc
from oxidet.nn.tensor import Tensor


def features(input: Any) -> tuple[F32, bool]:
    """``input`` for a kernel, and whether its channels come first.

    (N, C, H, W) if that is contiguous, else contiguous (N, H, W, C).
    """
    array = as_float32(input, "input", ndim=4, form="(N, C, H, W)")
    if array.flags.c_contiguous and not array.transpose(0, 2, 3, 1).flags.c_contiguous:
        return array, True
    return nhwc(array, "input"), False


def empty_result(count: int, channels: int, size: tuple[int, int], channels_first: bool) -> F32:
    """Memory for a kernel to write (R, C, rows, columns) to, in the order that it wants.

    NumPy's own memory: it is not cleared first, and large arrays lie in large pages.
    """
    shape = (count, channels, *size) if channels_first else (count, *size, channels)
    try:
        return np.empty(shape, np.float32)
    except ValueError:  # more bytes than there are addresses
        expected = "a result that can be addressed"
        raise ValueError(f"output_size: expected {expected}, got one of shape {shape}") from None
    except MemoryError:
        expected = "a result that fits into memory"
        raise MemoryError(f"output_size: expected {expected}, got one of shape {shape}") from None


def as_nchw(result: F32, channels_first: bool) -> F32:
    """What a kernel wrote, as (R, C, rows, columns)."""
    return result if channels_first else nchw(result)


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
