"""Finding labelled images in a folder whose form is only roughly known."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from oxidet.data.bbox_dataset import BboxDataset, OnError
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
            split,
            use_difficult=use_difficult,
            class_names=class_names,
            coordinates=coordinates,
            outside="clip",
            on_error=on_error,
        )
    images, annotations = find_coco(root, split)
    return COCODetection(
        images, annotations, use_crowded=use_difficult, class_names=class_names, on_error=on_error
    )


def guess_format(root: Path) -> Format:
    """VOC if there is anything of VOC's, else COCO."""
    voc = (root / "Annotations").is_dir() or any(root.glob("*.xml")) or any(root.glob("*/*.xml"))
    return "voc" if voc or not _json_files(root) else "coco"


def find_coco(root: Path, split: str | None) -> tuple[Path, Path]:
    """The folder of the images and the annotation file of a split."""
    if split is None:
        return _find_whole(root)
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


def _find_whole(root: Path) -> tuple[Path, Path]:
    names = ("annotations.json", "instances.json", ROBOFLOW)
    for path in [root / name for name in names] + [root / "annotations" / name for name in names]:
        if path.is_file():
            return _image_folder(root, "", ""), path
    only = _json_files(root)
    if len(only) == 1:
        beside = only[0].name == ROBOFLOW
        return only[0].parent if beside else _image_folder(root, "", ""), only[0]
    raise FileNotFoundError(
        f"{root}: expected annotations.json or one annotation file alone, got {_listed(root)}"
    )


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
