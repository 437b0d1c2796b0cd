"""Changing the colours of an image, with torchvision's arithmetic.

Images are RGB ``(3, H, W)`` (or grey ``(1, H, W)`` where that makes sense), uint8 or float32 of
0..255; results are clipped to that. For uint8 the fraction of a grey level is cut off, as Pillow
and torchvision cut it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from oxidet._arrays import F32, number
from oxidet.transforms._image import WHITE, Image, as_generator, as_image, as_range

LUMA = (0.299, 0.587, 0.114)


def grayscale(img: NDArray[Any], num_output_channels: int = 1) -> Image:
    """Luma of an RGB image, ``.299 R + .587 G + .114 B``, as one channel or repeated over three.

    That of uint8 is rounded as in Pillow's mode "L"; of float32 it is not.

    >>> import numpy as np
    >>> from oxidet.transforms import grayscale
    >>> grayscale(np.array([[[200]], [[100]], [[50]]], np.uint8)).item()
    124
    """
    image = _colours(img)
    if num_output_channels not in (1, 3):
        raise ValueError(f"num_output_channels: expected 1 or 3, got {num_output_channels!r}")
    grey = image if len(image) == 1 else _luma(image)
    return grey if num_output_channels == 1 else np.repeat(grey, 3, axis=0)


def adjust_brightness(img: NDArray[Any], brightness_factor: float) -> Image:
    """``factor * x``: 0 is black, 1 the image."""
    image = _colours(img)
    return _blend(image, np.float32(0), _factor(brightness_factor, "brightness_factor"))


def adjust_contrast(img: NDArray[Any], contrast_factor: float) -> Image:
    """``factor * x + (1 - factor) * mean of the grey image``: 0 is that grey, 1 the image."""
    image = _colours(img)
    if image.size == 0:
        return image
    mean = np.float32(grayscale(image).mean(dtype=np.float64))
    return _blend(image, mean, _factor(contrast_factor, "contrast_factor"))


def adjust_saturation(img: NDArray[Any], saturation_factor: float) -> Image:
    """``factor * x + (1 - factor) * grey``: 0 is grey, 1 the image."""
    image = _colours(img)
    grey = grayscale(image).astype(np.float32)
    return _blend(image, grey, _factor(saturation_factor, "saturation_factor"))


def adjust_hue(img: NDArray[Any], hue_factor: float) -> Image:
    """Turn all hues by a share of the colour circle, -0.5 to 0.5: a third makes red green.

    >>> import numpy as np
    >>> from oxidet.transforms import adjust_hue
    >>> adjust_hue(np.array([[[255]], [[0]], [[0]]], np.uint8), 1 / 3).ravel().tolist()
    [0, 255, 0]
    """
    image = _colours(img)
    turn = number(hue_factor, "hue_factor", -0.5, 0.5)
    if len(image) == 1:
        return image
    # Planes one after another in memory: half of the time that interleaved channels take.
    values = np.ascontiguousarray(image, np.float32)
    red, green, blue = values
    high = np.maximum(np.maximum(red, green), blue)
    chroma = high - np.minimum(np.minimum(red, green), blue)
    # Hue in sixths of the circle; that of grey does not matter.
    divisor = np.where(chroma > 0, chroma, np.float32(1))
    hue = np.where(high == green, 2 + (blue - red) / divisor, 4 + (red - green) / divisor)
    hue = np.where(high == red, (green - blue) / divisor, hue)
    hue += np.float32(6 * turn)
    out = np.empty_like(image, np.float32)
    for channel, offset in enumerate((5, 3, 1)):
        # Each channel falls and rises again along the circle, cut off at both ends.
        position = hue + np.float32(offset)
        position -= 6 * np.floor(position * np.float32(1 / 6))
        fall = np.minimum(position, 4 - position)
        np.clip(fall, 0, 1, out=fall)
        fall *= chroma
        np.subtract(high, fall, out=out[channel])
    # torchvision reaches whole numbers by cutting as well, but of a value a hair larger.
    if image.dtype == np.uint8:
        out += np.float32(1e-3)
    return _finished(out, image.dtype)


def pca_color(
    img: NDArray[Any],
    alpha: Sequence[float] | NDArray[Any],
    eigenvalues: Sequence[float] | NDArray[Any] | None = None,
    eigenvectors: Sequence[Sequence[float]] | NDArray[Any] | None = None,
) -> Image:
    """Add ``[p1 p2 p3] [alpha1 lambda1, alpha2 lambda2, alpha3 lambda3]`` to every pixel.

    The colour augmentation of AlexNet. Eigenvalues (3,) and eigenvectors (3, 3), one per column
    and rows R, G, B, are those of the covariance of RGB in 0..1 (:func:`color_components`); by
    default the ones in wide use for ImageNet. Unlike the other functions, rounds uint8.
    """
    image = _colours(img, 3)
    values = np.asarray(IMAGENET_EIGENVALUES if eigenvalues is None else eigenvalues, np.float64)
    vectors = np.asarray(
        IMAGENET_EIGENVECTORS if eigenvectors is None else eigenvectors, np.float64
    )
    draws = np.asarray(alpha, np.float64)
    for name, array, shape in (
        ("alpha", draws, (3,)), ("eigenvalues", values, (3,)), ("eigenvectors", vectors, (3, 3))
    ):  # fmt: skip
        if array.shape != shape:
            raise ValueError(f"{name}: expected shape {shape}, got {array.shape}")
    shift = WHITE * (vectors @ (draws * values))
    out = image + shift.astype(np.float32)[:, None, None]
    return _finished(np.rint(out) if image.dtype == np.uint8 else out, image.dtype)


# Of ImageNet's training images in 0..1, the numbers in wide use for AlexNet's augmentation.
IMAGENET_EIGENVALUES = (0.2175, 0.0188, 0.0045)
IMAGENET_EIGENVECTORS = (
    (-0.5675, 0.7192, 0.4009),
    (-0.5808, -0.0045, -0.8140),
    (-0.5836, -0.6948, 0.4203),
)


def color_components(images: Sequence[NDArray[Any]]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Eigenvalues (3,), falling, and eigenvectors (3, 3) by columns of the covariance of RGB.

    Over all pixels of ``images``, each (3, H, W) of 0..255, counted as 0..1.
    """
    if len(images) == 0:
        raise ValueError("images: expected at least one, got none")
    count, total, products = 0, np.zeros(3), np.zeros((3, 3))
    for image in images:
        pixels = _colours(image, 3).reshape(3, -1).astype(np.float64) / WHITE
        count += pixels.shape[1]
        total += pixels.sum(axis=1)
        products += pixels @ pixels.T
    mean = total / count
    values, vectors = np.linalg.eigh(products / count - np.outer(mean, mean))
    return values[::-1].copy(), vectors[:, ::-1].copy()


# --- transforms


@dataclass(frozen=True)
class Grayscale:
    """:func:`grayscale` as a transform of an image."""

    num_output_channels: int = 1

    def __call__(self, img: NDArray[Any], rng: np.random.Generator | None = None) -> Image:
        return grayscale(img, self.num_output_channels)


Range = float | tuple[float, float]


@dataclass(frozen=True)
class ColorJitter:
    """Change brightness, contrast, saturation and hue by random factors, in random order.

    A number ``v`` stands for factors from ``max(0, 1 - v)`` to ``1 + v`` (hue: from ``-v`` to
    ``v``), a pair for the range itself, all uniform.

    >>> import numpy as np
    >>> from oxidet.transforms import ColorJitter
    >>> jitter = ColorJitter(0.4, 0.4, 0.4)
    >>> img = np.full((3, 1, 1), 100, np.uint8)
    >>> jitter(img, np.random.default_rng(0)).ravel().tolist()
    [110, 110, 110]
    """

    brightness: Range = 0.0
    contrast: Range = 0.0
    saturation: Range = 0.0
    hue: Range = 0.0

    def __post_init__(self) -> None:
        for name in _ADJUST:
            low, high = self._range(name)
            limits = (-0.5, 0.5) if name == "hue" else (0.0, np.inf)
            if not limits[0] <= low <= high <= limits[1] or high == np.inf:
                raise ValueError(
                    f"{name}: expected a range within {limits}, got {getattr(self, name)!r}"
                )

    def _range(self, name: str) -> tuple[float, float]:
        given = getattr(self, name)
        if isinstance(given, (tuple, list)):
            return as_range(given, name)
        width, centre = number(given, name, 0), 0.0 if name == "hue" else 1.0
        return max(centre - width, 0.0 if centre else -width), centre + width

    def __call__(self, img: NDArray[Any], rng: np.random.Generator) -> Image:
        image = _colours(img)
        # All are drawn whatever the ranges, so that changing one keeps the others' numbers.
        draw = as_generator(rng).uniform
        factors = {name: float(draw(*self._range(name))) for name in _ADJUST}
        for name in rng.permutation(list(_ADJUST)):
            if factors[name] != (0.0 if name == "hue" else 1.0):
                image = _ADJUST[name](image, factors[name])
        return image


_ADJUST: dict[str, Callable[[NDArray[Any], float], Image]] = {
    "brightness": adjust_brightness,
    "contrast": adjust_contrast,
    "saturation": adjust_saturation,
    "hue": adjust_hue,
}


@dataclass(frozen=True)
class PCAColor:
    """:func:`pca_color` with ``alpha`` drawn from N(0, std) once per image, as for AlexNet.

    >>> import numpy as np
    >>> from oxidet.transforms import PCAColor
    >>> img = np.full((3, 1, 1), 100, np.float32)
    >>> [round(float(v), 2) for v in PCAColor()(img, np.random.default_rng(0)).ravel()]
    [99.59, 99.54, 99.67]
    """

    std: float = 0.1
    eigenvalues: Sequence[float] = IMAGENET_EIGENVALUES
    eigenvectors: Sequence[Sequence[float]] = IMAGENET_EIGENVECTORS

    def __post_init__(self) -> None:
        number(self.std, "std", 0)

    def __call__(self, img: NDArray[Any], rng: np.random.Generator) -> Image:
        alpha = as_generator(rng).normal(0.0, self.std, 3)
        return pca_color(img, alpha, self.eigenvalues, self.eigenvectors)


def _colours(img: Any, *channels: int) -> Image:
    image = as_image(img)
    if len(image) not in (channels or (1, 3)):
        wanted = " or ".join(map(str, channels or (1, 3)))
        raise ValueError(f"img: expected {wanted} channels (C, H, W), got shape {image.shape}")
    return image


def _luma(image: Image) -> Image:
    if image.dtype == np.uint8:
        red, green, blue = image.astype(np.uint32)
        # Pillow's luma: 16 fractional bits, rounded.
        whole = (19595 * red + 38470 * green + 7471 * blue + 0x8000) >> 16
        return whole.astype(np.uint8)[None]
    red, green, blue = (
        np.float32(weight) * plane for weight, plane in zip(LUMA, image, strict=True)
    )
    grey: F32 = red + green + blue
    return grey[None]


def _factor(value: Any, argument: str) -> np.float32:
    return np.float32(number(value, argument, 0, float(np.finfo(np.float32).max)))


def _blend(image: Image, other: F32 | np.float32, factor: np.float32) -> Image:
    """``factor * image + (1 - factor) * other``."""
    values: F32 = np.multiply(image, factor, dtype=np.float32)
    values += (1 - factor) * other
    return _finished(values, image.dtype)


def _finished(values: F32, dtype: np.dtype[Any]) -> Image:
    """New values, clipped where they lie, as the image's type."""
    return np.clip(values, 0, WHITE, out=values).astype(dtype, copy=False)
