"""Detection data in COCO's format."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from oxidet._arrays import F32
from oxidet.data._coco_file import CocoFile
from oxidet.data.bbox_dataset import (
    Annotation,
    BboxDataset,
    Fault,
    InvalidBoxes,
    OnError,
    Outside,
    Record,
    check_options,
    given_class_names,
)

COCO_BBOX_LABEL_NAMES = (
    "person",
    "bicycle",
    "car",
    "motorcycle",
    "airplane",
    "bus",
    "train",
    "truck",
    "boat",
    "traffic light",
    "fire hydrant",
    "stop sign",
    "parking meter",
    "bench",
    "bird",
    "cat",
    "dog",
    "horse",
    "sheep",
    "cow",
    "elephant",
    "bear",
    "zebra",
    "giraffe",
    "backpack",
    "umbrella",
    "handbag",
    "tie",
    "suitcase",
    "frisbee",
    "skis",
    "snowboard",
    "sports ball",
    "kite",
    "baseball bat",
    "baseball glove",
    "skateboard",
    "surfboard",
    "tennis racket",
    "bottle",
    "wine glass",
    "cup",
    "fork",
    "knife",
    "spoon",
    "bowl",
    "banana",
    "apple",
    "sandwich",
    "orange",
    "broccoli",
    "carrot",
    "hot dog",
    "pizza",
    "donut",
    "cake",
    "chair",
    "couch",
    "potted plant",
    "bed",
    "dining table",
    "toilet",
    "tv",
    "laptop",
    "mouse",
    "remote",
    "keyboard",
    "cell phone",
    "microwave",
    "oven",
    "toaster",
    "sink",
    "refrigerator",
    "book",
    "clock",
    "vase",
    "scissors",
    "teddy bear",
    "hair drier",
    "toothbrush",
)

SPLITS: dict[str, tuple[str, ...]] = {
    "2014": ("train", "val", "minival", "valminusminival"),
    "2017": ("train", "val"),
}


class COCODetection(BboxDataset):
    """Images with boxes from a folder and an annotation file in COCO's format.

    ``dataset[i]`` is ``(img, bbox, label, difficult)``, and with ``use_crowded`` a fifth, crowd:

    ========= ============ ======= =====================================================
    img       (3, H, W)    float32 RGB, 0..255
    bbox      (R, 4)       float32 (y_min, x_min, y_max, x_max) in pixels
    label     (R,)         int32   from 0, indexing ``class_names``
    difficult (R,)         bool    True for crowds, over which evaluation passes
    crowd     (R,)         bool    COCO's ``iscrowd``
    ========= ============ ======= =====================================================

    Images come by ascending id, those without annotations (R = 0) included. ``annotation(i)``,
    which has the ``area`` of each object as well, ``image_path(i)``, ``image_size(i)`` and
    ``image_ids`` read no pixels. Annotations of images that the file does not list are left out
    with a warning.

    Parameters
    ----------
    images
        The folder of the images; ``file_name`` may name folders within.
    annotations
        A JSON file with ``images`` (``id``, ``file_name``), ``categories`` (``id``, ``name``) and
        ``annotations`` (``image_id``, ``category_id``, ``bbox`` as ``[x, y, width, height]``, and
        optionally ``area`` and ``iscrowd``). Masks are not read.
    use_crowded
        Whether objects marked as crowds are returned. They are no examples of their class.
    class_names
        The classes in label order, or a text file with one a line; categories are looked up by
        name, without regard to case. By default the categories of the file, in its order.
    invalid_boxes
        What to do with a box without area: ``"drop"`` it with a warning, ``"raise"`` a ValueError,
        or ``"keep"`` it.
    outside
        What to do with a box that reaches beyond the image: ``"clip"`` it, which like ``"raise"``
        reads the heads of the images, or ``"keep"`` it.
    on_error
        ``"raise"``, or ``"skip"`` to leave out images whose file is missing or whose annotations
        cannot be read, each with a warning and an entry in ``skipped``. An image whose pixels
        turn out to be damaged raises an ImageError in either case: see
        ``DataLoader(on_error=...)``.

    Raises
    ------
    ValueError
        A file that does not say what it should; the message names the file and the annotation,
        counted from 0 as in the file's list.
    OSError
        A file that is missing or cannot be opened.

    References
    ----------
    Lin et al., "Microsoft COCO: Common Objects in Context" (2014).
    """

    images: Path

    def __init__(
        self,
        images: str | os.PathLike[str],
        annotations: str | os.PathLike[str],
        use_crowded: bool = False,
        class_names: Sequence[str] | str | os.PathLike[str] | None = None,
        *,
        invalid_boxes: InvalidBoxes = "drop",
        outside: Outside = "clip",
        on_error: OnError = "raise",
    ) -> None:
        check_options(invalid_boxes, outside, on_error)
        self.images = Path(images)
        if not self.images.is_dir():
            raise FileNotFoundError(f"{self.images}: expected a folder of images")
        self._file = CocoFile(annotations)
        faults = self._file.faults
        if faults:
            more = f" (and {len(faults) - 1} more such)" if len(faults) > 1 else ""
            fatal = on_error == "raise" and any(fault.kind != "unknown image" for fault in faults)
            if fatal:
                raise ValueError(next(f.message for f in faults if f.kind != "unknown image"))
            warnings.warn(f"{faults[0].message}{more}; that is left out", stacklevel=2)
        names = given_class_names(class_names)
        super().__init__(
            self._file.image_ids,
            self._file.class_names if names is None else names,
            use_difficult=True,  # which COCO does not know
            use_crowded=use_crowded,
            invalid_boxes=invalid_boxes,
            outside=outside,
            on_error=on_error,
        )

    def __repr__(self) -> str:
        skipped = f", {len(self.skipped)} skipped" if self.skipped else ""
        return (
            f"{type(self).__name__}({str(self._file.path)!r}): "
            f"{len(self)} images, {len(self.class_names)} classes{skipped}"
        )

    @property
    def annotation_file(self) -> Path:
        """The file of the annotations, for ``oxidet.detection.eval_coco``."""
        return self._file.path

    def _item(self, image: F32, annotation: Annotation) -> tuple[Any, ...]:
        bbox, label, _, crowd, _ = annotation
        item = (image, bbox, label, crowd.copy())
        return (*item, crowd) if self.use_crowded else item

    def _image_path(self, image_id: Any) -> Path:
        name = self._file.file_name(image_id)
        if not name:
            raise ValueError(self._file.record(image_id).faults[0].message)
        # As written, with the separators of another system, or in another folder now; but never
        # outside of the given one.
        posix = PurePosixPath(name.replace("\\", "/"))
        inner = posix.name if posix.is_absolute() or ".." in posix.parts else posix
        for candidate in (inner, posix.name):
            path = self.images / candidate
            if path.is_file():
                return path
        raise FileNotFoundError(f"{self.images / inner}: expected an image, got no such file")

    def _record(self, image_id: Any) -> Record:
        return self._file.record(image_id)

    def _faults(self) -> Sequence[Fault]:
        return self._file.faults


class COCOBboxDataset(COCODetection):
    """COCO itself, with the arguments and items of chainercv's class of this name.

    ::

        data_dir/annotations/instances_<split><year>.json
        data_dir/images/<train|val><year>/           or data_dir/<train|val><year>/

    ``dataset[i]`` is ``(img, bbox, label)``, then with ``return_area`` the areas of the objects'
    masks, float32, then with ``return_crowded`` whether each is a crowd, bool. A trainer takes a
    fourth element for ``difficult``: give it :class:`COCODetection`.

    Boxes are taken as they are, and those without area left out in silence; the rest is as there.

    Parameters
    ----------
    data_dir
        Where COCO lies; nothing is downloaded.
    split
        ``"train"`` or ``"val"``, of 2014 also ``"minival"`` and ``"valminusminival"``.
    year
        ``"2014"`` or ``"2017"``.
    use_crowded
        Whether objects marked as crowds are returned. COCO's metric needs them, together with
        ``return_area`` and ``return_crowded``.
    return_area, return_crowded
        What items have besides images, boxes and labels.
    on_error
        As of :class:`COCODetection`.
    """

    _drops_in_silence = True

    def __init__(
        self,
        data_dir: str | os.PathLike[str],
        split: str = "train",
        year: str = "2017",
        use_crowded: bool = False,
        return_area: bool = False,
        return_crowded: bool = False,
        *,
        on_error: OnError = "raise",
    ) -> None:
        if data_dir == "auto":
            raise ValueError("data_dir: expected the folder of COCO, got 'auto' (no downloads)")
        if str(year) not in SPLITS:
            raise ValueError(f"year: expected one of {list(SPLITS)}, got {year!r}")
        if split not in SPLITS[str(year)]:
            raise ValueError(f"split: expected one of {SPLITS[str(year)]} of {year}, got {split!r}")
        self.return_area = return_area
        self.return_crowded = return_crowded
        folder = f"{'train' if split == 'train' else 'val'}{year}"
        root = Path(data_dir)
        images = root / "images" / folder
        super().__init__(
            images if images.is_dir() or not (root / folder).is_dir() else root / folder,
            root / "annotations" / f"instances_{split}{year}.json",
            use_crowded,
            outside="keep",
            on_error=on_error,
        )

    def _item(self, image: F32, annotation: Annotation) -> tuple[Any, ...]:
        bbox, label, _, crowd, area = annotation
        item: tuple[Any, ...] = (image, bbox, label)
        if self.return_area:
            item = (*item, area)
        return (*item, crowd) if self.return_crowded else item
