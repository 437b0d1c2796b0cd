"""The check of a data set finds every planted fault, and nothing in clean data."""

from __future__ import annotations

import json
import shutil
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from oxidet.data import COCODetection, DataReport, VOCBboxDataset, check_data

Image = pytest.importorskip("PIL.Image")


def obj(name: str, box: tuple[Any, ...], extra: str = "") -> str:
    """An object element; ``box`` is (xmin, ymin, xmax, ymax) as written."""
    fields = zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True)
    corners = "".join(f"<{field}>{value}</{field}>" for field, value in fields)
    return f"<object><name>{name}</name>{extra}<bndbox>{corners}</bndbox></object>"


def size(height: int, width: int) -> str:
    return f"<size><width>{width}</width><height>{height}</height></size>"


GOOD = obj("cat", (1, 1, 41, 31))


def add(root: Path, name: str, text: str | None = GOOD, turned: bool = False) -> Path:
    """An image of noise, 60x80, with its annotation."""
    for part in ("Annotations", "JPEGImages", "ImageSets/Main"):
        (root / part).mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(list(name.encode()))
    exif = Image.Exif()
    if turned:
        exif[0x0112] = 6
    path = root / "JPEGImages" / f"{name}.jpg"
    Image.fromarray(rng.integers(0, 256, (60, 80, 3), np.uint8)).save(path, exif=exif)
    if text is not None:
        file = root / "Annotations" / f"{name}.xml"
        file.write_text(text if text.startswith("<?") else f"<annotation>{text}</annotation>")
    with (root / "ImageSets" / "Main" / "train.txt").open("a") as file:
        file.write(f"{name}\n")
    return path


def look(root: Path, **options: Any) -> DataReport:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return check_data(VOCBboxDataset(root, "train", on_error="skip", **options))


def test_clean_data(tmp_path: Path) -> None:
    add(tmp_path, "a", size(60, 80) + GOOD + obj("dog", (0, 1, 80, 60), "<difficult>1</difficult>"))
    add(tmp_path, "b", GOOD + obj("cat", (5, 5, 15, 15)))
    report = look(tmp_path, class_names=("cat", "dog", "cow"))
    assert report.ok
    assert report.problems == report.notes == ()
    assert (report.images, report.objects) == (2, 4)
    assert report.image_sizes == {(60, 80): 2}
    cat, dog, cow = report.classes
    assert (cat.name, cat.images, cat.objects, cat.difficult) == ("cat", 2, 3, 0)
    assert cat.sizes == pytest.approx(np.percentile([1200**0.5, 1200**0.5, 10], (5, 50, 95)))
    assert (dog.images, dog.objects, dog.difficult) == (1, 1, 1)
    assert (cow.objects, cow.sizes) == (0, ())
    assert str(report).splitlines()[1:] == [
        "",
        "class  images  objects  difficult  size 5%  size 50%  size 95%",
        "cat         2        3          0       12        35        35",
        "dog         1        1          1       68        68        68",
        "cow         0        0          0        -         -         -",
        "",
        "image sizes, height x width: 60 x 80 (2)",
        "",
        "problems: none",
    ]
    assert repr(report) == str(report)


BOMB = '<?xml version="1.0"?><!DOCTYPE a [<!ENTITY x "ha">]><annotation>&x;</annotation>'


def test_every_fault_is_found(tmp_path: Path) -> None:
    add(tmp_path, "good")
    add(tmp_path, "gone").unlink()
    cut = add(tmp_path, "cut")
    cut.write_bytes(cut.read_bytes()[:700])
    add(tmp_path, "text").write_bytes(b"no image")
    add(tmp_path, "unannotated", None)
    add(tmp_path, "bomb", BOMB)
    add(tmp_path, "several", obj("cat", (1, "x", 3, 4)) + obj("cat", (1, "nan", 3, 4)) + GOOD)
    add(tmp_path, "horse", obj("horse", (1, 1, 21, 21)) + obj("cat", (9, 9, 9, 20)))
    add(tmp_path, "inverted", obj("cat", (30, 30, 20, 40)))
    add(tmp_path, "outside", obj("cat", (1, 1, 90, 31)) + obj("cat", (-9, 1, 20, 31)))
    add(tmp_path, "beyond", obj("cat", (90, 1, 99, 31)))
    add(tmp_path, "upright", size(60, 80) + GOOD, turned=True)
    add(tmp_path, "twice", GOOD + GOOD)
    add(tmp_path, "copy")
    shutil.copy(tmp_path / "JPEGImages" / "good.jpg", tmp_path / "JPEGImages" / "copy.jpg")
    add(tmp_path, "empty", "")
    add(tmp_path, "tiny", obj("cat", (5, 5, 7, 30)))
    with (tmp_path / "ImageSets" / "Main" / "train.txt").open("a") as file:
        file.write("good\n")

    report = look(tmp_path, class_names=("cat",))
    assert not report.ok
    found: dict[str, list[str]] = {}
    for fault in (*report.problems, *report.notes):
        assert "\n" not in fault.message
        name = Path(fault.message.partition(": ")[0]).stem
        found.setdefault(fault.kind, []).append(name)
    assert found == {
        "missing image": ["gone"],
        "unreadable image": ["cut", "text"],
        "missing annotation": ["unannotated"],
        "unreadable annotation": ["bomb", "several", "several"],
        "repeated image": ["train"],
        "unknown label": ["horse"],
        "empty box": ["horse", "inverted"],
        "box outside": ["outside", "outside", "beyond"],
        "wrong size": ["upright"],
        "duplicate image": ["copy"],
        "duplicate box": ["twice"],
        "image without objects": ["empty"],
        "tiny box": ["tiny"],
    }
    assert report.counts() == {kind: len(names) for kind, names in found.items()}
    assert report.images == 16
    text = str(report)
    assert "problems: 17" in text
    assert "  empty box: 2\n" in text
    assert "(60, 80) as annotated, got (80, 60), turned" in text
    content = json.loads(json.dumps(report.to_dict(), allow_nan=False))
    assert len(content["problems"]) == 17
    assert content["ok"] is False
    assert content["classes"][0]["name"] == "cat"
    assert content["image_sizes"][0] == {"height": 60, "width": 80, "images": 12}


def test_long_lists_are_cut(tmp_path: Path) -> None:
    for number in range(8):
        add(tmp_path, f"n{number}", obj("cat", (9, 9, 9, 9)))
    report = look(tmp_path)
    assert str(report).count("expected y_min < y_max") == 5
    assert "... and 3 more" in str(report)
    assert len(report.problems) == 8


def test_coco(tmp_path: Path) -> None:
    images = [{"id": k, "file_name": f"{k}.png", "height": 60, "width": 80} for k in range(4)]
    images += [{"id": 9}, {"id": 2, "file_name": "x.png"}]
    for k in range(3):
        Image.new("RGB", (80, 60), (k, 9, 9)).save(tmp_path / f"{k}.png")
    good = {"image_id": 0, "category_id": 5, "bbox": [1, 2, 30, 20]}
    annotations = [
        good,
        {**good, "image_id": 1, "iscrowd": 1},
        {**good, "image_id": 1, "category_id": 6},
        {**good, "image_id": 2, "bbox": [1, float("nan"), 2, 3]},
        {**good, "image_id": 77},
        {**good, "image_id": 0, "bbox": [1, 2, 0, 20]},
        {**good, "image_id": 0, "bbox": [70, 2, 20, 20]},
    ]
    file = tmp_path / "instances.json"
    file.write_text(
        json.dumps(
            {
                "images": images,
                "annotations": annotations,
                "categories": [{"id": 5, "name": "cat"}],
            }
        )
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        report = check_data(COCODetection(tmp_path, file, use_crowded=True, on_error="skip"))
    assert report.counts() == {
        "missing image": 1,
        "unreadable annotation": 2,
        "unknown image": 1,
        "repeated image": 1,
        "unknown label": 1,
        "empty box": 1,
        "box outside": 1,
    }
    assert (report.classes[0].objects, report.classes[0].crowd) == (3, 1)
    assert all(fault.message.startswith(str(tmp_path)) for fault in report.problems)


def test_what_cannot_be_checked() -> None:
    with pytest.raises(TypeError, match="dataset: expected one of files"):
        check_data([(np.zeros((3, 4, 4)), [], [])])  # type: ignore[arg-type]


def test_bccd(bccd: Path) -> None:
    """Two boxes of no size are all that is wrong with the test split's neighbours."""
    seen = []
    report = check_data(VOCBboxDataset(bccd, "val"), on_image=lambda: seen.append(1))
    assert len(seen) == report.images == 87
    assert set(report.counts()) <= {"empty box", "tiny box"}
    assert report.image_sizes == {(480, 640): 87}
    assert [each.name for each in report.classes] == ["Platelets", "RBC", "WBC"]
