"""Resizing images: torchvision's, which is Pillow's, and the two forms of the detectors.

All sample at half-pixel centres, ``(i + 0.5) * in / out - 0.5``. Networks for classification were
trained on antialiased images; the detectors were not, and differ in what lies beyond the outermost
pixel centres, which only enlarging reaches:

- ``"clamp"`` repeats the edge pixel: OpenCV's INTER_LINEAR (chainercv) and torch's
  ``interpolate(mode="bilinear", align_corners=False)`` (torchvision).
- ``"mirror"`` reflects about the centre of the edge pixel: skimage's ``resize(mode="reflect",
  order=1, anti_aliasing=False)`` (simple-faster-rcnn).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from oxidet._arrays import F32, choice, integer, pair
from oxidet.transforms._image import Image, as_generator, as_image, channels_last
from oxidet.transforms._resample import resample, taps

Edge = Literal["clamp", "mirror"]
Interpolation = Literal["bilinear", "bicubic", "nearest", "nearest-exact"]

INTERPOLATIONS = ("bilinear", "bicubic", "nearest", "nearest-exact")


def resize(
    img: NDArray[Any],
    size: int | Sequence[int],
    interpolation: Interpolation = "bilinear",
    max_size: int | None = None,
    antialias: bool | None = None,
    *,
    edge: Edge | None = None,
) -> Image:
    """Resize an image of any number of channels, ``(C, H, W)`` to ``(C, *size)``.

    The arguments are those of torchvision's ``resize``. A uint8 image stays one, and with
    antialiasing has the very pixels that Pillow computes; other numbers, of any range, become
    float32. The result has the memory order of the input, channels first or channels last, and
    never shares memory with it.

    Parameters
    ----------
    img
        The image.
    size
        Height and width of the result; or one number for the shorter side, and the longer follows
        in proportion (:func:`resized_size`).
    interpolation
        ``"bilinear"``, ``"bicubic"``, ``"nearest-exact"`` (the nearest pixel centre, as Pillow) or
        ``"nearest"`` (torch's older rule, half a pixel beside it).
    max_size
        Longest side allowed where ``size`` is one number.
    antialias
        Whether shrinking averages all pixels it covers. True unless ``edge`` is given; nearest
        neighbours have none.
    edge
        What lies beyond the edge for the detectors, ``"clamp"`` or ``"mirror"``; see the module.
        The result is then float32, bilinear and not antialiased.

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
    >>> resize(np.zeros((3, 480, 640), np.uint8), 256).shape
    (3, 256, 341)
    """
    image = as_image(img)
    choice(interpolation, "interpolation", INTERPOLATIONS)
    height, width = resized_size(image.shape[1:], size, max_size)
    if edge is not None:
        choice(edge, "edge", ("clamp", "mirror"))
        if antialias or interpolation != "bilinear":
            raise ValueError(
                f"edge: expected None for {interpolation} with antialias={antialias}, got {edge!r}"
            )
        image = image.astype(np.float32, copy=False)
    if 0 in image.shape[1:]:
        raise ValueError(f"img: expected at least one pixel, got shape {image.shape}")

    last = channels_last(image)
    out = image.transpose(1, 2, 0)
    if edge is not None:
        # The axis that shrinks more goes first: the other then has less to do.
        order = [(0, height), (1, width)]
        order.sort(key=lambda axis: axis[1] / out.shape[axis[0]])
        for axis, length in order:
            out = _between_two(out, axis, length, edge)
    else:
        smooth = antialias is None or bool(antialias)
        part = slice(0, height), slice(0, width)
        out = _resampled(out, (height, width), part, interpolation, smooth)
    if last:
        out = np.ascontiguousarray(out)
        out = out.copy() if np.may_share_memory(out, image) else out
        return out.transpose(2, 0, 1)
    return np.array(out.transpose(2, 0, 1), order="C")


def resize_middle(
    img: Image,
    size: int | Sequence[int],
    crop_size: int | Sequence[int],
    interpolation: Interpolation = "bilinear",
    antialias: bool = True,
) -> Image:
    """:func:`resize`, but of the result only what a centre crop of ``crop_size`` leaves.

    The pixels are the same. Those that would be cut off are not computed, so that a picture a
    thousand times as wide as high takes no more memory than another.
    """
    image = as_image(img)
    full = resized_size(image.shape[1:], size)
    wanted = (crop_size, crop_size) if isinstance(crop_size, (int, np.integer)) else crop_size
    begins = [round(max(a - b, 0) / 2) for a, b in zip(full, wanted, strict=True)]
    rows, columns = (
        slice(begin, begin + min(a, b)) for begin, a, b in zip(begins, full, wanted, strict=True)
    )
    return resize_part(image, full, (rows, columns), interpolation, antialias)


def resize_part(
    img: Image,
    size: tuple[int, int],
    part: tuple[slice, slice],
    interpolation: Interpolation = "bilinear",
    antialias: bool = True,
) -> Image:
    """Some rows and columns of what :func:`resize` to ``size`` makes; no others are computed.

    A view of the image where nothing changes its size.
    """
    pixels = as_image(img).transpose(1, 2, 0)
    return _resampled(pixels, size, part, interpolation, antialias).transpose(2, 0, 1)


def _resampled(
    pixels: Image,
    size: tuple[int, int],
    part: tuple[slice, slice],
    interpolation: Interpolation,
    antialias: bool,
) -> Image:
    """The rows and columns ``part`` of ``pixels`` (H, W, C) resized to ``size``."""
    for axis, length in _order(pixels.shape[:2], size, antialias):
        if length != pixels.shape[axis]:
            sampled = taps(pixels.shape[axis], length, interpolation, antialias, part[axis])
            pixels = resample(pixels, axis, sampled)
        else:
            pixels = pixels[part[axis]] if axis == 0 else pixels[:, part[axis]]
    return pixels


def _order(old: Sequence[int], new: Sequence[int], antialias: bool) -> list[tuple[int, int]]:
    """The axes and their lengths in the order in which Pillow 13, or torch, takes them.

    It matters, as grey levels are rounded and clipped in between. Torch begins with the columns;
    so does Pillow unless, by measurement, the height loses more than twice the pixels that the
    width loses.
    """
    rows, columns = (0, new[0]), (1, new[1])
    lost = old[0] - new[0], old[1] - new[1]
    return [rows, columns] if antialias and lost[0] > max(0, 2 * lost[1]) else [columns, rows]


def resized_size(
    old: Sequence[int], size: int | Sequence[int], max_size: int | None = None
) -> tuple[int, int]:
    """Height and width that torchvision's ``Resize(size, max_size)`` makes of an image.

    A pair is the result. One number is the shorter side, the longer is
    ``int(size * long / short)``; where that exceeds ``max_size``, it is ``max_size`` and the
    shorter side ``int(max_size * size / long)``.

    >>> from oxidet.transforms import resized_size
    >>> resized_size((480, 640), 256), resized_size((480, 640), 256, max_size=300)
    ((256, 341), (225, 300))
    """
    if isinstance(size, (list, tuple)) and len(size) == 1:
        size = size[0]
    if not isinstance(size, (int, np.integer)):
        if max_size is not None:
            raise ValueError(f"max_size: expected None where size is a pair, got {max_size!r}")
        return pair(size, "size")
    shorter = integer(size, "size", 1)
    if max_size is not None and integer(max_size, "max_size") <= shorter:
        raise ValueError(f"max_size: expected more than the size {shorter}, got {max_size}")
    height, width = old
    if 0 in (height, width):
        raise ValueError(f"img: expected at least one pixel, got height and width {tuple(old)}")
    longer = int(shorter * max(height, width) / min(height, width))
    if max_size is not None and longer > max_size:
        shorter, longer = max(1, int(max_size * shorter / longer)), max_size
    return (shorter, longer) if height <= width else (longer, shorter)


def _between_two(array: F32, axis: int, length: int, edge: Edge) -> F32:
    """Interpolate one axis between the two nearest pixels, in the detectors' two forms."""
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


@dataclass(frozen=True)
class Resize:
    """:func:`resize` as a transform of an image.

    >>> import numpy as np
    >>> from oxidet.transforms import Resize
    >>> Resize(4)(np.zeros((3, 8, 10))).shape
    (3, 4, 5)
    """

    size: int | Sequence[int]
    interpolation: Interpolation = "bilinear"
    max_size: int | None = None
    antialias: bool = True

    def __post_init__(self) -> None:
        resized_size((1, 1), self.size, self.max_size)

    def __call__(self, img: NDArray[Any], rng: np.random.Generator | None = None) -> Image:
        return resize(img, self.size, self.interpolation, self.max_size, self.antialias)


@dataclass(frozen=True)
class RandomResize:
    """Scale an image so that its shorter side has a random length, each from ``min_size`` to
    ``max_size`` with the same probability.

    The scale jitter of VGG is ``RandomResize(256, 512)`` and that of ResNet
    ``RandomResize(256, 480)``, each followed by a ``RandomCrop(224)``.

    >>> import numpy as np
    >>> from oxidet.transforms import RandomResize
    >>> jitter, rng = RandomResize(256, 512), np.random.default_rng(0)
    >>> [jitter(np.zeros((3, 300, 400), np.uint8), rng).shape for _ in range(2)]
    [(3, 474, 632), (3, 419, 558)]
    """

    min_size: int
    max_size: int
    _: KW_ONLY
    interpolation: Interpolation = "bilinear"
    antialias: bool = True

    def __post_init__(self) -> None:
        integer(self.min_size, "min_size", 1)
        integer(self.max_size, "max_size", self.min_size)

    def __call__(self, img: NDArray[Any], rng: np.random.Generator) -> Image:
        side = int(as_generator(rng).integers(self.min_size, self.max_size, endpoint=True))
        return resize(img, side, self.interpolation, antialias=self.antialias)
