"""``oxidet check-data``."""

from __future__ import annotations

import json

import pytest


def test_clean_data(oxidet_command, voc, tmp_path):
    picture = tmp_path / "out" / "sheet.png"
    code, out, err = oxidet_command("check-data", voc, "--picture", picture)
    assert (code, err) == (1, "")  # the images of the fixture are all the same noise
    assert "duplicate image: 2" in out
    assert picture.is_file()
    for number in (2, 3):
        (voc / "Annotations" / f"{number}.xml").unlink()
        (voc / "JPEGImages" / f"{number}.png").unlink()
    code, out, err = oxidet_command("check-data", voc, "--split", "train")
    assert (code, err) == (0, "")
    assert "problems: none" in out
    lines = out.splitlines()
    assert lines[0].endswith("split='train'): 2 images, 4 objects")
    assert lines[3].split() == ["cell", "2", "2", "54", "54", "54"]


def test_problems(oxidet_command, voc, tmp_path):
    (voc / "JPEGImages" / "0.png").write_bytes(b"no image")
    (voc / "Annotations" / "1.xml").write_text("<annotation>")
    file = tmp_path / "report.json"
    code, out, err = oxidet_command("check-data", voc, "--split", "train", "--json", file)
    assert (code, err) == (1, "")
    content = json.loads(file.read_text())
    assert content["counts"] == {"unreadable image": 1, "unreadable annotation": 1}
    assert "0.png: expected an image file" in out
    assert "1.xml: not well-formed XML" in out
    code, out, err = oxidet_command("check-data", voc, "--split", "train", "--json", "-")
    assert (code, err) == (1, "")
    assert json.loads(out) == content


def test_class_names(oxidet_command, voc, tmp_path):
    code, out, _ = oxidet_command("check-data", voc, "--split", "val", "--class-names", "cell")
    assert code == 1
    assert "expected a class of ['cell'], got 'speck'" in out
    names = tmp_path / "names.txt"
    names.write_text("cell\nspeck\nunused\n")
    code, out, _ = oxidet_command("check-data", voc, "--split", "val", "--class-names", names)
    assert code == 0
    assert "unused" in out


def test_coco(oxidet_command, tmp_path, make_image):
    for split, images in (("train", 2), ("val", 1)):
        for number in range(images):
            make_image(tmp_path / "images" / split / f"{number}.png", 40, 50 + number)
        content = {
            "images": [{"id": k, "file_name": f"{k}.png"} for k in range(images)],
            "categories": [{"id": 3, "name": "cell"}],
            "annotations": [{"image_id": 0, "category_id": 3, "bbox": [1, 2, 30, 20]}],
        }
        (tmp_path / "annotations").mkdir(exist_ok=True)
        (tmp_path / "annotations" / f"{split}.json").write_text(json.dumps(content))
    options = ("check-data", tmp_path, "--split", "train", "--tiny", 25)
    code, out, _ = oxidet_command(*options)
    assert code == 0
    assert "image without objects: 1" in out
    assert "tiny box: 1" in out
    assert oxidet_command(*options, "--format", "coco").out == out
    assert oxidet_command(*options, "--format", "voc").code == 1


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["{voc}/nowhere"], "expected a folder of labelled images"),
        (["{voc}", "--split", "dev"], "split: expected one of"),
        (["{voc}", "--format", "coco"], "expected annotations.json"),
        (["{voc}", "--json", "{voc}"], "Is a directory"),
    ],
)
def test_what_cannot_be_looked_at(oxidet_command, voc, arguments, expected):
    code, out, err = oxidet_command("check-data", *(part.format(voc=voc) for part in arguments))
    assert (code, out) == (1, "")
    assert expected in err
    assert err.startswith("error: ")
    assert err.count("\n") == 1
