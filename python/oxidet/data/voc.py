"""Detection data in the directory layout and the XML of PASCAL VOC."""

from __future__ import annotations

import math
import os
import threading
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from oxidet._arrays import F32, read_only
from oxidet.data._xml import parse_xml
from oxidet.data.image import read_image

VOC_BBOX_LABEL_NAMES = (
    "aeroplane",
    "bicycle",
    "bird",
    "boat",
    "bottle",
    "bus",
    "car",
    "cat",
    "chair",
    "cow",
    "diningtable",
    "dog",
    "horse",
    "motorbike",
    "person",
    "pottedplant",
    "sheep",
    "sofa",
    "train",
    "tvmonitor",
)

Coordinates = Literal["voc", "inclusive", "edges"]
InvalidBoxes = Literal["drop", "raise", "keep"]

# What is subtracted from (y_min, x_min, y_max, x_max).
OFFSETS: dict[str, tuple[float, float, float, float]] = {
    "voc": (1, 1, 1, 1),
    "inclusive": (1, 1, 0, 0),
    "edges": (0, 0, 0, 0),
}
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp")
CORNERS = ("ymin", "xmin", "ymax", "xmax")


class Annotation(NamedTuple):
    """The objects of one image, in the order of the file. The arrays are read-only."""

    bbox: F32
    """(R, 4) float32, (y_min, x_min, y_max, x_max) in pixels."""
    label: NDArray[np.int32]
    """(R,) int32, from 0, indexing the data set's class_names."""
    difficult: NDArray[np.bool_]
    """(R,) bool."""


class VOCObject(NamedTuple):
    """One ``object`` element, as written."""

    name: str
    corners: tuple[float, float, float, float]
    difficult: bool


class VOCBboxDataset:
    """Images with boxes from a directory in the layout of PASCAL VOC.

    ::

        data_dir/Annotations/<id>.xml
        data_dir/ImageSets/Main/<split>.txt      one id a line
        data_dir/JPEGImages/<id>.jpg             or .jpeg, .png, .bmp, .tif, .webp

    ``dataset[i]`` is ``(img, bbox, label, difficult)``:

    ========= ============ ======= =====================================================
    img       (3, H, W)    float32 RGB, 0..255
    bbox      (R, 4)       float32 (y_min, x_min, y_max, x_max) in pixels
    label     (R,)         int32   from 0, indexing ``class_names``
    difficult (R,)         bool    all False unless ``use_difficult``
    ========= ============ ======= =====================================================

    An image without objects has R = 0. Annotations are read when first asked for and kept;
    images are read every time.

    Parameters
    ----------
    data_dir
        The directory that holds ``Annotations``, ``ImageSets`` and ``JPEGImages``.
    split
        Which ``ImageSets/Main/<split>.txt`` lists the images.
    use_difficult
        Whether objects marked difficult are returned.
    return_difficult
        False leaves the fourth element out.
    class_names
        The classes in label order. By default they are collected from every file in
        ``Annotations``, whatever the split, so that all splits of a directory agree: VOC's own 20
        classes in VOC's order if they cover what is found, else what is found, sorted. Names are
        compared without regard to case and surrounding space.
    coordinates
        How the numbers of the files become continuous pixel edges. They are taken as floats and
        never rounded.

        - ``"voc"`` subtracts 1 from all four, as chainercv and simple-faster-rcnn do. VOC
          counts pixels from 1 and includes the last, so these boxes are one pixel short on the
          right and at the bottom; ``eval_detection_voc`` makes up for it.
        - ``"inclusive"`` subtracts 1 from the two minima only: the exact edges of VOC's boxes.
        - ``"edges"`` takes the numbers as they are, for files written from 0-based edges.

        A negative result is set to 0 (files counted from 0 have such coordinates).
    invalid_boxes
        What to do with a box whose minimum is not below its maximum: ``"drop"`` it with a warning,
        ``"raise"`` a ValueError, or ``"keep"`` it, as the originals do; a box of zero size makes
        the regression loss infinite, and the target creators refuse it.

    Raises
    ------
    ValueError
        A file that does not say what it should; the message names the file and, where it concerns
        one, the object, counted from 1.
    OSError
        A file that is missing or cannot be opened.

    References
    ----------
    chainercv and simple-faster-rcnn, ``VOCBboxDataset``.
    """

    def __init__(
        self,
        data_dir: str | os.PathLike[str],
        split: str = "trainval",
        use_difficult: bool = False,
        return_difficult: bool = True,
        class_names: Sequence[str] | None = None,
        *,
        coordinates: Coordinates = "voc",
        invalid_boxes: InvalidBoxes = "drop",
    ) -> None:
        if coordinates not in OFFSETS:
            raise ValueError(f"coordinates: expected one of {list(OFFSETS)}, got {coordinates!r}")
        if invalid_boxes not in ("drop", "raise", "keep"):
            raise ValueError(
                f"invalid_boxes: expected 'drop', 'raise' or 'keep', got {invalid_boxes!r}"
            )
        self.data_dir = Path(data_dir)
        self.split = split
        self.use_difficult = use_difficult
        self.return_difficult = return_difficult
        self.coordinates = coordinates
        self.invalid_boxes = invalid_boxes
        self.ids = _read_ids(self.data_dir, split)
        names = find_class_names(self.data_dir) if class_names is None else tuple(class_names)
        self.class_names = names
        self._labels = {_key(name): label for label, name in enumerate(names)}
        if len(self._labels) != len(names):
            raise ValueError(f"class_names: expected distinct names, got {list(names)}")
        self._annotations: dict[int, Annotation] = {}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> tuple[Any, ...]:
        bbox, label, difficult = self.annotation(index)
        image = read_image(self.image_path(index))
        # Copies: what a transform does in place must not reach the next epoch.
        item = (image, bbox.copy(), label.copy())
        return (*item, difficult.copy()) if self.return_difficult else item

    def __repr__(self) -> str:
        return (
            f"VOCBboxDataset({str(self.data_dir)!r}, split={self.split!r}): "
            f"{len(self)} images, {len(self.class_names)} classes"
        )

    def annotation(self, index: int) -> Annotation:
        """The objects of one image, without reading the image."""
        index = self._position(index)
        with self._lock:
            found = self._annotations.get(index)
        if found is None:
            found = self._read(self._annotation_path(index))
            with self._lock:
                found = self._annotations.setdefault(index, found)
        return found

    def image_path(self, index: int) -> Path:
        """Where the image of one item lies."""
        folder, name = self.data_dir / "JPEGImages", self.ids[self._position(index)]
        for suffix in IMAGE_SUFFIXES:
            for spelling in (suffix, suffix.upper()):
                path = folder / f"{name}{spelling}"
                if path.is_file():
                    return path
        raise FileNotFoundError(f"{folder / name}: expected an image ({', '.join(IMAGE_SUFFIXES)})")

    def _position(self, index: int) -> int:
        if not -len(self) <= index < len(self):
            raise IndexError(f"index: expected less than {len(self)} items, got {index}")
        return index % len(self)

    def _annotation_path(self, index: int) -> Path:
        return self.data_dir / "Annotations" / f"{self.ids[index]}.xml"

    def _read(self, path: Path) -> Annotation:
        bbox: list[list[float]] = []
        label: list[int] = []
        difficult: list[bool] = []
        for number, item in enumerate(read_objects(path), start=1):
            if item.difficult and not self.use_difficult:
                continue
            where = f"{path}: object {number} ({item.name!r})"
            if _key(item.name) not in self._labels:
                raise ValueError(
                    f"{where}: expected a class of {list(self.class_names)}, got {item.name!r}"
                )
            offsets = OFFSETS[self.coordinates]
            box = [max(c - o, 0.0) for c, o in zip(item.corners, offsets, strict=True)]
            if not (box[0] < box[2] and box[1] < box[3]) and self.invalid_boxes != "keep":
                message = (
                    f"{where}: expected y_min < y_max and x_min < x_max, got (y_min, x_min, y_max, "
                    f"x_max) = {tuple(box)}"
                )
                if self.invalid_boxes == "raise":
                    raise ValueError(message)
                warnings.warn(f"{message}; the box is left out", stacklevel=4)
                continue
            bbox.append(box)
            label.append(self._labels[_key(item.name)])
            difficult.append(item.difficult)
        return Annotation(
            read_only(np.array(bbox, np.float32).reshape(-1, 4)),
            read_only(np.array(label, np.int32)),
            read_only(np.array(difficult, np.bool_)),
        )

    # The lock cannot be pickled, and a copy of the data set needs one of its own.
    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in self.__dict__.items() if k != "_lock"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._lock = threading.Lock()


def read_objects(path: str | os.PathLike[str]) -> list[VOCObject]:
    """Every ``object`` of a VOC annotation file, as written: nothing subtracted or left out.

    A missing ``difficult`` means not difficult. ValueError, naming file and object, for XML that
    is broken or has a DTD, and for a name, a corner or a flag that is missing or no number.
    """
    try:
        root = parse_xml(Path(path).read_bytes())
    except ValueError as error:
        raise ValueError(f"{os.fspath(path)}: {error}") from None
    objects = []
    for number, element in enumerate(root.findall("object"), start=1):
        name = (element.findtext("name") or "").strip()
        where = f"{os.fspath(path)}: object {number} ({name!r})"
        if not name:
            raise ValueError(f"{where}: expected a name, got none")
        box = element.find("bndbox")
        if box is None:
            raise ValueError(f"{where}: expected a bndbox, got none")
        y0, x0, y1, x1 = (_number(box.findtext(corner), where, corner) for corner in CORNERS)
        flag = element.findtext("difficult")
        difficult = flag is not None and _number(flag, where, "difficult") != 0
        objects.append(VOCObject(name, (y0, x0, y1, x1), difficult))
    return objects


def find_class_names(data_dir: str | os.PathLike[str]) -> tuple[str, ...]:
    """The classes that occur in the annotations of a VOC directory.

    VOC's 20 in VOC's order if they cover all names found; else the names found, sorted, each in
    the spelling that sorts first. Example: ``("Platelets", "RBC", "WBC")``.
    """
    folder = Path(data_dir) / "Annotations"
    names: dict[str, str] = {}
    for path in sorted(folder.glob("*.xml")):
        for item in read_objects(path):
            names[_key(item.name)] = min(item.name, names.get(_key(item.name), item.name))
    if not names:
        raise ValueError(f"{folder}: expected annotations with at least one object, got none")
    if names.keys() <= set(VOC_BBOX_LABEL_NAMES):
        return VOC_BBOX_LABEL_NAMES
    return tuple(names[key] for key in sorted(names))


def _read_ids(data_dir: Path, split: str) -> tuple[str, ...]:
    folder = data_dir / "ImageSets" / "Main"
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: expected a directory in the layout of PASCAL VOC")
    path = folder / f"{split}.txt"
    if not path.is_file():
        known = sorted(entry.stem for entry in folder.glob("*.txt"))
        raise ValueError(f"split: expected one of {known} ({folder}), got {split!r}")
    try:
        lines = path.read_text(
            encoding="utf-8-sig"
        ).splitlines()  # Windows may begin it with a mark
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: expected text in UTF-8, got {error}") from None
    return tuple(line.strip() for line in lines if line.strip())


def _key(name: str) -> str:
    """What two spellings of the same class have in common."""
    return name.strip().lower()


def _number(text: str | None, where: str, field: str) -> float:
    try:
        value = float(text if text is not None else "")
    except ValueError:
        got = "nothing" if text is None else repr(text.strip())
        raise ValueError(f"{where}: expected a number for {field}, got {got}") from None
    if not math.isfinite(value):
        raise ValueError(f"{where}: expected a finite number for {field}, got {value}")
    return value
