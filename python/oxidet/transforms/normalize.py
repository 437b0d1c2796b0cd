"""From pixels of 0..255 to what a network was trained on, and back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from oxidet._arrays import F32, as_float32, vector

Triple = tuple[float, float, float]

IMAGENET_MEAN: Triple = (0.485, 0.456, 0.406)
IMAGENET_STD: Triple = (0.229, 0.224, 0.225)
VGG_MEAN_RGB: Triple = (122.7717, 115.9465, 102.9801)


@dataclass(frozen=True)
class Normalize:
    """``(img * scale - mean) / std`` per channel, of RGB 0..255 or of the same channels as BGR.

    Takes and returns ``(3, H, W)``; the result is float32 and has the memory order of the input.
    The named forms:

    - ``Normalize.torchvision()``: RGB, 0..1, ImageNet's mean and deviation. torchvision's models
      and simple-faster-rcnn's default.
    - ``Normalize.caffe()``: BGR, 0..255, minus a mean. simple-faster-rcnn's ``caffe_pretrain``.
    - ``Normalize.chainercv()``: RGB, 0..255, minus a mean.

    Examples
    --------
    >>> import numpy as np
    >>> from oxidet.transforms import Normalize
    >>> image = np.full((3, 1, 1), 127.5, np.float32)
    >>> [round(float(v), 4) for v in Normalize.torchvision()(image).ravel()]
    [0.0655, 0.1964, 0.4178]
    >>> [round(float(v), 4) for v in Normalize.caffe()(image).ravel()]
    [4.7283, 11.5535, 24.5199]
    """

    mean: Triple
    std: Triple = (1.0, 1.0, 1.0)
    scale: float = 1.0
    bgr: bool = False
    """Whether the result's channels are blue, green, red; ``mean`` and ``std`` are in its order."""

    @classmethod
    def torchvision(cls) -> Normalize:
        """ImageNet's mean and deviation in RGB and 0..1, as torchvision's models take it."""
        return cls(IMAGENET_MEAN, IMAGENET_STD, scale=1 / 255)

    @classmethod
    def caffe(cls, mean_order: Literal["rgb", "bgr"] = "rgb") -> Normalize:
        """simple-faster-rcnn's caffe form.

        It subtracts the mean in RGB order from channels in BGR order, and its weights were trained
        so; ``mean_order="bgr"`` is the form that Caffe's own VGG was trained with.
        """
        if mean_order not in ("rgb", "bgr"):
            raise ValueError(f"mean_order: expected 'rgb' or 'bgr', got {mean_order!r}")
        red, green, blue = VGG_MEAN_RGB
        mean = (red, green, blue) if mean_order == "rgb" else (blue, green, red)
        return cls(mean, bgr=True)

    @classmethod
    def chainercv(cls) -> Normalize:
        """Minus VGG's mean, in RGB and 0..255, as chainercv's ``FasterRCNNVGG16`` was trained."""
        return cls(VGG_MEAN_RGB)

    def __call__(self, img: F32) -> F32:
        image = _three_channels(img)
        image = image[::-1] if self.bgr else image
        # scale, mean and deviation as one product and one sum: half the passes over memory.
        factor = self.scale / np.array(self.std)
        shift = -np.array(self.mean) / np.array(self.std)
        out: F32 = image * _per_channel(factor)
        out += _per_channel(shift)
        return out

    def inverse(self, img: F32) -> F32:
        """The image again, RGB 0..255, up to rounding; nothing is clipped."""
        image = _three_channels(img)
        out: F32 = image * _per_channel(np.array(self.std) / self.scale)
        out += _per_channel(np.array(self.mean) / self.scale)
        return out[::-1] if self.bgr else out


def normalize(img: NDArray[Any], mean: Sequence[float], std: Sequence[float]) -> F32:
    """``(img - mean) / std`` per channel of a ``(C, H, W)`` image, float32.

    For ImageNet's constants, which are of 0..1, divide the image by 255 first.

    >>> import numpy as np
    >>> from oxidet.transforms import normalize
    >>> normalize(np.array([[[0.5]], [[1.0]]]), (0.5, 0.5), (0.25, 0.5)).ravel().tolist()
    [0.0, 1.0]
    """
    image = as_float32(img, "img", ndim=3, form="(C, H, W)")
    centre, spread = (
        vector(values, name, len(image)) for values, name in ((mean, "mean"), (std, "std"))
    )
    if not (spread != 0).all():
        raise ValueError(f"std: expected numbers other than 0, got {tuple(spread.tolist())}")
    out: F32 = (image - centre[:, None, None]) / spread[:, None, None]
    return out


def _three_channels(img: F32) -> F32:
    image = as_float32(img, "img", ndim=3, form="(3, H, W)")
    if image.shape[0] != 3:
        raise ValueError(f"img: expected 3 channels (3, H, W), got shape {image.shape}")
    return image


def _per_channel(values: np.ndarray) -> F32:
    return values.astype(np.float32).reshape(3, 1, 1)
