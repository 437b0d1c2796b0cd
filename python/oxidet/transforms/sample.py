"""What the transforms of a detector's training data take and return."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple, overload

import numpy as np
from numpy.typing import NDArray

from oxidet._arrays import F32


class Sample(NamedTuple):
    """One image with its objects. A data set's ``(img, bbox, label, difficult[, crowd])`` is one
    already.

    The elements from the fourth on may be left out: ``Sample(img, bbox, label)``.
    """

    img: F32
    """(C, H, W) float32."""
    bbox: F32
    """(R, 4) float32, (y_min, x_min, y_max, x_max) in pixels of ``img``."""
    label: NDArray[np.int32]
    """(R,) int32, from 0."""
    difficult: NDArray[np.bool_] | None = None
    """(R,) bool, or None where nobody said."""
    crowd: NDArray[np.bool_] | None = None
    """(R,) bool, whether a box is one around many objects, or None where nobody said."""
    scale: float = 1.0
    """Height of ``img`` over height of the original image."""

    def select(self, rows: Any) -> Sample:
        """The sample with some of its objects: a mask (R,) or positions."""
        return self._replace(
            bbox=self.bbox[rows],
            label=self.label[rows],
            difficult=None if self.difficult is None else self.difficult[rows],
            crowd=None if self.crowd is None else self.crowd[rows],
        )


Transform = Callable[[Sample, np.random.Generator], Sample]


class Compose:
    """Transforms one after another, all drawing from the same Generator.

    A transform is any callable ``transform(sample, rng) -> Sample``. ``Compose`` is one, and is
    what a ``DataLoader`` takes as ``transform``; it accepts a data set's plain tuple. Transforms of
    an image, ``transform(img, rng) -> img``, are composed in the same way, and then an array goes
    in and comes out.

    Examples
    --------
    >>> import numpy as np
    >>> from oxidet.transforms import Compose, OnImage, Sample
    >>> halve = OnImage(lambda img: img / 2)
    >>> sample = (np.ones((3, 2, 2), np.float32), np.zeros((0, 4)), np.zeros(0))
    >>> float(Compose([halve, halve])(sample, np.random.default_rng(0)).img.max())
    0.25
    """

    transforms: tuple[Callable[..., Any], ...]

    def __init__(self, transforms: Iterable[Callable[..., Any]]) -> None:
        self.transforms = tuple(transforms)

    @overload
    def __call__(self, sample: NDArray[Any], rng: np.random.Generator) -> NDArray[Any]: ...
    @overload
    def __call__(self, sample: Sample | tuple[Any, ...], rng: np.random.Generator) -> Sample: ...
    def __call__(self, sample: Any, rng: np.random.Generator) -> Any:
        if not isinstance(sample, (Sample, np.ndarray)):
            sample = Sample(*sample)
        for transform in self.transforms:
            sample = transform(sample, rng)
        return sample

    def __repr__(self) -> str:
        return f"Compose({list(self.transforms)})"


class OnImage:
    """A function of the image alone, such as a normalisation, as a transform.

    With ``random=True`` the function takes the Generator as well: what is a transform of an image,
    such as ``ColorJitter``, then is one of a sample, whose boxes stay as they are.

    >>> import numpy as np
    >>> from oxidet.transforms import ColorJitter, OnImage, Sample
    >>> jitter = OnImage(ColorJitter(0.4, 0.4, 0.4, 0.05), random=True)
    >>> sample = Sample(np.full((3, 4, 5), 100, np.float32), np.zeros((0, 4)), np.zeros(0))
    >>> jitter(sample, np.random.default_rng(0)).img.shape
    (3, 4, 5)
    """

    def __init__(self, function: Callable[..., Any], random: bool = False) -> None:
        self.function = function
        self.random = random

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        img = self.function(sample.img, rng) if self.random else self.function(sample.img)
        return sample._replace(img=img)

    def __repr__(self) -> str:
        return f"OnImage({self.function!r}{', random=True' if self.random else ''})"
