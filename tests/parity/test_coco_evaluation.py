"""COCO's metric beside pycocotools: every number of every curve."""

from __future__ import annotations

import contextlib
import copy
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from oxidet.detection import CocoEvaluation, eval_coco, eval_detection_coco

pytest.importorskip("pycocotools")
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

Annotations = dict[str, Any]
Results = list[dict[str, Any]]


def pycocotools(annotations: Annotations, results: Results) -> COCOeval:
    """The original, without its prints and without changes to the arguments."""
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = copy.deepcopy(annotations)
        truth.createIndex()
        evaluation = COCOeval(truth, truth.loadRes(copy.deepcopy(results)), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation


def assert_same(ours: CocoEvaluation, theirs: COCOeval, what: str) -> None:
    for name in ("precision", "recall", "scores"):
        np.testing.assert_array_equal(getattr(ours, name), theirs.eval[name], f"{what}: {name}")
    np.testing.assert_allclose(ours.stats, theirs.stats, rtol=0, atol=1e-12, err_msg=what)
    assert ours.category_ids == theirs.params.catIds, what


def random_boxes(rng: np.random.Generator, n: int, grid: float) -> np.ndarray:
    """(x, y, width, height) of all three ranges of areas, at multiples of ``grid`` if that is not
    0, so that overlaps are equal now and then, or exactly a threshold."""
    sides = np.exp(rng.uniform(np.log(4), np.log(200), (n, 2)))
    boxes = np.concatenate((rng.uniform(0, 400, (n, 2)), sides), axis=1)
    return np.maximum(np.round(boxes / grid), 1) * grid if grid else boxes


def data_set(
    rng: np.random.Generator,
    images: int = 12,
    categories: int = 5,
    objects: int = 6,
    detections: int = 15,
    crowds: float = 0.15,
    digits: int = 2,
    grid: float = 0,
) -> tuple[Annotations, Results]:
    """Objects, and detections that lie near them or anywhere.

    Ids are neither consecutive nor ascending. Scores have few digits, so that many are equal.
    """
    image_ids = rng.permutation(np.arange(1, 10 * images))[:images].tolist()
    category_ids = rng.permutation(np.arange(1, 10 * categories))[:categories].tolist()
    annotations: Results = []
    results: Results = []
    for image in image_ids:
        truth = random_boxes(rng, rng.integers(0, objects + 1), grid)
        for x, y, w, h in truth.tolist():
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image,
                    # The last category has no objects, the first few have most.
                    "category_id": category_ids[int((categories - 1) * rng.uniform() ** 2)],
                    "bbox": [x, y, w, h],
                    "area": w * h * rng.uniform(0.4, 1),
                    "iscrowd": int(rng.uniform() < crowds),
                }
            )
        here = [a for a in annotations if a["image_id"] == image]
        for _ in range(rng.integers(0, detections + 1)):
            category, box = category_ids[rng.integers(categories)], random_boxes(rng, 1, grid)[0]
            if here and rng.uniform() < 0.7:
                near = here[rng.integers(len(here))]
                category = near["category_id"] if rng.uniform() < 0.9 else category
                shift = rng.normal(0, 0.08, 4) * np.array(near["bbox"])[[2, 3, 2, 3]]
                box = near["bbox"] + (np.round(shift / grid) * grid if grid else shift)
                box[2:] = np.maximum(box[2:], grid or 0.5)
            score = round(float(rng.uniform()), digits)
            results.append(
                {"image_id": image, "category_id": category, "bbox": box.tolist(), "score": score}
            )
    return {
        "images": [{"id": i} for i in image_ids],
        "categories": [{"id": c, "name": f"category {c}"} for c in category_ids],
        "annotations": [annotations[i] for i in rng.permutation(len(annotations))],
    }, [results[i] for i in rng.permutation(len(results))]


VARIANTS: dict[str, dict[str, Any]] = {
    "ordinary": {},
    "ties": {"digits": 1, "grid": 8},
    "no crowds": {"crowds": 0},
    "crowds only": {"crowds": 1},
    "one class": {"categories": 2, "objects": 12},
    "crowded images": {"images": 2, "objects": 60, "detections": 400, "categories": 2},
    "nothing to find": {"objects": 0},
    "many classes": {"images": 40, "categories": 40},
    "coarse": {"grid": 20, "images": 30, "objects": 10, "detections": 40},
}


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("seed", range(8))
def test_random_data_sets(variant: str, seed: int) -> None:
    annotations, results = data_set(np.random.default_rng(seed), **VARIANTS[variant])
    if not results:
        pytest.skip("pycocotools takes no empty results")
    assert_same(eval_coco(annotations, results), pycocotools(annotations, results), variant)


def test_the_last_numbers_are_reached() -> None:
    """The data sets above exercise what they are for."""
    annotations, results = data_set(np.random.default_rng(0), **VARIANTS["coarse"])
    evaluation = eval_coco(annotations, results)
    assert (evaluation.stats > 0).all()
    assert len(np.unique(evaluation.stats)) == 12
    assert np.isnan(evaluation.ap()).any()


def test_files_and_rows(tmp_path: Path) -> None:
    annotations, results = data_set(np.random.default_rng(1))
    expected = pycocotools(annotations, results)
    for name, content in (("annotations", annotations), ("results", results)):
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
    truth = tmp_path / "annotations.json"
    assert_same(eval_coco(truth, tmp_path / "results.json"), expected, "paths")
    assert_same(eval_coco(str(truth), results), expected, "a path and a list")
    rows = np.array(
        [[r["image_id"], *r["bbox"], r["score"], r["category_id"]] for r in results], np.float64
    )
    assert_same(eval_coco(annotations, rows), expected, "an array")


def test_the_printed_table() -> None:
    annotations, results = data_set(np.random.default_rng(2))
    text = io.StringIO()
    theirs = pycocotools(annotations, results)
    with contextlib.redirect_stdout(text):
        theirs.summarize()
    ours = eval_coco(annotations, results)
    assert str(ours) == text.getvalue().rstrip("\n")


def test_nan_and_infinite_scores() -> None:
    annotations, results = data_set(np.random.default_rng(3), digits=1)
    for score, each in ((float("nan"), 7), (float("inf"), 11), (float("-inf"), 13), (-0.0, 5)):
        for result in results[::each]:
            result["score"] = score
    assert_same(eval_coco(annotations, results), pycocotools(annotations, results), "strange")


def test_strange_boxes() -> None:
    """NaN, infinite, empty and inverted boxes, of objects and detections."""
    annotations, results = data_set(np.random.default_rng(4), images=30)
    for records in (annotations["annotations"], results):
        for start, value in enumerate((float("nan"), float("inf"), 0.0, -5.0)):
            for record in records[start::11]:
                record["bbox"][start % 4] = value
                record["bbox"][3 - start % 2] = value
    with np.errstate(all="ignore"):
        theirs = pycocotools(annotations, results)
    assert_same(eval_coco(annotations, results), theirs, "strange")


def test_what_is_unknown_does_not_count() -> None:
    annotations, results = data_set(np.random.default_rng(5))
    for annotation in annotations["annotations"][::6]:
        annotation["image_id"] = 10**6
    for annotation in annotations["annotations"][1::6]:
        annotation["category_id"] = 10**6
    for result in results[::9]:
        result["category_id"] = 10**6
    theirs = pycocotools(annotations, results)
    with pytest.warns(UserWarning, match="lack their category"):
        ours = eval_coco(annotations, results)
    assert_same(ours, theirs, "unknown")


def by_image(annotations: Annotations, results: Results, dtype: type) -> dict[str, list]:
    """The arguments of eval_detection_coco; labels are category ids."""
    arguments: dict[str, list] = {}
    for prefix, records in (("pred", results), ("gt", annotations["annotations"])):
        for image in sorted(i["id"] for i in annotations["images"]):
            here = [r for r in records if r["image_id"] == image]
            x, y, w, h = np.array([r["bbox"] for r in here], dtype).reshape(-1, 4).T
            columns = {
                "bboxes": np.stack((y, x, y + h, x + w), axis=1),
                "labels": np.array([r["category_id"] for r in here], np.int32),
                "scores": np.array([r.get("score") for r in here], dtype),
                "areas": np.array([r.get("area") for r in here], dtype),
                "crowdeds": np.array([r.get("iscrowd") for r in here], np.bool_),
            }
            for key, value in columns.items():
                if key in ("bboxes", "labels") or (key == "scores") == (prefix == "pred"):
                    arguments.setdefault(f"{prefix}_{key}", []).append(value)
    return arguments


def as_coco(arguments: dict[str, list], areas: bool) -> tuple[Annotations, Results]:
    """What eval_detection_coco is defined by: the arrays in COCO's form, box by box."""
    annotations: Results = []
    results: Results = []
    for prefix, records in (("gt", annotations), ("pred", results)):
        labels, extra = arguments[f"{prefix}_labels"], "scores" if prefix == "pred" else "areas"
        for image, boxes in enumerate(arguments[f"{prefix}_bboxes"]):
            for row, (y1, x1, y2, x2) in enumerate(boxes):
                record = {
                    "id": len(records) + 1,
                    "image_id": image + 1,
                    "category_id": int(labels[image][row]),
                    "bbox": [float(np.round(v, 2)) for v in (x1, y1, x2 - x1, y2 - y1)],
                    "area": float((y2 - y1) * (x2 - x1)),
                }
                value = float(arguments[f"{prefix}_{extra}"][image][row])
                if prefix == "pred":
                    record["score"] = value
                else:
                    record["iscrowd"] = int(arguments["gt_crowdeds"][image][row])
                    if areas:
                        record["area"] = value
                records.append(record)
    existent = sorted({r["category_id"] for r in annotations + results})
    return {
        "images": [{"id": i + 1} for i in range(len(arguments["gt_bboxes"]))],
        "categories": [{"id": c} for c in existent],
        "annotations": annotations,
    }, results


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("areas", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_arrays(dtype: type, areas: bool, seed: int) -> None:
    original = data_set(np.random.default_rng(seed), images=30, objects=8, detections=30)
    arguments = by_image(*original, dtype)
    annotations, results = as_coco(arguments, areas)
    theirs = pycocotools_with_own_areas(annotations, results)
    if not areas:
        del arguments["gt_areas"]
    result = eval_detection_coco(**arguments)
    existent = theirs.params.catIds
    assert result["existent_labels"] == existent
    for name in ("precision", "recall"):
        np.testing.assert_array_equal(getattr(result["coco_eval"], name), theirs.eval[name], name)
    keys = [k for k in result if k.startswith(("ap/", "ar/"))]
    assert len(keys) == (12 if areas else 6)
    for key in keys:
        kind, iou, area, dets = key.split("/")
        curves = theirs.eval["precision"] if kind == "ap" else theirs.eval["recall"][:, None]
        low = iou.removeprefix("iou=").split(":")
        chosen = [0, 5][low == ["0.75"]]
        curves = curves[chosen : chosen + 1] if len(low) == 1 else curves
        curves = curves[
            ...,
            theirs.params.areaRngLbl.index(area.removeprefix("area=")),
            theirs.params.maxDets.index(int(dets.removeprefix("max_dets="))),
        ]
        expected = np.full(existent[-1] + 1, np.nan)
        for column, label in enumerate(existent):
            known = curves[..., column][curves[..., column] > -1]
            expected[label] = known.mean() if known.size else np.nan
        np.testing.assert_allclose(result[key], expected, rtol=0, atol=1e-12, err_msg=key)
        mean = np.nanmean(expected)
        assert result["m" + key] == pytest.approx(mean, rel=0, abs=1e-12), key


def pycocotools_with_own_areas(annotations: Annotations, results: Results) -> COCOeval:
    """As :func:`pycocotools`; the areas of the detections are not those of the rounded boxes."""
    with contextlib.redirect_stdout(io.StringIO()):
        sides = []
        for records in (annotations["annotations"], results):
            side = COCO()
            side.dataset = {
                "images": annotations["images"],
                "categories": annotations["categories"],
                "annotations": [{"iscrowd": 0, **record} for record in records],
            }
            side.createIndex()
            sides.append(side)
        evaluation = COCOeval(*sides, "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
    return evaluation
