"""Finding labelled images in a folder whose form is only roughly known."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from oxidet._arrays import F32
from oxidet.data.bbox_dataset import (
    Annotation,
    BboxDataset,
    Fault,
    OnError,
    Record,
    class_key,
    given_class_names,
)
from oxidet.data.coco import COCODetection
from oxidet.data.voc import Coordinates, VOCBboxDataset

Format = Literal["voc", "coco"]

FORMATS = ("voc", "coco")
# What people, and their tools, call the same split.
SYNONYMS = {
    "val": ("val", "valid", "validation"),
    "valid": ("valid", "val", "validation"),
    "validation": ("validation", "val", "valid"),
}
YEARS = ("", "2017", "2014")
ROBOFLOW = "_annotations.coco.json"


def open_dataset(
    directory: str | os.PathLike[str],
    format: Format | None = None,
    split: str | None = "train",
    *,
    class_names: Sequence[str] | None = None,
    use_difficult: bool = False,
    coordinates: Coordinates = "voc",
    on_error: OnError = "raise",
) -> BboxDataset:
    """The labelled images of a folder in the form of VOC or COCO.

    Items are ``(img, bbox, label, difficult)``, of COCO with crowds as a fifth, see
    :class:`VOCBboxDataset` and :class:`COCODetection`. Boxes are clipped to the image, and those
    without area left out with a warning.

    VOC's form is that of :class:`VOCBboxDataset`. Of COCO's form these are known::

        annotations/instances_train2017.json, instances_train.json or train.json
        images/train2017, train2017, images/train, train or images           (the images)

        train/_annotations.coco.json          beside the images, as Roboflow writes it
        annotations.json, instances.json      images beside it or in images/; only without a split

    Without a split several files of the first two forms are taken together, a class being one
    whatever its number in each.

    Parameters
    ----------
    directory
        The folder.
    format
        ``"voc"`` or ``"coco"``; None looks.
    split
        ``"train"``, ``"val"``, ... as the files have it; None for all there is.
    class_names
        The classes in label order, looked up by name; by default those of the data.
    use_difficult
        Whether objects marked difficult, and crowds, are returned: for evaluation, which passes
        over them.
    coordinates
        How VOC's numbers become pixel edges, see :class:`VOCBboxDataset`.
    on_error
        ``"skip"`` leaves out images whose annotation or file cannot be had, with a warning each.

    Raises
    ------
    FileNotFoundError
        There is no such folder, or nothing in it that is known.
    ValueError
        Files that do not say what they should, by name.
    """
    root = Path(directory)
    if format is not None and format not in FORMATS:
        raise ValueError(f"format: expected one of {FORMATS}, got {format!r}")
    if not root.is_dir():
        raise FileNotFoundError(f"{root}: expected a folder of labelled images")
    if (format or guess_format(root)) == "voc":
        return VOCBboxDataset(
            root,
            split if split is None else find_voc(root, split) or split,
            use_difficult=use_difficult,
            class_names=class_names,
            coordinates=coordinates,
            outside="clip",
            on_error=on_error,
        )
    found = [find_coco(root, split)] if split is not None else _find_all(root)
    if len(found) > 1:
        parts = [_Part(*each, use_difficult, on_error=on_error) for each in found]
        return _Joined(root, parts, class_names, use_difficult, on_error)
    [(images, annotations)] = found
    return COCODetection(
        images, annotations, use_crowded=use_difficult, class_names=class_names, on_error=on_error
    )


class _Part(COCODetection):
    """One of several annotation files; what is left out of it is for the whole to say."""

    def _skip(self) -> None:
        pass


class _Joined(BboxDataset):
    """Images of several annotation files. An id is the number of the file, and the id in it."""

    def __init__(
        self,
        directory: Path,
        parts: Sequence[COCODetection],
        class_names: Sequence[str] | None,
        use_crowded: bool,
        on_error: OnError,
    ) -> None:
        self.directory = directory
        self.parts = parts
        names: dict[str, str] = {}
        for name in (name for part in parts for name in part.class_names):
            names.setdefault(class_key(name), name)
        super().__init__(
            [(k, image_id) for k, part in enumerate(parts) for image_id in part.listed_ids],
            given_class_names(class_names) or tuple(names.values()),
            use_difficult=True,  # as of COCODetection
            use_crowded=use_crowded,
            invalid_boxes="drop",
            outside="clip",
            on_error=on_error,
        )

    def __repr__(self) -> str:
        files = f"{len(self.parts)} files, {len(self)} images, {len(self.class_names)} classes"
        skipped = f", {len(self.skipped)} skipped" if self.skipped else ""
        return f"COCODetection({str(self.directory)!r}): {files}{skipped}"

    def _record(self, image_id: Any) -> Record:
        return self.parts[image_id[0]]._record(image_id[1])

    def _image_path(self, image_id: Any) -> Path:
        return self.parts[image_id[0]]._image_path(image_id[1])

    def _item(self, image: F32, annotation: Annotation) -> tuple[Any, ...]:
        return self.parts[0]._item(image, annotation)

    def _faults(self) -> Sequence[Fault]:
        return [fault for part in self.parts for fault in part._faults()]


def guess_format(root: Path) -> Format:
    """VOC if there is anything of VOC's, else COCO. FileNotFoundError for neither."""
    if (root / "Annotations").is_dir() or any(root.glob("*.xml")) or any(root.glob("*/*.xml")):
        return "voc"
    if _json_files(root):
        return "coco"
    raise FileNotFoundError(
        f"{root}: expected a folder in the form of VOC (Annotations, JPEGImages, ImageSets) or "
        "COCO (annotations/instances_train.json, images), got neither"
    )


def find_voc(root: Path, split: str) -> str | None:
    """The name that a split has as a list, or as a folder where there are no lists."""
    lists = root / "ImageSets" / "Main"
    for name in SYNONYMS.get(split, (split,)):
        folder = not lists.is_dir() and any((root / name).glob("*.xml"))
        if folder or (lists / f"{name}.txt").is_file():
            return name
    return None


def find_coco(root: Path, split: str) -> tuple[Path, Path]:
    """The folder of the images and the annotation file of a split."""
    for name in SYNONYMS.get(split, (split,)):
        beside = root / name / ROBOFLOW
        if beside.is_file():
            return beside.parent, beside
        for year in YEARS:
            for file in (f"instances_{name}{year}.json", f"{name}{year}.json"):
                path = root / "annotations" / file
                if path.is_file():
                    return _image_folder(root, name, year), path
    raise FileNotFoundError(
        f"{root}: expected annotations/instances_{split}.json, annotations/{split}.json or "
        f"{split}/{ROBOFLOW}, got {_listed(root)}"
    )


def _find_all(root: Path) -> list[tuple[Path, Path]]:
    """The folder of the images of every annotation file, and the file."""
    names = ("annotations.json", "instances.json", ROBOFLOW)
    for path in [root / name for name in names] + [root / "annotations" / name for name in names]:
        if path.is_file():
            return [(_image_folder(root, "", ""), path)]
    only = _json_files(root)
    splits = [path for path in only if path.name == ROBOFLOW]
    # COCO's own folder has captions and keypoints beside the instances.
    splits += sorted(root.glob("annotations/instances_*.json")) or [
        path for path in only if path.parent == root / "annotations"
    ]
    found = splits or (only if len(only) == 1 else [])
    if not found:
        raise FileNotFoundError(
            f"{root}: expected annotations.json or the annotation files of splits, "
            f"got {_listed(root)}"
        )
    return [(_images_of(root, path), path) for path in found]


def _images_of(root: Path, path: Path) -> Path:
    """Where the images of an annotation file lie, by its name."""
    if path.name == ROBOFLOW:
        return path.parent
    if path.parent == root:
        return _image_folder(root, "", "")
    name = path.stem.removeprefix("instances_")
    year = next((year for year in YEARS if year and name.endswith(year)), "")
    return _image_folder(root, name.removesuffix(year), year)


def _image_folder(root: Path, name: str, year: str) -> Path:
    # The subsets of 2014's validation images lie among those.
    names = (name, "val") if name.startswith(("mini", "val")) else (name,)
    for part in names if name else ():
        for folder in (f"images/{part}{year}", f"{part}{year}", f"images/{part}", part):
            if (root / folder).is_dir():
                return root / folder
    return root / "images" if (root / "images").is_dir() else root


def _json_files(root: Path) -> list[Path]:
    return sorted(
        [*root.glob("*.json"), *root.glob("annotations/*.json"), *root.glob(f"*/{ROBOFLOW}")]
    )


def _listed(root: Path) -> str:
    found = [str(path.relative_to(root)) for path in _json_files(root)[:5]]
    return ", ".join(found) if found else "no annotation file"
