"""Data in COCO's format: chainercv's numbers, and every odd file dealt with by name."""

from __future__ import annotations

import copy
import json
import pickle
import tracemalloc
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from oxidet.data import COCO_BBOX_LABEL_NAMES, COCOBboxDataset, COCODetection
from oxidet.detection import eval_coco

Image = pytest.importorskip("PIL.Image")

CATEGORIES = [{"id": 18, "name": "dog"}, {"id": 3, "name": "Cat"}]


def obj(image: Any = 7, category: Any = 18, box: Any = (10, 20, 30, 15), **more: Any) -> dict:
    """An annotation; ``box`` is [x, y, width, height]."""
    box = list(box) if isinstance(box, tuple) else box
    return {"image_id": image, "category_id": category, "bbox": box, **more}


def make(
    folder: Path,
    annotations: list[Any],
    images: list[dict] | None = None,
    categories: Any = CATEGORIES,
) -> tuple[Path, Path]:
    """A folder of 60x80 images and an annotation file."""
    if images is None:
        images = [{"id": 9, "file_name": "b.png"}, {"id": 7, "file_name": "a.png"}]
    (folder / "images").mkdir(parents=True)
    for index, image in enumerate(images):
        path = folder / "images" / str(image.get("file_name", ""))
        if path.suffix:
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (80, 60), (10 * index, 20, 30)).save(path)
    content = {"images": images, "annotations": annotations, "categories": categories}
    file = folder / "annotations.json"
    file.write_text(json.dumps(content))
    return folder / "images", file


def test_item(tmp_path: Path) -> None:
    paths = make(tmp_path, [obj(), obj(9, 3), obj(category=3, box=(0.5, 1, 2, 3.25), area=5)])
    dataset = COCODetection(*paths)
    assert dataset.class_names == ("dog", "Cat")
    assert dataset.image_ids == (7, 9)
    img, bbox, label, difficult = dataset[0]
    assert (img.shape, img.dtype) == ((3, 60, 80), np.float32)
    assert (bbox.dtype, label.dtype, difficult.dtype) == (np.float32, np.int32, np.bool_)
    assert bbox.tolist() == [[20, 10, 35, 40], [1, 0.5, 4.25, 2.5]]
    assert label.tolist() == [0, 1]
    assert difficult.tolist() == [False, False]
    assert dataset.annotation(0).area.tolist() == [450, 5]
    assert dataset.image_path(0).name == "a.png"
    assert dataset.image_size(1) == (60, 80)
    assert dataset[-1][2].tolist() == [1]
    with pytest.raises(IndexError):
        dataset[2]


def test_images_without_annotations_are_items(tmp_path: Path) -> None:
    dataset = COCODetection(*make(tmp_path, []))
    assert len(dataset) == 2
    _, bbox, label, difficult = dataset[1]
    assert (bbox.shape, label.shape, difficult.shape) == ((0, 4), (0,), (0,))


def test_crowds(tmp_path: Path) -> None:
    paths = make(tmp_path, [obj(iscrowd=1), obj(category=3, iscrowd=0)])
    assert COCODetection(*paths)[0][2].tolist() == [1]
    item = COCODetection(*paths, use_crowded=True)[0]
    assert item[2].tolist() == [0, 1]
    assert item[3].tolist() == item[4].tolist() == [True, False]
    item[3][...] = False
    assert item[4].tolist() == [True, False]


@pytest.mark.parametrize("crowd", ["0", "1", 2, [1]])
def test_a_crowd_is_0_or_1(tmp_path: Path, crowd: Any) -> None:
    paths = make(tmp_path, [obj(iscrowd=crowd)])
    with pytest.raises(ValueError, match=r"annotation 0: expected 0 or 1 as iscrowd, got ['2\[]"):
        COCODetection(*paths).annotation(0)
    either = [obj(iscrowd=value) for value in (0, 1, False, True, 0.0, None)]
    dataset = COCODetection(*make(tmp_path / "either", either), use_crowded=True)
    assert dataset[0][4].tolist() == [False, True, False, True, False, False]


def test_labels_of_other_class_names(tmp_path: Path) -> None:
    paths = make(tmp_path, [obj(), obj(category=3)])
    assert COCODetection(*paths, class_names=("cat", "cow", "dog"))[0][2].tolist() == [2, 0]
    (tmp_path / "names.txt").write_text("cat\n\n DOG \n")
    named = COCODetection(*paths, class_names=tmp_path / "names.txt")
    assert named.class_names == ("cat", "DOG")
    assert named[0][2].tolist() == [1, 0]
    with pytest.raises(ValueError, match=r"annotation 0 \('dog'\): expected a class of \['cat'\]"):
        COCODetection(*paths, class_names=["cat"]).annotation(0)
    (tmp_path / "names.txt").write_text("\n")
    with pytest.raises(ValueError, match=r"names\.txt: expected class names, one a line, got none"):
        COCODetection(*paths, class_names=tmp_path / "names.txt")
    (tmp_path / "names.txt").write_text("cat\nCat\n")
    with pytest.raises(ValueError, match=r"names\.txt: expected distinct class names"):
        COCODetection(*paths, class_names=tmp_path / "names.txt")


def test_a_category_listed_twice_is_one_class(tmp_path: Path) -> None:
    categories = [{"id": 0, "name": "cells"}, {"id": 1, "name": "Cells"}, {"id": 2, "name": "dust"}]
    paths = make(tmp_path, [obj(category=1), obj(category=2)], categories=categories)
    dataset = COCODetection(*paths)
    assert dataset.class_names == ("cells", "dust")
    assert dataset[0][2].tolist() == [0, 1]


def coco(folder: Path) -> Path:
    """The layout of COCO 2017's validation set, with two images."""
    annotations = [
        obj(iscrowd=1, area=100.5),
        obj(category=3, area=12),
        obj(box=(5, 5, 0, 7)),
        obj(box=(70, 50, 20, 20), area=3),
        obj(box=(9, 9, -4, 3)),
    ]
    images, file = make(folder, annotations)
    images.rename(folder / "val2017")
    images.mkdir()
    (folder / "val2017").rename(images / "val2017")
    (folder / "annotations").mkdir()
    file.rename(folder / "annotations" / "instances_val2017.json")
    return folder


def test_chainercvs_class(tmp_path: Path) -> None:
    root = coco(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        img, bbox, label = COCOBboxDataset(root, "val")[0]
        full = COCOBboxDataset(root, "val", use_crowded=True, return_area=True, return_crowded=True)
        item = full[0]
    assert img.shape == (3, 60, 80)
    # Not clipped, and without the box of no width and the inverted one.
    assert bbox.tolist() == [[20, 10, 35, 40], [50, 70, 70, 90]]
    assert label.tolist() == [1, 0]
    assert len(item) == 5
    assert item[1].tolist() == [[20, 10, 35, 40], [20, 10, 35, 40], [50, 70, 70, 90]]
    assert item[2].tolist() == [0, 1, 0]
    assert (item[3].dtype, item[3].tolist()) == (np.float32, [100.5, 12, 3])
    assert (item[4].dtype, item[4].tolist()) == (np.bool_, [True, False, False])
    assert len(COCOBboxDataset(root, "val", return_crowded=True)[0]) == 4
    assert len(full) == 2
    assert "2 images, 2 classes" in repr(full)
    # As the archives of COCO unpack.
    (root / "images" / "val2017").rename(root / "val2017")
    assert COCOBboxDataset(root, "val")[0][0].shape == (3, 60, 80)


def test_chainercvs_arguments(tmp_path: Path) -> None:
    for options, words in (
        ({"data_dir": "auto"}, "no downloads"),
        ({"year": "2015"}, "year: expected one of"),
        ({"split": "minival"}, "split: expected one of .*of 2017, got 'minival'"),
    ):
        with pytest.raises(ValueError, match=words):
            COCOBboxDataset(**{"data_dir": tmp_path, **options})
    with pytest.raises(FileNotFoundError, match=r"val2014: expected a folder"):
        COCOBboxDataset(tmp_path, "minival", "2014")
    assert len(COCO_BBOX_LABEL_NAMES) == 80
    assert COCO_BBOX_LABEL_NAMES[0] == "person"
    assert COCO_BBOX_LABEL_NAMES[79] == "toothbrush"


def test_boxes_are_clipped(tmp_path: Path) -> None:
    paths = make(tmp_path, [obj(box=(70, -5, 20, 20)), obj(box=(90, 5, 20, 20))])
    with pytest.warns(UserWarning, match=r"annotation 1 \('dog'\).*left out") as seen:
        assert COCODetection(*paths)[0][1].tolist() == [[0, 70, 15, 80]]
    assert len(seen) == 1
    kept = COCODetection(*paths, outside="keep").annotation(0)
    assert kept.bbox.tolist() == [[-5, 70, 15, 90], [5, 90, 25, 110]]
    with pytest.raises(ValueError, match=r"annotation 0 .*a box within height and width \(60, 80"):
        COCODetection(*paths, outside="raise").annotation(0)


@pytest.mark.parametrize("box", [(5, 5, 0, 7), (5, 5, -3, 7)])
def test_invalid_boxes(tmp_path: Path, box: tuple[int, ...]) -> None:
    paths = make(tmp_path, [obj(), obj(box=box)])
    with pytest.warns(UserWarning, match=r"annotations\.json: annotation 1 .*left out"):
        assert len(COCODetection(*paths).annotation(0).bbox) == 1
    assert len(COCODetection(*paths, invalid_boxes="keep").annotation(0).bbox) == 2
    with pytest.raises(ValueError, match=r"annotation 1 \('dog'\): expected y_min < y_max"):
        COCODetection(*paths, invalid_boxes="raise").annotation(0)


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (obj(box=[1, 2, 3]), r"annotation 1: expected bbox .*got \[1, 2, 3\]"),
        (obj(box=[1, float("nan"), 3, 4]), "annotation 1: expected bbox .*finite.*nan"),
        (obj(box=[1, float("inf"), 3, 4]), "annotation 1: expected bbox .*finite.*inf"),
        (obj(box=[1, 10**400, 3, 4]), "annotation 1: expected bbox"),
        (obj(box=["1", 2, 3, 4]), "annotation 1: expected bbox"),
        (obj(box=None), "annotation 1: expected bbox"),
        (obj(category=99), "annotation 1: expected the id of a category, got 99"),
        (obj(category=None), "annotation 1: expected the id of a category, got None"),
        (obj(category=[1]), "annotation 1: expected the id of a category"),
        (obj(area="big"), "annotation 1: expected a finite number as area, got 'big'"),
    ],
)
def test_bad_annotations_name_the_file_or_cost_their_image(
    tmp_path: Path, bad: dict, words: str
) -> None:
    paths = make(tmp_path, [obj(9), bad, obj()])
    dataset = COCODetection(*paths)
    assert len(dataset.annotation(1).bbox) == 1
    with pytest.raises(ValueError, match=rf"annotations\.json: {words}"):
        dataset.annotation(0)
    with pytest.warns(UserWarning, match=rf"annotations\.json: {words}.*image is left out") as seen:
        left = COCODetection(*paths, on_error="skip")
    assert len(seen) == 1
    assert left.image_ids == (9,)
    assert list(left.skipped) == [7]
    assert "1 images, 2 classes, 1 skipped" in repr(left)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "expected a JSON file"),
        ('{"images": [', "expected a JSON file"),
        ("\xff", "expected a JSON file"),
        ("[" * 100_000, "expected a JSON file"),
        ("[]", "expected COCO data with 'images', 'annotations' and 'categories', got 'list'"),
        ('{"images": []}', r"expected COCO data .*got \['images'\]"),
        ('{"images": {}, "annotations": [], "categories": [{"id": 1, "name": "a"}]}', "of images"),
        ('{"images": [3], "annotations": [], "categories": [{"id": 1, "name": "a"}]}', "got 3"),
        ('{"images": [], "annotations": [], "categories": []}', "categories with names, got none"),
        ('{"images": [], "annotations": [], "categories": [{"id": 1}]}', "category 0: .*a name"),
        (
            '{"images": [], "annotations": [], "categories": [{"name": "a"}]}',
            r"category 0 \('a'\): expected an id, got None",
        ),
        (
            '{"images": [], "annotations": [], "categories": [{"id": 1, "name": "a"}, '
            '{"id": 1, "name": "b"}]}',
            r"category 1 \('b'\): expected distinct ids",
        ),
        (f'{{"images": {"9" * 5000}}}', "expected"),
    ],
)
@pytest.mark.parametrize("on_error", ["raise", "skip"])
def test_files_that_are_no_annotations(
    tmp_path: Path, text: str, words: str, on_error: Any
) -> None:
    file = tmp_path / "bad.json"
    file.write_bytes(text.encode("latin-1"))
    with pytest.raises(ValueError, match=rf"bad\.json: .*{words}"):
        COCODetection(tmp_path, file, on_error=on_error)


def test_bad_images(tmp_path: Path) -> None:
    images = [{"id": 1, "file_name": "a.png"}, {"id": 1, "file_name": "b.png"}]
    paths = make(tmp_path / "twice", [], images)
    with pytest.raises(ValueError, match=r"image 1: expected distinct ids, got 1 again"):
        COCODetection(*paths)
    with pytest.warns(UserWarning, match="distinct ids"):
        assert len(COCODetection(*paths, on_error="skip")) == 1

    paths = make(tmp_path / "nameless", [], [{"id": 1}, {"id": 2, "file_name": "b.png"}])
    with pytest.raises(ValueError, match=r"image 0 \(id 1\): expected a file_name, got None"):
        COCODetection(*paths)[0]
    with pytest.warns(UserWarning, match="expected a file_name"):
        assert COCODetection(*paths, on_error="skip").image_ids == (2,)

    paths = make(tmp_path / "missing", [])
    (paths[0] / "a.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"a\.png: expected an image"):
        COCODetection(*paths)[0]
    with pytest.warns(UserWarning, match=r"a\.png: expected an image.*left out"):
        assert COCODetection(*paths, on_error="skip").image_ids == (9,)
    with pytest.raises(FileNotFoundError, match="expected a folder of images"):
        COCODetection(tmp_path / "nowhere", paths[1])
    with pytest.raises(FileNotFoundError):
        COCODetection(paths[0], tmp_path / "nothing.json")


def test_annotations_of_unknown_images_are_pointed_out(tmp_path: Path) -> None:
    paths = make(tmp_path, [obj(), obj(1), obj(2), obj(None)])
    with pytest.warns(UserWarning, match=r"annotation 1: .*id of an image, got 1 \(and 2 more"):
        dataset = COCODetection(*paths)
    assert [len(dataset.annotation(k).bbox) for k in range(2)] == [1, 0]


def test_where_the_images_are(tmp_path: Path) -> None:
    names = ["sub/a.png", "sub\\b.png", "/elsewhere/c.png", "../../d.png", "gone/e.png"]
    images = [{"id": k, "file_name": name} for k, name in enumerate(names)]
    folder, file = make(tmp_path / "x", [], [{"id": 0, "file_name": "sub/a.png"}])
    for name in "cde":
        Image.new("RGB", (4, 4)).save(folder / f"{name}.png")
    Image.new("RGB", (4, 4)).save(folder / "sub" / "b.png")
    Image.new("RGB", (4, 4)).save(tmp_path / "d.png")
    file.write_text(json.dumps({"images": images, "annotations": [], "categories": CATEGORIES}))
    dataset = COCODetection(folder, file)
    found = [dataset.image_path(k).relative_to(folder).as_posix() for k in range(5)]
    assert found == ["sub/a.png", "sub/b.png", "c.png", "d.png", "e.png"]


def test_copies_and_memory(tmp_path: Path) -> None:
    dataset = COCODetection(*make(tmp_path, [obj()]))
    for other in (copy.deepcopy(dataset), pickle.loads(pickle.dumps(dataset))):
        assert other.annotation(0).bbox.tolist() == [[20, 10, 35, 40]]
    for part in dataset[0]:
        part[...] = 0
    assert dataset[0][1].tolist() == [[20, 10, 35, 40]]
    with pytest.raises(ValueError, match="read-only"):
        dataset.annotation(0).area[0] = 1


def test_masks_are_not_kept(tmp_path: Path) -> None:
    mask = [[float(k) for k in range(200)]]
    paths = make(tmp_path, [obj(segmentation=mask) for _ in range(500)])
    size = paths[1].stat().st_size
    tracemalloc.start()
    try:
        COCODetection(*paths)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    # Bytes and text of the file; its masks as Python numbers would take three times as much again.
    assert peak < 3 * size


def test_the_truth_scores_full_marks(tmp_path: Path) -> None:
    dataset = COCODetection(*make(tmp_path, [obj(), obj(9, 3), obj(9, 18, (1, 1, 50, 40))]))
    ids = {"dog": 18, "Cat": 3}
    results = [
        {
            "image_id": dataset.image_ids[index],
            "category_id": ids[dataset.class_names[label]],
            "bbox": [box[1], box[0], box[3] - box[1], box[2] - box[0]],
            "score": 1.0,
        }
        for index in range(len(dataset))
        for box, label in zip(*dataset.annotation(index)[:2], strict=True)
    ]
    assert eval_coco(dataset.annotation_file, results).stats[0] == pytest.approx(1)
