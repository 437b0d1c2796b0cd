"""Work of networks on their usual input, against numbers computed by hand."""

from __future__ import annotations

import pytest

import tiny_detectors
from known_networks import KNOWN, blank
from oxidet import nn
from oxidet._work import usual_work


@pytest.mark.parametrize("name", ["lenet5", "resnet18", "googlenet"])
def test_networks(name: str) -> None:
    work = usual_work(blank(name))
    assert work is not None
    side = KNOWN[name].side
    assert work.input.endswith(f"{side}, {side})")
    assert work.macs[""] == KNOWN[name].macs


def test_every_level_has_the_sum_of_what_is_below() -> None:
    model = blank("resnet18")
    work = usual_work(model)
    assert work is not None
    for path, module in model.named_modules():
        if module._modules and work.macs.get(path):
            inner = (f"{path}.{name}" if path else name for name, _ in module.named_children())
            assert work.macs[path] == sum(work.macs.get(name, 0) for name in inner), path


def test_a_detector_of_two_stages() -> None:
    work = usual_work(tiny_detectors.make("simple"))
    assert work is not None
    assert work.input == "an image of 64 x 85 pixels and 20 regions"
    cells, anchors, classes = 4 * 6, 6, 4
    assert work.macs["extractor"] == cells * 3 * 9 * 8
    assert work.macs["rpn.conv1"] == cells * 8 * 9 * 8
    assert work.macs["rpn"] == cells * (8 * 9 * 8 + 8 * 2 * anchors + 8 * 4 * anchors)
    assert work.macs["head.classifier.0"] == 20 * 32 * 16
    assert work.macs["head"] == 20 * (32 * 16 + 16 * classes + 16 * 4 * classes)
    assert work.macs[""] == sum(work.macs[part] for part in ("extractor", "rpn", "head"))


def test_a_pyramid_counts_every_level() -> None:
    work = usual_work(tiny_detectors.make("pyramid"))
    assert work is not None
    # A short side of 64 makes 64 x 85, padded to 64 x 96: maps of 8 x 12 and 4 x 6.
    assert work.input == "an image of 64 x 96 pixels and 40 regions"
    assert work.macs["backbone"] == (8 * 12 * 3 + 4 * 6 * 8) * 9 * 8
    assert work.macs["rpn.head.cls_logits"] == (8 * 12 + 4 * 6) * 8 * 6


def test_what_no_input_is_known_for() -> None:
    assert usual_work(nn.Conv2d(8, 8, 3)) is None
    assert usual_work(nn.ReLU()) is None
    linear = usual_work(nn.Sequential(nn.Flatten(), nn.Linear(6, 2)))
    assert linear is not None
    assert (linear.input, linear.macs[""]) == ("(1, 6)", 12)
