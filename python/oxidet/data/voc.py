"""Detection data in the directory layout and the XML of PASCAL VOC."""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal
from xml.etree.ElementTree import Element

from oxidet._arrays import F32
from oxidet.data._xml import parse_xml
from oxidet.data.bbox_dataset import (
    Annotation,
    BboxDataset,
    Box,
    Fault,
    InvalidBoxes,
    OnError,
    Outside,
    Record,
    WrittenObject,
    check_options,
    class_key,
    given_class_names,
    read_lines,
)

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

# What is subtracted from (y_min, x_min, y_max, x_max).
OFFSETS: dict[str, Box] = {
    "voc": (1, 1, 1, 1),
    "inclusive": (1, 1, 0, 0),
    "edges": (0, 0, 0, 0),
}
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp")
CORNERS = ("ymin", "xmin", "ymax", "xmax")
# An object takes some 300 bytes, so this is more than ten thousand of them. What is larger is
# refused unread: parsed, it can take a hundred times its size of memory.
LARGEST_XML = 4 * 2**20  # bytes


class VOCBboxDataset(BboxDataset):
    """Images with boxes from a directory in the layout of PASCAL VOC.

    ::

        data_dir/Annotations/<id>.xml
        data_dir/ImageSets/Main/<split>.txt      one id a line
        data_dir/JPEGImages/<id>.jpg             or .jpeg, .png, .bmp, .tif, .webp

    A directory without ``Annotations`` may hold images and XML files side by side, as LabelImg
    and Roboflow write them: ``data_dir/<split>/<id>.xml`` and ``data_dir/<split>/<id>.jpg``.

    ``dataset[i]`` is ``(img, bbox, label, difficult)``:

    ========= ============ ======= =====================================================
    img       (3, H, W)    float32 RGB, 0..255
    bbox      (R, 4)       float32 (y_min, x_min, y_max, x_max) in pixels
    label     (R,)         int32   from 0, indexing ``class_names``
    difficult (R,)         bool    all False unless ``use_difficult``
    ========= ============ ======= =====================================================

    An image without objects has R = 0. Annotations are read when first asked for and kept;
    images are read every time. ``annotation(i)``, ``image_path(i)``, ``image_size(i)`` and
    ``image_ids`` read no pixels.

    Parameters
    ----------
    data_dir
        The directory that holds ``Annotations``, ``ImageSets`` and ``JPEGImages``.
    split
        Which ``ImageSets/Main/<split>.txt`` lists the images; None for every annotated image, and
        then no list is needed. An id that is listed twice counts once, with a warning.
    use_difficult
        Whether objects marked difficult are returned.
    return_difficult
        False leaves the fourth element out.
    class_names
        The classes in label order, or a text file with one a line. By default they are collected
        from every annotation, whatever the split, so that all splits of a directory agree: VOC's
        own 20 classes in VOC's order if they cover what is found, else what is found, sorted.
        Names are compared without regard to case and surrounding space.
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
    outside
        What to do with a box that reaches beyond the image: ``"keep"`` it, as the originals do,
        ``"clip"`` it or ``"raise"`` a ValueError. The latter two read the heads of the images.
    on_error
        ``"raise"`` an error when an annotation or image is asked for that cannot be had;
        ``"skip"`` reads all annotations at once and leaves such images out, each with a warning
        and an entry in ``skipped``. The image goes as a whole, as its other objects would teach
        a detector to take this one for background. An image whose pixels turn out to be damaged
        raises an ImageError in either case: see ``DataLoader(on_error=...)``.

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

    data_dir: Path

    def __init__(
        self,
        data_dir: str | os.PathLike[str],
        split: str | None = "trainval",
        use_difficult: bool = False,
        return_difficult: bool = True,
        class_names: Sequence[str] | str | os.PathLike[str] | None = None,
        *,
        coordinates: Coordinates = "voc",
        invalid_boxes: InvalidBoxes = "drop",
        outside: Outside = "keep",
        on_error: OnError = "raise",
    ) -> None:
        if coordinates not in OFFSETS:
            raise ValueError(f"coordinates: expected one of {list(OFFSETS)}, got {coordinates!r}")
        check_options(invalid_boxes, outside, on_error)
        self.data_dir = Path(data_dir)
        self.split = split
        self.return_difficult = return_difficult
        self.coordinates = coordinates
        self._repeated: list[Fault] = []
        self._annotation_dir, self._image_dir, ids = self._find(self.data_dir, split)
        names = given_class_names(class_names)
        if names is None:
            names = find_class_names(self.data_dir, on_error=on_error)
        super().__init__(
            ids,
            names,
            use_difficult=use_difficult,
            use_crowded=True,  # which VOC does not know
            invalid_boxes=invalid_boxes,
            outside=outside,
            on_error=on_error,
        )

    @property
    def ids(self) -> tuple[str, ...]:
        """The originals' name of ``image_ids``."""
        return self.image_ids

    def __repr__(self) -> str:
        skipped = f", {len(self.skipped)} skipped" if self.skipped else ""
        return (
            f"VOCBboxDataset({str(self.data_dir)!r}, split={self.split!r}): "
            f"{len(self)} images, {len(self.class_names)} classes{skipped}"
        )

    def _item(self, image: F32, annotation: Annotation) -> tuple[Any, ...]:
        item = (image, annotation.bbox, annotation.label)
        return (*item, annotation.difficult) if self.return_difficult else item

    def _image_path(self, image_id: Any) -> Path:
        for suffix in IMAGE_SUFFIXES:
            for spelling in (suffix, suffix.upper()):
                path = self._image_dir / f"{image_id}{spelling}"
                if path.is_file():
                    return path
        raise FileNotFoundError(
            f"{self._image_dir / image_id}: expected an image ({', '.join(IMAGE_SUFFIXES)})"
        )

    def _record(self, image_id: Any) -> Record:
        return read_record(self._annotation_dir / f"{image_id}.xml", OFFSETS[self.coordinates])

    def _placed(self, box: Box) -> Box:
        return max(box[0], 0.0), max(box[1], 0.0), max(box[2], 0.0), max(box[3], 0.0)

    def _faults(self) -> Sequence[Fault]:
        return self._repeated

    def _find(self, data_dir: Path, split: str | None) -> tuple[Path, Path, tuple[str, ...]]:
        """The folders of annotations and of images, and the ids of the split."""
        annotations = data_dir / "Annotations"
        if split is None or not (data_dir / "ImageSets" / "Main").is_dir():
            mixed = data_dir if split is None else data_dir / split
            if split is None and annotations.is_dir():
                found = annotations, data_dir / "JPEGImages"
            elif not annotations.is_dir() and any(mixed.glob("*.xml")):
                found = mixed, mixed
            else:
                folder = annotations if split is None else data_dir / "ImageSets" / "Main"
                raise FileNotFoundError(
                    f"{folder}: expected a directory in the layout of PASCAL VOC"
                )
            return *found, tuple(path.stem for path in sorted(found[0].glob("*.xml")))
        path = data_dir / "ImageSets" / "Main" / f"{split}.txt"
        if not path.is_file():
            known = sorted(entry.stem for entry in path.parent.glob("*.txt"))
            raise ValueError(f"split: expected one of {known} ({path.parent}), got {split!r}")
        ids: dict[str, None] = {}
        for line in read_lines(path):
            if line in ids:
                message = f"{path}: expected every id once, got {line!r} again"
                self._repeated.append(Fault("repeated image", message))
                warnings.warn(f"{message}; it counts once", stacklevel=4)
            ids[line] = None
        return annotations, data_dir / "JPEGImages", tuple(ids)


def read_objects(path: str | os.PathLike[str]) -> list[WrittenObject]:
    """Every ``object`` of a VOC annotation file, as written: nothing subtracted or left out.

    A missing ``difficult`` means not difficult. ValueError, naming file and object, for XML that
    is broken, has a DTD or is larger than 4 MiB, and for a name, a corner or a flag that is
    missing or no number.
    """
    record = read_record(path, OFFSETS["edges"])
    if record.faults:
        raise ValueError(record.faults[0].message)
    return list(record.objects)


def read_record(path: str | os.PathLike[str], offsets: Box) -> Record:
    """All that an annotation file says, with a fault for every object that cannot be read."""
    name = os.fspath(path)
    try:
        data = _read_small(name)
    except ValueError as error:
        return Record(faults=[Fault("unreadable annotation", f"{name}: {error}")])
    return parse_record(data, name, offsets)


def parse_record(data: bytes, name: str, offsets: Box) -> Record:
    """The same of the content of an annotation file; messages call it ``name``."""
    try:
        root = parse_xml(data)
    except ValueError as error:
        return Record(faults=[Fault("unreadable annotation", f"{name}: {error}")])
    objects, faults = [], []
    for number, element in enumerate(root.findall("object"), start=1):
        label = (element.findtext("name") or "").strip()
        where = f"{name}: object {number} ({label!r})"
        try:
            objects.append(_object(element, label, where, offsets))
        except ValueError as error:
            faults.append(Fault("unreadable annotation", str(error)))
    return Record(objects, faults, _size(root.find("size")))


def find_class_names(
    data_dir: str | os.PathLike[str], *, on_error: OnError = "raise"
) -> tuple[str, ...]:
    """The classes that occur in the annotations of a VOC directory.

    VOC's 20 in VOC's order if they cover all names found; else the names found, sorted, each in
    the spelling that sorts first. Example: ``("Platelets", "RBC", "WBC")``. Files that cannot be
    read raise ValueError, or with ``on_error="skip"`` say nothing.
    """
    folder = Path(data_dir) / "Annotations"
    if folder.is_dir():
        paths = [*folder.glob("*.xml")]
    else:
        paths = [*Path(data_dir).glob("*.xml"), *Path(data_dir).glob("*/*.xml")]
    names: dict[str, str] = {}
    for path in sorted(paths):
        record = read_record(path, OFFSETS["edges"])
        if record.faults and on_error == "raise":
            raise ValueError(record.faults[0].message)
        for item in record.objects:
            key = class_key(item.name)
            names[key] = min(item.name, names.get(key, item.name))
    if not names:
        raise ValueError(f"{folder}: expected annotations with at least one object, got none")
    if names.keys() <= set(VOC_BBOX_LABEL_NAMES):
        return VOC_BBOX_LABEL_NAMES
    return tuple(names[key] for key in sorted(names))


def _read_small(name: str) -> bytes:
    with open(name, "rb") as file:
        data = file.read(LARGEST_XML + 1)
    if len(data) > LARGEST_XML:
        size = os.path.getsize(name)
        raise ValueError(f"expected an annotation of at most {LARGEST_XML} bytes, got {size}")
    return data


def _object(element: Element, label: str, where: str, offsets: Box) -> WrittenObject:
    if not label:
        raise ValueError(f"{where}: expected a name, got none")
    box = element.find("bndbox")
    if box is None:
        raise ValueError(f"{where}: expected a bndbox, got none")
    y0, x0, y1, x1 = (_number(box.findtext(corner), where, corner) for corner in CORNERS)
    flag = element.findtext("difficult")
    difficult = flag is not None and _number(flag, where, "difficult") != 0
    placed = (y0 - offsets[0], x0 - offsets[1], y1 - offsets[2], x1 - offsets[3])
    return WrittenObject(label, placed, difficult, False, None, where)


def _size(element: Element | None) -> tuple[int, int] | None:
    """The image's height and width, where the file says them; many a tool writes zeros."""
    if element is None:
        return None
    try:
        height, width = (int(element.findtext(side) or 0) for side in ("height", "width"))
    except ValueError:
        return None
    return (height, width) if height > 0 and width > 0 else None


def _number(text: str | None, where: str, field: str) -> float:
    try:
        value = float(text if text is not None else "")
    except ValueError:
        got = "nothing" if text is None else repr(text.strip())
        raise ValueError(f"{where}: expected a number for {field}, got {got}") from None
    if not math.isfinite(value):
        raise ValueError(f"{where}: expected a finite number for {field}, got {value}")
    return value
