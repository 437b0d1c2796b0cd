"""Detections: rows in, rows out, in every form, and nothing writes into them."""

from __future__ import annotations

import base64
import copy
import io
import json
import pickle
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from oxidet.detections import Detection, Detections

NAMES = ("cat", "dog", "eel")


def make(**rest: Any) -> Detections:
    boxes = [[10, 20, 60, 90], [15, 5, 40, 30], [0, 0, 3, 4]]
    arguments = {"class_names": NAMES, "image_size": (100, 120), **rest}
    return Detections(boxes, [1, 0, 1], [0.9, 0.5, 0.7], **arguments)


def test_arrays_and_rows() -> None:
    found = make()
    assert len(found) == 3
    assert (found.boxes.dtype, found.boxes.shape) == (np.float32, (3, 4))
    assert (found.labels.dtype, found.scores.dtype) == (np.int64, np.float32)
    assert found[0] == Detection((10.0, 20.0, 60.0, 90.0), 1, "dog", 0.9)
    shown = "Detection(box=(10.00, 20.00, 60.00, 90.00), label=1, name='dog', score=0.9000)"
    assert repr(found[0]) == shown
    assert found[-1] == list(found)[2]
    assert [row.name for row in found] == found.names == ["dog", "cat", "dog"]
    assert found.areas.tolist() == [3500, 625, 12]
    assert found.counts() == {"cat": 1, "dog": 2}
    with pytest.raises(IndexError):
        found[3]


@pytest.mark.parametrize(
    ("index", "rows"),
    [
        (slice(1, None), [1, 2]),
        (slice(None, None, -1), [2, 1, 0]),
        ([2, 0], [2, 0]),
        ([], []),
        (np.array([-1]), [2]),
        (np.array([True, False, True]), [0, 2]),
        ([False, False, False], []),
    ],
)
def test_indexing(index: Any, rows: list[int]) -> None:
    found = make()
    part = found[index]
    assert isinstance(part, Detections)
    assert part.boxes.tolist() == found.boxes[rows].tolist()
    assert part.labels.tolist() == found.labels[rows].tolist()
    assert part.scores.tolist() == found.scores[rows].tolist()
    assert (part.class_names, part.image_size) == (NAMES, (100, 120))


@pytest.mark.parametrize(
    ("index", "error", "words"),
    [
        ([True, False], ValueError, "mask of length 3, got 2"),
        ([0.5], TypeError, "integers or a boolean mask"),
        ([[0]], ValueError, "one dimension"),
        (["cat"], TypeError, "index"),
    ],
)
def test_bad_index(index: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        make()[index]


def test_filter_and_top() -> None:
    found = make()
    assert found.filter(min_score=0.7).scores.tolist() == pytest.approx([0.9, 0.7])
    assert found.filter(names="cat").labels.tolist() == [0]
    assert len(found.filter(names=("cat", "dog"), min_area=100)) == 2
    assert len(found.filter(names="eel")) == 0
    assert found.filter() == found
    assert found.top(2).scores.tolist() == pytest.approx([0.9, 0.7])
    assert len(found.top(9)) == 3
    with pytest.raises(ValueError, match=r"names: .*got \['owl'\]"):
        found.filter(names=["cat", "owl"])
    with pytest.raises(ValueError, match="count"):
        found.top(-1)
    assert found.filter(max_score=0.7, min_score=0.6).scores.tolist() == pytest.approx([0.7])
    assert found.filter(min_area=12, max_area=625).labels.tolist() == [0, 1]
    assert len(found.filter(labels=1)) == len(found.filter(labels=np.array([1, 2]))) == 2
    assert len(found.filter(labels=())) == 0
    for words, bounds in (
        ("labels: expected an integer from 0 to 2, got 3", {"labels": 3}),
        ("labels: expected an integer from 0 to 2, got -1", {"labels": [1, -1]}),
        ("max_score: expected", {"max_score": np.nan}),
        ("min_area: expected", {"min_area": np.nan}),
    ):
        with pytest.raises(ValueError, match=words):
            found.filter(**bounds)
    nameless = make(class_names=None)
    assert len(nameless.filter(names="1")) == 2
    assert len(nameless.filter(labels=1)) == 2
    tied = Detections(np.zeros((3, 4)), [0, 1, 2], [0.5, 0.5, 0.5])
    assert tied.top(2).labels.tolist() == [0, 1]


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        (([[0, 0, 1]], [0]), ValueError, r"boxes: expected shape \(R, 4\), got \(1, 3\)"),
        (([0, 0, 1, 1], [0]), ValueError, r"boxes: expected shape"),
        (([[0, 0, 1, 1]], [0, 1]), ValueError, r"labels: expected shape \(1,\), got \(2,\)"),
        (([[0, 0, 1, 1]], [0], [1, 2]), ValueError, r"scores: expected shape"),
        (([[0, 0, 1, 1]], [0.5]), TypeError, r"labels: expected integers"),
        (([[0, 0, 1, 1]], [-1]), ValueError, r"labels: expected 0, got -1"),
        (([[0, 0, 1, 1]] * 2, [0, 1], [1, np.nan]), ValueError, r"scores: .*in row 1"),
        (([[0, 0, 1, np.inf]], [0]), ValueError, r"boxes: expected finite .*in row 0"),
        (("boxes", [0]), TypeError, r"boxes: expected an array of numbers"),
    ],
)
def test_bad_arguments(arguments: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        Detections(*arguments)


def test_labels_must_have_names() -> None:
    with pytest.raises(ValueError, match="labels: expected 0 to 1, got 2 to 2"):
        Detections([[0, 0, 1, 1]], [2], class_names=("a", "b"))


def test_nothing_found() -> None:
    for boxes in ([], np.zeros((0, 4))):
        found = Detections(boxes, [], [], class_names=NAMES)
        assert (len(found), list(found), found.names, found.counts()) == (0, [], [], {})
        assert found.boxes.shape == (0, 4)
        assert found.areas.shape == (0,)
        assert found[[]] == found.filter(min_score=0.5) == found.top(3) == found
        assert Detections.from_json(found.to_json()) == found
        assert repr(found) == "Detections: 0 objects"
        assert "0 objects" in found._repr_html_()
        assert Detections.from_chainercv([], []) == Detections([], [])
        bbox, label, score = found.to_chainercv()
        assert (bbox.shape, label.shape, score.shape) == ((0, 4), (0,), (0,))


def test_immutable_and_independent_of_what_it_was_made_from() -> None:
    boxes = np.zeros((1, 4), np.float32)
    found = Detections(boxes, np.array([0]), np.array([1.0], np.float32))
    boxes[:] = 7
    assert (found.boxes == 0).all()
    for array in (found.boxes, found.labels, found.scores):
        with pytest.raises(ValueError, match="read-only"):
            array[...] = 1
    with pytest.raises(AttributeError, match="immutable"):
        found.boxes = boxes
    with pytest.raises(AttributeError, match="immutable"):
        del found.scores
    exported = found.to_torchvision()
    exported["boxes"][:] = 9
    for array in found.to_chainercv():
        array[...] = 9
    assert (found.boxes == 0).all()


def test_copies_stay_immutable() -> None:
    found = make(path="a.jpg")
    for other in (copy.copy(found), copy.deepcopy(found), pickle.loads(pickle.dumps(found))):
        assert other == found
        assert other.path == "a.jpg"
        assert not other.boxes.flags.writeable


def test_equality() -> None:
    found = make()
    assert found == make(path="elsewhere.jpg")
    assert found != found[:2]
    assert found != make(class_names=None)
    assert found != make(image_size=None)
    assert found != found.replace(scores=[0.9, 0.5, 0.6])
    assert found != "detections"
    with pytest.raises(TypeError, match="unhashable"):
        hash(found)
    with pytest.raises(TypeError, match="replace"):
        found.replace(score=1)


def test_torchvision_form() -> None:
    found = make()
    form = found.to_torchvision()
    assert form["labels"].tolist() == [2, 1, 2]
    assert form["labels"].dtype == np.int64
    assert Detections.from_torchvision(form, class_names=NAMES, image_size=(100, 120)) == found
    del form["scores"]
    assert Detections.from_torchvision(form).scores.tolist() == [1, 1, 1]
    with pytest.raises(ValueError, match="0 is background"):
        Detections.from_torchvision({"boxes": [[0, 0, 1, 1]], "labels": [0]})


def test_chainercv_form() -> None:
    found = make()
    bbox, label, score = found.to_chainercv()
    assert bbox[0].tolist() == [20, 10, 90, 60]
    assert (bbox.dtype, label.dtype, score.dtype) == (np.float32, np.int32, np.float32)
    assert (
        Detections.from_chainercv(bbox, label, score, class_names=NAMES, image_size=(100, 120))
        == found
    )
    with pytest.raises(ValueError, match=r"bbox: expected shape \(R, 4\), got \(4,\)"):
        Detections.from_chainercv([0, 0, 1, 1], [0])


rows = hnp.arrays(
    np.float32, st.tuples(st.integers(0, 9), st.just(5)), elements=st.floats(-1e4, 1e4, width=32)
)


@given(rows)
def test_json_round_trip_is_exact(values: np.ndarray) -> None:
    labels = np.arange(len(values)) % 3
    found = Detections(values[:, :4], labels, values[:, 4], class_names=NAMES, path="ü.jpg")
    again = Detections.from_json(found.to_json())
    assert again == found
    assert again.path == "ü.jpg"
    assert Detections.from_dict(found.to_dict()) == found


def test_json_is_plain_and_short() -> None:
    record = json.loads(make().to_json())
    assert record["image_size"] == [100, 120]
    assert record["detections"][0] == {
        "box": [10.0, 20.0, 60.0, 90.0],
        "label": 1,
        "name": "dog",
        "score": 0.9,
    }


def test_repr_is_a_short_table() -> None:
    many = Detections(np.zeros((20, 4)), np.zeros(20, int), path="some/where/a.jpg")
    lines = repr(many).splitlines()
    assert lines[0] == "Detections: 20 objects, a.jpg"
    assert lines[-1] == "     ... 12 more"
    assert len(lines) == 11
    assert repr(make()).splitlines()[2] == "  0  0.900  dog    10.0   20.0   60.0   90.0"
    assert repr(make()[:1]).startswith(
        "Detections: 1 object in 100 x 120 pixels (height x width)\n"
    )


def test_repr_obeys_no_control_characters() -> None:
    found = make(class_names=("cat\n", "\x1b[31mdog", "é"), path="a\udcff\r.jpg")
    lines = repr(found).splitlines()
    assert len(lines) == 2 + len(found)
    assert all(line.isprintable() for line in lines)
    assert "\\x1b[31mdog" in lines[2]


def test_html_escapes_and_shows_the_picture(tmp_path: Any) -> None:
    nasty = make(class_names=("<b>cat", "dog&co", "eel"))
    page = nasty._repr_html_()
    assert "&lt;b&gt;cat" in page
    assert "dog&amp;co" in page
    assert "<b>" not in page
    assert "<img" not in page
    PIL = pytest.importorskip("PIL.Image")
    image = np.zeros((100, 120, 3), np.uint8)
    assert "data:image/png;base64," in make(image=image)._repr_html_()
    # Not the whole of a photograph: notebooks keep what they show.
    encoded = make(image=np.zeros((2000, 3000, 3), np.uint8))._repr_html_().split("base64,")[1]
    picture = PIL.open(io.BytesIO(base64.b64decode(encoded.split('"')[0])))
    assert picture.size == (1120, 747)
    # A file that has gone, or is no image, leaves the table.
    assert "<table" in make(path=str(tmp_path / "gone.jpg"))._repr_html_()
    (tmp_path / "text.jpg").write_text("no image")
    assert "<img" not in make(path=str(tmp_path / "text.jpg"))._repr_html_()
    assert "<table" in make(image=object())._repr_html_()
    many = Detections(np.zeros((30, 4)), np.zeros(30, int))
    assert "... 20 more" in many._repr_html_()
