"""What happens between the networks of a detector, on arrays: batching, choosing, matching."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from oxidet import ops
from oxidet._arrays import F32, nchw
from oxidet.nn import functional as F

I64 = NDArray[np.int64]
Size = tuple[int, int]


def batch_images(
    images: Sequence[F32],
    mean: NDArray[np.float64],
    std: NDArray[np.float64],
    sizes: Sequence[Size],
    padded: Size,
) -> F32:
    """Images (C, H, W) normalised, scaled to ``sizes`` and padded with zeros: (N, C, *padded)."""
    batch = nchw(np.zeros((len(images), *padded, len(mean)), np.float32))
    shift, factor = (a.astype(np.float32)[:, None, None] for a in (mean, std))
    for row, image, size in zip(batch, images, sizes, strict=True):
        normal = ((image - shift) / factor)[np.newaxis]
        if size != image.shape[1:]:
            normal = F.interpolate(normal, size, mode="bilinear")
        row[:, : size[0], : size[1]] = normal[0]
    return batch


def match(boxes: F32, candidates: F32, matcher: Any) -> I64:
    """For each candidate (S, 4) the index of its box (R, 4), or the matcher's negative numbers."""
    return matcher(ops.box_iou(boxes, candidates))
