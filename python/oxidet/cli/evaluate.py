"""``oxidet eval``: average precision of a detector on labelled images."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Any

import typer

import oxidet
from oxidet import _extras
from oxidet._atomic import atomic_write
from oxidet.cli import _options, _output
from oxidet.cli._data import open_data
from oxidet.cli._models import load_named_detector
from oxidet.train import Evaluation, evaluate_detector
from oxidet.train.evaluate import figure
from oxidet.visualize import (
    annotated,
    confusion_matrix,
    contact_sheet,
    precision_recall,
    save_png,
)


def evaluate(
    weights: _options.Weights,
    data: Annotated[
        str,
        typer.Option(
            "--data",
            metavar="DIR|digits",
            rich_help_panel=_options.DATA,
            help="A folder of labelled images in VOC's or COCO's form, or 'digits' for composed "
            "scenes of handwritten digits.",
        ),
    ],
    split: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            rich_help_panel=_options.DATA,
            help="Which images: NAME as in ImageSets/Main/NAME.txt or instances_NAME2017.json; "
            "'all' for all there are; of the digits, train, validation or test.",
        ),
    ] = "test",
    data_format: _options.Format = None,
    use_07_metric: Annotated[
        bool,
        typer.Option(
            "--use-07-metric",
            rich_help_panel="Measure",
            help="VOC 2007's eleven points instead of the area under the curve.",
        ),
    ] = False,
    iou_threshold: Annotated[
        float,
        typer.Option(
            min=0,
            max=1,
            metavar="IOU",
            rich_help_panel="Measure",
            help="IoU from which on a detection matches an object.",
        ),
    ] = 0.5,
    score_threshold: Annotated[
        float,
        typer.Option(
            min=0,
            max=1,
            metavar="SCORE",
            rich_help_panel="Measure",
            help="Leave out detections that score less.",
        ),
    ] = 0.05,
    scenes: Annotated[
        int,
        typer.Option(
            min=1, metavar="N", rich_help_panel=_options.DATA, help="Number of digit scenes."
        ),
    ] = 200,
    coordinates: _options.Coordinates = _options.CoordinateForm.voc,
    json_file: Annotated[
        str | None,
        typer.Option(
            "--json",
            metavar="FILE",
            rich_help_panel=_options.OUTPUT,
            help="Write JSON; '-' is standard output.",
        ),
    ] = None,
    pictures: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            rich_help_panel=_options.OUTPUT,
            help="Write plots of precision against recall and of the confusion of classes, and the "
            "images with the most mistakes, into this folder.",
        ),
    ] = None,
    worst: Annotated[
        int,
        typer.Option(
            min=1, metavar="N", rich_help_panel=_options.OUTPUT, help="Images with --pictures."
        ),
    ] = 12,
    batch: _options.Batch = 1,
    on_error: _options.ErrorHandling = _options.OnError.stop,
    model: _options.Model = None,
    normalization: _options.Normalization = None,
    class_names: _options.ClassNames = None,
    threads: _options.Threads = None,
) -> None:
    """Measure a detector's average precision.

    Prints that of every class, by VOC's definition and by COCO's, and the means. The classes of the
    data are looked up by name in those of the detector.

    \b
    Examples:
      oxidet eval --weights digits --data digits
      oxidet eval --weights run/best.npz --data cells/ --pictures cells-test
      oxidet eval --weights run/best.npz --data VOC2007 --use-07-metric
    """
    _options.set_threads(threads)
    _output.prepare_file(json_file)
    detector = load_named_detector(weights, model, normalization, class_names)
    dataset = open_data(
        data,
        split,
        scenes=scenes,
        class_names=detector.class_names,
        use_difficult=True,
        coordinates=coordinates.value,
        data_format=data_format,
        on_error=on_error.option,
    )
    result = evaluate_detector(
        detector,
        dataset,
        use_07_metric=use_07_metric,
        iou_thresh=iou_threshold,
        score_threshold=score_threshold,
        batch_size=batch,
        on_error=on_error.option,
        quiet=False,
    )
    for reason in result.skipped:
        _output.warning(f"{reason}; left out")
    if json_file is not None:
        content = {
            "oxidet": oxidet.__version__,
            "weights": weights,
            "data": data,
            "split": split,
            "metric": "voc2007" if use_07_metric else "area",
            "iou_threshold": iou_threshold,
            "score_threshold": score_threshold,
            **plain(result),
        }
        _output.write_json(json_file, content)
    if json_file != "-":
        print_evaluation(result)
    if pictures is not None:
        names = save_pictures(result, dataset, pictures, worst)
        _output.say(
            f"pictures: {_output.printable(pictures / names[0])}, {', '.join(names[1:])}",
            stderr=json_file == "-",
        )


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
        names.append(_save_plot(plot, folder, "precision-recall.png"))
    side = min(max(3.6, 1.8 + 0.55 * len(result.ap)), 14)
    plot = figure_class(figsize=(side + 0.6, side), layout="constrained")
    confusion_matrix(result, ax=plot.add_subplot())
    names.append(_save_plot(plot, folder, "confusion-matrix.png"))
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
        save_png(folder / "worst.png", sheet)
        names.append("worst.png")
    return names


def _save_plot(plot: Any, folder: Path, name: str) -> str:
    with atomic_write(folder / name) as file:
        plot.savefig(file, format="png", dpi=120)
    return name
