"""Folders of labelled images in the forms that people have."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from oxidet.data import COCODetection, VOCBboxDataset, check_data, open_dataset

Image = pytest.importorskip("PIL.Image")

XML = (
    "<annotation><object><name>cat</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>90</xmax>"
    "<ymax>9</ymax></bndbox></object></annotation>"
)


def write(path: Path, content: str | None = None) -> None:
    """Text, or a 60x80 picture."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if content is None:
        Image.new("RGB", (80, 60)).save(path)
    else:
        path.write_text(content)


def write_coco(path: Path) -> None:
    content = {
        "images": [{"id": 1, "file_name": "a.png"}],
        "categories": [{"id": 1, "name": "cat"}],
        "annotations": [{"image_id": 1, "category_id": 1, "bbox": [0, 0, 90, 9], "iscrowd": 1}],
    }
    write(path, json.dumps(content))


@pytest.mark.parametrize(
    ("file", "images", "split"),
    [
        ("annotations/instances_train2017.json", "images/train2017", "train"),
        ("annotations/instances_val2017.json", "val2017", "val"),
        ("annotations/instances_minival2014.json", "images/val2014", "minival"),
        ("annotations/instances_train.json", "images/train", "train"),
        ("annotations/test.json", "test", "test"),
        ("annotations/train.json", "images", "train"),
        ("annotations/train.json", "", "train"),
        ("valid/_annotations.coco.json", "valid", "val"),
        ("annotations.json", "images", None),
        ("_annotations.coco.json", "", None),
        ("annotations/instances.json", "images", None),
        ("labels.json", "", None),
    ],
)
@pytest.mark.parametrize("given", [None, "coco"])
def test_forms_of_coco(tmp_path: Path, file: str, images: str, split: str, given: str) -> None:
    write_coco(tmp_path / file)
    write(tmp_path / images / "a.png")
    dataset = open_dataset(tmp_path, given, split)  # type: ignore[arg-type]
    assert isinstance(dataset, COCODetection)
    assert dataset[0][1].shape == (0, 4)
    _, bbox, label, difficult, crowd = open_dataset(tmp_path, "coco", split, use_difficult=True)[0]
    assert bbox.tolist() == [[0, 0, 9, 80]]
    assert label.tolist() == [0]
    assert difficult.tolist() == crowd.tolist() == [True]


@pytest.mark.parametrize(
    ("files", "folders"),
    [
        (("annotations/instances_{}2017.json",) * 2, ("images/train2017", "val2017")),
        (("annotations/{}.json",) * 2, ("images/train", "images/val")),
        (("{}/_annotations.coco.json",) * 2, ("train", "val")),
    ],
)
def test_all_splits_of_coco(tmp_path: Path, files: Any, folders: Any) -> None:
    """Without a split: every image once, and a class is one whatever its number in a file."""
    for split, file, folder, names in zip(
        ("train", "val"), files, folders, (("cat", "dog"), ("cow", "Dog")), strict=True
    ):
        content = {
            "images": [{"id": 1, "file_name": f"{split}.png"}, {"id": 2, "file_name": "no.png"}],
            "categories": [{"id": k, "name": name} for k, name in enumerate(names)],
            "annotations": [{"image_id": 1, "category_id": 1, "bbox": [0, 0, 9, 9], "iscrowd": 1}],
        }
        write(tmp_path / file.format(split), json.dumps(content))
        write(tmp_path / folder / f"{split}.png")
    if "instances" in files[0]:
        write(tmp_path / "annotations" / "captions_train2017.json", "[]")
    with pytest.warns(UserWarning, match=r"no\.png: expected an image") as told:
        dataset = open_dataset(tmp_path, split=None, use_difficult=True, on_error="skip")
    assert len(told) == 2
    assert dataset.class_names == ("cat", "dog", "cow")
    assert [dataset.image_path(k).name for k in range(len(dataset))] == ["train.png", "val.png"]
    for item in (dataset[k] for k in range(2)):
        assert (item[1].tolist(), item[2].tolist()) == ([[0, 0, 9, 9]], [1])
        assert item[3].tolist() == item[4].tolist() == [True]
    assert "2 files, 2 images, 3 classes, 2 skipped" in repr(dataset)
    assert check_data(dataset).counts() == {"missing image": 2, "duplicate image": 1}


def test_forms_of_voc(tmp_path: Path) -> None:
    voc, beside, flat = (tmp_path / name for name in ("voc", "beside", "flat"))
    for name in ("a", "b"):
        write(voc / "Annotations" / f"{name}.xml", XML)
        write(voc / "JPEGImages" / f"{name}.jpg")
        write(beside / "train" / f"{name}.xml", XML)
        write(beside / "train" / f"{name}.jpg")
        write(flat / f"{name}.xml", XML)
        write(flat / f"{name}.png")
    write(voc / "ImageSets" / "Main" / "train.txt", "b\n")
    for root, split, ids in (
        (voc, "train", ("b",)),
        (voc, None, ("a", "b")),
        (beside, "train", ("a", "b")),
        (flat, None, ("a", "b")),
    ):
        dataset = open_dataset(root, split=split, class_names=["cat"])
        assert isinstance(dataset, VOCBboxDataset)
        assert dataset.image_ids == ids
        assert dataset[0][1].tolist() == [[0, 0, 8, 80]]
    # Validation images go by several names.
    for folder in (beside / "valid" / "c.xml", voc / "Annotations" / "c.xml"):
        write(folder, XML)
    write(voc / "ImageSets" / "Main" / "validation.txt", "c\n")
    for root in (beside, voc):
        assert open_dataset(root, split="val").image_ids == ("c",)
    # Classes are the same for all splits.
    write(beside / "test" / "c.xml", XML.replace("cat", "cell"))
    assert open_dataset(beside, split="train").class_names == ("cat", "cell")


def test_folders_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nowhere: expected a folder of labelled images"):
        open_dataset(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match=r"form of VOC \(.*\) or COCO \(.*got neither"):
        open_dataset(tmp_path)
    with pytest.raises(FileNotFoundError, match="got no annotation file"):
        open_dataset(tmp_path, "coco")
    with pytest.raises(FileNotFoundError, match=r"expected annotations\.json"):
        open_dataset(tmp_path, "coco", None)
    with pytest.raises(ValueError, match="format: expected one of"):
        open_dataset(tmp_path, "yolo")  # type: ignore[arg-type]
    write_coco(tmp_path / "annotations" / "train.json")
    with pytest.raises(FileNotFoundError, match=r"instances_val\.json.*got annotations.train.json"):
        open_dataset(tmp_path, split="val")
