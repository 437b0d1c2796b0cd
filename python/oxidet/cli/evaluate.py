"""``oxidet eval``: average precision of a detector on labelled images."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from oxidet.cli import _options


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
    import oxidet
    from oxidet.cli import _output
    from oxidet.cli._data import DIGITS, open_data
    from oxidet.cli._evaluation import PICTURES, plain, print_evaluation, save_pictures
    from oxidet.cli._inputs import Named, refuse_data, refuse_inputs
    from oxidet.cli._models import load_named_detector, resolve
    from oxidet.cli._pictures import refuse_others
    from oxidet.train import evaluate_detector

    _options.set_threads(threads)
    _output.prepare_file(json_file)
    plots = [] if pictures is None else [pictures / name for name in PICTURES]
    refuse_others("--pictures", plots)
    outputs: list[Named] = [("--json", json_file or "-"), *(("--pictures", plot) for plot in plots)]
    refuse_inputs(outputs, [("weights", resolve(weights))])
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
    if data != DIGITS:
        refuse_data(outputs, data, dataset)
    result = evaluate_detector(
        detector,
        dataset,
        use_07_metric=use_07_metric,
        iou_thresh=iou_threshold,
        score_threshold=score_threshold,
        batch_size=batch,
        on_error=on_error.option,
        quiet=not _output.watched(),
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
