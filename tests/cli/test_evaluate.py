"""``oxidet eval``."""

from __future__ import annotations

import json

import pytest

from oxidet.models.detection import build_detector, load_detector, save_detector
from oxidet.train import evaluate_detector


@pytest.fixture
def cell_detector(tmp_path):
    path = tmp_path / "cells.npz"
    names = ("cell", "dust", "speck")
    save_detector(path, build_detector("faster_rcnn_small", n_fg_class=3, class_names=names))
    return path


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
    assert "no objects" in out
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
    assert (code, out) == (1, "")
    assert expected in err.splitlines()[-1]
    assert err.splitlines()[-1].startswith("error: ")


def test_other_classes_than_digits(oxidet_command, cell_detector):
    code, _, err = oxidet_command("eval", "--weights", cell_detector, "--data", "digits")
    assert code == 1
    assert "expected a detector of the digits 0 to 9, got one of cell, dust, speck" in err
