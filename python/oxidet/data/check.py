"""Looking through a data set for everything that would spoil a training, without stopping."""

from __future__ import annotations

import hashlib
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from oxidet._arrays import integer, number
from oxidet._text import printable
from oxidet.data.bbox_dataset import (
    BboxDataset,
    Fault,
    Record,
    WrittenObject,
    class_key,
    clipped,
    described,
    empty_message,
    is_empty,
    leaves_image,
    outside_message,
    unknown_label,
)
from oxidet.data.image import read_image

# In the order of reports.
KINDS = (
    "missing image",
    "unreadable image",
    "missing annotation",
    "unreadable annotation",
    "unknown image",
    "repeated image",
    "unknown label",
    "empty box",
    "box outside",
    "wrong size",
    "duplicate image",
    "duplicate box",
)
NOTES = ("image without objects", "tiny box")
SLACK = 1.0  # pixels that a box may leave the image by: files count from 0 or from 1
PERCENTILES = (5, 50, 95)
SHOWN = 5  # messages of a kind in the text; all are in the report
SIZES_SHOWN = 4


@dataclass(frozen=True)
class ClassSummary:
    """One line of the class table."""

    name: str
    images: int
    """How many show the class."""
    objects: int
    """Objects with a box, difficult ones and crowds included."""
    difficult: int
    crowd: int
    sizes: tuple[float, ...]
    """Square root of the box's area in pixels, of the 5th, 50th and 95th percentile of objects;
    empty where there are none."""


@dataclass(frozen=True)
class DataReport:
    """What :func:`check_data` found. ``print`` shows it; ``ok`` says whether all is well."""

    data: str
    """What was looked through."""
    images: int
    """Listed, whether they can be read or not."""
    problems: tuple[Fault, ...]
    """What should be mended, by kind."""
    notes: tuple[Fault, ...]
    """What may be as it should: images without objects, tiny boxes."""
    classes: tuple[ClassSummary, ...]
    image_sizes: dict[tuple[int, int], int] = field(default_factory=dict)
    """How many images have which (height, width), the most frequent first."""

    @property
    def ok(self) -> bool:
        """Whether there are no problems."""
        return not self.problems

    @property
    def objects(self) -> int:
        """How many there are in all."""
        return sum(each.objects for each in self.classes)

    def counts(self) -> dict[str, int]:
        """How many problems and notes of which kind."""
        found = Counter(fault.kind for fault in (*self.problems, *self.notes))
        return {kind: found[kind] for kind in (*KINDS, *NOTES) if kind in found}

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {
            "data": self.data,
            "ok": self.ok,
            "images": self.images,
            "objects": self.objects,
            "counts": self.counts(),
            "classes": [
                {
                    "name": each.name,
                    "images": each.images,
                    "objects": each.objects,
                    "difficult": each.difficult,
                    "crowd": each.crowd,
                    "sizes": [round(size, 2) for size in each.sizes],
                }
                for each in self.classes
            ],
            "image_sizes": [
                {"height": size[0], "width": size[1], "images": count}
                for size, count in self.image_sizes.items()
            ],
            "problems": [_plain(fault) for fault in self.problems],
            "notes": [_plain(fault) for fault in self.notes],
        }

    def __str__(self) -> str:
        lines = [f"{self.data}: {self.images} images, {self.objects} objects", ""]
        lines += self._class_table()
        sizes = list(self.image_sizes.items())
        if sizes:
            shown = ", ".join(f"{h} x {w} ({count})" for (h, w), count in sizes[:SIZES_SHOWN])
            more = f" and {len(sizes) - SIZES_SHOWN} more" if len(sizes) > SIZES_SHOWN else ""
            lines += ["", f"image sizes, height x width: {shown}{more}"]
        counts = self.counts()
        lines += ["", f"problems: {len(self.problems) or 'none'}"]
        lines += _listed(self.problems, KINDS, counts)
        if self.notes:
            lines += ["", f"notes: {len(self.notes)}"]
            lines += _listed(self.notes, NOTES, counts)
        return "\n".join(lines)

    __repr__ = __str__

    def _class_table(self) -> list[str]:
        flagged = [
            name for name in ("difficult", "crowd") if any(vars(c)[name] for c in self.classes)
        ]
        head = ["class", "images", "objects", *flagged, *(f"size {p}%" for p in PERCENTILES)]
        rows = [
            [
                printable(each.name),
                str(each.images),
                str(each.objects),
                *(str(vars(each)[name]) for name in flagged),
                *([f"{size:.0f}" for size in each.sizes] or ["-"] * len(PERCENTILES)),
            ]
            for each in self.classes
        ]
        widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
        return [
            "  ".join(
                cell.ljust(width) if k == 0 else cell.rjust(width)
                for k, (cell, width) in enumerate(zip(row, widths, strict=True))
            )
            for row in [head, *rows]
        ]


def check_data(
    dataset: BboxDataset,
    *,
    tiny: float = 4.0,
    num_workers: int = 2,
    on_image: Callable[[], None] | None = None,
) -> DataReport:
    """Read every image and annotation of a data set and report all that is wrong with them.

    Problems are: images that are missing or cannot be read; annotations that are missing, broken
    or of no image; images listed or contained twice (the same pixels in another file); names that
    are no class; boxes without area, boxes more than a pixel outside of the image, the same box
    twice; an image of another size than its annotation says, as where a camera was held upright
    and the EXIF orientation not heeded.

    Notes are images without objects and tiny boxes.

    Parameters
    ----------
    dataset
        A data set of files, such as :class:`VOCBboxDataset` or :class:`COCODetection`. What it has
        skipped is looked at as well; open it with ``on_error="skip"`` where it does not open
        otherwise.
    tiny
        Boxes with a side below this are tiny, in pixels.
    num_workers
        Threads that read images.
    on_image
        Called after each image, possibly from another thread.

    Returns
    -------
    :class:`DataReport`.
    """
    if not isinstance(dataset, BboxDataset):
        raise TypeError(
            f"dataset: expected one of files, such as VOCBboxDataset, got {type(dataset).__name__}"
        )
    tiny = number(tiny, "tiny", 0)
    lock = threading.Lock()

    def look(image_id: Any) -> _Seen:
        seen = _look(dataset, image_id, tiny)
        if on_image is not None:
            with lock:
                on_image()
        return seen

    with ThreadPoolExecutor(integer(num_workers, "num_workers", 1), "oxidet-check") as executor:
        images = list(executor.map(look, dataset.listed_ids))
    problems = [*dataset._faults(), *(fault for seen in images for fault in seen.problems)]
    problems += _duplicates(images)
    notes = [fault for seen in images for fault in seen.notes]
    sizes = Counter(seen.size for seen in images if seen.size is not None)
    return DataReport(
        data=repr(dataset).rpartition(":")[0],
        images=len(images),
        problems=tuple(sorted(problems, key=lambda fault: KINDS.index(fault.kind))),
        notes=tuple(sorted(notes, key=lambda fault: NOTES.index(fault.kind))),
        classes=_summaries(dataset.class_names, images),
        image_sizes=dict(sorted(sizes.items(), key=lambda entry: (-entry[1], entry[0]))),
    )


@dataclass
class _Seen:
    """What one image gives."""

    problems: list[Fault] = field(default_factory=list)
    notes: list[Fault] = field(default_factory=list)
    objects: list[tuple[int, WrittenObject, float]] = field(default_factory=list)
    """Label, object and size of those with a class and an area."""
    path: Path | None = None
    size: tuple[int, int] | None = None
    digest: bytes = b""


def _look(dataset: BboxDataset, image_id: Any, tiny: float) -> _Seen:
    seen = _Seen()
    _look_at_image(dataset, image_id, seen)
    record = Record()
    try:
        record = dataset._record(image_id)
    except OSError as error:
        seen.problems.append(Fault("missing annotation", described(error)))
    seen.problems += record.faults
    if seen.size is not None and record.size is not None and record.size != seen.size:
        message = f"expected height and width {record.size} as annotated, got {seen.size}"
        turned = ", turned" if record.size == seen.size[::-1] else ""
        seen.problems.append(Fault("wrong size", f"{seen.path}: {message}{turned}"))
    already: set[tuple[Any, ...]] = set()
    for item in record.objects:
        _look_at_object(dataset, item, tiny, seen)
        key = (class_key(item.name), item.bbox)
        if key in already:
            message = f"{item.where}: expected every box once, got {item.bbox} again"
            seen.problems.append(Fault("duplicate box", message))
        already.add(key)
    if not record.objects and not seen.problems:
        seen.notes.append(Fault("image without objects", f"{seen.path}: no objects"))
    return seen


def _look_at_image(dataset: BboxDataset, image_id: Any, seen: _Seen) -> None:
    try:
        seen.path = dataset._image_path(image_id)
    except OSError as error:
        seen.problems.append(Fault("missing image", described(error)))
        return
    except ValueError:
        return  # no name: a fault of the annotation
    try:
        pixels = read_image(seen.path)
    except (OSError, ValueError) as error:
        seen.problems.append(Fault("unreadable image", described(error)))
        return
    except MemoryError:
        seen.problems.append(Fault("unreadable image", f"{seen.path}: too large for the memory"))
        return
    seen.size = pixels.shape[1], pixels.shape[2]
    # The memory behind the view, without a copy.
    seen.digest = hashlib.blake2b(pixels.transpose(1, 2, 0).data, digest_size=16).digest()


def _look_at_object(dataset: BboxDataset, item: WrittenObject, tiny: float, seen: _Seen) -> None:
    label = dataset._labels.get(class_key(item.name))
    if label is None:
        seen.problems.append(Fault("unknown label", unknown_label(item, dataset.class_names)))
    box = dataset._placed(item.bbox)
    if is_empty(box):
        seen.problems.append(Fault("empty box", empty_message(item, box)))
        return
    if seen.size is not None:
        grown = (item.bbox[0] + SLACK, item.bbox[1] + SLACK)
        shrunk = (item.bbox[2] - SLACK, item.bbox[3] - SLACK)
        # Either end may be the one outside, so each is moved inwards by the slack on its own.
        if leaves_image((*grown, *grown), seen.size) or leaves_image((*shrunk, *shrunk), seen.size):
            seen.problems.append(Fault("box outside", outside_message(item, seen.size)))
        box = clipped(box, seen.size)
    height, width = box[2] - box[0], box[3] - box[1]
    if 0 < min(height, width) < tiny:
        message = f"{item.where}: a box of {height:g} x {width:g} pixels (height x width)"
        seen.notes.append(Fault("tiny box", message))
    if label is not None and min(height, width) > 0:
        seen.objects.append((label, item, float(np.sqrt(height * width))))


def _duplicates(images: Sequence[_Seen]) -> list[Fault]:
    """Images with the pixels of an earlier one."""
    first: dict[tuple[Any, ...], Path | None] = {}
    faults = []
    for seen in images:
        if seen.size is None:
            continue
        key = (seen.size, seen.digest)
        if key in first:
            message = f"{seen.path}: expected different images, got the pixels of {first[key]}"
            faults.append(Fault("duplicate image", message))
        first.setdefault(key, seen.path)
    return faults


def _summaries(class_names: Sequence[str], images: Sequence[_Seen]) -> tuple[ClassSummary, ...]:
    entries: list[list[tuple[int, WrittenObject, float]]] = [[] for _ in class_names]
    for place, seen in enumerate(images):
        for label, item, size in seen.objects:
            entries[label].append((place, item, size))
    return tuple(
        ClassSummary(
            name=name,
            images=len({place for place, _, _ in found}),
            objects=len(found),
            difficult=sum(item.difficult for _, item, _ in found),
            crowd=sum(item.crowd for _, item, _ in found),
            sizes=tuple(
                float(value) for value in np.percentile([size for _, _, size in found], PERCENTILES)
            )
            if found
            else (),
        )
        for name, found in zip(class_names, entries, strict=True)
    )


def _plain(fault: Fault) -> dict[str, str]:
    return {"kind": fault.kind, "message": fault.message}


def _listed(faults: Sequence[Fault], kinds: Sequence[str], counts: dict[str, int]) -> list[str]:
    lines = []
    for kind in kinds:
        messages = [fault.message for fault in faults if fault.kind == kind]
        if messages:
            lines.append(f"  {kind}: {counts[kind]}")
            lines += [f"    {printable(message)}" for message in messages[:SHOWN]]
            if len(messages) > SHOWN:
                lines.append(f"    ... and {len(messages) - SHOWN} more")
    return lines
