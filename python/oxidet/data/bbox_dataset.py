"""What data sets of images with boxes have in common, whatever form their files have.

A format says which images there are and what its files say about each, faults included
(:class:`Record`). What becomes of a fault, of a name that is no class, of a box of no size or one
that leaves the image is decided here, once for all formats.
"""

from __future__ import annotations

import os
import threading
import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from oxidet._arrays import F32, choice, read_only
from oxidet._arrays import names as as_names
from oxidet.data.image import read_image, read_size

InvalidBoxes = Literal["drop", "raise", "keep"]
Outside = Literal["keep", "clip", "raise"]
OnError = Literal["raise", "skip"]
Box = tuple[float, float, float, float]

LONGEST_LIST = 10  # names that a message enumerates


class Annotation(NamedTuple):
    """The objects of one image, in the order of the file. The arrays are read-only."""

    bbox: F32
    """(R, 4) float32, (y_min, x_min, y_max, x_max) in pixels."""
    label: NDArray[np.int32]
    """(R,) int32, from 0, indexing the data set's class_names."""
    difficult: NDArray[np.bool_]
    """(R,) bool: evaluation passes over such an object."""
    crowd: NDArray[np.bool_]
    """(R,) bool: one box around many objects (COCO's ``iscrowd``)."""
    area: F32
    """(R,) float32, in square pixels: that of the mask where the file says so, else the box's."""


class WrittenObject(NamedTuple):
    """One object as a file has it."""

    name: str
    bbox: Box
    """(y_min, x_min, y_max, x_max) in continuous edges; finite, but possibly of no size."""
    difficult: bool
    crowd: bool
    area: float | None
    where: str
    """The place in the file, as messages name it."""


class Fault(NamedTuple):
    """Something that a file should not say."""

    kind: str
    """In a few words, such as "unreadable annotation": one of ``oxidet.data.check.KINDS``."""
    message: str
    """One line that begins with the file's name."""


@dataclass(frozen=True)
class Record:
    """All that the files say about one image."""

    objects: Sequence[WrittenObject] = ()
    faults: Sequence[Fault] = ()
    size: tuple[int, int] | None = None
    """Height and width that the annotation gives the image, if it does."""


class BboxDataset(ABC):
    """Images with boxes and class labels: the base of the formats.

    ``dataset[i]`` reads an image and returns it with its objects. What else there is costs no
    reading of pixels:

    - ``class_names``: the classes in label order;
    - ``image_ids``: the names or numbers of the images, in order;
    - ``annotation(i)``: the objects of an image, an :class:`Annotation`;
    - ``image_path(i)``: where the image lies;
    - ``image_size(i)``: its height and width as :func:`read_image` returns it;
    - ``skipped``: what ``on_error="skip"`` has left out, and why, by image id.
    """

    class_names: tuple[str, ...]
    image_ids: tuple[Any, ...]
    skipped: dict[Any, str]
    _drops_in_silence: ClassVar[bool] = False
    listed_ids: tuple[Any, ...]

    def __init__(
        self,
        ids: Iterable[Any],
        class_names: Sequence[str],
        *,
        use_difficult: bool,
        use_crowded: bool,
        invalid_boxes: InvalidBoxes,
        outside: Outside,
        on_error: OnError,
    ) -> None:
        """``ids`` and ``class_names`` as the format has found them; the subclass is ready to
        answer :meth:`_record` and :meth:`_image_path`."""
        self.use_difficult = use_difficult
        self.use_crowded = use_crowded
        self.invalid_boxes = invalid_boxes
        self.outside = outside
        self.on_error = on_error
        self.class_names = as_names(class_names, "class_names")
        self._labels = {class_key(name): label for label, name in enumerate(self.class_names)}
        if len(self._labels) != len(self.class_names):
            raise ValueError(f"class_names: expected distinct names, got {list(self.class_names)}")
        self._lock = threading.Lock()
        self._annotations: dict[Any, Annotation] = {}
        self.listed_ids = tuple(ids)
        self.image_ids = self.listed_ids
        self.skipped = {}
        if on_error == "skip":
            self._skip()

    # --- what a format says

    @abstractmethod
    def _record(self, image_id: Any) -> Record:
        """What the files say about an image. OSError where there is no file."""

    @abstractmethod
    def _image_path(self, image_id: Any) -> Path:
        """Where the image lies. FileNotFoundError where it does not."""

    @abstractmethod
    def _item(self, image: F32, annotation: Annotation) -> tuple[Any, ...]:
        """The data set's item. The arrays of ``annotation`` are copies."""

    def _faults(self) -> Sequence[Fault]:
        """Faults of the files that concern no image of the data set."""
        return ()

    def _placed(self, box: Box) -> Box:
        """A box as written, moved by what the format does to boxes beyond the origin."""
        return box

    # --- what people use

    def __len__(self) -> int:
        return len(self.image_ids)

    def __getitem__(self, index: int) -> tuple[Any, ...]:
        annotation = self.annotation(index)
        image = read_image(self.image_path(index))
        # Copies: what a transform does in place must not reach the next epoch.
        return self._item(image, Annotation(*(column.copy() for column in annotation)))

    def annotation(self, index: int) -> Annotation:
        """The objects of one image, without reading its pixels."""
        image_id = self._id(index)
        with self._lock:
            found = self._annotations.get(image_id)
        if found is None:
            found = self._read(image_id)
            with self._lock:
                found = self._annotations.setdefault(image_id, found)
        return found

    def image_path(self, index: int) -> Path:
        """Where the image of one item lies."""
        return self._image_path(self._id(index))

    def image_size(self, index: int) -> tuple[int, int]:
        """Height and width of an image, from the head of its file (needs the extra ``images``)."""
        return read_size(self.image_path(index))

    def _id(self, index: int) -> Any:
        if not -len(self) <= index < len(self):
            raise IndexError(f"index: expected less than {len(self)} items, got {index}")
        return self.image_ids[index]

    def _skip(self) -> None:
        """Leave out every image with a fault that shows without reading its pixels."""
        for image_id in self.listed_ids:
            try:
                self._annotations[image_id] = self._read(image_id)
                self._image_path(image_id)
            except (ValueError, OSError) as error:
                self.skipped[image_id] = described(error)
                warnings.warn(f"{described(error)}; the image is left out", stacklevel=5)
        self.image_ids = tuple(k for k in self.listed_ids if k not in self.skipped)

    def _read(self, image_id: Any) -> Annotation:
        record = self._record(image_id)
        if record.faults:
            raise ValueError(record.faults[0].message)
        kept: list[tuple[WrittenObject, Box, int]] = []
        for item in record.objects:
            if (item.difficult and not self.use_difficult) or (item.crowd and not self.use_crowded):
                continue
            label = self._labels.get(class_key(item.name))
            if label is None:
                raise ValueError(unknown_label(item, self.class_names))
            box = self._checked(item, image_id)
            if box is not None:
                kept.append((item, box, label))
        bbox = np.array([box for _, box, _ in kept], np.float32).reshape(-1, 4)
        own = (bbox[:, 2:] - bbox[:, :2]).prod(axis=1)
        given = [item.area for item, _, _ in kept]
        area = [a if g is None else g for g, a in zip(given, own.tolist(), strict=True)]
        columns = (
            bbox,
            np.array([label for _, _, label in kept], np.int32),
            np.array([item.difficult for item, _, _ in kept], np.bool_),
            np.array([item.crowd for item, _, _ in kept], np.bool_),
            np.array(area, np.float32),
        )
        return Annotation(*map(read_only, columns))

    def _checked(self, item: WrittenObject, image_id: Any) -> Box | None:
        """The box to return, None for one to leave out."""
        box = self._placed(item.bbox)
        if not is_empty(box) and self.outside != "keep":
            size = read_size(self._image_path(image_id))
            if self.outside == "raise" and leaves_image(box, size):
                raise ValueError(outside_message(item, size))
            box = clipped(box, size)
        if self.invalid_boxes == "keep" or not is_empty(box):
            return box
        if self.invalid_boxes == "raise":
            raise ValueError(empty_message(item, box))
        if not self._drops_in_silence:
            warnings.warn(f"{empty_message(item, box)}; the box is left out", stacklevel=4)
        return None

    # The lock cannot be pickled, and a copy of the data set needs one of its own.
    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in self.__dict__.items() if k != "_lock"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._lock = threading.Lock()


def check_options(invalid_boxes: str, outside: str, on_error: str) -> None:
    """Refuse words that are no choices, before any file is read."""
    if invalid_boxes not in ("drop", "raise", "keep"):
        raise ValueError(
            f"invalid_boxes: expected 'drop', 'raise' or 'keep', got {invalid_boxes!r}"
        )
    choice(outside, "outside", ("keep", "clip", "raise"))
    choice(on_error, "on_error", ("raise", "skip"))


def read_class_names(path: str | os.PathLike[str]) -> tuple[str, ...]:
    """Class names in label order from a text file with one a line; empty lines do not count.

    ValueError, naming the file, where there is none, or one twice.
    """
    names = read_lines(Path(path))
    if not names:
        raise ValueError(f"{os.fspath(path)}: expected class names, one a line, got none")
    if len({class_key(name) for name in names}) < len(names):
        raise ValueError(f"{os.fspath(path)}: expected distinct class names, got {list(names)}")
    return names


def given_class_names(
    class_names: Sequence[str] | str | os.PathLike[str] | None,
) -> tuple[str, ...] | None:
    """What people pass as ``class_names``: names, a file of them, or nothing."""
    if class_names is None:
        return None
    if isinstance(class_names, (str, os.PathLike)):
        return read_class_names(class_names)
    return tuple(class_names)


def read_lines(path: Path) -> tuple[str, ...]:
    """The lines of a text file that hold anything, without the space around."""
    try:
        text = path.read_text(encoding="utf-8-sig")  # Windows may begin it with a mark
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: expected text in UTF-8, got {error}") from None
    return tuple(line.strip() for line in text.splitlines() if line.strip())


def class_key(name: str) -> str:
    """What two spellings of the same class have in common."""
    return name.strip().lower()


def described(error: Exception) -> str:
    """One line on an error of a file, which begins with the file's name."""
    if isinstance(error, OSError) and error.strerror and error.filename is not None:
        return f"{os.fsdecode(error.filename)}: {error.strerror}"
    return str(error)


def is_empty(box: Box) -> bool:
    """Whether a box has no size, or a minimum beyond its maximum."""
    return not (box[0] < box[2] and box[1] < box[3])


def clipped(box: Box, size: tuple[int, int]) -> Box:
    """The part of a box within an image of (height, width)."""
    height, width = size
    return (
        min(max(box[0], 0.0), height),
        min(max(box[1], 0.0), width),
        min(max(box[2], 0.0), height),
        min(max(box[3], 0.0), width),
    )


def leaves_image(box: Box, size: tuple[int, int]) -> bool:
    """Whether a box reaches beyond the edges of an image of (height, width)."""
    return clipped(box, size) != box


def unknown_label(item: WrittenObject, class_names: Sequence[str]) -> str:
    """The message on an object whose name is no class."""
    listed = list(class_names[:LONGEST_LIST])
    more = f" and {len(class_names) - len(listed)} more" if len(class_names) > len(listed) else ""
    return f"{item.where}: expected a class of {listed}{more}, got {item.name!r}"


def empty_message(item: WrittenObject, box: Box) -> str:
    """The message on a box of no size."""
    return (
        f"{item.where}: expected y_min < y_max and x_min < x_max, got (y_min, x_min, y_max, "
        f"x_max) = {tuple(box)}"
    )


def outside_message(item: WrittenObject, size: tuple[int, int]) -> str:
    """The message on a box that leaves its image."""
    return (
        f"{item.where}: expected a box within height and width {size}, got (y_min, x_min, y_max, "
        f"x_max) = {tuple(item.bbox)}"
    )
