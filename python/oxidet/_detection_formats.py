"""The forms in which detections leave and come back: other libraries' objects, and files.

Each form is a pair of methods where a way back exists. What a format cannot hold is said there.
"""

from __future__ import annotations

import csv
import io
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, TypeVar, overload

import numpy as np
from numpy.typing import NDArray

from oxidet import _extras
from oxidet._arrays import F32, as_array, box_shape, integer, listed, shown
from oxidet._arrays import labels as check_labels
from oxidet._arrays import names as as_names
from oxidet._atomic import atomic_write
from oxidet._same_kind import is_torch_tensor, shared_array
from oxidet._text import printable

if TYPE_CHECKING:
    from oxidet.data.voc import Coordinates
    from oxidet.detections import Detection

Self = TypeVar("Self", bound="DetectionFormats")
Path = str | os.PathLike[str]

#: The columns of ``to_csv``; ``oxidet detect --csv`` writes the same.
CSV_COLUMNS = ("path", "width", "height", "name", "label", "score", "x1", "y1", "x2", "y2")
#: Names that are made for labels which do not occur.
MOST_NAMES = 100_000
#: Pixels below which nine decimals may show no width.
NARROW = 2e-9


class DetectionFormats:
    """What :class:`~oxidet.detections.Detections` can become, and be made from."""

    __slots__ = ()

    if TYPE_CHECKING:
        boxes: F32
        labels: NDArray[np.int64]
        scores: F32
        class_names: tuple[str, ...] | None
        image_size: tuple[int, int] | None
        path: str | None

        def __init__(self, boxes: Any, labels: Any, scores: Any = None, **rest: Any) -> None: ...
        def __len__(self) -> int: ...
        def __iter__(self) -> Iterator[Detection]: ...

        @property
        def names(self) -> list[str]: ...
        @property
        def areas(self) -> F32: ...

    # -- arrays of other libraries ------------------------------------------------------------

    def to_torchvision(self) -> dict[str, NDArray[Any]]:
        """``{"boxes": (R, 4) float32 xyxy, "labels": (R,) int64 from 1, "scores": (R,) float32}``.

        NumPy arrays; label 0 is torchvision's background.
        """
        return {
            "boxes": self.boxes.copy(),
            "labels": self.labels + 1,
            "scores": self.scores.copy(),
        }

    @classmethod
    def from_torchvision(cls: type[Self], prediction: Mapping[str, Any], **rest: Any) -> Self:
        """From a torchvision detector's dictionary; labels count from 1, ``scores`` may be missing.

        ``rest`` goes to the constructor. ``class_names`` has no entry for the background.
        """
        labels, boxes, scores = (
            shared_array(value, name) if is_torch_tensor(value) else value
            for name, value in (
                ("labels", prediction["labels"]),
                ("boxes", prediction["boxes"]),
                ("scores", prediction.get("scores")),
            )
        )
        labels = as_array(labels, "labels")
        if labels.size and labels.min() < 1:
            raise ValueError(f"labels: expected at least 1 (0 is background), got {labels.min()}")
        return cls(boxes, labels.astype(np.int64) - 1, scores, **rest)

    def to_chainercv(self) -> tuple[F32, NDArray[np.int32], F32]:
        """``(bbox, label, score)``: (R, 4) float32 yxyx, (R,) int32 from 0, (R,) float32."""
        return self.boxes[:, [1, 0, 3, 2]], self.labels.astype(np.int32), self.scores.copy()

    @classmethod
    def from_chainercv(
        cls: type[Self], bbox: Any, label: Any, score: Any = None, **rest: Any
    ) -> Self:
        """From one image's entry of chainercv's or simple-faster-rcnn's ``predict``.

        ``bbox`` is ``(R, 4)``, ``(y_min, x_min, y_max, x_max)``; ``rest`` goes to the constructor.
        A data set's ground truth is such an entry without scores.
        """
        boxes = box_shape(as_array(bbox, "bbox"), "bbox")
        return cls(boxes[:, [1, 0, 3, 2]], label, score, **rest)

    def to_supervision(self) -> Any:
        """As ``supervision.Detections``, for its annotators, trackers and zones.

        ``xyxy`` and ``confidence`` are float32, ``class_id`` counts from 0, and
        ``data["class_name"]`` has the names. Needs the extra ``supervision``.
        """
        supervision = _extras.require("supervision", extra="supervision")
        return supervision.Detections(
            xyxy=self.boxes.copy(),
            confidence=self.scores.copy(),
            class_id=self.labels.copy(),
            data={"class_name": np.array(self.names, dtype=str)},
        )

    @classmethod
    def from_supervision(cls: type[Self], detections: Any, **rest: Any) -> Self:
        """From a ``supervision.Detections``; masks and tracks are left behind.

        Without ``class_names`` among ``rest``, which goes to the constructor, names are those in
        ``data["class_name"]``; a label that does not occur is named by its number.

        Raises
        ------
        ValueError
            There are boxes without ``class_id`` or with one below 0, or without ``class_names`` one
            that is too large to name all below it.
        """
        count = len(detections.xyxy)
        labels = detections.class_id
        if labels is None:
            if count:
                raise ValueError("class_id: expected one for every box, got None")
            labels = np.zeros(0, np.int64)
        labels = check_labels(labels, "class_id", count)
        given = detections.data.get("class_name")
        if "class_names" not in rest and given is not None and count:
            last = int(labels.max())
            if last >= MOST_NAMES:
                raise ValueError(
                    f"class_id: expected less than {MOST_NAMES} without class_names, got {last}"
                )
            known = {int(label): str(name) for label, name in zip(labels, given, strict=True)}
            rest["class_names"] = [known.get(label, str(label)) for label in range(last + 1)]
        return cls(detections.xyxy, labels, detections.confidence, **rest)

    # -- plain values and tables --------------------------------------------------------------

    def to_dict(self) -> dict[str, Any]:
        """Plain Python values, ready for JSON::

        {"path": str | None, "image_size": [height, width] | None,
         "class_names": [...] | None,
         "detections": [{"box": [x1, y1, x2, y2], "label": 0, "name": "cat", "score": 0.9}]}
        """
        return {
            "path": self.path,
            "image_size": None if self.image_size is None else list(self.image_size),
            "class_names": None if self.class_names is None else list(self.class_names),
            "detections": [{**row._asdict(), "box": list(row.box)} for row in self],
        }

    @classmethod
    def from_dict(cls: type[Self], values: Mapping[str, Any]) -> Self:
        """The inverse of ``to_dict``, bit by bit. ValueError for values that are not its."""
        rows = values.get("detections") if isinstance(values, Mapping) else None
        if not isinstance(rows, Sequence) or isinstance(rows, (str, bytes)):
            raise ValueError(f"detections: expected what to_dict returns, got {shown(values)}")
        _need(rows, "detections", ("box", "label", "score"))
        size = values.get("image_size")
        return cls(
            [row["box"] for row in rows],
            [row["label"] for row in rows],
            [row["score"] for row in rows],
            class_names=values.get("class_names"),
            image_size=None if size is None else (size[0], size[1]),
            path=values.get("path"),
        )

    def to_json(self, indent: int | None = None) -> str:
        """``to_dict`` as JSON text."""
        return json.dumps(self.to_dict(), indent=indent)

    @classmethod
    def from_json(cls: type[Self], text: str | bytes) -> Self:
        """The inverse of ``to_json``."""
        return cls.from_dict(json.loads(text))

    def to_pandas(self) -> Any:
        """A ``pandas.DataFrame`` with a row for each object. Needs the extra ``tables``.

        Columns: ``path``, ``name``, ``label`` (int64), ``score``, ``x1``, ``y1``, ``x2``, ``y2``
        and ``area`` (float32). The tables of several images make one by ``pandas.concat``.
        """
        x1, y1, x2, y2 = self.boxes.T
        return _extras.require("pandas", extra="tables").DataFrame(
            {
                "path": np.full(len(self), self.path, object),
                "name": np.array(self.names, object),
                "label": self.labels,
                "score": self.scores,
                "x1": x1,
                "y1": y1,
                "x2": x2,
                "y2": y2,
                "area": self.areas,
            }
        )

    @overload
    def to_csv(self, file: None = ..., *, header: bool = ...) -> str: ...
    @overload
    def to_csv(self, file: Path, *, header: bool = ...) -> None: ...
    def to_csv(self, file: Path | None = None, *, header: bool = True) -> str | None:
        """A line of text for each object, with the columns of ``oxidet detect --csv``.

        ``path, width, height, name, label, score, x1, y1, x2, y2``; what is not known is empty.
        Numbers are the shortest that read back as the same float32. What cannot be printed, such as
        the end of a line, is escaped in path and name.

        Parameters
        ----------
        file
            Where to write it, whole or not at all; None to return it.
        header
            Whether the first line names the columns.

        Examples
        --------
        >>> from oxidet import Detections
        >>> found = Detections([[1.5, 2, 30, 40.1]], [0], [0.9], class_names=("cat",))
        >>> print(found.to_csv(), end="")
        path,width,height,name,label,score,x1,y1,x2,y2
        ,,,cat,0,0.9,1.5,2.0,30.0,40.1
        """
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        if header:
            writer.writerow(CSV_COLUMNS)
        height, width = self.image_size or ("", "")
        path = "" if self.path is None else printable(self.path)
        for row in self:
            name = printable(row.name)
            writer.writerow((path, width, height, name, row.label, row.score, *row.box))
        if file is None:
            return text.getvalue()
        with atomic_write(file, "w", newline="") as stream:
            stream.write(text.getvalue())
        return None

    # -- COCO ---------------------------------------------------------------------------------

    def to_coco(
        self,
        image_id: int | str,
        *,
        category_ids: Sequence[int] | None = None,
        first_id: int | None = None,
    ) -> list[dict[str, Any]]:
        """Entries of COCO's JSON, a dict an object: a list of results, or of annotations.

        The lists of several images, one behind the other, are what pycocotools' ``loadRes`` takes.

        Parameters
        ----------
        image_id
            The image's in the data set.
        category_ids
            The data set's category of each label. By default they count from 1 in the order of the
            labels, which for a detector of COCO's 90 numbers are COCO's own.
        first_id
            Makes annotations, counted from here, with ``id`` and ``iscrowd`` (0).

        Returns
        -------
        ``{"image_id", "category_id", "bbox": [x, y, width, height], "area", "score"}``, in pixels,
        edges continuous.

        Examples
        --------
        >>> from oxidet import Detections
        >>> Detections([[10, 20, 60, 90.5]], [2], [0.75]).to_coco(image_id=139)
        [{'image_id': 139, 'category_id': 3, 'bbox': [10.0, 20.0, 50.0, 70.5], 'area': 3525.0,
          'score': 0.75}]
        """
        first = None if first_id is None else integer(first_id, "first_id", 0)
        if isinstance(image_id, np.integer):
            image_id = int(image_id)  # or there would be no JSON of it
        ids = None if category_ids is None else _categories(category_ids)
        if ids is not None and len(self) and self.labels.max() >= len(ids):
            raise ValueError(
                f"category_ids: expected one for each label to {self.labels.max()}, got {len(ids)}"
            )
        entries = []
        for number, row in enumerate(self):
            x1, y1, x2, y2 = row.box
            # Nine decimals drop the noise of the subtraction, and none of a float32 in pixels.
            width, height = round(x2 - x1, 9), round(y2 - y1, 9)
            entry: dict[str, Any] = {} if first is None else {"id": first + number}
            entry |= {
                "image_id": image_id,
                "category_id": row.label + 1 if ids is None else ids[row.label],
                "bbox": [x1, y1, width, height],
                "area": round(width * height, 9),
            }
            entries.append(entry | ({} if first is None else {"iscrowd": 0}) | {"score": row.score})
        return entries

    @classmethod
    def from_coco(
        cls: type[Self],
        entries: Iterable[Mapping[str, Any]],
        *,
        category_ids: Sequence[int] | None = None,
        **rest: Any,
    ) -> Self:
        """From the results or annotations of one image: the inverse of :meth:`to_coco`.

        Scores are 1 where an entry has none. ``category_ids`` as there; ``rest`` goes to the
        constructor.

        Raises
        ------
        ValueError
            Entries of several images or without ``bbox`` or ``category_id``, a category that is
            none of ``category_ids``, or a ``bbox`` that is not four numbers.
        """
        rows = listed(entries, "entries", "dicts")
        _need(rows, "entries", ("category_id", "bbox"))
        images = {row["image_id"] for row in rows if "image_id" in row}
        if len(images) > 1:
            raise ValueError(f"entries: expected those of one image, got {len(images)} images")
        numbers = [integer(row["category_id"], "category_id") for row in rows]
        if category_ids is None:
            if min(numbers, default=1) < 1:
                raise ValueError(
                    "category_id: expected at least 1, or category_ids that say which label each "
                    f"category has, got {min(numbers)}"
                )
            labels = [number - 1 for number in numbers]
        else:
            known = {number: label for label, number in enumerate(_categories(category_ids))}
            strange = sorted(set(numbers) - known.keys())
            if strange:
                raise ValueError(f"category_ids: expected {strange[0]} among them, got {[*known]}")
            labels = [known[number] for number in numbers]
        corners = box_shape(
            as_array([row["bbox"] for row in rows], "bbox").astype(np.float64), "bbox"
        )
        corners[:, 2:] += corners[:, :2]
        scores = [row.get("score", 1.0) for row in rows]
        return cls(corners, np.array(labels, np.int64), scores, **rest)

    # -- PASCAL VOC ---------------------------------------------------------------------------

    @overload
    def to_voc_xml(
        self, file: None = ..., *, coordinates: Coordinates = ..., integers: bool = ...
    ) -> str: ...
    @overload
    def to_voc_xml(
        self, file: Path, *, coordinates: Coordinates = ..., integers: bool = ...
    ) -> None: ...
    def to_voc_xml(
        self,
        file: Path | None = None,
        *,
        coordinates: Coordinates = "voc",
        integers: bool = True,
    ) -> str | None:
        """An annotation file of PASCAL VOC, to label pictures by what was found.

        The format has no place for scores: ``filter`` first. ``filename`` and ``folder`` are those
        of ``path``; without ``image_size`` there is no ``size``, which other readers may want.
        ValueError for a name that is empty or has white space around it, which readers drop.

        Parameters
        ----------
        file
            Where to write it, whole or not at all; None to return it.
        coordinates
            How continuous edges become VOC's numbers, as ``VOCBboxDataset`` turns them back under
            the same name. ``"voc"``, the default there and here, adds 1 to all four;
            ``"inclusive"`` adds 1 to the two minima, which is VOC's definition (pixels count from 1
            and the last belongs to the box); ``"edges"`` writes edges as they are. Where the image
            size is known, boxes are cut to it, those that lie outside are left out, and no number
            exceeds it, except in an image that is one pixel wide or high.
        integers
            Round the edges, as many readers take integers alone. False writes up to nine decimals,
            for readers of floats, such as oxidet's, which get back the same float32. In either
            form a box that would vanish is widened to a pixel.

        Examples
        --------
        >>> from oxidet import Detections
        >>> found = Detections([[9, 19, 60.4, 90]], [0], class_names=("cat",), image_size=(99, 120))
        >>> print(found.to_voc_xml(), end="")
        <annotation>
          <folder></folder>
          <filename></filename>
          <size><width>120</width><height>99</height><depth>3</depth></size>
          <segmented>0</segmented>
          <object>
            <name>cat</name>
            <pose>Unspecified</pose>
            <truncated>0</truncated>
            <difficult>0</difficult>
            <bndbox><xmin>10</xmin><ymin>20</ymin><xmax>61</xmax><ymax>91</ymax></bndbox>
          </object>
        </annotation>
        """
        from oxidet.data.voc import OFFSETS

        if coordinates not in OFFSETS:
            raise ValueError(f"coordinates: expected one of {list(OFFSETS)}, got {coordinates!r}")
        path = PurePath(printable(self.path or ""))
        lines = [
            "<annotation>",
            f"  <folder>{_xml(path.parent.name)}</folder>",
            f"  <filename>{_xml(path.name)}</filename>",
        ]
        if self.image_size is not None:
            height, width = self.image_size
            sides = f"<width>{width}</width><height>{height}</height><depth>3</depth>"
            lines.append(f"  <size>{sides}</size>")
        lines.append("  <segmented>0</segmented>")
        for row in self:
            numbers = _voc_corners(row.box, OFFSETS[coordinates], self.image_size, integers)
            if not numbers:
                continue
            box = "".join(f"<{name}>{number}</{name}>" for name, number in numbers)
            lines += [
                "  <object>",
                f"    <name>{_xml(_voc_name(row.name))}</name>",
                "    <pose>Unspecified</pose>",
                "    <truncated>0</truncated>",
                "    <difficult>0</difficult>",
                f"    <bndbox>{box}</bndbox>",
                "  </object>",
            ]
        text = "\n".join([*lines, "</annotation>", ""])
        if file is None:
            return text
        with atomic_write(file, "w") as stream:
            stream.write(text)
        return None

    @classmethod
    def from_voc_xml(
        cls: type[Self],
        text: str | bytes,
        *,
        class_names: Sequence[str] | None = None,
        coordinates: Coordinates = "voc",
        **rest: Any,
    ) -> Self:
        """From the text of an annotation file of PASCAL VOC, objects marked difficult included.

        Scores are 1. A path is what ``VOCBboxDataset`` reads; here it is the file's content.

        Parameters
        ----------
        text
            What the file holds.
        class_names
            The classes in label order, compared without regard to case; by default the names that
            occur, sorted.
        coordinates
            As for :meth:`to_voc_xml`.
        rest
            Further arguments of the constructor. ``image_size`` is the file's, if it has one.

        Raises
        ------
        ValueError
            The text is no annotation, or has a class that is none of ``class_names``.
        """
        from oxidet.data.bbox_dataset import class_key
        from oxidet.data.voc import OFFSETS, parse_record

        if coordinates not in OFFSETS:
            raise ValueError(f"coordinates: expected one of {list(OFFSETS)}, got {coordinates!r}")
        data = text.encode() if isinstance(text, str) else bytes(text)
        record = parse_record(data, "text", OFFSETS[coordinates])
        if record.faults:
            raise ValueError(record.faults[0].message)
        names = [item.name for item in record.objects]
        if class_names is None:
            spellings = {class_key(name): name for name in sorted(names, reverse=True)}
            known = [spellings[key] for key in sorted(spellings)]
        else:
            known = list(as_names(class_names, "class_names"))
        places = {class_key(name): label for label, name in enumerate(known)}
        strange = sorted(name for name in names if class_key(name) not in places)
        if strange:
            raise ValueError(f"class_names: expected {strange[0]!r} among them, got {known}")
        boxes = np.array([item.bbox for item in record.objects], np.float64).reshape(-1, 4)
        rest.setdefault("image_size", record.size)
        return cls(
            np.maximum(boxes, 0)[:, [1, 0, 3, 2]],  # files counted from 0 have coordinates below
            np.array([places[class_key(name)] for name in names], np.int64),
            class_names=known,
            **rest,
        )


def _need(rows: Sequence[Any], argument: str, keys: Sequence[str]) -> None:
    """ValueError that names the first row which is no mapping or lacks one of the keys."""
    for number, row in enumerate(rows):
        if not isinstance(row, Mapping):
            raise ValueError(f"{argument}: expected dicts, got {shown(row)} in row {number}")
        for key in keys:
            if key not in row:
                raise ValueError(f"{argument}: expected {key!r} in row {number}, got {[*row]}")


def _categories(category_ids: Sequence[int]) -> list[int]:
    """The category of each label, each another one."""
    numbers = [
        integer(number, "category_ids")
        for number in listed(category_ids, "category_ids", "integers")
    ]
    if len(set(numbers)) < len(numbers):
        twice = next(number for number in numbers if numbers.count(number) > 1)
        raise ValueError(f"category_ids: expected every category once, got {twice} again")
    return numbers


def _voc_corners(
    box: Sequence[float],
    offsets: Sequence[float],
    image_size: tuple[int, int] | None,
    integers: bool,
) -> list[tuple[str, str]]:
    """The corners by name, in VOC's order; ``offsets`` counts y before x. None of a box outside."""
    lows, highs = [], []
    for axis in (0, 1):
        low, high = box[axis], box[axis + 2]
        if image_size is not None:
            side = image_size[1 - axis]
            if high <= 0 or low >= side:
                return []
            low, high = max(low, 0), min(high, side)
        if integers:
            low, high = round(low), round(high)
        if high - low < NARROW:
            high = low + 1
        if image_size is not None:
            # What ends at the image's edge ends a pixel earlier where numbers count from 1.
            high = min(high, max(side - offsets[3 - axis], 1))
            if high - low < NARROW:
                low = high - 1
        lows.append(low + offsets[1 - axis])
        highs.append(high + offsets[3 - axis])
    names = ("xmin", "ymin", "xmax", "ymax")
    return [(name, _decimal(value)) for name, value in zip(names, lows + highs, strict=True)]


def _voc_name(name: str) -> str:
    """A class name, if readers see it as it is."""
    if not name or name != name.strip():
        raise ValueError(
            f"class_names: expected names without white space around them, got {name!r}"
        )
    return name


def _decimal(value: float) -> str:
    """
    >>> _decimal(3), _decimal(11.100000000000001), _decimal(7.0)
    ('3', '11.1', '7')
    """
    return f"{value:.9f}".rstrip("0").rstrip(".")


def _xml(text: str) -> str:
    """Text between tags. A few characters have no place in XML, not even escaped."""
    if re.search("[^\t\n\r -\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]", text):
        raise ValueError(f"class_names: expected text that XML can hold, got {text!r}")
    escaped = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return escaped.replace("\r", "&#13;")  # or readers make a line feed of it
