"""Four images in one, with their boxes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from oxidet._arrays import number, pair
from oxidet.transforms._boxes import as_sample, canvas, cut_boxes
from oxidet.transforms._image import as_generator, as_image, as_range
from oxidet.transforms.resize import resize_part
from oxidet.transforms.sample import Sample


class Mosaic:
    """A data set that shows four images at once, each in a quarter of the picture.

    It is the given data set in all respects, ``mosaic[i]`` included. Only a :class:`DataLoader`,
    which asks by ``random_item(i, rng)``, gets mosaics: image ``i`` and three random others, each
    scaled to cover its quarter at least and cut at a random place. The quarters meet at a random
    point in the middle of the picture.

    Parameters
    ----------
    dataset
        Items ``(img, bbox, label[, difficult[, crowd]])``.
    p
        How often a mosaic takes the place of the single image.
    size
        Height and width of the picture; None for those of image ``i``.
    centre
        Where the quarters meet, as a share of height and width, uniform in this range.
    zoom
        How much larger an image is drawn than would just cover its quarter, uniform in this range.
    min_visible, min_size
        A box stays if at least this share of its area, and so many pixels of both its sides, are
        left.

    References
    ----------
    Bochkovskiy et al., "YOLOv4: Optimal Speed and Accuracy of Object Detection" (2020), section
    3.3. The covering of whole quarters, without filling, is ours.

    Examples
    --------
    >>> import numpy as np
    >>> from oxidet.data import DataLoader, Mosaic
    >>> item = (np.zeros((3, 40, 60), np.float32), np.array([[5, 5, 35, 55]]), np.array([2]))
    >>> loader = DataLoader(Mosaic([item], p=1.0))
    >>> [(sample.img.shape, sample.label.tolist()) for [sample] in loader]
    [((3, 40, 60), [2, 2, 2, 2])]
    """

    p: float
    size: tuple[int, int] | None
    centre: tuple[float, float]
    zoom: tuple[float, float]
    min_visible: float
    min_size: float

    def __init__(
        self,
        dataset: Any,
        p: float = 0.5,
        size: int | Sequence[int] | None = None,
        *,
        centre: tuple[float, float] = (0.3, 0.7),
        zoom: tuple[float, float] = (1.0, 1.5),
        min_visible: float = 0.25,
        min_size: float = 2.0,
    ) -> None:
        self.dataset = dataset
        self.p = number(p, "p", 0, 1)
        self.size = None if size is None else pair(size, "size")
        self.centre = as_range(centre, "centre")
        if not 0 < self.centre[0] <= self.centre[1] < 1:
            raise ValueError(f"centre: expected a range within 0 and 1, got {centre!r}")
        self.zoom = as_range(zoom, "zoom")
        if self.zoom[0] < 1:
            raise ValueError(f"zoom: expected 1 <= low <= high, got {zoom!r}")
        self.min_visible = number(min_visible, "min_visible", 0, 1)
        self.min_size = number(min_size, "min_size", 0)

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Any:
        return self.dataset[index]

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or name == "dataset":  # what pickle looks for first
            raise AttributeError(name)
        return getattr(self.dataset, name)

    def __repr__(self) -> str:
        return f"Mosaic({self.dataset!r}, p={self.p:g})"

    def random_item(self, index: int, rng: np.random.Generator) -> Sample:
        """Image ``index``, by chance in a mosaic with three others."""
        # All is drawn whatever p, so that changing it keeps the other numbers.
        single = as_generator(rng).random() >= self.p
        others = rng.integers(len(self), size=3)
        meeting = rng.uniform(*self.centre, size=2)
        zooms, places = rng.uniform(*self.zoom, size=4), rng.random((4, 2))
        first = as_sample(self.dataset[index])
        if single:
            return first
        samples = [first, *(as_sample(self.dataset[int(k)]) for k in others)]
        image = as_image(first.img)
        height, width = self.size or image.shape[1:]
        y, x = (
            min(max(1, round(length * at)), max(length - 1, 1))
            for length, at in zip((height, width), meeting, strict=True)
        )
        picture = canvas(image, height, width, 0)
        pieces = []
        quarters = ((0, 0, y, x), (0, x, y, width), (y, 0, height, x), (y, x, height, width))
        for sample, quarter, zoom, place in zip(samples, quarters, zooms, places, strict=True):
            pieces.append(self._put(picture, sample, quarter, float(zoom), place))
        return Sample(
            picture,
            np.concatenate([piece.bbox for piece in pieces]),
            np.concatenate([piece.label for piece in pieces]),
            _joined([(piece.difficult, len(piece.label)) for piece in pieces]),
            _joined([(piece.crowd, len(piece.label)) for piece in pieces]),
        )

    def _put(
        self,
        picture: np.ndarray,
        sample: Sample,
        quarter: tuple[int, int, int, int],
        zoom: float,
        place: np.ndarray,
    ) -> Sample:
        """Draw an image into a quarter; what is left of its objects, in the picture's pixels."""
        top, left, bottom, right = quarter
        size = bottom - top, right - left
        if 0 in size:
            return sample.select(np.zeros(len(sample.label), bool))
        image = as_image(sample.img)
        old = image.shape[1], image.shape[2]
        factor = zoom * max(wanted / have for wanted, have in zip(size, old, strict=True))
        new = [max(a, round(b * factor)) for a, b in zip(size, old, strict=True)]
        begin = [
            int(share * (have - wanted + 1))
            for share, have, wanted in zip(place, new, size, strict=True)
        ]
        rows, columns = (slice(b, b + n) for b, n in zip(begin, size, strict=True))
        picture[:, top:bottom, left:right] = resize_part(image, (new[0], new[1]), (rows, columns))
        stretch = np.array((new[0] / old[0], new[1] / old[1]) * 2, np.float32)
        boxes, stays = cut_boxes(
            np.asarray(sample.bbox, np.float32) * stretch,
            (begin[0], begin[1], *size),
            self.min_visible,
            self.min_size,
        )
        boxes += np.array((top, left, top, left), np.float32)
        return sample._replace(bbox=boxes).select(stays)


def _joined(parts: list[tuple[Any, int]]) -> Any:
    """A column of four samples, False where one does not say; None where none does."""
    if all(column is None for column, _ in parts):
        return None
    return np.concatenate(
        [np.zeros(count, np.bool_) if column is None else column for column, count in parts]
    )
