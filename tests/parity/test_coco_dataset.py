"""Annotations in COCO's form beside pycocotools, the way chainercv and torchvision read them."""

from __future__ import annotations

import contextlib
import io
import json
from pathlib import Path

import numpy as np
import pytest

from oxidet.data import COCOBboxDataset, COCODetection

pytest.importorskip("PIL")
coco_module = pytest.importorskip("pycocotools.coco")


@pytest.fixture(name="root")
def _root(tmp_path: Path) -> Path:
    """Random annotations: crowds, boxes of no size, images without objects, ids in any order."""
    from PIL import Image

    rng = np.random.default_rng(0)
    images = [
        {"id": int(k), "file_name": f"{k}.png", "height": 40, "width": 50}
        for k in rng.permutation(1000)[:30]
    ]
    categories = [{"id": int(k), "name": f"class {k}"} for k in rng.permutation(90)[:12]]
    annotations = []
    for number in range(200):
        x, y = rng.uniform(0, 30, 2)
        width, height = rng.uniform(0, 10, 2) * (rng.random() > 0.1)
        annotations.append(
            {
                "id": number + 1,
                "image_id": images[int(rng.integers(25))]["id"],
                "category_id": categories[int(rng.integers(12))]["id"],
                "bbox": [round(float(v), 2) for v in (x, y, width, height)],
                "area": round(float(width * height * 0.7), 3),
                "iscrowd": int(rng.random() < 0.1),
            }
        )
    content = {"images": images, "annotations": annotations, "categories": categories}
    (tmp_path / "annotations").mkdir()
    (tmp_path / "annotations" / "instances_val2017.json").write_text(json.dumps(content))
    (tmp_path / "images" / "val2017").mkdir(parents=True)
    for image in images:
        Image.new("RGB", (50, 40)).save(tmp_path / "images" / "val2017" / str(image["file_name"]))
    return tmp_path


@pytest.mark.parametrize("crowded", [False, True])
def test_the_same_objects(root: Path, crowded: bool) -> None:
    file = root / "annotations" / "instances_val2017.json"
    with contextlib.redirect_stdout(io.StringIO()):
        theirs = coco_module.COCO(str(file))
    ours = COCOBboxDataset(root, "val", use_crowded=crowded, return_area=True, return_crowded=True)
    assert list(ours.image_ids) == sorted(theirs.getImgIds())
    category_ids = [category["id"] for category in theirs.dataset["categories"]]
    assert len(ours) == 30
    for index, image_id in enumerate(ours.image_ids):
        records = theirs.loadAnns(theirs.getAnnIds(imgIds=[image_id], iscrowd=None))
        box = np.array([r["bbox"] for r in records], np.float32).reshape(-1, 4)
        box[:, 2:] += box[:, :2]
        box = box[:, [1, 0, 3, 2]]
        crowd = np.array([r["iscrowd"] for r in records], bool)
        keep = ((box[:, 2:] - box[:, :2]) > 0).all(axis=1) & (crowded | ~crowd)
        label = np.array([category_ids.index(r["category_id"]) for r in records], np.int32)
        area = np.array([r["area"] for r in records], np.float32)
        _, *item = ours[index]
        for got, expected in zip(item, (box, label, area, crowd), strict=True):
            np.testing.assert_array_equal(got, expected[keep])
            assert got.dtype == expected.dtype


@pytest.mark.filterwarnings("ignore:.*the box is left out")
def test_the_same_as_one_s_own_folder(root: Path) -> None:
    whole = COCOBboxDataset(root, "val")
    own = COCODetection(
        root / "images" / "val2017", root / "annotations" / "instances_val2017.json"
    )
    assert own.class_names == whole.class_names
    for index in range(len(own)):
        for a, b in zip(own.annotation(index), whole.annotation(index), strict=True):
            np.testing.assert_array_equal(a, b)
