"""VOC precision, recall and mAP: the original, worked examples, edge cases."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest

from box_comparison import random_boxes
from conftest import golden
from oxidet.detection import (
    calc_detection_voc_ap,
    calc_detection_voc_prec_rec,
    eval_detection_voc,
)

EXAMPLE: dict[str, Any] = {
    "pred_bboxes": [
        [[0, 0, 9, 9], [0, 0, 9, 8], [20, 20, 39, 39], [50, 50, 60, 60]],
        [[10, 10, 19, 18]],
    ],
    "pred_labels": [[0, 0, 0, 0], [0]],
    "pred_scores": [[0.9, 0.8, 0.7, 0.6], [0.85]],
    "gt_bboxes": [[[0, 0, 9, 9], [20, 20, 39, 39]], [[10, 10, 19, 19], [60, 60, 70, 70]]],
    "gt_labels": [[0, 0], [0, 0]],
    "gt_difficults": [[False, True], [False, False]],
}


def by_image(case: dict[str, Any]) -> dict[str, Any]:
    """The stored rows as one array for each image."""
    arguments = {}
    for kind, names in (("pred", "bbox label score"), ("gt", "bbox label difficult")):
        cuts = np.cumsum(case[f"{kind}_count"])[:-1]
        for name in names.split():
            plural = "bboxes" if name == "bbox" else name + "s"
            arguments[f"{kind}_{plural}"] = np.split(case[f"{kind}_{name}"], cuts)
    return arguments


@pytest.mark.parametrize("name", list(golden("voc")))
def test_original(name: str) -> None:
    case = golden("voc")[name]
    arguments = by_image(case)
    prec, rec = calc_detection_voc_prec_rec(**arguments)
    assert len(prec) == len(rec) == len(case["ap"])
    for label, (p, r) in enumerate(zip(prec, rec, strict=True)):
        for got, key in ((p, f"prec{label}"), (r, f"rec{label}")):
            assert (got is None) == (key not in case), key
            if got is not None:
                np.testing.assert_array_equal(got, case[key], err_msg=key)
    for use_07_metric, suffix in ((False, ""), (True, "07")):
        ap = calc_detection_voc_ap(prec, rec, use_07_metric)
        np.testing.assert_allclose(ap, case["ap" + suffix], rtol=1e-13)
        result = eval_detection_voc(**arguments, use_07_metric=use_07_metric)
        np.testing.assert_array_equal(result["ap"], ap)
        assert result["map"] == pytest.approx(case["map" + suffix], rel=1e-13)


def test_worked_example() -> None:
    (prec,), (rec,) = calc_detection_voc_prec_rec(**EXAMPLE)
    np.testing.assert_allclose(prec, [1, 1, 2 / 3, 2 / 3, 1 / 2])
    np.testing.assert_allclose(rec, [1 / 3, 2 / 3, 2 / 3, 2 / 3, 2 / 3])
    assert eval_detection_voc(**EXAMPLE)["map"] == pytest.approx(2 / 3)
    assert eval_detection_voc(**EXAMPLE, use_07_metric=True)["map"] == pytest.approx(7 / 11)


def test_the_order_of_images_and_boxes_does_not_matter() -> None:
    rng = np.random.default_rng(0)
    arguments = by_image(golden("voc")["large"])
    expected = eval_detection_voc(**arguments)
    images = rng.permutation(len(arguments["gt_bboxes"]))
    shuffled: dict[str, list] = {name: [] for name in arguments}
    for image in images:
        for kind in ("pred", "gt"):
            rows = rng.permutation(len(arguments[f"{kind}_bboxes"][image]))
            for name in arguments:
                if name.startswith(kind):
                    shuffled[name].append(arguments[name][image][rows])
    np.testing.assert_allclose(eval_detection_voc(**shuffled)["ap"], expected["ap"], rtol=1e-13)


def test_perfect_detections() -> None:
    rng = np.random.default_rng(0)
    gt = [random_boxes(rng, n, 400) for n in (3, 0, 5)]
    labels = [np.arange(len(b)) % 2 for b in gt]
    scores = [np.ones(len(b)) for b in gt]
    for metric in (False, True):
        result = eval_detection_voc(gt, labels, scores, gt, labels, use_07_metric=metric)
        assert result["ap"].tolist() == pytest.approx([1, 1])


def test_the_pixel_that_is_added() -> None:
    # IoU of 0..9 with 0..4 is 50/100 with inclusive corners, 36/81 without.
    arguments = ([[[0, 0, 9, 4]]], [[0]], [[0.5]], [[[0, 0, 9, 9]]], [[0]])
    assert eval_detection_voc(*arguments)["map"] == 1
    assert eval_detection_voc(*arguments, iou_thresh=0.51)["map"] == 0


def test_classes_without_detections_or_objects() -> None:
    one = [[[0, 0, 9, 9]]]
    # Detections of class 3, a difficult object of class 1, an object of class 4.
    prec, rec = calc_detection_voc_prec_rec(
        one, [[3]], [[0.5]], [[[0, 0, 9, 9], [0, 0, 9, 9]]], [[1, 4]], [[True, False]]
    )
    assert [p if p is None else p.tolist() for p in prec] == [None, [], None, [0.0], []]
    assert [r if r is None else r.tolist() for r in rec] == [None, None, None, None, []]
    for metric in (False, True):
        np.testing.assert_array_equal(
            calc_detection_voc_ap(prec, rec, metric), [np.nan, np.nan, np.nan, np.nan, 0]
        )


def test_detections_of_difficult_objects_do_not_count() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        prec, rec = calc_detection_voc_prec_rec(
            [[[0, 0, 9, 9], [30, 30, 50, 50]]], [[0, 0]], [[0.9, 0.5]],
            [[[0, 0, 9, 9], [30, 30, 50, 50]]], [[0, 0]], [[1, 0]],
        )  # fmt: skip
    np.testing.assert_array_equal(prec[0], [np.nan, 1])
    np.testing.assert_array_equal(rec[0], [0, 1])


def test_equal_scores_keep_their_order() -> None:
    gt = [[[0, 0, 9, 9]]]
    for order, expected in (((0, 1), [1, 0.5]), ((1, 0), [0, 0.5])):
        boxes = np.float32([[0, 0, 9, 9], [50, 50, 60, 60]])[list(order)]
        prec, _ = calc_detection_voc_prec_rec([boxes], [[0, 0]], [[0.5, 0.5]], gt, [[0]])
        assert prec[0].tolist() == expected  # type: ignore[union-attr]


def test_scores_are_ranked_in_float64() -> None:
    # The better of two scores that float32 cannot tell apart comes second.
    boxes = [[[50, 50, 60, 60], [0, 0, 9, 9]]]
    prec, _ = calc_detection_voc_prec_rec(
        boxes, [[0, 0]], [[0.5, 0.5 + 1e-12]], [[[0, 0, 9, 9]]], [[0]]
    )
    assert prec[0].tolist() == [1, 0.5]  # type: ignore[union-attr]


def test_no_boxes_at_all() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for images in (0, 2):
            empty: list[list] = [[] for _ in range(images)]
            result = eval_detection_voc(empty, empty, empty, empty, empty)
            assert result["ap"].shape == (0,)
            assert np.isnan(result["map"])


def test_iterables_and_float64_boxes() -> None:
    lazy = {name: (np.array(v) for v in value) for name, value in EXAMPLE.items()}
    assert eval_detection_voc(**lazy)["map"] == pytest.approx(2 / 3)


def test_rounding_of_the_eleven_points() -> None:
    # The fourth point is 0.30000000000000004, which a recall of 0.3 does not reach.
    assert calc_detection_voc_ap([[1.0]], [[0.3]], True)[0] == pytest.approx(3 / 11)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"pred_labels": [[0]]}, ValueError, "pred_labels: expected 2 images as in pred_bboxes"),
        (
            {"gt_bboxes": [[]], "gt_labels": [[]], "gt_difficults": [[]]},
            ValueError,
            "gt_bboxes: expected 2 images as in pred_bboxes, got 1",
        ),
        (
            {"pred_scores": [[0.9, 0.8], [0.85]]},
            ValueError,
            r"pred_scores\[0\]: expected shape \(4,\), got \(2,\)",
        ),
        (
            {"gt_labels": [[0, 0], [0, -1]]},
            ValueError,
            r"gt_labels\[1\]: expected labels of 0 or above, got -1 in row 1",
        ),
        (
            {"gt_labels": [[0, 0], [0, 2**40]]},
            ValueError,
            "gt_labels: expected labels from 0 to",
        ),
        (
            {"gt_labels": [[0, 0], [0.5, 1.5]]},
            TypeError,
            r"gt_labels\[1\]: expected integers, got dtype float64",
        ),
        (
            {"pred_bboxes": [EXAMPLE["pred_bboxes"][0], [[1, 2, 3]]]},
            ValueError,
            r"pred_bboxes\[1\]: expected shape \(R, 4\), got \(1, 3\)",
        ),
    ],
)
def test_bad_input_is_named(change: dict, error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        eval_detection_voc(**(EXAMPLE | change))


def test_ap_of_unequal_lengths_is_refused() -> None:
    with pytest.raises(ValueError, match="rec: expected 1 classes as in prec, got 2"):
        calc_detection_voc_ap([None], [None, None])
    with pytest.raises(ValueError, match=r"rec: expected shape \(2,\) as prec, got \(1,\)"):
        calc_detection_voc_ap([[1.0, 0.5]], [[0.1]])
