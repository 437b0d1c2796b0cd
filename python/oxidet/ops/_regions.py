"""Regions of interest as the kernels read them: rows (batch_index, x1, y1, x2, y2)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from oxidet._arrays import F32, as_array, as_float32, in_type_of, nchw, nhwc, number, pair
from oxidet.nn.primitive import Primitive
from oxidet.nn.symbol import Symbol
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


def checked_rois(boxes: Any, argument: str, batch: int) -> F32:
    """``boxes`` in either of torchvision's forms, as C-contiguous (R, 5) float32.

    A list or tuple holds one (L, 4) array per image; anything else is one (R, 5) array. Raises
    ValueError for an index outside of the ``batch`` and for an infinite coordinate.
    """
    if isinstance(boxes, (list, tuple)):
        rois = _of_images(boxes, argument, batch)
    else:
        array = as_float32(boxes, argument, ndim=2, form="(R, 5)")
        if array.shape[1] != 5:
            raise ValueError(
                f"{argument}: expected shape (R, 5), rows (batch_index, x1, y1, x2, y2), "
                f"got {array.shape}"
            )
        rois = np.ascontiguousarray(array)
    index = rois[:, 0]
    # The fraction is cut off. Both comparisons are false for NaN.
    outside = ~((index > -1) & (index < batch))
    if outside.any():
        row = int(outside.argmax())
        expected = f"a batch index of at least 0 and below {batch}"
        raise ValueError(f"{argument}: expected {expected}, got {index[row]} in row {row}")
    infinite = np.isinf(rois[:, 1:]).any(axis=1)
    if infinite.any():
        row = int(infinite.argmax())
        got = tuple(rois[row, 1:].tolist())
        raise ValueError(f"{argument}: expected finite coordinates or NaN, got {got} in row {row}")
    return rois


def _of_images(boxes: Sequence[Any], argument: str, batch: int) -> F32:
    images = [as_array(image, f"{argument}[{i}]") for i, image in enumerate(boxes)]
    for i, image in enumerate(images):
        if image.ndim != 2 or image.shape[1] != 4:
            raise ValueError(
                f"{argument}[{i}]: expected shape (L, 4), rows (x1, y1, x2, y2), got {image.shape}"
            )
    if len(images) > batch:
        raise ValueError(
            f"{argument}: expected at most {batch} arrays, one for each image, got {len(images)}"
        )
    counts = [len(image) for image in images]
    rois = np.empty((sum(counts), 5), np.float32)
    rois[:, 0] = np.repeat(np.arange(len(images)), counts)
    with np.errstate(over="ignore"):  # infinite in float32; the check names the row
        rois[:, 1:] = np.concatenate([np.empty((0, 4), np.float32), *images])
    return rois


def pooled(
    operator: Primitive,
    input: Any,
    boxes: Any,
    argument: str,
    output_size: Any,
    spatial_scale: Any,
    *,
    features: str = "input",
    **options: Any,
) -> Any:
    """What a RoI operator makes of the regions in ``boxes``, in the floating type of ``input``.

    ``argument`` and ``features`` are the caller's names of ``boxes`` and ``input``.
    """
    if not isinstance(input, (Tensor, Symbol)):
        input = as_array(input, features)
    if len(input.shape) != 4:
        raise ValueError(f"{features}: expected 4 dimensions (N, C, H, W), got shape {input.shape}")
    rois: Any = checked_rois(boxes, argument, input.shape[0])
    result = operator(
        input,
        boxes if isinstance(boxes, Tensor) else rois,
        output_size=pair(output_size, "output_size"),
        spatial_scale=number(spatial_scale, "spatial_scale"),
        **options,
    )
    return in_type_of(input, result)
