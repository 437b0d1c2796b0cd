"""Average precision of 5000 images beside NumPy and pycocotools, as a Markdown table.

    python benches/peers/evaluation.py [--threads N] [--seconds S] [--images N] [--only TEXT]

VOC: random detections of 20 classes, one array for each image, beside chainercv's way in NumPy
(``originals/voc.py``). COCO: random detections of 80 categories with crowds, beside pycocotools.
Both start from the same objects in memory: dictionaries as ``json.load`` gives them, which
pycocotools has indexed already (``COCO.createIndex`` and ``loadRes`` are not timed), or arrays,
where the way to pycocotools leads through such dictionaries (timed, as chainercv has to).
A line is timed only after its results agreed. Milliseconds are medians with quartiles.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import io
from collections.abc import Iterator
from typing import Any

import numpy as np
from measure import Case, check, measure
from originals import voc
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

import oxidet
from oxidet.detection import eval_coco, eval_detection_coco, eval_detection_voc

RNG = np.random.default_rng(0)


def scenes(images: int, classes: int, objects: float, detections: float) -> dict[str, list]:
    """Arguments of eval_detection_coco, for images of 500 x 500.

    Classes are as unequally frequent as in real data sets. Three of four detections lie at objects,
    some at the same one.
    """
    frequency = 1 / np.arange(1, classes + 1)
    frequency /= frequency.sum()
    arguments: dict[str, list] = {}
    for _ in range(images):
        count = RNG.poisson(objects)
        sides = np.exp(RNG.uniform(np.log(8), np.log(300), (count, 2)))
        start = RNG.uniform(0, 1, (count, 2)) * (500 - sides)
        truth = np.concatenate((start, start + sides), axis=1)
        label = RNG.choice(classes, count, p=frequency)
        found = RNG.poisson(detections)
        near = RNG.integers(0, max(count, 1), found) if count else np.zeros(0, int)
        near = near[: found * 3 // 4]
        shift = RNG.normal(0, 0.07, (len(near), 4)) * np.tile(sides[near], 2)
        other = RNG.uniform(0, 250, (found - len(near), 4)) + np.float64([0, 0, 250, 250])
        image = {
            "gt_bboxes": truth.astype(np.float32),
            "gt_labels": label.astype(np.int32),
            "gt_areas": (sides.prod(axis=1) * 0.7).astype(np.float32),
            "gt_crowdeds": RNG.uniform(size=count) < 0.02,
            "pred_bboxes": np.concatenate((truth[near] + shift, other)).astype(np.float32),
            "pred_labels": np.concatenate(
                (label[near], RNG.choice(classes, len(other), p=frequency))
            ).astype(np.int32),
        }
        for name, value in image.items():
            arguments.setdefault(name, []).append(value)
    # All different: the original leaves the order of equal scores open.
    counts = [len(label) for label in arguments["pred_labels"]]
    scores = (RNG.permutation(sum(counts)) / np.float32(sum(counts))).astype(np.float32)
    arguments["pred_scores"] = np.split(scores, np.cumsum(counts)[:-1])
    return arguments


def records(arguments: dict[str, list]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The arrays as COCO's annotations and results."""
    sides: dict[str, list[dict[str, Any]]] = {"gt": [], "pred": []}
    for prefix, rows in sides.items():
        last = "gt_areas" if prefix == "gt" else "pred_scores"
        columns = (arguments[f"{prefix}_bboxes"], arguments[f"{prefix}_labels"], arguments[last])
        for image, (bbox, label, value) in enumerate(zip(*columns, strict=True)):
            boxes = np.concatenate((bbox[:, [1, 0]], (bbox[:, 2:] - bbox[:, :2])[:, ::-1]), axis=1)
            rows.extend(
                {
                    "image_id": image + 1,
                    "category_id": c,
                    "bbox": b,
                    last[last.index("_") + 1 : -1]: v,
                }
                for b, c, v in zip(
                    boxes.round(2).astype(float).tolist(),
                    label.tolist(),
                    value.astype(float).tolist(),
                    strict=True,
                )
            )
    crowded = np.concatenate(arguments["gt_crowdeds"]).tolist()
    for number, (row, crowd) in enumerate(zip(sides["gt"], crowded, strict=True)):
        row |= {"id": number + 1, "iscrowd": int(crowd)}
    existent = sorted({row["category_id"] for side in sides.values() for row in side})
    annotations = {
        "images": [{"id": image + 1} for image in range(len(arguments["gt_bboxes"]))],
        "categories": [{"id": c, "name": str(c)} for c in existent],
        "annotations": sides["gt"],
    }
    return annotations, sides["pred"]


def pycocotools(truth: COCO, found: COCO) -> np.ndarray:
    """The twelve numbers."""
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation = COCOeval(truth, found, "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation.stats


def load(annotations: dict[str, Any], results: list[dict[str, Any]]) -> tuple[COCO, COCO]:
    """What pycocotools makes of loaded files."""
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = annotations
        truth.createIndex()
        return truth, truth.loadRes(results)


def cases(images: int) -> Iterator[Case]:
    arguments = scenes(images, classes=20, objects=3, detections=25)
    names = ("pred_bboxes", "pred_labels", "pred_scores", "gt_bboxes", "gt_labels", "gt_crowdeds")
    columns = [arguments[name] for name in names]
    for metric, words in ((False, "area"), (True, "11 points")):
        yield Case(
            f"eval_detection_voc, {images} images, {words}",
            lambda metric=metric: eval_detection_voc(*columns, use_07_metric=metric),
            {"NumPy": lambda metric=metric: voc.eval_detection_voc(*columns, use_07_metric=metric)},
            1e-12,
            lambda result: [result["ap"], result["map"]],
        )
    arguments = scenes(images, classes=80, objects=7, detections=50)
    annotations, results = records(arguments)
    truth, found = load(copy.deepcopy(annotations), copy.deepcopy(results))
    yield Case(
        f"eval_coco, {images} images, loaded JSON",
        lambda: eval_coco(annotations, results).stats,
        {"pycocotools": lambda: pycocotools(truth, found)},
        1e-9,
    )
    yield Case(
        f"eval_detection_coco, {images} images, arrays",
        lambda: eval_detection_coco(**arguments)["coco_eval"].stats,
        {"pycocotools": lambda: pycocotools(*load(*records(arguments)))},
        1e-6,  # the areas of detections: of float32 boxes here, of rounded ones there
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=oxidet.get_num_threads())
    parser.add_argument("--seconds", type=float, default=2.0, help="per implementation and line")
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument("--only", default="", help="lines whose name contains this")
    options = parser.parse_args()
    oxidet.set_num_threads(options.threads)
    oxidet.show_versions()
    print("\n| | oxidet, ms | theirs, ms | speed | error |\n|---|---|---|---|---|")
    for case in cases(options.images):
        if options.only not in case.name:
            continue
        error = check(case)
        timings = measure(case, options.seconds, least_rounds=3)
        ours, theirs = timings.values()
        speed = theirs.median / ours.median
        print(f"| {case.name} | {ours} | {theirs} | {speed:.1f} | {error:.0e} |", flush=True)


if __name__ == "__main__":
    main()
