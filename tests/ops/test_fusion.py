"""weighted_boxes_fusion against the package ensemble-boxes, its rules one by one."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

from oxidet import ops

CONF_TYPES = ["avg", "max", "box_and_model_avg", "absent_model_aware_avg"]
BOXES = [np.array([[0.0, 0.0, 0.4, 0.4]]), np.array([[0.0, 0.0, 0.4, 0.5], [0.6, 0.6, 0.8, 0.8]])]
SCORES = [np.array([0.9]), np.array([0.6, 0.3])]
LABELS = [np.array([1]), np.array([1, 2])]


def predictions(rng: np.random.Generator, models: int, count: int) -> tuple[list, list, list]:
    """Boxes of several models around common places."""
    places = rng.uniform(0.1, 0.9, (12, 2))
    boxes, scores, labels = [], [], []
    for _ in range(models):
        centre = places[rng.integers(0, 12, count)] + rng.normal(0, 0.02, (count, 2))
        half = rng.uniform(0.06, 0.12, (count, 2))
        # Some reach over the edge, some have their edges interchanged.
        rows = np.concatenate([centre - half, centre + half], axis=1)
        rows[::9] = rows[::9][:, [2, 1, 0, 3]]
        boxes.append(rows)
        scores.append(rng.uniform(0.02, 1, count))
        labels.append(rng.integers(0, 3, count))
    return boxes, scores, labels


@pytest.mark.parametrize("conf_type", CONF_TYPES)
@pytest.mark.parametrize("seed", range(6))
def test_ensemble_boxes(seed: int, conf_type: str) -> None:
    theirs = pytest.importorskip("ensemble_boxes")
    rng = np.random.default_rng(seed)
    for models, count in [(1, 20), (2, 1), (3, 60)]:
        data = predictions(rng, models, count)
        for weights in (None, rng.uniform(0.5, 3, models)):
            for overflow in (False, True):
                options = (weights, 0.55, 0.1, conf_type, overflow)
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")  # that it puts boxes right
                    expected = theirs.weighted_boxes_fusion(*data, *options)
                boxes, scores, labels = ops.weighted_boxes_fusion(*data, *options)  # type: ignore[arg-type]
                np.testing.assert_allclose(scores, expected[1], rtol=1e-6)
                np.testing.assert_allclose(boxes, expected[0], atol=1e-6)
                np.testing.assert_array_equal(labels, expected[2])


def test_nothing() -> None:
    for lists in (([], [], []), ([[]], [[]], [[]]), ([np.zeros((1, 4))], [[0.5]], [[1]])):
        boxes, scores, labels = ops.weighted_boxes_fusion(*lists)
        assert (boxes.shape, scores.shape, labels.shape) == ((0, 4), (0,), (0,))
        assert labels.dtype == np.int64


def test_boxes_of_low_or_no_score_are_left_out() -> None:
    scores = [np.array([np.nan]), np.array([0.6, 0.3])]
    got = ops.weighted_boxes_fusion(BOXES, scores, LABELS, skip_box_thr=0.3)
    assert got[2].tolist() == [1, 2]
    got = ops.weighted_boxes_fusion(BOXES, scores, LABELS, skip_box_thr=0.31)
    assert got[2].tolist() == [1]
    np.testing.assert_array_equal(got[0], BOXES[1][:1])


def test_a_model_of_weight_zero_has_no_say() -> None:
    boxes, scores, _ = ops.weighted_boxes_fusion(BOXES, SCORES, LABELS, [1, 0])
    np.testing.assert_array_equal(boxes[0], BOXES[0][0])
    np.testing.assert_allclose(scores, [0.9, 0])


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"scores_list": SCORES[:1]}, ValueError, "scores_list: expected 2 arrays, .* got 1"),
        ({"labels_list": [[1], [1]]}, ValueError, r"labels_list\[1\]: expected shape \(2,\)"),
        ({"labels_list": [[1], [0.5, 1]]}, TypeError, r"labels_list\[1\]: expected integers"),
        ({"boxes_list": [[[0, 0, 1]], BOXES[1]]}, ValueError, r"boxes_list\[0\]: .* got \(1, 3\)"),
        ({"boxes_list": [[[0, 0, 1, np.nan]], BOXES[1]]}, ValueError, "in row 0"),
        ({"weights": [1]}, ValueError, r"weights: expected shape \(2,\), got \(1,\)"),
        ({"weights": [1, -1]}, ValueError, "weights: expected finite numbers of at least 0"),
        ({"weights": [0, 0]}, ValueError, "not all of them 0"),
        ({"conf_type": "min"}, ValueError, "conf_type: expected one of"),
        ({"iou_thr": np.nan}, ValueError, "iou_thr: expected a number, got nan"),
    ],
)
def test_bad_input_is_named(change: dict, error: type, message: str) -> None:
    arguments = {"boxes_list": BOXES, "scores_list": SCORES, "labels_list": LABELS} | change
    with pytest.raises(error, match=message):
        ops.weighted_boxes_fusion(**arguments)
