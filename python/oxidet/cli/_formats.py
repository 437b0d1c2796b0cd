"""Results of ``oxidet detect`` as files: JSON, CSV, and the JSON of COCO.

They are written from the journal record by record, so that a hundred thousand images need no more
memory than one.
"""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, TextIO

from oxidet._atomic import atomic_write

Record = dict[str, Any]

CSV_COLUMNS = ("path", "width", "height", "name", "label", "score", "x1", "y1", "x2", "y2")


def opened(
    file: str, tag: str | None, newline: str | None = None
) -> AbstractContextManager[TextIO]:
    """A file that appears whole or not at all, or standard output for ``"-"``."""
    if file == "-":
        return nullcontext(sys.stdout)
    return atomic_write(file, "w", newline=newline, tag=tag)


def write_json(
    file: str, header: Record, records: Iterable[Record], *, tag: str | None = None
) -> None:
    """Everything, a line an image: the header's entries, ``"images"`` and ``"errors"``."""
    errors = []
    with opened(file, tag) as stream:
        stream.write("{\n")
        for key, value in header.items():
            stream.write(f" {_text(key)}: {_text(value)},\n")
        stream.write(' "images": [')
        separator = "\n  "
        for record in records:
            if "error" in record:
                errors.append(record)
                continue
            stream.write(separator + _text(record))
            separator = ",\n  "
        stream.write("],\n" if separator == "\n  " else "\n ],\n")
        stream.write(' "errors": [')
        stream.write(",".join(f"\n  {_text(record)}" for record in errors))
        stream.write("\n ]\n}\n" if errors else "]\n}\n")


def write_csv(file: str, records: Iterable[Record], *, tag: str | None = None) -> None:
    """A line for every object."""
    with opened(file, tag, newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(CSV_COLUMNS)
        for record in records:
            if "error" in record:
                continue
            image = (decodable(record["path"]), record["width"], record["height"])
            columns = (record[key] for key in ("names", "labels", "scores", "boxes"))
            for name, label, score, box in zip(*columns, strict=True):
                writer.writerow((*image, name, label, score, *box))


def decodable(path: str) -> str:
    """A path as a file in UTF-8 can hold it: bytes that are no UTF-8 are written as ``\\udcff``.

    So is a carriage return, as ``\\r``: not every version of ``csv`` quotes it.
    """
    return path.replace("\r", "\\r").encode("utf-8", "backslashreplace").decode()


def write_coco(
    file: str, class_names: Sequence[str], records: Iterable[Record], *, tag: str | None = None
) -> None:
    """A data set as COCO's: images, categories, and annotations, which have a score.

    Categories count from 1, in the order of the labels. The records are gone through twice.
    """
    with opened(file, tag) as stream:
        stream.write('{\n "images": [')
        separator = "\n  "
        found = (record for record in records if "error" not in record)
        for number, record in enumerate(found, start=1):
            image = {
                "id": number,
                "file_name": record["path"],
                "width": record["width"],
                "height": record["height"],
            }
            stream.write(separator + _text(image))
            separator = ",\n  "
        stream.write('],\n "categories": [')
        categories = [
            {"id": label, "name": name} for label, name in enumerate(class_names, start=1)
        ]
        stream.write(",".join(f"\n  {_text(category)}" for category in categories))
        stream.write('\n ],\n "annotations": [')
        separator, annotation = "\n  ", 0
        found = (record for record in records if "error" not in record)
        for number, record in enumerate(found, start=1):
            columns = (record[key] for key in ("labels", "scores", "boxes"))
            for label, score, (x1, y1, x2, y2) in zip(*columns, strict=True):
                annotation += 1
                row = {
                    "id": annotation,
                    "image_id": number,
                    "category_id": label + 1,
                    "bbox": [x1, y1, round(x2 - x1, 4), round(y2 - y1, 4)],
                    "area": round((x2 - x1) * (y2 - y1), 2),
                    "iscrowd": 0,
                    "score": score,
                }
                stream.write(separator + _text(row))
                separator = ",\n  "
        stream.write("]\n}\n")


def _text(value: Any) -> str:
    return json.dumps(value, allow_nan=False)
