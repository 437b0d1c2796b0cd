"""What detectors hand out of their stages is what they detect with."""

from __future__ import annotations

import numpy as np
import pytest

from oxidet import nn
from oxidet.models.detection import Detector
from oxidet.models.detection.stages import Stages
from tiny_detectors import CLASSES, STRUCTURES, make, random_picture


def stages(structure: str, height: int, width: int) -> tuple[Detector, np.ndarray, Stages]:
    detector, image = make(structure), random_picture(height, width)
    return detector, image, detector.detect_in_stages(image, 0.3, 0.4)


@pytest.mark.parametrize("structure", STRUCTURES)
@pytest.mark.parametrize("size", [(90, 120), (64, 64), (31, 200), (1, 1)])
def test_the_end_is_what_is_detected(structure: str, size: tuple[int, int]) -> None:
    detector, image, computed = stages(structure, *size)
    [found] = detector.detect_images([image], 0.3, 0.4)
    for got, expected in zip(computed.found, found, strict=True):
        assert got.dtype == expected.dtype
        np.testing.assert_array_equal(got, expected)
    if size == (90, 120):
        assert 0 < len(computed.found.scores) < len(computed.candidates.scores)


@pytest.mark.parametrize("structure", STRUCTURES)
def test_the_stages_fit_each_other(structure: str) -> None:
    detector, _, computed = stages(structure, 90, 120)
    for level in computed.levels:
        assert level.anchors.shape == (*level.objectness.shape, 4)
        assert level.anchors.dtype == level.objectness.dtype == np.float32
        assert 0 <= level.objectness.min() <= level.objectness.max() <= 1
    names = ["fine", "coarse"] if structure == "pyramid" else ["0"]
    assert [level.name for level in computed.levels] == names

    count = len(computed.proposals)
    assert computed.proposals.shape == (count, 4)
    assert (computed.proposals >= 0).all()
    assert (computed.proposals <= [120, 90, 120, 90]).all()
    assert (np.diff(computed.proposal_scores) <= 0).all()
    rated = np.concatenate([level.objectness.ravel() for level in computed.levels])
    for score in computed.proposal_scores:  # each was an anchor's
        assert np.abs(rated - score).min() < 1e-6

    assert computed.class_scores.shape == (count, len(CLASSES) + 1)
    np.testing.assert_allclose(computed.class_scores.sum(axis=1), 1, atol=1e-5)
    head = detector.head if structure == "simple" else detector.roi_heads
    outputs = head.predict_boxes(computed.pooled)
    logits = np.asarray(outputs[1] if structure == "simple" else outputs[0], np.float64)
    shares = np.exp(logits - logits.max(axis=1, keepdims=True))
    shares /= shares.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(computed.class_scores, shares, atol=1e-5)

    # Without suppression: every class of every proposal above the threshold.
    assert len(computed.candidates.scores) == (computed.class_scores[:, 1:] > 0.3).sum()
    everything = {tuple(box) for box in computed.candidates.boxes.tolist()}
    assert {tuple(box) for box in computed.found.boxes.tolist()} <= everything


def test_anchors_lie_on_the_image_as_given() -> None:
    """Scaled from 90 to 64 pixels: an anchor of 16 there is one of 22.5 here."""
    for structure in STRUCTURES:
        _, _, computed = stages(structure, 90, 120)
        anchors = computed.levels[0].anchors
        sides = anchors[..., 2:] - anchors[..., :2]
        square = sides[2, 3][np.abs(sides[2, 3, :, 0] / sides[2, 3, :, 1] - 1) < 0.02]
        assert np.abs(square[:, 0] - 22.5).min() < 0.3, structure
        # Neighbouring cells are a stride apart, in x and in y.
        stride = (16 if structure == "simple" else 8) * 90 / 64
        across, down = anchors[2, 4] - anchors[2, 3], anchors[3, 3] - anchors[2, 3]
        np.testing.assert_allclose(across, [[stride, 0, stride, 0]] * len(across), rtol=0.02)
        np.testing.assert_allclose(down, [[0, stride, 0, stride]] * len(down), rtol=0.02)


@pytest.mark.parametrize("structure", STRUCTURES)
def test_the_mode_stays(structure: str) -> None:
    detector = make(structure).train()
    detector.detect_in_stages(random_picture())
    assert detector.training


def test_other_detectors_say_so() -> None:
    with pytest.raises(NotImplementedError, match="does not define detect_in_stages"):
        Detector(["ant"]).detect_in_stages(random_picture())


def test_no_gradient_is_recorded() -> None:
    for structure in STRUCTURES:
        computed = make(structure).detect_in_stages(random_picture())
        for array in (computed.pooled, computed.class_scores, computed.levels[0].objectness):
            assert not isinstance(array, nn.Tensor)
