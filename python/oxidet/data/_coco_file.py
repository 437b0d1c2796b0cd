"""A file in COCO's format as columns: small in memory, with a message for whatever is wrong."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from oxidet._arrays import shown
from oxidet.data.bbox_dataset import (
    Fault,
    Record,
    WrittenObject,
    class_key,
)

FIELDS = ("images", "annotations", "categories")
# Not needed for boxes, and most of the file; dropped while it is read.
BULKY = "segmentation"


class CocoFile:
    """What an annotation file of COCO's format says, faults included.

    ValueError where it is no such file at all. Everything else that is wrong becomes a
    :class:`Fault`: of its image, or in ``faults`` where it belongs to none.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.faults: list[Fault] = []
        self._image_faults: dict[Any, list[Fault]] = {}
        content = _load(self.path)
        self.class_names, categories = self._categories(content["categories"])
        self._files, self._sizes = self._images(content["images"])
        self._read_annotations(content["annotations"], categories)

    @property
    def image_ids(self) -> list[Any]:
        """In ascending order; numbers before text."""
        return sorted(self._files, key=lambda key: (isinstance(key, str), key))

    def file_name(self, image_id: Any) -> str:
        """As written; empty if missing."""
        return self._files[image_id]

    def record(self, image_id: Any) -> Record:
        """The objects of an image, boxes as (y, x, y + height, x + width) in float32."""
        first, last = self._spans.get(image_id, (0, 0))
        objects = [self._object(int(row)) for row in self._rows[first:last]]
        faults = self._image_faults.get(image_id, ())
        return Record(objects, faults, self._sizes.get(image_id))

    def _object(self, row: int) -> WrittenObject:
        name = self.class_names[self._labels[row]]
        x, y, width, height = self._boxes[row]
        box = (float(y), float(x), float(y + height), float(x + width))
        area = float(self._areas[row])
        where = f"{self.path}: annotation {row} ({name!r})"
        return WrittenObject(
            name, box, False, bool(self._crowded[row]), None if math.isnan(area) else area, where
        )

    def _categories(self, records: Any) -> tuple[tuple[str, ...], dict[Any, int]]:
        """The names in the order of the file, and the label of every category id."""
        labels: dict[Any, int] = {}
        names: dict[str, str] = {}
        for row, record in enumerate(_dicts(records, "categories", self.path)):
            where = f"{self.path}: category {row}"
            name, key = record.get("name"), record.get("id")
            if not isinstance(name, str) or not name.strip():
                raise ValueError(f"{where}: expected a name, got {shown(name)}")
            if not _is_id(key):
                raise ValueError(f"{where} ({name!r}): expected an id, got {shown(key)}")
            if key in labels:
                raise ValueError(f"{where} ({name!r}): expected distinct ids, got {key!r} again")
            # Roboflow lists a name twice where the project is called like a class of it.
            names.setdefault(class_key(name), name.strip())
            labels[key] = list(names).index(class_key(name))
        if not names:
            raise ValueError(f"{self.path}: expected categories with names, got none")
        return tuple(names.values()), labels

    def _images(self, records: Any) -> tuple[dict[Any, str], dict[Any, tuple[int, int]]]:
        files: dict[Any, str] = {}
        sizes: dict[Any, tuple[int, int]] = {}
        for row, record in enumerate(_dicts(records, "images", self.path)):
            where = f"{self.path}: image {row}"
            key, name = record.get("id"), record.get("file_name")
            if not _is_id(key):
                message = f"{where}: expected an id, got {shown(key)}"
                self.faults.append(Fault("unreadable annotation", message))
                continue
            if key in files:
                message = f"{where}: expected distinct ids, got {key!r} again"
                self.faults.append(Fault("repeated image", message))
                continue
            if not isinstance(name, str) or not name:
                self._blame(key, f"{where} (id {key!r}): expected a file_name, got {shown(name)}")
                name = ""
            files[key] = name
            height, width = record.get("height"), record.get("width")
            if isinstance(height, int) and isinstance(width, int) and min(height, width) > 0:
                sizes[key] = height, width
        return files, sizes

    def _read_annotations(self, records: Any, categories: dict[Any, int]) -> None:
        count = len(records) if isinstance(records, list) else 0
        self._boxes = np.full((count, 4), np.nan, np.float32)
        self._areas = np.full(count, np.nan, np.float32)
        self._labels = np.zeros(count, np.int32)
        self._crowded = np.zeros(count, np.bool_)
        by_image: dict[Any, list[int]] = {}
        for row, record in enumerate(_dicts(records, "annotations", self.path)):
            key = record.get("image_id")
            if not _is_id(key) or key not in self._files:
                message = (
                    f"{self.path}: annotation {row}: expected the id of an image, got {shown(key)}"
                )
                self.faults.append(Fault("unknown image", message))
                continue
            category = record.get("category_id")
            label = categories.get(category) if _is_id(category) else None
            box, area = record.get("bbox"), record.get("area")
            if label is None:
                message = f"expected the id of a category, got {shown(category)}"
                self._blame(key, f"{self.path}: annotation {row}: {message}", "unknown label")
            elif not _is_box(box):
                message = (
                    f"expected bbox [x, y, width, height], four finite numbers, got {shown(box)}"
                )
                self._blame(key, f"{self.path}: annotation {row}: {message}")
            elif area is not None and not _is_number(area):
                message = f"expected a finite number as area, got {shown(area)}"
                self._blame(key, f"{self.path}: annotation {row}: {message}")
            elif (crowd := record.get("iscrowd")) not in (None, 0, 1):
                message = f"expected 0 or 1 as iscrowd, got {shown(crowd)}"
                self._blame(key, f"{self.path}: annotation {row}: {message}")
            else:
                self._boxes[row], self._labels[row] = box, label
                self._areas[row] = math.nan if area is None else area
                self._crowded[row] = bool(crowd)
                by_image.setdefault(key, []).append(row)
        self._spans: dict[Any, tuple[int, int]] = {}
        rows: list[int] = []
        for key, own in by_image.items():
            self._spans[key] = len(rows), len(rows) + len(own)
            rows += own
        self._rows: NDArray[np.int64] = np.array(rows, np.int64)

    def _blame(self, image_id: Any, message: str, kind: str = "unreadable annotation") -> None:
        self._image_faults.setdefault(image_id, []).append(Fault(kind, message))


def _load(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_bytes(), object_hook=_without_masks)
    except RecursionError:
        raise ValueError(f"{path}: expected a JSON file, got one nested too deeply") from None
    except ValueError as error:  # not JSON, not UTF-8, or a number of thousands of digits
        raise ValueError(f"{path}: expected a JSON file ({error})") from None
    if not isinstance(content, dict) or not set(FIELDS) <= content.keys():
        got = sorted(content) if isinstance(content, dict) else type(content).__name__
        raise ValueError(
            f"{path}: expected COCO data with 'images', 'annotations' and 'categories', "
            f"got {shown(got)}"
        )
    return content


def _without_masks(record: dict[str, Any]) -> dict[str, Any]:
    record.pop(BULKY, None)
    return record


def _dicts(records: Any, field: str, path: Path) -> Iterator[dict[str, Any]]:
    if not isinstance(records, list):
        raise ValueError(f"{path}: expected a list of {field}, got {type(records).__name__}")
    for row, record in enumerate(records):
        if not isinstance(record, dict):
            raise ValueError(f"{path}: {field}[{row}]: expected an object, got {shown(record)}")
        yield record


def _is_id(value: Any) -> bool:
    """Some tools write the number 1 as 1.0, which is the same key."""
    return isinstance(value, (int, str)) or (isinstance(value, float) and math.isfinite(value))


def _is_box(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 4 and all(map(_is_number, value))


def _is_number(value: Any) -> bool:
    """Whether it is a number that a float32 holds."""
    return type(value) in (int, float) and abs(value) <= 3.4e38
