"""What a classification network does to a picture before it looks at it."""

from __future__ import annotations

import math
from dataclasses import KW_ONLY, dataclass
from typing import Any, Literal

import numpy as np

from oxidet._arrays import F32, choice, flag, integer, number, pair
from oxidet.data.image import read_image
from oxidet.transforms.color import grayscale
from oxidet.transforms.crop import center_crop
from oxidet.transforms.normalize import IMAGENET_MEAN, IMAGENET_STD
from oxidet.transforms.resize import INTERPOLATIONS, Interpolation, resize_middle

Channels = Literal["RGB", "BGR", "L"]


@dataclass(frozen=True)
class ImageClassification:
    """Resize, crop the middle, and normalise: a picture to the ``(C, H, W)`` float32 of a network.

    With the defaults and a number for ``crop_size``, this is torchvision's preset of the same name,
    to the bit of Pillow's resizing: the shorter side becomes ``resize_size`` with antialiasing, the
    middle ``crop_size`` x ``crop_size`` pixels remain (black where there are none), and then
    ``(pixel * scale - mean) / std`` per channel.

    Parameters
    ----------
    crop_size
        Height and width of the result, or one number for both.
    resize_size
        Length of the shorter side before the crop. A pair ``(height, width)`` is taken as it is,
        whatever the picture's proportions, as Caffe's networks had it; None leaves the size alone.
    mean, std
        One per channel of the result, in its order; a single number counts for all.
    interpolation
        ``"bilinear"``, ``"bicubic"``, ``"nearest"`` or ``"nearest-exact"``.
    antialias
        Whether shrinking averages all the pixels it covers.
    channels
        ``"RGB"``, ``"BGR"`` for networks from Caffe, ``"L"`` for grey.
    scale
        What the pixels of 0..255 are multiplied with: 1/255 for 0..1, 1 to leave them.

    Examples
    --------
    >>> import numpy as np
    >>> from oxidet.transforms import ImageClassification
    >>> preprocess = ImageClassification(224)
    >>> x = preprocess(np.full((300, 400, 3), 124, np.uint8))
    >>> x.shape, x.dtype, [round(float(v), 3) for v in x[:, 0, 0]]
    ((3, 224, 224), dtype('float32'), [0.006, 0.135, 0.357])
    >>> ImageClassification.caffe(227)
    ImageClassification(crop_size=227, resize_size=(256, 256), mean=(104, 117, 123), std=1, \
interpolation='bilinear', channels='BGR', scale=1)
    """

    crop_size: int | tuple[int, int]
    _: KW_ONLY
    resize_size: int | tuple[int, int] | None = 256
    mean: float | tuple[float, ...] = IMAGENET_MEAN
    std: float | tuple[float, ...] = IMAGENET_STD
    interpolation: Interpolation = "bilinear"
    antialias: bool = True
    channels: Channels = "RGB"
    scale: float = 1 / 255

    def __post_init__(self) -> None:
        self._keep("crop_size", _size(self.crop_size, "crop_size"))
        if self.resize_size is not None:
            self._keep("resize_size", _size(self.resize_size, "resize_size"))
        choice(self.interpolation, "interpolation", INTERPOLATIONS)
        choice(self.channels, "channels", ("RGB", "BGR", "L"))
        self._keep("antialias", flag(self.antialias, "antialias"))
        for name in ("mean", "std", "scale"):
            self._keep(name, self._numbers(name, positive=name != "mean"))

    def _keep(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)

    def _numbers(self, name: str, positive: bool) -> float | tuple[float, ...]:
        """A finite number, or (but for ``scale``) one per channel, as Python's own."""
        given: Any = getattr(self, name)
        single = name == "scale" or not isinstance(given, (tuple, list, np.ndarray))
        values: tuple[Any, ...] = (given,) if single else tuple(given)
        if not single and len(values) != self._count:
            raise ValueError(
                f"{name}: expected a number or {self._count} for channels="
                f"{self.channels!r}, got {len(values)}"
            )
        for value in values:
            if not math.isfinite(number(value, name)) or (positive and not value > 0):
                kind = "positive" if positive else "finite"
                raise ValueError(f"{name}: expected {kind} numbers, got {value!r}")
        own = tuple(value.item() if isinstance(value, np.generic) else value for value in values)
        return own[0] if single else own

    @classmethod
    def caffe(
        cls,
        crop_size: int | tuple[int, int] = 224,
        *,
        resize_size: int | tuple[int, int] | None = (256, 256),
        mean: tuple[float, float, float] = (104, 117, 123),
    ) -> ImageClassification:
        """The form of Caffe's models: BGR of 0..255 less a mean (B, G, R), resized out of shape."""
        return cls(crop_size, resize_size=resize_size, mean=mean, std=1, channels="BGR", scale=1)

    @property
    def _count(self) -> int:
        return 1 if self.channels == "L" else 3

    def __call__(self, image: Any, rng: np.random.Generator | None = None) -> F32:
        """What :func:`oxidet.data.read_image` can read, as ``(C, *crop_size)`` float32.

        The memory of the result is channels-last. ``rng`` is not used; it lets this be a transform
        among others.
        """
        pixels = read_image(image)
        # Whole grey levels, as a decoded file has them: the networks were trained on such.
        pixels = np.rint(pixels).astype(np.uint8)
        if self.channels == "L":
            pixels = grayscale(pixels)
        elif self.channels == "BGR":
            pixels = pixels[::-1]
        if self.resize_size is not None:
            pixels = resize_middle(
                pixels, self.resize_size, self.crop_size, self.interpolation, self.antialias
            )
        pixels = center_crop(pixels, self.crop_size)
        # scale, mean and deviation as one product and one sum.
        factor = self.scale / np.asarray(self.std, np.float64)
        shift = -np.asarray(self.mean, np.float64) / np.asarray(self.std, np.float64)
        out = pixels.transpose(1, 2, 0) * factor.astype(np.float32)
        out += shift.astype(np.float32)
        return np.ascontiguousarray(out, np.float32).transpose(2, 0, 1)

    def inverse(self, x: F32) -> F32:
        """From the network's ``(C, H, W)`` back to grey levels 0..255, RGB or ``(1, H, W)``.

        Nothing is clipped; what was cropped does not come back.
        """
        pixels = np.asarray(x, np.float32).transpose(1, 2, 0)
        out = (pixels * np.asarray(self.std) + np.asarray(self.mean)) / self.scale
        out = out.astype(np.float32).transpose(2, 0, 1)
        return out[::-1] if self.channels == "BGR" else out

    def __repr__(self) -> str:
        shown = ["crop_size", "resize_size", "mean", "std", "interpolation"]
        defaults = {"antialias": True, "channels": "RGB", "scale": 1 / 255}
        shown += [name for name, value in defaults.items() if getattr(self, name) != value]
        arguments = ", ".join(f"{name}={_written(name, getattr(self, name))}" for name in shown)
        return f"{type(self).__name__}({arguments})"


def _written(name: str, value: Any) -> str:
    """A scale as the fraction people know it by."""
    if name == "scale" and 0 < value < 1 and round(1 / value) > 1 and value == 1 / round(1 / value):
        return f"1/{round(1 / value)}"
    return repr(value)


def _size(size: Any, argument: str) -> int | tuple[int, int]:
    if isinstance(size, (tuple, list)):
        return pair(size, argument)
    return integer(size, argument, 1)
