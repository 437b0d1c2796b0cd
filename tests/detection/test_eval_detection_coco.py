"""COCO's metric: worked examples and edge cases. Every number beside pycocotools: tests/parity."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import oxidet
from oxidet.detection import CocoEvaluation, eval_coco, eval_detection_coco

AP = "ap/iou=0.50:0.95/area=all/max_dets=100"
EXAMPLE: dict[str, Any] = {
    # Class 1: right up to an IoU of 0.80, elsewhere; class 3: exact, and an object not found.
    "pred_bboxes": [[[0, 0, 10, 8], [50, 50, 60, 60]], [[20, 20, 60, 70]]],
    "pred_labels": [[1, 1], [3]],
    "pred_scores": [[0.9, 0.8], [0.7]],
    "gt_bboxes": [[[0, 0, 10, 10]], [[20, 20, 60, 70], [0, 0, 100, 100]]],
    "gt_labels": [[1], [3, 3]],
}
ANNOTATIONS: dict[str, Any] = {
    "images": [{"id": 7}, {"id": 3}],
    "categories": [{"id": 18, "name": "dog"}, {"id": 2}],
    "annotations": [
        {"image_id": 7, "category_id": 18, "bbox": [10, 20, 40, 40], "area": 900, "iscrowd": 0},
        {"image_id": 3, "category_id": 2, "bbox": [0, 0, 9, 9]},
    ],
}
RESULTS: list[dict[str, Any]] = [
    {"image_id": 7, "category_id": 18, "bbox": [10, 20, 40, 38], "score": 0.9},
    {"image_id": 3, "category_id": 2, "bbox": [0, 0, 9, 9], "score": 0.1},
]


def test_worked_example() -> None:
    result = eval_detection_coco(**EXAMPLE)
    assert result["existent_labels"] == [1, 3]
    # Half of the objects at 51 of 101 recalls.
    expected = [np.nan, 0.7, np.nan, 51 / 101]
    np.testing.assert_allclose(result[AP], expected, rtol=1e-12)
    assert result["m" + AP] == pytest.approx((0.7 + 51 / 101) / 2)
    np.testing.assert_allclose(
        result["ap/iou=0.75/area=all/max_dets=100"], [np.nan, 1, np.nan, 51 / 101]
    )
    np.testing.assert_allclose(
        result["ar/iou=0.50:0.95/area=all/max_dets=1"], [np.nan, 0.7, np.nan, 0.5]
    )


def test_keys() -> None:
    expected = {
        "ap/iou=0.50:0.95/area=all/max_dets=100",
        "ap/iou=0.50/area=all/max_dets=100",
        "ap/iou=0.75/area=all/max_dets=100",
        "ar/iou=0.50:0.95/area=all/max_dets=1",
        "ar/iou=0.50:0.95/area=all/max_dets=10",
        "ar/iou=0.50:0.95/area=all/max_dets=100",
    }
    others = {"coco_eval", "existent_labels"}
    without = eval_detection_coco(**EXAMPLE)
    assert set(without) == expected | {"m" + key for key in expected} | others
    expected |= {
        f"{kind}/iou=0.50:0.95/area={area}/max_dets=100"
        for kind in ("ap", "ar")
        for area in ("small", "medium", "large")
    }
    result = eval_detection_coco(**EXAMPLE, gt_areas=[[100], [2000, 10000]])
    assert set(result) == expected | {"m" + key for key in expected} | others
    assert result["map/iou=0.50:0.95/area=small/max_dets=100"] == pytest.approx(0.7)
    assert result["map/iou=0.50:0.95/area=medium/max_dets=100"] == pytest.approx(1)
    assert result["map/iou=0.50:0.95/area=large/max_dets=100"] == 0
    assert all(type(v) is float for k, v in result.items() if k.startswith("m"))


def test_crowds() -> None:
    crowd = {"gt_crowdeds": [[False], [False, True]]}
    result = eval_detection_coco(**EXAMPLE, **crowd)
    np.testing.assert_allclose(result[AP], [np.nan, 0.7, np.nan, 1])


def test_iterables_lists_and_mixed_types() -> None:
    expected = eval_detection_coco(**EXAMPLE)[AP]
    arrays = {name: [np.array(v) for v in value] for name, value in EXAMPLE.items()}
    mixed = {name: [np.array(value[0]), value[1]] for name, value in EXAMPLE.items()}
    strange = {
        name: [np.array(v, ">f8" if "labels" not in name else ">i2")[::-1][::-1] for v in value]
        for name, value in EXAMPLE.items()
    }
    lazy = {name: iter(value) for name, value in EXAMPLE.items()}
    for arguments in (arrays, mixed, strange, lazy):
        np.testing.assert_array_equal(eval_detection_coco(**arguments)[AP], expected)


def test_images_without_boxes() -> None:
    more = {name: [*value, []] for name, value in EXAMPLE.items()}
    typed = {
        name: [*map(np.array, value), np.zeros((0, 4) if "bboxes" in name else 0)]
        for name, value in EXAMPLE.items()
    }
    expected = eval_detection_coco(**EXAMPLE)
    for arguments in (more, typed):
        np.testing.assert_array_equal(eval_detection_coco(**arguments)[AP], expected[AP])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for images in (0, 2):
            empty: list[list] = [[] for _ in range(images)]
            result = eval_detection_coco(empty, empty, empty, empty, empty)
            assert result[AP].shape == (0,)
            assert np.isnan(result["m" + AP])
            assert (result["coco_eval"].stats == -1).all()


def test_results_do_not_depend_on_the_number_of_threads() -> None:
    rng = np.random.default_rng(0)
    n = 400
    start = rng.uniform(0, 300, (n, 6, 2))
    gt = np.concatenate((start, start + rng.uniform(5, 150, (n, 6, 2))), axis=2)
    pred = np.repeat(gt, 3, axis=1) + rng.normal(0, 5, (n, 18, 4))
    labels = rng.integers(0, 4, (n, 6))
    arguments = (
        list(pred), list(np.repeat(labels, 3, axis=1)), list(rng.uniform(size=(n, 18)).round(2)),
        list(gt), list(labels),
    )  # fmt: skip
    evaluations = []
    for threads in (1, 2, 3):
        oxidet.set_num_threads(threads)
        evaluations.append(eval_detection_coco(*arguments)["coco_eval"])
    assert 0.1 < evaluations[0].stats[0] < 0.9
    for other in evaluations[1:]:
        np.testing.assert_array_equal(other.precision, evaluations[0].precision)
        np.testing.assert_array_equal(other.scores, evaluations[0].scores)
        np.testing.assert_array_equal(other.recall, evaluations[0].recall)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"pred_labels": [[1]]}, ValueError, "pred_labels: expected 2 images as in pred_bboxes"),
        ({"gt_areas": [[1], [1]]}, ValueError, r"gt_areas\[1\]: expected shape \(2,\)"),
        ({"gt_labels": [[1], [3, -1]]}, ValueError, r"gt_labels\[1\]: expected labels of 0 or"),
        ({"gt_labels": [[1], [3, 2**40]]}, ValueError, "gt_labels: expected labels from 0 to"),
        ({"gt_labels": [[1], [3.5, 1]]}, TypeError, r"gt_labels\[1\]: expected integers"),
        (
            {"pred_labels": [np.ones(2), np.ones(1)]},
            TypeError,
            r"pred_labels\[0\]: expected integers, got dtype float64",
        ),
        (
            {"pred_bboxes": [np.zeros((2, 5)), np.zeros((1, 5))]},
            ValueError,
            r"pred_bboxes\[0\]: expected shape \(R, 4\), got \(2, 5\)",
        ),
        (
            {"pred_scores": [np.zeros(1), np.zeros(2)]},
            ValueError,
            r"pred_scores\[0\]: expected shape \(2,\), got \(1,\)",
        ),
    ],
)
def test_bad_input_is_named(change: dict, error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        eval_detection_coco(**(EXAMPLE | change))


def test_coco_files(tmp_path: Path) -> None:
    paths = []
    for name, content in (("annotations", ANNOTATIONS), ("results", RESULTS)):
        paths.append(tmp_path / f"{name}.json")
        paths[-1].write_text(json.dumps(content))
    for arguments in (paths, map(str, paths), (ANNOTATIONS, RESULTS)):
        result = eval_coco(*arguments)
        assert result.category_ids == [2, 18]
        assert result.category_names == ["2", "dog"]
        np.testing.assert_allclose(result.ap(), [1, 1])
        np.testing.assert_allclose(result.ap(area="small"), [1, 1])
        assert result.scores[0, :, 1, 0, 2].tolist() == [0.9] * 101
        assert result.stats[3] == pytest.approx(1)
        assert result.stats[4] == result.stats[5] == -1
    assert ANNOTATIONS["annotations"][1] == {"image_id": 3, "category_id": 2, "bbox": [0, 0, 9, 9]}


def test_no_detections() -> None:
    for results in ([], np.zeros((0, 7))):
        result = eval_coco(ANNOTATIONS, results)
        assert result.stats.tolist() == [0, 0, 0, 0, -1, -1, 0, 0, 0, 0, -1, -1]


def test_unknown_categories_are_told() -> None:
    with pytest.warns(UserWarning, match=r"1 of 3 detections do not count.*category_id 1 in row 2"):
        result = eval_coco(ANNOTATIONS, [*RESULTS, RESULTS[0] | {"category_id": 1}])
    np.testing.assert_allclose(result.ap(), [1, 1])


@pytest.mark.parametrize(
    ("annotations", "results", "error", "message"),
    [
        ({}, RESULTS, ValueError, "annotations: expected COCO data with 'images'"),
        ([1], RESULTS, ValueError, "annotations: expected COCO data .* got list"),
        (
            ANNOTATIONS | {"images": [{"id": 3}, {"id": "a"}]},
            RESULTS,
            ValueError,
            "images: expected ids of one type",
        ),
        (
            ANNOTATIONS | {"images": [{}]},
            RESULTS,
            ValueError,
            r"images\[0\]: expected a dict.*'id'",
        ),
        (
            ANNOTATIONS | {"annotations": [{"image_id": 3, "category_id": 2, "bbox": [1, 2, 3]}]},
            RESULTS,
            ValueError,
            r"annotations\[0\]: expected bbox \[x, y, width, height\], got \[1, 2, 3\]",
        ),
        (
            ANNOTATIONS
            | {"annotations": [{**r, "iscrowd": "0"} for r in ANNOTATIONS["annotations"]]},
            RESULTS,
            ValueError,
            r"annotations\[0\]: expected 0 or 1 as 'iscrowd', got '0'",
        ),
        (
            ANNOTATIONS,
            [RESULTS[0], {**RESULTS[1], "image_id": 4}],
            ValueError,
            "results: expected images of the annotations, got image_id 4 in row 1",
        ),
        (ANNOTATIONS, [{"image_id": 3}], ValueError, r"results\[0\]: expected .* 'category_id'"),
        (
            ANNOTATIONS,
            [RESULTS[0] | {"bbox": [1, 2, 3, "x"]}],
            ValueError,
            r"results\[0\]: expected bbox",
        ),
        (
            ANNOTATIONS,
            [RESULTS[0] | {"score": None}],
            ValueError,
            r"results\[0\]: expected a number as 'score', got None",
        ),
        (ANNOTATIONS, np.zeros((2, 6)), ValueError, r"results: expected shape \(N, 7\)"),
        (ANNOTATIONS, 5, TypeError, "results: expected a path, a list"),
    ],
)
def test_bad_files_are_named(annotations: Any, results: Any, error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        eval_coco(annotations, results)


def test_evaluation(capsys: pytest.CaptureFixture[str]) -> None:
    result = eval_coco(ANNOTATIONS, RESULTS)
    assert isinstance(result, CocoEvaluation)
    result.summarize()
    first, *_, last = capsys.readouterr().out.splitlines()
    assert first == (
        " Average Precision  (AP) @[ IoU=0.50:0.95 | area=   all | maxDets=100 ] = 1.000"
    )
    assert last == (
        " Average Recall     (AR) @[ IoU=0.50:0.95 | area= large | maxDets=100 ] = -1.000"
    )
    assert result.precision.shape == result.scores.shape == (10, 101, 2, 4, 3)
    assert result.recall.shape == (10, 2, 4, 3)
    assert "array" not in repr(result)
    for arguments, message in (
        ({"iou": 0.51}, "iou: expected one of"),
        ({"area": "huge"}, "area: expected one of"),
        ({"max_dets": 5}, "max_dets: expected one of"),
    ):
        with pytest.raises(ValueError, match=message):
            result.ap(**arguments)
