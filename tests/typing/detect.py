"""Detectors, classifiers and what they return, as a type checker sees them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from typing_extensions import assert_type

import oxidet
from oxidet import Detection, Detections, models, pretrained
from oxidet.classification import Classification
from oxidet.models.detection import (
    Detector,
    FasterRCNN,
    build_detector,
    fasterrcnn_resnet_fpn,
    load_detector,
)
from oxidet.simple_faster_rcnn import FasterRCNNVGG16

BoxesLabelsScores: TypeAlias = tuple[
    list[NDArray[np.float32]], list[NDArray[np.int32]], list[NDArray[np.float32]]
]


def predict_gives_what_it_was_given(photo: NDArray[np.uint8], errors: Literal["skip"]) -> None:
    detector = pretrained.digit_detector()
    assert_type(detector.predict(photo), Detections)
    assert_type(detector.predict("photo.jpg", score_threshold=0.3), Detections)
    assert_type(detector.predict(Path("photo.jpg")), Detections)
    assert_type(detector.predict(Image.open("photo.jpg")), Detections)
    assert_type(detector.predict(Path("photo.jpg").read_bytes()), Detections)
    assert_type(detector.predict([photo, photo], batch_size=2), list[Detections])
    assert_type(detector.predict(("a.jpg", "b.jpg")), list[Detections])
    assert_type(detector.predict(path for path in ("a.jpg", "b.jpg")), list[Detections])
    assert_type(detector.predict(Path().iterdir()), list[Detections])
    assert_type(detector.predict({"a": photo}.values()), list[Detections])
    # How many axes there are is not seen: a batch in one array is several as a list.
    assert_type(detector.predict(list(np.stack([photo, photo]))), list[Detections])
    # An unreadable picture leaves None only where that was asked for.
    assert_type(detector.predict("photo.jpg", on_error="skip"), Detections | None)
    assert_type(detector.predict(["a.jpg"], on_error=errors), list[Detections | None])
    assert_type(detector.iter_predict(Path().iterdir()), Iterator[Detections])


def what_is_wrong_is_refused(photo: NDArray[np.uint8]) -> None:
    detector = pretrained.digit_detector()
    detector.predict(7)  # type: ignore
    detector.predict(photo, score_treshold=0.3)  # type: ignore
    detector.predict(photo, on_error="ignore")  # type: ignore
    print(detector.predict(photo).bboxes)  # type: ignore
    print(detector.predict([photo]).boxes)  # type: ignore


def detectors_have_their_family(photo: NDArray[np.uint8]) -> None:
    assert_type(build_detector("faster_rcnn_small", n_fg_class=3), Detector)
    assert_type(load_detector("detector.npz"), Detector)
    pyramid = fasterrcnn_resnet_fpn(class_names=("cat", "dog"))
    assert_type(pyramid, FasterRCNN)
    assert_type(pyramid.eval(), FasterRCNN)
    assert_type(pyramid.class_names, tuple[str, ...])
    assert_type(pyramid.predict(photo), Detections)


def the_predecessors_call_has_its_own_result(images: Sequence[NDArray[np.float32]]) -> None:
    model = FasterRCNNVGG16()
    assert_type(model.predict(images, visualize=True), BoxesLabelsScores)
    assert_type(model.predict(images, [(600, 800)]), BoxesLabelsScores)
    assert_type(model.predict(list(images)), list[Detections])


def detections_are_a_sequence(found: Detections) -> None:
    assert_type(found.boxes, NDArray[np.float32])
    assert_type(found.labels, NDArray[np.int64])
    assert_type(found.scores, NDArray[np.float32])
    assert_type(found[0], Detection)
    assert_type(found[:3], Detections)
    assert_type(found[found.scores > 0.5], Detections)
    assert_type(len(found), int)
    for each in found:
        assert_type(each, Detection)
        assert_type(each.score, float)
        assert_type(each.box, tuple[float, float, float, float])


def a_classifier_answers_in_kind(photo: NDArray[np.uint8]) -> None:
    network = models.resnet18(num_classes=10)
    assert_type(network.eval(), models.ResNet)
    assert_type(network.classify(photo, top=3), Classification)
    assert_type(network.classify([photo, photo]), list[Classification])
    assert_type(network.fc, oxidet.nn.Linear)
    assert_type(models.get_model("resnet18"), oxidet.nn.Module)
    assert_type(oxidet.summary(network, (3, 224, 224)).parameters, int)
    assert_type(oxidet.receptive_field(network.layer1), oxidet.ReceptiveField)
