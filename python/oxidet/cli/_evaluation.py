"""What ``oxidet eval`` has measured: as JSON, as a table, and as pictures."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from oxidet import _extras
from oxidet.cli import _output
from oxidet.cli._pictures import save_picture
from oxidet.train import Evaluation
from oxidet.train.evaluate import figure
from oxidet.visualize import (
    annotated,
    confusion_matrix,
    contact_sheet,
    precision_recall,
)

CURVES, CONFUSION, WORST = PICTURES = ("precision-recall.png", "confusion-matrix.png", "worst.png")


def plain(result: Evaluation) -> dict[str, Any]:
    """An evaluation for JSON, which has no NaN: null where there is nothing to measure."""
    return {
        "map": _number(result.mean_ap),
        "ap": {name: _number(value) for name, value in result.ap.items()},
        "coco": {name: _number(value) for name, value in result.coco_figures.items()},
        "coco_ap": {name: _number(value) for name, value in result.coco_ap.items()},
        "images": result.images,
        "objects": result.objects,
        "skipped": list(result.skipped),
    }


def _number(value: float) -> float | None:
    return None if math.isnan(value) else value


def print_evaluation(result: Evaluation) -> None:
    """The table of classes, COCO's numbers, and a line with VOC's mean."""
    at = f"AP{100 * result.iou_thresh:g}"
    table = _output.table("class", "objects", at, "AP", left=("class",))
    objects, coco = result.objects_by_class, result.coco_ap
    for name, value in result.ap.items():
        values = ("-", "-") if math.isnan(value) else (f"{value:.4f}", figure(coco[name]))
        table.add_row(_output.printable(name), str(objects[name]), *values)
    _output.show(table)
    figures = [f"{name} {figure(value)}" for name, value in result.coco_figures.items()]
    _output.say(f"COCO: {', '.join(figures[:6])}")
    _output.say(f"      {', '.join(figures[6:])}")
    images = _output.count(result.images, "image")
    count = _output.count(result.objects, "object")
    _output.say(f"mAP at IoU {result.iou_thresh:g}: {result.mean_ap:.4f} ({images}, {count})")


def save_pictures(result: Evaluation, dataset: Any, folder: Path, worst: int) -> list[str]:
    """Write the plots and the images with the most mistakes; returns the names of the files."""
    folder.mkdir(parents=True, exist_ok=True)
    names = []
    figure_class = _extras.require("matplotlib.figure", extra="plots").Figure
    if result.curves:
        plot = figure_class(figsize=(6, 4.5), layout="constrained")
        precision_recall(result, ax=plot.add_subplot())
        save_picture(folder / CURVES, plot)
        names.append(CURVES)
    side = min(max(3.6, 1.8 + 0.55 * len(result.ap)), 14)
    plot = figure_class(figsize=(side + 0.6, side), layout="constrained")
    confusion_matrix(result, ax=plot.add_subplot())
    save_picture(folder / CONFUSION, plot)
    names.append(CONFUSION)
    shown = result.worst(worst)
    if shown:
        sheet = contact_sheet(
            [
                annotated(
                    dataset[entry.item][0],
                    entry.found.filter(min_score=0.5),
                    entry.truth,
                    difficult=entry.difficult,
                )
                for entry in _output.track(shown, "drawing")
            ],
            titles=[
                f"{entry.name}: {_output.count(entry.mistakes().total, 'mistake')}"
                for entry in shown
            ],
        )
        save_picture(folder / WORST, sheet)
        names.append(WORST)
    return names
