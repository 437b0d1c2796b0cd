"""VOC directories: the originals' numbers, and every odd file dealt with by name."""

from __future__ import annotations

import copy
import pickle
import sys
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from oxidet.data import VOC_BBOX_LABEL_NAMES, VOCBboxDataset
from oxidet.data._xml import parse_without_dtd, parse_xml
from oxidet.data.voc import find_class_names, read_objects

pytest.importorskip("PIL")


def obj(name: str = "cat", box: tuple[Any, ...] = (11, 21, 31, 41), extra: str = "") -> str:
    """An object element; ``box`` is (ymin, xmin, ymax, xmax) as written."""
    fields = zip(("ymin", "xmin", "ymax", "xmax"), box, strict=True)
    corners = "".join(f"<{field}>{value}</{field}>" for field, value in fields)
    return f"<object><name>{name}</name>{extra}<bndbox>{corners}</bndbox></object>"


DIFFICULT = "<difficult>1</difficult>"


def make(folder: Path, annotations: dict[str, str], **splits: list[str]) -> Path:
    """A VOC directory with a 60x80 image for every annotation."""
    from PIL import Image

    for part in ("Annotations", "ImageSets/Main", "JPEGImages"):
        (folder / part).mkdir(parents=True)
    for name, text in annotations.items():
        body = text if text.startswith("<?") else f"<annotation>{text}</annotation>"
        (folder / "Annotations" / f"{name}.xml").write_text(body)
        Image.new("RGB", (80, 60), (10, 20, 30)).save(folder / "JPEGImages" / f"{name}.jpg")
    for split, ids in (splits or {"trainval": list(annotations)}).items():
        (folder / "ImageSets" / "Main" / f"{split}.txt").write_text("\n".join(ids) + "\n")
    return folder


def test_item(tmp_path: Path) -> None:
    data = make(tmp_path, {"a": obj("cat") + obj("dog", (1, 2, 3, 4))})
    img, bbox, label, difficult = VOCBboxDataset(data, class_names=("dog", "cat"))[0]
    assert (img.shape, img.dtype) == ((3, 60, 80), np.float32)
    np.testing.assert_allclose(img[:, 30, 40], [10, 20, 30], atol=3)
    assert (bbox.dtype, label.dtype, difficult.dtype) == (np.float32, np.int32, np.bool_)
    assert bbox.tolist() == [[10, 20, 30, 40], [0, 1, 2, 3]]
    assert label.tolist() == [1, 0]
    assert difficult.tolist() == [False, False]
    assert len(VOCBboxDataset(data, return_difficult=False)[0]) == 3


@pytest.mark.parametrize(
    ("coordinates", "expected"),
    [
        ("voc", [[10, 20, 30, 40], [0, 0, 8, 8]]),
        ("inclusive", [[10, 20, 31, 41], [0, 0, 9, 9]]),
        ("edges", [[11, 21, 31, 41], [0, 1, 9, 9]]),
    ],
)
def test_coordinates(tmp_path: Path, coordinates: Any, expected: list[list[float]]) -> None:
    data = make(tmp_path, {"a": obj() + obj("cat", (0, 1, 9, 9))})
    bbox = VOCBboxDataset(data, coordinates=coordinates).annotation(0).bbox
    assert bbox.tolist() == expected


def test_floats_are_kept(tmp_path: Path) -> None:
    data = make(tmp_path, {"a": obj("cat", ("11.5", " 21 ", "31.25", "4e1"))})
    assert VOCBboxDataset(data).annotation(0).bbox.tolist() == [[10.5, 20, 30.25, 39]]


def test_difficult(tmp_path: Path) -> None:
    data = make(tmp_path, {"a": obj(extra=DIFFICULT) + obj("dog")})
    without, with_ = VOCBboxDataset(data), VOCBboxDataset(data, use_difficult=True)
    assert without[0][3].tolist() == [False]
    assert with_[0][3].tolist() == [True, False]
    assert with_[0][2].tolist() == [without.class_names.index(n) for n in ("cat", "dog")]


def test_images_without_objects(tmp_path: Path) -> None:
    data = make(tmp_path, {"a": "", "b": obj(extra=DIFFICULT)})
    dataset = VOCBboxDataset(data, class_names=["cat"])
    for index in (0, 1):
        _, bbox, label, difficult = dataset[index]
        assert (bbox.shape, bbox.dtype) == ((0, 4), np.float32)
        assert (label.shape, label.dtype) == ((0,), np.int32)
        assert difficult.shape == (0,)


def test_parts_inside_an_object_are_not_objects(tmp_path: Path) -> None:
    part = "<part><name>head</name><bndbox><xmin>1</xmin></bndbox></part>"
    data = make(tmp_path, {"a": obj(extra=part)})
    assert VOCBboxDataset(data).annotation(0).bbox.tolist() == [[10, 20, 30, 40]]


def test_class_names(tmp_path: Path) -> None:
    own = make(
        tmp_path / "own", {"a": obj("RBC"), "b": obj("Platelets") + obj(" rbc ")}, train=["a"]
    )
    assert find_class_names(own) == ("Platelets", "RBC")
    # The same for every split, though "train" has only one of them.
    assert VOCBboxDataset(own, "train").class_names == ("Platelets", "RBC")
    voc = make(tmp_path / "voc", {"a": obj("Dog") + obj("person")})
    dataset = VOCBboxDataset(voc)
    assert dataset.class_names == VOC_BBOX_LABEL_NAMES
    assert dataset.annotation(0).label.tolist() == [11, 14]
    with pytest.raises(ValueError, match="distinct"):
        VOCBboxDataset(voc, class_names=("dog", "person", "Dog"))
    empty = make(tmp_path / "empty", {"a": ""})
    with pytest.raises(ValueError, match="at least one object"):
        VOCBboxDataset(empty)


def test_invalid_boxes(tmp_path: Path) -> None:
    data = make(tmp_path, {"a": obj() + obj("cat", (9, 9, 9, 20)) + obj("cat", (9, 20, 30, 10))})
    with pytest.warns(UserWarning, match=r"a\.xml: object [23] \('cat'\).*left out") as seen:
        assert len(VOCBboxDataset(data).annotation(0).bbox) == 1
    assert len(seen) == 2
    assert len(VOCBboxDataset(data, invalid_boxes="keep").annotation(0).bbox) == 3
    with pytest.raises(ValueError, match=r"a\.xml: object 2 \('cat'\): expected y_min < y_max"):
        VOCBboxDataset(data, invalid_boxes="raise").annotation(0)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            obj() + obj("cat", (1, "x", 3, 4)),
            r"a\.xml: object 2 \('cat'\): expected a number for xmin",
        ),
        (obj("cat", (1, 2, "nan", 4)), r"a\.xml: object 1 .*finite number for ymax, got nan"),
        ("<object><name>cat</name></object>", r"a\.xml: object 1 .*expected a bndbox"),
        (obj().replace("ymin", "top"), r"a\.xml: object 1 .*for ymin, got nothing"),
        (obj(""), r"a\.xml: object 1 \(''\): expected a name"),
        (
            obj(extra="<difficult>maybe</difficult>"),
            r"a\.xml: object 1 .*for difficult, got 'maybe'",
        ),
        (obj("horse"), r"a\.xml: object 1 \('horse'\): expected a class of \['cat'\]"),
        ("<object>", r"a\.xml: not well-formed XML"),
    ],
)
def test_bad_annotations_name_file_and_object(tmp_path: Path, text: str, words: str) -> None:
    data = make(tmp_path, {"a": text})
    with pytest.raises(ValueError, match=words):
        VOCBboxDataset(data, class_names=["cat"]).annotation(0)


BOMB = (
    '<?xml version="1.0"?><!DOCTYPE a [<!ENTITY x "ha"><!ENTITY y "&x;&x;&x;">]>'
    "<annotation>&y;</annotation>"
)
FETCH = '<?xml version="1.0"?><!DOCTYPE a SYSTEM "file:///etc/passwd"><annotation/>'


@pytest.mark.parametrize("parse", [parse_xml, parse_without_dtd])
def test_dtd_and_entities_are_refused(parse: Any) -> None:
    for attack in (BOMB, FETCH):
        with pytest.raises(ValueError, match=r"^a DTD or an entity is not allowed here$"):
            parse(attack.encode())
    for broken in (
        b"",
        b"<a>",
        b"<a></b>",
        b"\xff\xfe\x00",
        b'<?xml version="1.0" encoding="x"?><a/>',
        b'<?xml version="1.0" encoding="GB2312"?><a/>',
    ):
        with pytest.raises(ValueError, match="not well-formed"):
            parse(broken)


def test_both_parsers_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    text = '<?xml version="1.0" encoding="iso-8859-1"?><a><!-- note --><b c="1">\xe9&lt;</b> </a>'
    data = text.encode("latin-1")
    for root in (parse_xml(data), parse_without_dtd(data)):
        assert [(e.tag, e.text, e.attrib) for e in root] == [("b", "\xe9<", {"c": "1"})]
    monkeypatch.setitem(sys.modules, "defusedxml.ElementTree", None)
    assert parse_xml(data).tag == "a"


def test_splits(tmp_path: Path) -> None:
    data = make(tmp_path, {"a": obj(), "b": obj()}, train=["b", "", " a "], test=[])
    assert VOCBboxDataset(data, "train").ids == ("b", "a")
    assert len(VOCBboxDataset(data, "test")) == 0
    with pytest.raises(ValueError, match=r"split: expected one of \['test', 'train'\].*got 'val'"):
        VOCBboxDataset(data, "val")
    with pytest.raises(FileNotFoundError, match="layout of PASCAL VOC"):
        VOCBboxDataset(tmp_path / "elsewhere")


def test_lists_written_on_windows(tmp_path: Path) -> None:
    data = make(tmp_path, {"a": obj(), "größe 2": obj()})
    split = data / "ImageSets" / "Main" / "trainval.txt"
    split.write_bytes("\ufeffa\r\ngröße 2\r\n\r\n".encode())
    dataset = VOCBboxDataset(data)
    assert dataset.ids == ("a", "größe 2")
    assert len(dataset[1][1]) == 1
    split.write_bytes("größe 2".encode("latin-1"))
    with pytest.raises(ValueError, match=r"trainval\.txt: expected text in UTF-8"):
        VOCBboxDataset(data)


def test_missing_image_and_other_formats(tmp_path: Path) -> None:
    data = make(tmp_path, {"a": obj(), "b": obj()})
    images = data / "JPEGImages"
    (images / "a.jpg").rename(images / "a.JPEG")
    (images / "b.jpg").unlink()
    dataset = VOCBboxDataset(data)
    assert dataset[0][0].shape == (3, 60, 80)
    with pytest.raises(FileNotFoundError, match=r"b: expected an image"):
        dataset[1]
    with pytest.raises(IndexError):
        dataset[2]
    assert dataset.image_path(-2) == dataset.image_path(0)


def test_items_do_not_share_memory(tmp_path: Path) -> None:
    dataset = VOCBboxDataset(make(tmp_path, {"a": obj()}))
    for part in dataset[0]:
        part[...] = 0
    assert dataset[0][1].tolist() == [[10, 20, 30, 40]]
    with pytest.raises(ValueError, match="read-only"):
        dataset.annotation(0).bbox[0] = 0


def test_arguments_and_copies(tmp_path: Path) -> None:
    data = make(tmp_path, {"a": obj()})
    with pytest.raises(ValueError, match="coordinates"):
        VOCBboxDataset(data, coordinates="yolo")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="invalid_boxes"):
        VOCBboxDataset(data, invalid_boxes="ignore")  # type: ignore[arg-type]
    dataset = VOCBboxDataset(data)
    for other in (copy.deepcopy(dataset), pickle.loads(pickle.dumps(dataset))):
        assert other.annotation(0).bbox.tolist() == [[10, 20, 30, 40]]
    assert "1 images, 20 classes" in repr(dataset)


@pytest.mark.filterwarnings("ignore:.*is left out")
def test_bccd(bccd: Path) -> None:
    sizes = {
        split: len(VOCBboxDataset(bccd, split, class_names=["RBC"]))
        for split in ("train", "val", "trainval", "test")
    }
    assert sizes == {"train": 205, "val": 87, "trainval": 292, "test": 72}
    names = find_class_names(bccd)
    assert names == ("Platelets", "RBC", "WBC")
    labels = []
    for split in ("trainval", "test"):
        dataset = VOCBboxDataset(bccd, split, class_names=names)
        labels += [dataset.annotation(index).label for index in range(len(dataset))]
    assert sum(len(read_objects(p)) for p in (bccd / "Annotations").glob("*.xml")) == 4888
    # Two red cells have boxes of no size.
    assert np.bincount(np.concatenate(labels)).tolist() == [361, 4155 - 2, 372]
    img, bbox, _, _ = VOCBboxDataset(bccd, "test", class_names=names)[0]
    assert img.shape == (3, 480, 640)
    assert (bbox[:, 2] <= 480).all()
    assert (bbox[:, 3] <= 640).all()


def test_an_enormous_file_is_refused_unread(tmp_path: Path) -> None:
    data = make(tmp_path, {"a": obj(), "b": obj()})
    path = data / "Annotations" / "b.xml"
    with path.open("r+b") as file:
        file.truncate(10**9)  # a hole: it takes no room on the disk
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match=r"b\.xml: expected an annotation of at most .* bytes"):
            VOCBboxDataset(data, class_names=["cat"]).annotation(1)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 40e6
    with pytest.warns(UserWarning, match=r"b\.xml: .* got 1000000000; the image is left out"):
        assert VOCBboxDataset(data, class_names=["cat"], on_error="skip").ids == ("a",)


def test_images_with_faults_are_skipped_and_counted(tmp_path: Path) -> None:
    broken = {"b": "<object>", "c": obj("cat", (1, 2, "inf", 4)), "d": obj("horse"), "e": BOMB}
    data = make(tmp_path, {"a": obj(), **broken, "f": obj(), "g": obj()})
    split = data / "ImageSets" / "Main" / "trainval.txt"
    split.write_text("a\nb\nc\nd\ne\nf\nmissing\ng\n")
    (data / "JPEGImages" / "g.jpg").unlink()
    with pytest.warns(UserWarning, match="the image is left out") as seen:
        dataset = VOCBboxDataset(data, class_names=["cat"], on_error="skip")
    assert dataset.image_ids == ("a", "f")
    assert list(dataset.skipped) == ["b", "c", "d", "e", "missing", "g"]
    for (image_id, message), warning in zip(dataset.skipped.items(), seen, strict=True):
        name = str(data / ("JPEGImages" if image_id == "g" else "Annotations") / image_id)
        assert message.startswith(name)
        assert "\n" not in message
        assert str(warning.message) == f"{message}; the image is left out"
    assert "2 images, 1 classes, 6 skipped" in repr(dataset)
    assert dataset[1][1].tolist() == [[10, 20, 30, 40]]
    # Class names are found in what can be read.
    with pytest.warns(UserWarning, match="the image is left out"):
        found = VOCBboxDataset(data, on_error="skip")
    assert found.class_names == VOC_BBOX_LABEL_NAMES
    assert found.image_ids == ("a", "d", "f")
    with pytest.raises(ValueError, match=r"b\.xml: not well-formed"):
        VOCBboxDataset(data)
    with pytest.raises(FileNotFoundError, match=r"missing\.xml"):
        VOCBboxDataset(data, class_names=["cat"]).annotation(6)


def test_boxes_beyond_the_image(tmp_path: Path) -> None:
    data = make(tmp_path, {"a": obj("cat", (-20, 1, 31, 500)) + obj("cat", (1, 90, 9, 95))})
    kept = VOCBboxDataset(data).annotation(0).bbox
    assert kept.tolist() == [[0, 0, 30, 499], [0, 89, 8, 94]]
    with pytest.warns(UserWarning, match=r"object 2 \('cat'\).*left out"):
        clipped = VOCBboxDataset(data, outside="clip").annotation(0).bbox
    assert clipped.tolist() == [[0, 0, 30, 80]]
    with pytest.raises(ValueError, match=r"object 1 .*within height and width \(60, 80\)"):
        VOCBboxDataset(data, outside="raise").annotation(0)


def test_ids_listed_twice_count_once(tmp_path: Path) -> None:
    data = make(tmp_path, {"a": obj(), "b": obj()}, train=["b", "a", "b"])
    with pytest.warns(UserWarning, match=r"train\.txt: expected every id once, got 'b' again"):
        assert VOCBboxDataset(data, "train").ids == ("b", "a")


def test_annotations_have_every_column(tmp_path: Path) -> None:
    annotation = VOCBboxDataset(make(tmp_path, {"a": obj()})).annotation(0)
    assert annotation.crowd.tolist() == [False]
    assert annotation.area.tolist() == [400]
    assert VOCBboxDataset(tmp_path).image_size(0) == (60, 80)
