"""``oxidet demo``."""

from __future__ import annotations

import re

import numpy as np
import pytest
from PIL import Image

from oxidet.cli._demonstration import match
from oxidet.detections import Detections

pytest.importorskip("sklearn")


@pytest.mark.usefixtures("random_pretrained")
def test_table_figures_and_pictures(oxidet_command, tmp_path):
    out = tmp_path / "pictures"
    code, printed, _ = oxidet_command("demo", "--out", out, "--scenes", 3, "--evaluate-on", 4)
    assert code == 0
    names = [f"scene-{number:03d}" for number in range(3)]
    assert {path.name for path in out.iterdir()} == {
        "contact-sheet.png",
        *(f"{name}.png" for name in names),
    }
    for path in out.iterdir():
        with Image.open(path) as picture:
            assert np.asarray(picture).std() > 10, f"{path} is blank"
    assert all(name in printed for name in names)
    assert "missed" in printed  # an untrained detector is sure of nothing
    assert "at IoU 0.5 on 4 scenes" in printed
    assert "of 360 test digits right" in printed


def test_the_shipped_networks(oxidet_command, tmp_path):
    code, printed, _ = oxidet_command(
        "demo", "--out", tmp_path / "out", "--scenes", 1, "--evaluate-on", 20
    )
    assert code == 0
    [precision] = re.findall(r"mAP ([01]\.\d+) at IoU 0.5 on 20 scenes", printed)
    [accuracy] = re.findall(r"([\d.]+)% of 360 test digits right", printed)
    assert float(precision) >= 0.95
    assert float(accuracy) >= 98.5


def test_a_detector_of_other_things(oxidet_command, tmp_path):
    from oxidet.models.detection import build_detector, save_detector

    path = tmp_path / "cells.npz"
    save_detector(path, build_detector("faster_rcnn_small", n_fg_class=1, class_names=("cell",)))
    code, _, err = oxidet_command("demo", "--weights", path, "--out", tmp_path / "out")
    assert code == 1
    assert err == "error: --weights: expected a detector of the digits 0 to 9, got one of cell\n"


def pairs(found, truth):
    """(found label, true label) of each row."""
    return [
        (row.found.label if row.found else None, row.truth.label if row.truth else None)
        for row in match(found, truth)
    ]


def test_detections_are_matched_as_average_precision_does():
    box, beside, far = [0, 0, 10, 20], [2, 0, 12, 20], [50, 50, 60, 70]
    truth = Detections([box, far], [4, 1])
    # The better score is of another class: the digit goes to its own, the other stands alone.
    assert pairs(Detections([beside, box], [7, 4], [0.9, 0.8]), truth) == [
        (7, None),
        (4, 4),
        (None, 1),
    ]
    # Without a rival the wrong class is a wrong reading of the digit, not an invention.
    assert pairs(Detections([beside], [7], [0.9]), truth) == [(7, 4), (None, 1)]
    # Of two of the right class, one is too many.
    assert pairs(Detections([box, beside], [4, 4], [0.9, 0.8]), truth) == [
        (4, 4),
        (4, None),
        (None, 1),
    ]
    # Too little in common.
    assert pairs(Detections([[6, 0, 16, 20]], [4], [0.9]), truth) == [
        (4, None),
        (None, 4),
        (None, 1),
    ]


def test_matching_nothing():
    nothing = Detections(np.zeros((0, 4)), np.zeros(0, int))
    something = Detections([[0, 0, 10, 20]], [4])
    assert match(nothing, nothing) == []
    assert pairs(nothing, something) == [(None, 4)]
    assert pairs(something, nothing) == [(4, None)]
