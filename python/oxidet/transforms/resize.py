"""Bilinear resizing of images, in the two forms the detectors were trained with.

Both sample at half-pixel centres, ``(i + 0.5) * in / out - 0.5``, without antialiasing. They differ
in what lies beyond the outermost pixel centres, which only enlarging reaches:

- ``"clamp"`` repeats the edge pixel: OpenCV's INTER_LINEAR (chainercv) and torch's
  ``interpolate(mode="bilinear", align_corners=False)`` (torchvision).
- ``"mirror"`` reflects about the centre of the edge pixel: skimage's ``resize(mode="reflect",
  order=1, anti_aliasing=False)`` (simple-faster-rcnn).
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from oxidet._arrays import F32, as_float32, pair

Edge = Literal["clamp", "mirror"]


def resize(img: F32, size: tuple[int, int], *, edge: Edge = "clamp") -> F32:
    """Resize an image of any number of channels, ``(C, H, W)`` to float32 ``(C, *size)``.

    The result has the memory order of the input, channels first or channels last. It never shares
    memory with the input.

    Parameters
    ----------
    img
        The image, numbers of any type and range.
    size
        Height and width of the result.
    edge
        What lies beyond the edge, ``"clamp"`` or ``"mirror"``; see the module.

    Raises
    ------
    ValueError
        Wrong shape, an image without pixels, or a size below 1.

    Examples
    --------
    >>> import numpy as np
    >>> from oxidet.transforms import resize
    >>> resize(np.array([[[0.0, 8.0]]]), (1, 4)).tolist()
    [[[0.0, 2.0, 6.0, 8.0]]]
    >>> resize(np.array([[[0.0, 8.0]]]), (1, 4), edge="mirror").tolist()
    [[[2.0, 2.0, 6.0, 6.0]]]
    """
    image = as_float32(img, "img", ndim=3, form="(C, H, W)")
    height, width = pair(size, "size")
    if edge not in ("clamp", "mirror"):
        raise ValueError(f"edge: expected 'clamp' or 'mirror', got {edge!r}")
    if 0 in image.shape[1:]:
        raise ValueError(f"img: expected at least one pixel, got shape {image.shape}")

    channels_last = image.strides[0] <= image.strides[2] and image.shape[0] > 1
    rows, columns = (0, 1) if channels_last else (1, 2)
    out = image.transpose(1, 2, 0) if channels_last else image
    # The axis that shrinks more goes first: the other then has less to do.
    order = [(rows, height), (columns, width)]
    order.sort(key=lambda axis: axis[1] / out.shape[axis[0]])
    for axis, length in order:
        out = _resize_axis(out, axis, length, edge)
    return out.transpose(2, 0, 1) if channels_last else out


def _resize_axis(array: F32, axis: int, length: int, edge: Edge) -> F32:
    """Interpolate one axis of a three-dimensional array to a new length."""
    lower, upper, weight = sample_points(array.shape[axis], length, edge)
    weight = weight.reshape([-1 if a == axis else 1 for a in range(3)])
    below, out = array.take(lower, axis), array.take(upper, axis)
    out -= below
    out *= weight
    out += below
    return out


def sample_points(old: int, new: int, edge: Edge) -> tuple[NDArray[np.intp], NDArray[np.intp], F32]:
    """For each of ``new`` samples: the two pixels of ``old`` it lies between, and the weight of
    the second.

    The clamped form rounds where torch and OpenCV do, to float32 after the subtraction: at a
    coordinate near 1000 that moves a weight by 3e-5, ten times the error of everything else.
    """
    centres = np.arange(new) + 0.5
    if edge == "clamp":
        ratio = np.float64(np.float32(old) / np.float32(new))
        points = np.clip((centres * ratio - 0.5).astype(np.float32), 0, old - 1).astype(np.float64)
    else:
        points = np.abs(centres * (old / new) - 0.5)
        points = np.minimum(points, 2 * (old - 1) - points) if old > 1 else np.zeros(new)
    lower = np.minimum(points.astype(np.intp), old - 1)
    upper = np.minimum(lower + 1, old - 1)
    return lower, upper, (points - lower).astype(np.float32)
