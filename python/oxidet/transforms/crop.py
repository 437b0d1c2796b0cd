"""Cutting rectangles out of images and padding them, with torchvision's sizes and rounding.

Functions return views where they can; a crop that reaches beyond the image is black there.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from oxidet._arrays import as_array, choice, integer, pair
from oxidet.transforms._image import WHITE, Image, as_generator, as_image, as_range
from oxidet.transforms.flip import flip
from oxidet.transforms.resize import Interpolation, resize

PaddingMode = Literal["constant", "edge", "reflect", "symmetric"]
Crops = tuple[Image, ...]

TRIES = 10  # of RandomResizedCrop, before it takes the centre


def pad(
    img: NDArray[Any],
    padding: int | Sequence[int],
    fill: float | Sequence[float] = 0,
    padding_mode: PaddingMode = "constant",
) -> Image:
    """Put a border around an image: one width, ``(left and right, top and bottom)``, or
    ``(left, top, right, bottom)``, in pixels.

    ``padding_mode`` fills it with ``fill`` (a value, or one per channel), repeats the edge, or
    mirrors the image without (``"reflect"``) or with (``"symmetric"``) its outermost pixels.

    >>> import numpy as np
    >>> from oxidet.transforms import pad
    >>> pad(np.array([[[1, 2, 3]]]), (2, 0), padding_mode="reflect").tolist()
    [[[3.0, 2.0, 1.0, 2.0, 3.0, 2.0, 1.0]]]
    """
    image = as_image(img)
    choice(padding_mode, "padding_mode", ("constant", "edge", "reflect", "symmetric"))
    left, top, right, bottom = _sides(padding)
    widths = ((0, 0), (top, bottom), (left, right))
    # Channels-last memory stays so: NumPy pads in the order of the axes it is shown.
    pixels = image.transpose(1, 2, 0)
    if padding_mode != "constant":
        if 0 in image.shape[1:]:
            raise ValueError(f"img: expected at least one pixel, got shape {image.shape}")
        return np.pad(pixels, (*widths[1:], (0, 0)), mode=padding_mode).transpose(2, 0, 1)
    height, width = image.shape[1:]
    colour = as_array(fill, "fill")
    if colour.shape not in ((), (1,), (len(image),)):
        raise ValueError(
            f"fill: expected a number, or one for each of {len(image)} channels, got {fill!r}"
        )
    if image.dtype == np.uint8 and not ((colour >= 0) & (colour <= WHITE)).all():
        raise ValueError(f"fill: expected 0 to 255 for uint8, got {fill!r}")
    shape = height + top + bottom, width + left + right, len(image)
    if math.prod(shape) * image.itemsize > sys.maxsize:
        raise MemoryError(f"padding: the result of shape {shape} is too large")
    out = np.empty(shape, image.dtype)
    out[...] = colour
    out[top : top + height, left : left + width] = pixels
    return out.transpose(2, 0, 1)


def crop(img: NDArray[Any], top: int, left: int, height: int, width: int) -> Image:
    """The rectangle of ``height`` x ``width`` pixels whose first is ``(top, left)``.

    >>> import numpy as np
    >>> from oxidet.transforms import crop
    >>> crop(np.array([[[1, 2], [3, 4]]]), 1, 1, 2, 2).tolist()
    [[[4.0, 0.0], [0.0, 0.0]]]
    """
    image = as_image(img)
    top, left = integer(top, "top"), integer(left, "left")
    height, width = integer(height, "height", 1), integer(width, "width", 1)
    below, beside = top + height - image.shape[1], left + width - image.shape[2]
    if min(top, left) < 0 or max(below, beside) > 0:
        # A crop wholly outside is black: no border is wider than the crop is long.
        border = (max(-left, 0), max(-top, 0), max(beside, 0), max(below, 0))
        image = pad(image, border)
        top, left = max(top, 0), max(left, 0)
    return image[:, top : top + height, left : left + width]


def center_crop(img: NDArray[Any], output_size: int | Sequence[int]) -> Image:
    """The middle of an image, ``(C, *output_size)``; a side that is too short gets a black border.

    The first row is ``round((H - height) / 2)``, halves to even, and the first column likewise.

    >>> import numpy as np
    >>> from oxidet.transforms import center_crop
    >>> center_crop(np.arange(5.0).reshape(1, 1, 5), (1, 2)).tolist()
    [[[2.0, 3.0]]]
    """
    image = as_image(img)
    size = _output_size(output_size, "output_size")
    lacking = [max(wanted - have, 0) for wanted, have in zip(size, image.shape[1:], strict=True)]
    if any(lacking):
        top, left = lacking[0] // 2, lacking[1] // 2
        image = pad(image, (left, top, lacking[1] - left, lacking[0] - top))
    top, left = (
        round((have - wanted) / 2) for wanted, have in zip(size, image.shape[1:], strict=True)
    )
    return crop(image, top, left, *size)


def five_crop(img: NDArray[Any], size: int | Sequence[int]) -> Crops:
    """Top left, top right, bottom left, bottom right and centre, each ``(C, *size)``.

    Raises ValueError for an image smaller than that.
    """
    image = as_image(img)
    height, width = _output_size(size, "size")
    below, beside = image.shape[1] - height, image.shape[2] - width
    if min(below, beside) < 0:
        raise ValueError(
            f"size: expected at most the image's {image.shape[1:]}, got {(height, width)}"
        )
    corners = [(0, 0), (0, beside), (below, 0), (below, beside)]
    return (
        *(crop(image, top, left, height, width) for top, left in corners),
        center_crop(image, (height, width)),
    )


def ten_crop(img: NDArray[Any], size: int | Sequence[int], vertical_flip: bool = False) -> Crops:
    """:func:`five_crop` of the image, then of its mirror image (or of it upside down).

    The average of a network's probabilities on the ten is the test of the AlexNet paper.

    >>> import numpy as np
    >>> from oxidet.transforms import ten_crop
    >>> len(ten_crop(np.zeros((3, 256, 256)), 224))
    10
    """
    image = as_image(img)
    mirrored = flip(image, y_flip=vertical_flip, x_flip=not vertical_flip)
    return (*five_crop(image, size), *five_crop(mirrored, size))


def resized_crop(
    img: NDArray[Any],
    top: int,
    left: int,
    height: int,
    width: int,
    size: int | Sequence[int],
    interpolation: Interpolation = "bilinear",
    antialias: bool = True,
) -> Image:
    """:func:`crop`, then :func:`resize <oxidet.transforms.resize>`."""
    part = crop(img, top, left, height, width)
    return resize(part, size, interpolation, antialias=antialias)


# --- transforms


@dataclass(frozen=True)
class Pad:
    """:func:`pad` as a transform of an image."""

    padding: int | Sequence[int]
    fill: float | Sequence[float] = 0
    padding_mode: PaddingMode = "constant"

    def __call__(self, img: NDArray[Any], rng: np.random.Generator | None = None) -> Image:
        return pad(img, self.padding, self.fill, self.padding_mode)


@dataclass(frozen=True)
class CenterCrop:
    """:func:`center_crop` as a transform of an image."""

    size: int | Sequence[int]

    def __post_init__(self) -> None:
        _output_size(self.size, "size")

    def __call__(self, img: NDArray[Any], rng: np.random.Generator | None = None) -> Image:
        return center_crop(img, self.size)


@dataclass(frozen=True)
class FiveCrop:
    """:func:`five_crop` as a transform from one image to five."""

    size: int | Sequence[int]

    def __post_init__(self) -> None:
        _output_size(self.size, "size")

    def __call__(self, img: NDArray[Any], rng: np.random.Generator | None = None) -> Crops:
        return five_crop(img, self.size)


@dataclass(frozen=True)
class TenCrop:
    """:func:`ten_crop` as a transform from one image to ten."""

    size: int | Sequence[int]
    vertical_flip: bool = False

    def __post_init__(self) -> None:
        _output_size(self.size, "size")

    def __call__(self, img: NDArray[Any], rng: np.random.Generator | None = None) -> Crops:
        return ten_crop(img, self.size, self.vertical_flip)


@dataclass(frozen=True)
class RandomCrop:
    """A rectangle of ``size`` at a random place, each place with the same probability.

    ``padding`` is put around the image first; with ``RandomCrop(32, padding=4)`` this is the
    augmentation of the CIFAR experiments. Raises ValueError for an image that remains too small.

    >>> import numpy as np
    >>> from oxidet.transforms import RandomCrop
    >>> RandomCrop(224)(np.zeros((3, 256, 256), np.uint8), np.random.default_rng(0)).shape
    (3, 224, 224)
    """

    size: int | Sequence[int]
    padding: int | Sequence[int] | None = None
    _: KW_ONLY
    fill: float | Sequence[float] = 0
    padding_mode: PaddingMode = "constant"

    def __post_init__(self) -> None:
        _output_size(self.size, "size")

    def __call__(self, img: NDArray[Any], rng: np.random.Generator) -> Image:
        image = as_image(img)
        if self.padding is not None:
            image = pad(image, self.padding, self.fill, self.padding_mode)
        height, width = _output_size(self.size, "size")
        below, beside = image.shape[1] - height, image.shape[2] - width
        if min(below, beside) < 0:
            raise ValueError(
                f"img: expected at least {(height, width)} pixels, got {image.shape[1:]}"
            )
        draw = as_generator(rng).integers
        top, left = (int(draw(last, endpoint=True)) for last in (below, beside))
        return crop(image, top, left, height, width)


@dataclass(frozen=True)
class RandomResizedCrop:
    """A random part of the image in random proportions, resized to ``size``: GoogLeNet's training.

    The share of the area is uniform in ``scale``, the logarithm of width / height uniform between
    those of ``ratio``, the place uniform. If ten tries do not fit into the image, it is the
    largest part in its middle whose proportions are in ``ratio``.

    >>> import numpy as np
    >>> from oxidet.transforms import RandomResizedCrop
    >>> cut, rng = RandomResizedCrop(224), np.random.default_rng(0)
    >>> cut(np.zeros((3, 300, 400), np.uint8), rng).shape
    (3, 224, 224)
    >>> cut.draw(300, 400, rng)  # top, left, height, width
    (2, 90, 296, 304)
    """

    size: int | Sequence[int]
    scale: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    interpolation: Interpolation = "bilinear"
    antialias: bool = True

    def __post_init__(self) -> None:
        _output_size(self.size, "size")
        for name, given in (("scale", self.scale), ("ratio", self.ratio)):
            if not as_range(given, name)[0] > 0:
                raise ValueError(f"{name}: expected 0 < low <= high, got {given!r}")

    def __call__(self, img: NDArray[Any], rng: np.random.Generator) -> Image:
        image = as_image(img)
        if 0 in image.shape[1:]:
            raise ValueError(f"img: expected at least one pixel, got shape {image.shape}")
        part = self.draw(image.shape[1], image.shape[2], rng)
        return resized_crop(
            image, *part, _output_size(self.size, "size"), self.interpolation, self.antialias
        )

    def draw(self, height: int, width: int, rng: np.random.Generator) -> tuple[int, int, int, int]:
        """Top, left, height and width of a part of an image of ``height`` x ``width``."""
        as_generator(rng)
        for _ in range(TRIES):
            area = height * width * rng.uniform(*self.scale)
            low, high = self.ratio
            ratio = math.exp(rng.uniform(math.log(low), math.log(high)))
            w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
            if 0 < w <= width and 0 < h <= height:
                top = int(rng.integers(height - h, endpoint=True))
                return top, int(rng.integers(width - w, endpoint=True)), h, w
        nearest = min(max(width / height, self.ratio[0]), self.ratio[1])
        h = min(height, max(1, round(width / nearest)))
        w = min(width, max(1, round(height * nearest)))
        return (height - h) // 2, (width - w) // 2, h, w


def _sides(padding: int | Sequence[int]) -> tuple[int, int, int, int]:
    """Left, top, right and bottom."""
    values = list(padding) if isinstance(padding, (tuple, list, np.ndarray)) else [padding]
    if len(values) not in (1, 2, 4):
        raise ValueError(f"padding: expected one, two or four widths, got {len(values)}")
    left, top, right, bottom = (
        integer(value, "padding", 0) for value in values * (4 // len(values))
    )
    return left, top, right, bottom


def _output_size(size: int | Sequence[int], argument: str) -> tuple[int, int]:
    if isinstance(size, (list, tuple)) and len(size) == 1:
        size = size[0]
    return pair(size, argument)
