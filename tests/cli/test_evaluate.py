"""``oxidet eval``."""

from __future__ import annotations

import json

import pytest

from oxidet.models.detection import load_detector
from oxidet.train import evaluate_detector


def test_average_precision_by_class(oxidet_command, cell_detector, voc, tmp_path):
    file = tmp_path / "result.json"
    code, out, _ = oxidet_command(
        "eval", "--weights", cell_detector, "--data", voc, "--json", file, "--use-07-metric"
    )
    assert code == 0
    content = json.loads(file.read_text())
    assert content["metric"] == "voc2007"
    assert (content["images"], content["objects"]) == (1, 2)
    assert list(content["ap"]) == ["cell", "dust", "speck"]
    assert content["ap"]["dust"] is None  # none in the data
    assert content["map"] == pytest.approx((content["ap"]["cell"] + content["ap"]["speck"]) / 2)
    assert content["coco_ap"]["dust"] is None
    assert content["coco"]["AP"] == pytest.approx(
        (content["coco_ap"]["cell"] + content["coco_ap"]["speck"]) / 2
    )
    rows = [line.split() for line in out.splitlines()]
    assert ["dust", "0", "-", "-"] in rows
    assert any(row[:2] == ["COCO:", "AP"] for row in rows)
    assert out.splitlines()[-1].startswith(f"mAP at IoU 0.5: {content['map']:.4f} (1 image, ")


def test_digit_scenes(oxidet_command, random_detector):
    pytest.importorskip("sklearn")
    from oxidet.data import DigitScenes

    code, out, _ = oxidet_command(
        "eval", "--weights", random_detector, "--data", "digits", "--split", "validation",
        "--scenes", 3, "--iou-threshold", 0.3, "--json", "-",
    )  # fmt: skip
    assert code == 0
    content = json.loads(out)
    scenes = DigitScenes("validation", length=3)
    expected = evaluate_detector(load_detector(random_detector), scenes, iou_thresh=0.3)
    assert (content["map"], content["objects"]) == (expected.mean_ap, expected.objects)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--data", "digits", "--split", "dev"], "--split: expected one of train, validation"),
        (["--data", "{voc}", "--split", "dev"], "split: expected one of"),
        (["--data", "{voc}/nowhere"], "nowhere"),
        (["--data", "{voc}"], "3.xml: object 1 ('cell'): expected a class of"),
    ],
)
def test_data_that_do_not_fit(oxidet_command, random_detector, voc, options, expected):
    arguments = [option.format(voc=voc) for option in options]
    code, out, err = oxidet_command("eval", "--weights", random_detector, *arguments)
    assert (code, out) == (2 if expected.startswith("--") else 1, "")
    assert expected in err.splitlines()[-1]
    assert err.splitlines()[-1].startswith("error: ")


def test_other_classes_than_digits(oxidet_command, cell_detector):
    code, _, err = oxidet_command("eval", "--weights", cell_detector, "--data", "digits")
    assert code == 1
    assert "expected a detector of the digits 0 to 9, got one of cell, dust, speck" in err


def test_pictures(oxidet_command, cell_detector, voc, tmp_path):
    pytest.importorskip("matplotlib")
    from PIL import Image

    folder = tmp_path / "new" / "pictures"
    code, out, err = oxidet_command(
        "eval", "--weights", cell_detector, "--data", voc, "--pictures", folder
    )
    assert (code, err) == (0, "")
    names = {path.name for path in folder.iterdir()}
    assert {"confusion-matrix.png", "worst.png"} <= names  # an untrained detector misses all
    assert out.splitlines()[-1].startswith(f"pictures: {folder}/")
    for path in folder.iterdir():
        with Image.open(path) as picture:
            assert min(picture.size) > 200
            assert picture.convert("L").getextrema()[0] < 60, f"{path} is blank"


def test_coco_data_in_batches_with_a_damaged_image(oxidet_command, cell_detector, voc, tmp_path):
    """The same objects as COCO's form has them give the same figures as VOC's."""
    root = tmp_path / "coco"
    (root / "annotations").mkdir(parents=True)
    (root / "images").symlink_to(voc / "JPEGImages")
    boxes = (([10, 12, 50, 58], 1), ([70, 20, 30, 32], 2))
    content = {
        "images": [{"id": 7 + k, "file_name": f"{k}.png"} for k in range(4)],
        "categories": [{"id": 1, "name": "cell"}, {"id": 2, "name": "speck"}],
        "annotations": [
            {"id": 2 * k + c, "image_id": 7 + k, "category_id": c, "bbox": box}
            for k in range(4)
            for box, c in boxes
        ],
    }
    (root / "annotations" / "instances_test.json").write_text(json.dumps(content))
    command = ("eval", "--weights", cell_detector, "--json", "-", "--batch", 3)
    coco, err = map(str, oxidet_command(*command, "--data", root)[1:])
    assert err == ""
    same = oxidet_command(*command, "--data", voc, "--split", "all", "--coordinates", "edges")
    first, second = json.loads(coco), json.loads(same.out)
    assert first["objects"] == 8
    for key in ("map", "ap", "coco", "coco_ap", "images", "objects"):
        assert first[key] == second[key], key

    (voc / "JPEGImages" / "2.png").write_bytes(b"no image")
    code, out, err = oxidet_command(*command, "--data", root)
    assert (code, out) == (1, "")
    assert "2.png" in err.splitlines()[-1]
    code, out, err = oxidet_command(*command, "--data", root, "--on-error", "skip")
    assert code == 0
    assert json.loads(out)["images"] == 3
    assert "2.png" in err
    assert all(line.startswith("warning: ") for line in err.splitlines())
