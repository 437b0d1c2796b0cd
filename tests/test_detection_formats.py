"""Detections become what other libraries and files hold, and come back the same."""

from __future__ import annotations

import csv
import io
import json
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oxidet._detection_formats import CSV_COLUMNS
from oxidet.cli import _formats as cli_formats
from oxidet.data import VOCBboxDataset
from oxidet.detections import Detections

NAMES = ("cat", "dog", "eel")


def make(**rest: Any) -> Detections:
    boxes = [[10, 20, 60.25, 90], [15.1, 5.7, 40, 30], [0, 0, 3, 4]]
    arguments = {"class_names": NAMES, "image_size": (100, 120), **rest}
    return Detections(boxes, [1, 0, 1], [0.9, 0.5, 0.7], **arguments)


def empty(**rest: Any) -> Detections:
    return Detections([], [], **rest)


@st.composite
def detections(draw: st.DrawFn) -> Detections:
    """Objects of at least a pixel in an image of 900 x 1200, corners in thousandths of one."""
    count = draw(st.integers(0, 3))
    corner, side = st.integers(0, 800_000), st.integers(1_000, 100_000)
    boxes = np.array(
        [draw(st.tuples(corner, corner, side, side)) for _ in range(count)], np.float64
    ).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    boxes /= 1000
    labels = draw(st.lists(st.integers(0, 2), min_size=count, max_size=count))
    scores = draw(st.lists(st.floats(0, 1, width=32), min_size=count, max_size=count))
    return Detections(boxes, labels, scores, class_names=NAMES, image_size=(900, 1200))


# --- COCO


def test_coco_results_and_annotations() -> None:
    first, second, _ = make().to_coco("a1")
    assert first == {
        "image_id": "a1",
        "category_id": 2,
        "bbox": [10.0, 20.0, 50.25, 70.0],
        "area": 3517.5,
        "score": 0.9,
    }
    assert second["bbox"] == [15.1, 5.7, 24.9, 24.3]  # no 24.900000000000002
    annotations = make().to_coco(7, category_ids=[17, 18, 90], first_id=5)
    assert [row["id"] for row in annotations] == [5, 6, 7]
    assert [row["category_id"] for row in annotations] == [18, 17, 18]
    assert {row["iscrowd"] for row in annotations} == {0}
    assert json.loads(json.dumps(annotations)) == annotations
    assert json.dumps(make().to_coco(np.int64(7))) == json.dumps(make().to_coco(7))
    assert empty().to_coco(1) == []


@settings(max_examples=40, deadline=None)
@given(detections())
def test_coco_and_back(found: Detections) -> None:
    rest: dict[str, Any] = {"class_names": NAMES, "image_size": (900, 1200)}
    assert Detections.from_coco(found.to_coco(3), **rest) == found
    ids = [5, 90, 1]
    assert Detections.from_coco(found.to_coco(3, category_ids=ids), category_ids=ids, **rest) == (
        found
    )


def test_coco_refuses() -> None:
    with pytest.raises(ValueError, match="category_ids: expected one for each label to 1, got 1"):
        make().to_coco(1, category_ids=[4])
    with pytest.raises(ValueError, match="entries: expected those of one image, got 2 images"):
        Detections.from_coco([*make().to_coco(1), *make().to_coco(2)])
    with pytest.raises(ValueError, match=r"category_ids: expected 2 among them, got \[1\]"):
        Detections.from_coco(make().to_coco(1), category_ids=[1])
    with pytest.raises(ValueError, match="bbox"):
        Detections.from_coco([{"category_id": 1, "bbox": [1, 2, 3]}])
    for ids in ([1.7, 2, 3], [True, 2, 3]):
        with pytest.raises(TypeError, match="category_ids: expected an integer, got"):
            make().to_coco(1, category_ids=ids)  # type: ignore[arg-type]
    for call in (
        lambda **ids: make().to_coco(1, **ids),
        lambda **ids: Detections.from_coco([], **ids),
    ):
        with pytest.raises(ValueError, match="category_ids: expected every category once, got 7"):
            call(category_ids=[7, 2, 7])
    box = [1, 2, 3, 4]
    with pytest.raises(TypeError, match=r"category_id: expected an integer, got 1\.5"):
        Detections.from_coco([{"category_id": 1.5, "bbox": box}])
    with pytest.raises(ValueError, match="category_id: expected at least 1, or category_ids"):
        Detections.from_coco([{"category_id": 0, "bbox": box}])
    assert Detections.from_coco([{"category_id": 0, "bbox": box}], category_ids=[0])[0].label == 0
    with pytest.raises(ValueError, match="entries: expected 'bbox' in row 0, got"):
        Detections.from_coco([{"category_id": 1}])
    with pytest.raises(ValueError, match="entries: expected 'category_id' in row 0, got"):
        Detections.from_coco([{"bbox": box}])
    with pytest.raises(ValueError, match="entries: expected dicts, got 'annotations' in row 0"):
        Detections.from_coco({"annotations": []})  # type: ignore[arg-type]
    # Ground truth has no scores.
    truth = Detections.from_coco([{"category_id": 1, "bbox": [1, 2, 3, 4]}])
    assert truth.scores.tolist() == [1.0]
    assert len(Detections.from_coco([])) == 0


def test_pycocotools_takes_the_results() -> None:
    coco = pytest.importorskip("pycocotools.coco").COCO()
    coco.dataset = {
        "info": {},
        "images": [{"id": 1}],
        "categories": [{"id": i + 1, "name": name} for i, name in enumerate(NAMES)],
        "annotations": [],
    }
    coco.createIndex()
    loaded = coco.loadRes(make().to_coco(1)).loadAnns(ids=[1])[0]
    assert (loaded["bbox"], loaded["area"]) == ([10.0, 20.0, 50.25, 70.0], 3517.5)


# --- PASCAL VOC


@pytest.mark.parametrize("coordinates", ["voc", "inclusive", "edges"])
@settings(max_examples=40, deadline=None)
@given(found=detections())
def test_voc_and_back(coordinates: Any, found: Detections) -> None:
    rest: dict[str, Any] = {"class_names": NAMES, "coordinates": coordinates}
    floats = found.to_voc_xml(coordinates=coordinates, integers=False)
    assert Detections.from_voc_xml(floats, **rest) == found.replace(scores=np.ones(len(found)))
    whole = Detections.from_voc_xml(found.to_voc_xml(coordinates=coordinates), **rest)
    assert np.abs(whole.boxes - found.boxes).max(initial=0) <= 0.5
    assert whole.areas.min(initial=1) >= 1


@st.composite
def anywhere(draw: st.DrawFn) -> Detections:
    """Boxes of any size from none, in, at the edge of and outside a small image."""
    height, width = draw(st.sampled_from([(9, 12), (1, 1), (2, 1)]))
    numbers = st.one_of(
        st.sampled_from([0, 0.4, 0.6, height - 1, height, width - 1, width, width - 0.4]),
        st.floats(-20, 30, width=32),
    )
    corners = np.array(draw(st.lists(st.tuples(*[numbers] * 4), max_size=4)), np.float32)
    corners = np.sort(corners.reshape(-1, 2, 2), axis=1).reshape(-1, 4)
    return Detections(corners, [0] * len(corners), class_names=("cat",), image_size=(height, width))


@pytest.mark.parametrize("integers", [True, False])
@pytest.mark.parametrize("coordinates", ["voc", "inclusive", "edges"])
@settings(max_examples=100, deadline=None)
@given(found=anywhere())
def test_voc_boxes_are_in_the_image_and_have_a_size(
    coordinates: Any, integers: bool, found: Detections
) -> None:
    assert found.image_size is not None
    height, width = found.image_size
    inside = (found.boxes[:, 2:] > 0).all(1) & (found.boxes[:, :2] < (width, height)).all(1)
    text = found.to_voc_xml(coordinates=coordinates, integers=integers)
    back = Detections.from_voc_xml(text, coordinates=coordinates)
    assert len(back) == inside.sum()
    sides = back.boxes[:, 2:] - back.boxes[:, :2]
    assert (sides >= 1 if integers else sides > 0).all()
    assert (back.boxes >= 0).all()
    assert (back.boxes <= (width, height, width, height)).all()


@pytest.mark.parametrize(
    ("box", "written"),
    [
        ((639, 0, 640, 10), (639, 1, 640, 11)),
        ((639.4, 0, 640, 10), (639, 1, 640, 11)),
        ((10, 99.2, 60, 100), (11, 99, 61, 100)),
    ],
)
def test_voc_boxes_at_the_edge(box: Any, written: Any) -> None:
    found = Detections([box], [0], class_names=("cat",), image_size=(100, 640))
    for integers in (True, False):
        corners = ET.fromstring(found.to_voc_xml(integers=integers)).find("object/bndbox")
        assert corners is not None
        assert tuple(float(corner.text or "") for corner in corners) == written
    outside = found.replace(boxes=[[700, 0, 800, 10]])
    assert "<object>" not in outside.to_voc_xml(integers=False)
    assert "<object>" not in outside.replace(boxes=[[-50, -50, -20, -20]]).to_voc_xml()


def test_voc_in_the_numbers_of_other_readers(tmp_path: Path) -> None:
    # A box that is the whole image has VOC's numbers 1 to 120, whatever the definition.
    whole = Detections([[0, 0, 120, 100]], [0], class_names=NAMES, image_size=(100, 120))
    for coordinates in ("voc", "inclusive"):
        box = ET.fromstring(whole.to_voc_xml(coordinates=coordinates)).find("object/bndbox")
        assert box is not None
        assert {corner.tag: int(corner.text or "") for corner in box} == {
            "xmin": 1,
            "ymin": 1,
            "xmax": 120,
            "ymax": 100,
        }
    # A box that would vanish is a pixel, within the image.
    point = whole.replace(boxes=[[119.8, 3.6, 119.9, 3.7]])
    back = Detections.from_voc_xml(point.to_voc_xml(coordinates="edges"), coordinates="edges")
    assert back.boxes.tolist() == [[119, 4, 120, 5]]
    # What lies beyond the image is cut off.
    beyond = whole.replace(boxes=[[-5, -5, 500, 50]])
    back = Detections.from_voc_xml(beyond.to_voc_xml(coordinates="edges"), coordinates="edges")
    assert back.boxes.tolist() == [[0, 0, 120, 50]]


def test_voc_dataset_reads_the_file(tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image").new("RGB", (120, 100))
    image.save(tmp_path / "a.png")
    found = make(path="pictures/a.png")
    assert found.to_voc_xml(tmp_path / "a.xml") is None
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.png", "a.xml"]
    root = ET.parse(tmp_path / "a.xml").getroot()
    assert (root.findtext("folder"), root.findtext("filename")) == ("pictures", "a.png")
    _, bbox, label, difficult = VOCBboxDataset(tmp_path, None, class_names=NAMES)[0]
    assert bbox.tolist() == [[20, 10, 90, 60], [6, 15, 30, 40], [0, 0, 4, 3]]
    assert label.tolist() == [1, 0, 1]
    assert not difficult.any()


def test_voc_names() -> None:
    odd = Detections([[0, 0, 9, 9]] * 2, [0, 1], class_names=("a<b>&c", "é 猫"))
    back = Detections.from_voc_xml(odd.to_voc_xml())
    assert back.class_names == ("a<b>&c", "é 猫")
    assert back.names == odd.names
    with pytest.raises(ValueError, match="class_names: expected text that XML can hold"):
        Detections([[0, 0, 9, 9]], [0], class_names=("\x1b[31m",)).to_voc_xml()
    for name in ("", " ", " cat", "cat\n"):
        with pytest.raises(ValueError, match="class_names: expected names without white space"):
            Detections([[0, 0, 9, 9]], [0], class_names=(name,)).to_voc_xml()
    lines = Detections([[0, 0, 9, 9]], [0], class_names=("a\rb\nc",))
    assert Detections.from_voc_xml(lines.to_voc_xml()).names == lines.names
    spelled = Detections.from_voc_xml(make().to_voc_xml(), class_names=("DOG", "Cat"))
    assert spelled.names == ["DOG", "Cat", "DOG"]
    with pytest.raises(ValueError, match=r"class_names: expected 'dog' among them, got \['cat'\]"):
        Detections.from_voc_xml(make().to_voc_xml(), class_names=["cat"])
    for call in (make().to_voc_xml, lambda **rest: Detections.from_voc_xml("<a/>", **rest)):
        with pytest.raises(ValueError, match="coordinates: expected one of"):
            call(coordinates="yolo")
    for text in ("", "no xml", "<!DOCTYPE a><annotation/>", "<a><object/></a>"):
        with pytest.raises(ValueError, match=r"^text: "):
            Detections.from_voc_xml(text)
    assert len(Detections.from_voc_xml(empty().to_voc_xml().encode())) == 0


# --- CSV and pandas


def test_csv(tmp_path: Path) -> None:
    found = make(path='a "b",\n.png', class_names=("cat", 'd,"o"g', "é"))
    rows = list(csv.DictReader(io.StringIO(found.to_csv())))
    assert tuple(rows[0]) == CSV_COLUMNS == cli_formats.CSV_COLUMNS
    assert [row["name"] for row in rows] == found.names
    assert rows[0]["path"] == 'a "b",\\n.png'  # in one line, as the command line writes it
    assert (rows[0]["width"], rows[0]["height"]) == ("120", "100")
    corners = [[float(row[name]) for name in ("x1", "y1", "x2", "y2")] for row in rows]
    assert np.array_equal(np.array(corners, np.float32), found.boxes)
    assert [np.float32(row["score"]) for row in rows] == found.scores.tolist()
    assert found.to_csv(tmp_path / "a.csv") is None
    assert (tmp_path / "a.csv").read_bytes().decode() == found.to_csv()
    assert found.to_csv(header=False).splitlines() == found.to_csv().splitlines()[1:]
    assert empty().to_csv() == ",".join(CSV_COLUMNS) + "\n"
    odd = make(class_names=("a\rb", "\ud800"))  # a line break, and what no encoding has
    assert [row["name"] for row in csv.DictReader(io.StringIO(odd.to_csv(), newline=""))] == [
        "\\ud800",
        "a\\rb",
        "\\ud800",
    ]
    odd.to_csv(tmp_path / "b.csv")
    assert (tmp_path / "b.csv").read_text() == odd.to_csv()


def test_a_failed_write_leaves_the_file_that_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.csv"
    path.write_text("before")

    def fail(*_: Any) -> None:
        raise OSError("no space left")

    monkeypatch.setattr("os.fsync", fail)
    for write in (make().to_csv, make().to_voc_xml):
        with pytest.raises(OSError, match="no space left"):
            write(path)
    assert path.read_text() == "before"
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.csv"]


def test_pandas() -> None:
    pandas = pytest.importorskip("pandas")
    table = make(path="a.png").to_pandas()
    assert list(table.columns) == [
        "path", "name", "label", "score", "x1", "y1", "x2", "y2", "area",
    ]  # fmt: skip
    assert table["name"].tolist() == ["dog", "cat", "dog"]
    assert (table.dtypes["score"], table.dtypes["label"]) == (np.float32, np.int64)
    assert table.loc[0, "area"] == 3517.5
    both = pandas.concat([table, make(path="b.png").to_pandas(), empty().to_pandas()])
    assert both.groupby("path").size().to_dict() == {"a.png": 3, "b.png": 3}
    # What pandas does with the table changes no detections.
    found = make()
    table = found.to_pandas()
    table.loc[0, "score"] = 0
    assert found.scores[0] == np.float32(0.9)


# --- supervision


class Supervised:
    """What ``from_supervision`` looks at, so that it is tested without the library."""

    def __init__(self, class_id: Any = (2, 0), names: Any = ("eel", "cat")) -> None:
        self.xyxy = np.array([[0, 0, 5, 5], [1, 2, 3, 4]], np.float32)[: len(class_id or (0, 0))]
        self.class_id = None if class_id is None else np.array(class_id, np.int64)
        self.confidence = None
        self.data = {} if names is None else {"class_name": np.array(names)}


def test_from_supervision() -> None:
    found = Detections.from_supervision(Supervised(), path="a.png")
    assert found.class_names == ("cat", "1", "eel")
    assert (found.names, found.path) == (["eel", "cat"], "a.png")
    assert found.scores.tolist() == [1, 1]
    assert Detections.from_supervision(Supervised(), class_names=NAMES).class_names == NAMES
    assert Detections.from_supervision(Supervised(names=None)).class_names is None
    with pytest.raises(ValueError, match="class_id: expected one for every box, got None"):
        Detections.from_supervision(Supervised(class_id=None))
    with pytest.raises(ValueError, match="class_id: expected labels of 0 or above, got -1"):
        Detections.from_supervision(Supervised(class_id=(2, -1)))
    with pytest.raises(ValueError, match="class_id: expected less than 100000 without class_names"):
        Detections.from_supervision(Supervised(class_id=(2, 10**7)))
    assert Detections.from_supervision(Supervised((2, 10**7), None))[1].label == 10**7


# --- torchvision and JSON


def test_from_torchvision_refuses_a_gradient() -> None:
    torch = pytest.importorskip("torch")
    found = {"boxes": torch.ones(1, 4, requires_grad=True), "labels": torch.ones(1).long()}
    with pytest.raises(TypeError, match=r"boxes: expected a tensor without.*\.detach\(\)"):
        Detections.from_torchvision(found)
    found["boxes"] = found["boxes"].detach()
    assert Detections.from_torchvision(found)[0].label == 0


@pytest.mark.parametrize(
    "text", ["[]", "{}", "3", '{"detections": 3}', '{"detections": "ab"}', '{"detections": [3]}']
)
def test_from_json_refuses(text: str) -> None:
    with pytest.raises(ValueError, match=r"^detections: expected"):
        Detections.from_json(text)
    with pytest.raises(ValueError, match="detections: expected 'label' in row 0"):
        Detections.from_json('{"detections": [{"box": [1, 2, 3, 4]}]}')


def test_to_supervision() -> None:
    supervision = pytest.importorskip("supervision")
    made = make().to_supervision()
    assert isinstance(made, supervision.Detections)
    assert made.data["class_name"].tolist() == ["dog", "cat", "dog"]
    assert made[made.confidence > 0.6].class_id.tolist() == [1, 1]
    assert Detections.from_supervision(made, class_names=NAMES, image_size=(100, 120)) == make()
    nothing = empty().to_supervision()
    assert len(nothing) == 0
    assert len(Detections.from_supervision(nothing)) == 0
