"""From images of several sizes to one batch of a detector, and its boxes back."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from oxidet import _arrays, nn
from oxidet._arrays import F32
from oxidet.detection._sampling import Rng
from oxidet.models.detection import _kernels
from oxidet.models.detection.image_list import ImageList

Size = tuple[int, int]


def resize_boxes(boxes: Any, original_size: Sequence[int], new_size: Sequence[int]) -> F32:
    """Boxes (R, 4), (x1, y1, x2, y2), of an image of one (height, width) in one of another.

    >>> from oxidet.models.detection.transform import resize_boxes
    >>> resize_boxes([[10, 20, 30, 40]], (100, 200), (50, 400))
    array([[20., 10., 60., 20.]], dtype=float32)
    """
    old, new = np.asarray(original_size, np.float32), np.asarray(new_size, np.float32)
    down, across = new / old
    return _arrays.as_float32(boxes, "boxes") * np.array([across, down, across, down], np.float32)


class GeneralizedRCNNTransform(nn.Module):
    """Normalises images, scales them, and puts them into one batch, as torchvision's class.

    Parameters
    ----------
    min_size
        Length that the short side is scaled to; of several, evaluation uses the last and training
        draws one for each image.
    max_size
        Limit of the long side.
    image_mean, image_std
        Of each channel, for images in 0..1.
    size_divisible
        Height and width of the batch are multiples of it.
    fixed_size
        (width, height) of every scaled image, in place of the rule of the sides.

    Notes
    -----
    With ``s = min(min_size / short side, max_size / long side)`` an image becomes
    ``floor(height * s)`` by ``floor(width * s)`` pixels, so a side may come out one pixel short of
    ``min_size``. Images are normalised, then scaled (bilinear, without antialiasing), then padded
    with zeros below and to the right.

    Examples
    --------
    >>> import numpy as np
    >>> from oxidet.models.detection.transform import GeneralizedRCNNTransform
    >>> transform = GeneralizedRCNNTransform(800, 1333, (0.5, 0.4, 0.4), (0.25, 0.25, 0.25))
    >>> batch, _ = transform.eval()([np.zeros((3, 60, 80), np.float32)])
    >>> batch.tensors.shape, batch.image_sizes
    ((1, 3, 800, 1088), [(800, 1066)])
    """

    min_size: tuple[int, ...]
    max_size: int
    image_mean: tuple[float, ...]
    image_std: tuple[float, ...]
    size_divisible: int
    fixed_size: tuple[int, int] | None

    def __init__(
        self,
        min_size: int | Sequence[int],
        max_size: int,
        image_mean: Sequence[float],
        image_std: Sequence[float],
        size_divisible: int = 32,
        fixed_size: Size | None = None,
        *,
        _skip_resize: bool = False,
    ) -> None:
        super().__init__()
        sizes = tuple(min_size) if isinstance(min_size, (list, tuple)) else (min_size,)
        if not sizes:
            raise ValueError("min_size: expected at least one length, got none")
        self.min_size = tuple(_length(size, "min_size") for size in sizes)
        self.max_size = _length(max_size, "max_size")
        self.image_mean = _channels(image_mean, "image_mean")
        self.image_std = _channels(image_std, "image_std")
        if len(self.image_mean) != len(self.image_std):
            raise ValueError(
                f"image_std: expected {len(self.image_mean)} values, as image_mean has, "
                f"got {len(self.image_std)}"
            )
        if not all(value > 0 for value in self.image_std):
            raise ValueError(f"image_std: expected values above 0, got {image_std}")
        self.size_divisible = _arrays.integer(size_divisible, "size_divisible", 1)
        self.fixed_size = None if fixed_size is None else _arrays.pair(fixed_size, "fixed_size")
        self._skip_resize = bool(_skip_resize)

    def forward(
        self,
        images: Sequence[Any],
        targets: Sequence[Mapping[str, Any]] | None = None,
        rng: Rng = None,
        min_size: float | None = None,
    ) -> tuple[ImageList, list[dict[str, Any]] | None]:
        """Batch and targets of images.

        Parameters
        ----------
        images
            (C, H, W) float arrays in 0..1, of any sizes.
        targets
            For each image a mapping with ``boxes`` (R, 4) in pixels of the image; the rest is
            handed on.
        rng
            Where training draws ``min_size`` from; NumPy's global state by default.
        min_size
            In place of all that training would draw from.

        Raises
        ------
        TypeError
            An image holds integers.
        ValueError
            An image has not three dimensions, or not the channels of ``image_mean``.
        """
        arrays = [self._checked(image, f"images[{i}]") for i, image in enumerate(images)]
        if not arrays:
            raise ValueError("images: expected at least one, got none")
        sizes = [self.training_size(image.shape[1:], rng, min_size) for image in arrays]
        batch = self.batch(arrays, sizes)
        if targets is None:
            return batch, None
        scaled = []
        for image, size, target in zip(arrays, batch.image_sizes, targets, strict=True):
            boxes = resize_boxes(target["boxes"], image.shape[1:], size)
            scaled.append({**target, "boxes": boxes})
        return batch, scaled

    def batch(self, images: Sequence[F32], sizes: Sequence[Size], unit: float = 1.0) -> ImageList:
        """Images (C, H, W) with white at ``unit``, as a batch in which they have these sizes."""
        tensors = _kernels.batch_images(
            images, sizes, self.image_mean, self.image_std, self.size_divisible, unit=unit
        )
        return ImageList(tensors, list(sizes))

    def padded_size(self, sizes: Sequence[Size]) -> Size:
        """(height, width) of a batch of images of these sizes."""
        unit = self.size_divisible
        height, width = (math.ceil(max(side) / unit) * unit for side in zip(*sizes, strict=True))
        return height, width

    def scaled_size(
        self, height: int, width: int, min_size: float | None = None, *, scale: float = 1.0
    ) -> Size:
        """(height, width) that an image is scaled to; ``min_size`` as in evaluation by default.

        ``scale`` multiplies ``min_size`` and ``max_size``.

        >>> from oxidet.models.detection.transform import GeneralizedRCNNTransform
        >>> transform = GeneralizedRCNNTransform(800, 1333, (0.5,), (0.5,))
        >>> transform.scaled_size(1080, 1920), transform.scaled_size(97, 97)
        ((749, 1333), (799, 799))
        """
        if self.fixed_size is not None:
            width, height = self.fixed_size
            return max(round(scale * height), 1), max(round(scale * width), 1)
        short = self.min_size[-1] if min_size is None else min_size
        factor = scale * min(short / min(height, width), self.max_size / max(height, width))
        # A picture of one row may be so long that nothing would be left of its height.
        return max(math.floor(height * factor), 1), max(math.floor(width * factor), 1)

    def training_size(
        self, size: Sequence[int], rng: Rng = None, min_size: float | None = None
    ) -> Size:
        """:meth:`scaled_size` in the current mode: training draws from several ``min_size``."""
        height, width = size
        if self.training and self._skip_resize:
            return height, width
        if min_size is None and self.training and len(self.min_size) > 1:
            random: Any = np.random if rng is None else rng
            min_size = self.min_size[int(random.random() * len(self.min_size))]
        return self.scaled_size(height, width, min_size)

    def _checked(self, image: Any, argument: str) -> F32:
        array = _arrays.as_array(image, argument)
        if array.ndim != 3:
            raise ValueError(f"{argument}: expected shape (C, H, W), got {array.shape}")
        if array.dtype.kind != "f":
            raise TypeError(f"{argument}: expected floats in 0..1, got dtype {array.dtype}")
        if len(array) != len(self.image_mean) or 0 in array.shape:
            raise ValueError(
                f"{argument}: expected {len(self.image_mean)} channels of at least one pixel, "
                f"got shape {array.shape}"
            )
        return _arrays.as_float32(array, argument)

    def postprocess(
        self,
        result: list[dict[str, Any]],
        image_shapes: Sequence[Size],
        original_image_sizes: Sequence[Size],
    ) -> list[dict[str, Any]]:
        """Detections in pixels of the originals; in training nothing is changed."""
        if self.training:
            return result
        return [
            {**found, "boxes": resize_boxes(found["boxes"], size, original)}
            for found, size, original in zip(
                result, image_shapes, original_image_sizes, strict=True
            )
        ]

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}(\n"
            f"    Normalize(mean={list(self.image_mean)}, std={list(self.image_std)})\n"
            f"    Resize(min_size={self.min_size}, max_size={self.max_size}, mode='bilinear')\n)"
        )


def _length(value: Any, argument: str) -> Any:
    if not 1 <= _arrays.number(value, argument) < math.inf:
        raise ValueError(f"{argument}: expected a length of at least 1, got {value}")
    return value


def _channels(values: Sequence[float], argument: str) -> tuple[float, ...]:
    listed: list[Any] = _arrays.listed(values, argument, "numbers")
    if not listed:
        raise ValueError(f"{argument}: expected a number for each channel, got none")
    return tuple(_arrays.number(value, argument) for value in listed)
