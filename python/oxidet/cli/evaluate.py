"""``oxidet eval``: average precision of a detector on labelled images."""

from __future__ import annotations

import math
from typing import Annotated, Any

import typer

import oxidet
from oxidet.cli import _options, _output
from oxidet.cli._data import open_dataset
from oxidet.cli._models import load_named_detector
from oxidet.train import Evaluation, evaluate_detector


def evaluate(
    weights: _options.Weights,
    data: Annotated[
        str,
        typer.Option(
            "--data",
            metavar="DIR|digits",
            help="A directory in the layout of PASCAL VOC, or 'digits' for composed scenes of "
            "handwritten digits.",
        ),
    ],
    split: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="Which ImageSets/Main/NAME.txt lists the images; of the digits, train, "
            "validation or test.",
        ),
    ] = "test",
    use_07_metric: Annotated[
        bool,
        typer.Option(
            "--use-07-metric", help="VOC 2007's eleven points instead of the area under the curve."
        ),
    ] = False,
    iou_threshold: Annotated[
        float,
        typer.Option(
            min=0, max=1, metavar="IOU", help="IoU from which on a detection matches an object."
        ),
    ] = 0.5,
    score_threshold: Annotated[
        float,
        typer.Option(min=0, max=1, metavar="SCORE", help="Leave out detections that score less."),
    ] = 0.05,
    scenes: Annotated[int, typer.Option(min=1, metavar="N", help="Number of digit scenes.")] = 200,
    coordinates: _options.Coordinates = _options.CoordinateForm.voc,
    json_file: Annotated[
        str | None,
        typer.Option("--json", metavar="FILE", help="Write JSON; '-' is standard output."),
    ] = None,
    model: _options.Model = None,
    normalization: _options.Normalization = None,
    class_names: _options.ClassNames = None,
    threads: _options.Threads = None,
) -> None:
    """Measure a detector's average precision.

    Prints that of every class and their mean (mAP). The classes of the data are looked up by name
    in those of the detector.

    \b
    Examples:
      oxidet eval --weights digits --data digits
      oxidet eval --weights run/best.npz --data VOC2007 --use-07-metric
    """
    _options.set_threads(threads)
    _output.prepare_file(json_file)
    detector = load_named_detector(weights, model, normalization, class_names)
    dataset = open_dataset(
        data,
        split,
        scenes=scenes,
        class_names=detector.class_names,
        use_difficult=True,
        coordinates=coordinates.value,
    )
    result = evaluate_detector(
        detector,
        dataset,
        use_07_metric=use_07_metric,
        iou_thresh=iou_threshold,
        score_threshold=score_threshold,
        quiet=False,
    )
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
        print_evaluation(result, iou_threshold)


def plain(result: Evaluation) -> dict[str, Any]:
    """An evaluation for JSON, which has no NaN: null where there is nothing to measure."""
    return {
        "map": _number(result.mean_ap),
        "ap": {name: _number(value) for name, value in result.ap.items()},
        "images": result.images,
        "objects": result.objects,
    }


def _number(value: float) -> float | None:
    return None if math.isnan(value) else value


def print_evaluation(result: Evaluation, iou_threshold: float) -> None:
    """The table of classes and a line with the mean."""
    table = _output.table("class", "AP", left=("class",))
    for name, value in result.ap.items():
        table.add_row(
            _output.printable(name), "no objects" if math.isnan(value) else f"{value:.4f}"
        )
    _output.show(table)
    images = _output.count(result.images, "image")
    objects = _output.count(result.objects, "object")
    _output.say(f"mAP at IoU {iou_threshold:g}: {result.mean_ap:.4f} ({images}, {objects})")
