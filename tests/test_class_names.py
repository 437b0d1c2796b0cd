"""Names of classes: one text in place of a list is refused, not taken for its letters."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from oxidet import Detections
from oxidet._arrays import names
from oxidet.classification import Classification
from oxidet.models.detection import build_detector
from oxidet.models.detection.detector import Detector
from oxidet.weights._loading import to_metadata


def rename(names: Any) -> None:
    build_detector(
        "fasterrcnn_resnet_fpn", num_classes=4, weights_backbone=None
    ).class_names = names


def plot(names: Any) -> None:
    from oxidet.visualize import vis_bbox

    vis_bbox(None, np.zeros((1, 4)), [0], label_names=names)


TAKERS: dict[str, Callable[[Any], Any]] = {
    "Detections": lambda given: Detections(np.zeros((0, 4)), [], [], class_names=given),
    "Classification": lambda given: Classification([0], [1.0], class_names=given),
    "Detector": Detector,
    "build_detector": lambda given: build_detector("faster_rcnn_small", class_names=given),
    "build_detector of torchvision's": lambda given: build_detector(
        "fasterrcnn_resnet_fpn", class_names=given
    ),
    "class_names = ": rename,
    "weights": lambda given: to_metadata(None, given),
    "vis_bbox": plot,
}


@pytest.mark.parametrize("taker", TAKERS)
def test_one_text_is_no_list_of_names(taker: str) -> None:
    with pytest.raises(TypeError, match=r"_names: expected a list of names, got 'cat'$"):
        TAKERS[taker]("cat")


FEW = ("cat", "dog", "tiger")
# What builds detectors of each family, small ones where there is a choice.
BUILDERS: dict[str, Callable[[Any], Detector]] = {
    "faster_rcnn": lambda given: build_detector(
        "faster_rcnn", backbone="resnet18", class_names=given
    ),
    "faster_rcnn_resnet": lambda given: build_detector(
        "faster_rcnn_resnet", backbone="resnet18", class_names=given
    ),
    "faster_rcnn_small": lambda given: build_detector("faster_rcnn_small", class_names=given),
    "faster_rcnn_vgg16": lambda given: build_detector("faster_rcnn_vgg16", class_names=given),
    "fasterrcnn_resnet_fpn": lambda given: build_detector(
        "fasterrcnn_resnet_fpn", class_names=given
    ),
}


@pytest.mark.parametrize("builder", BUILDERS)
def test_names_come_out_of_an_iterator(builder: str) -> None:
    assert BUILDERS[builder](name for name in FEW).class_names == FEW


@pytest.mark.parametrize("taker", TAKERS)
@pytest.mark.parametrize("given", [{"cat"}, frozenset({"cat"}), {0: "cat"}, bytearray(b"cat")])
def test_what_is_no_list_of_names_is_refused(taker: str, given: Any) -> None:
    with pytest.raises(TypeError, match=r"_names: expected a list of names, got "):
        TAKERS[taker](given)


@pytest.mark.parametrize("taker", TAKERS)
@pytest.mark.parametrize("given", [["cat", None], [b"cat", "dog"]])
def test_what_is_no_name_is_refused(taker: str, given: Any) -> None:
    with pytest.raises(TypeError, match=r"_names: expected names as text, got (None|b'cat')$"):
        TAKERS[taker](given)


def test_names_are_texts_in_their_order() -> None:
    assert names(["b", "a", "b"], "x") == ("b", "a", "b")
    assert names([np.str_("x"), 7], "x") == ("x", "7")
    assert names((), "x") == ()
