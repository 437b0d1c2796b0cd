"""What a detector may be trained on: objects that count, with boxes and labels that make sense."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from oxidet.transforms import Sample, Transform

MARKS = ("difficult", "crowd")  # of objects: what may follow their labels


@dataclass(frozen=True)
class PrepareItem:
    """From an item of a data set to what a detector is trained on; applied in the loader's threads.

    Objects that do not count go, what cannot be learned from is refused, and the rest is augmented.

    Attributes
    ----------
    n_fg_class
        Number of classes without background.
    use_difficult
        Whether objects marked as difficult count. Crowds never do.
    augment
        A transform of image and boxes.
    """

    n_fg_class: int
    use_difficult: bool = False
    augment: Transform | None = None

    def __call__(self, item: Any, rng: np.random.Generator) -> Sample:
        """``(img, bbox, label[, difficult[, crowd]])`` to a Sample of three."""
        sample = objects_that_count(item, self.use_difficult)
        check_ground_truth(sample.bbox, sample.label, self.n_fg_class)
        if self.augment is not None:
            sample = self.augment(sample, rng)
            # A crop may leave nothing of a box but its edge.
            bbox = np.asarray(sample.bbox, np.float32).reshape(-1, 4)
            flat = (bbox[:, 2:] <= bbox[:, :2]).any(axis=1)
            sample = sample._replace(bbox=bbox[~flat], label=np.asarray(sample.label)[~flat])
            check_ground_truth(sample.bbox, sample.label, self.n_fg_class)
        img = np.asarray(sample.img, np.float32)
        if img.ndim != 3 or img.shape[0] != 3 or 0 in img.shape:
            raise ValueError(f"img: expected shape (3, H, W), got {img.shape}")
        if not np.isfinite(img.sum(dtype=np.float64)):
            raise ValueError("img: expected finite values, got NaN or infinity")
        return sample._replace(img=img)


def objects_that_count(item: Any, use_difficult: bool = False) -> Sample:
    """The image with the objects that are trained on.

    Examples
    --------
    >>> boxes = np.array([[0, 0, 4, 4], [1, 1, 5, 5]])
    >>> item = (np.zeros((3, 8, 8)), boxes, np.array([0, 1]), np.array([True, False]))
    >>> objects_that_count(item).label
    array([1])
    """
    if not isinstance(item, (tuple, list)) or len(item) < 3:
        got = f"one of {len(item)} values" if isinstance(item, (tuple, list)) else type(item)
        raise ValueError(f"dataset: expected items (img, bbox, label[, difficult]), got {got}")
    sample = Sample(*item)
    bbox, label = np.asarray(sample.bbox), np.asarray(sample.label)
    counts = np.ones(label.shape, np.bool_)
    for name in MARKS:
        mark = getattr(sample, name)
        if mark is None or (name == "difficult" and use_difficult):
            continue
        counts &= ~marks(mark, label.shape, name)
    empty = bbox.size == 0 and len(label) == 0
    bbox = bbox.reshape(0, 4) if empty else bbox
    if not counts.all() and len(bbox) == len(label):
        bbox, label = bbox[counts], label[counts]
    return Sample(sample.img, bbox, label)


def marks(value: Any, shape: tuple[int, ...], name: str) -> NDArray[np.bool_]:
    """Which objects are marked; ValueError unless there is a bool (or a 0 or 1) for each."""
    mask = np.asarray(value)
    if mask.shape != shape or mask.dtype.kind not in "bu":
        raise ValueError(
            f"{name}: expected bool of shape {shape}, got {mask.dtype} of {mask.shape}"
        )
    return mask != 0


def check_ground_truth(bbox: Any, label: Any, n_fg_class: int, name: str = "") -> None:
    """Refuse ground truth that cannot be learned from; ``name`` says in messages where it is.

    Raises
    ------
    ValueError
        A coordinate is NaN or infinite, a box has no height or width, a label is no class, or
        boxes and labels differ in number. The message names the row.

    Examples
    --------
    >>> check_ground_truth([[0, 0, 9, 9], [4, 4, 4, 9]], [0, 1], 20, "image 7")
    Traceback (most recent call last):
        ...
    ValueError: bbox: expected finite y_min < y_max and x_min < x_max, got (4.0, 4.0, 4.0, 9.0) in \
row 1 of image 7
    """
    bbox, label = np.asarray(bbox), np.asarray(label)
    inside, of = (f" in {name}", f" of {name}") if name else ("", "")
    if bbox.ndim != 2 or bbox.shape[1] != 4:
        raise ValueError(f"bbox: expected shape (R, 4), got {bbox.shape}{inside}")
    if label.shape != bbox.shape[:1]:
        raise ValueError(
            f"label: expected shape {bbox.shape[:1]} for as many boxes, got {label.shape}{inside}"
        )
    sane = np.isfinite(bbox).all(axis=1) & (bbox[:, 2:] > bbox[:, :2]).all(axis=1)
    if not sane.all():
        row = int(np.argmin(sane))
        raise ValueError(
            "bbox: expected finite y_min < y_max and x_min < x_max, "
            f"got {tuple(map(float, bbox[row]))} in row {row}{of}"
        )
    known = (label >= 0) & (label < n_fg_class)
    if not known.all():
        row = int(np.argmin(known))
        raise ValueError(
            f"label: expected a class from 0 to {n_fg_class - 1}, got {label[row]} in row {row}{of}"
        )
