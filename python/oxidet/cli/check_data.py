"""``oxidet check-data``: what is wrong with labelled images, before they are trained on."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Annotated

import typer

from oxidet.cli import _options

PROBLEMS = 1  # exit code


def check(
    data: Annotated[
        str,
        typer.Argument(metavar="DIR", help="Labelled images in the form of VOC or COCO."),
    ],
    data_format: _options.Format = None,
    split: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            rich_help_panel=_options.DATA,
            help="Look at this split only; by default at all there is.",
        ),
    ] = None,
    class_names: Annotated[
        str | None,
        typer.Option(
            "--class-names",
            metavar="A,B,...|FILE",
            rich_help_panel=_options.DATA,
            help="The names that labels may have, or a text file with one a line; by default those "
            "that the data has.",
        ),
    ] = None,
    coordinates: _options.Coordinates = _options.CoordinateForm.voc,
    tiny: Annotated[
        float,
        typer.Option(
            min=0,
            metavar="PIXELS",
            rich_help_panel=_options.DATA,
            help="Point out boxes with a side below this.",
        ),
    ] = 4.0,
    picture: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            rich_help_panel=_options.OUTPUT,
            help="Write a sheet of images with their boxes, a PNG.",
        ),
    ] = None,
    json_file: Annotated[
        str | None,
        typer.Option(
            "--json",
            metavar="FILE",
            rich_help_panel=_options.OUTPUT,
            help="Write JSON; '-' is standard output.",
        ),
    ] = None,
) -> None:
    """Look for what is wrong with labelled images.

    Reads every image and annotation and reports all problems: files that are missing or damaged,
    labels that are no class, boxes without area or outside of the image, duplicates. Shows how many
    objects of which class and size there are. The exit code is 1 if there is any problem.

    \b
    Examples:
      oxidet check-data cells/ --picture cells.png
      oxidet check-data coco/ --format coco --split train --json report.json
    """
    import oxidet
    from oxidet.cli import _output
    from oxidet.cli._data import ALL
    from oxidet.cli._inputs import refuse_data, refuse_inputs
    from oxidet.cli._pictures import save_picture
    from oxidet.data import check_data, open_dataset
    from oxidet.data.bbox_dataset import read_class_names
    from oxidet.visualize import dataset_sheet

    _output.prepare_file(json_file)
    _output.prepare_file(None if picture is None else str(picture))
    names = None
    if class_names is not None:
        is_file = Path(class_names).is_file()
        names = read_class_names(class_names) if is_file else tuple(class_names.split(","))
    outputs = [("--json", json_file or "-"), ("--picture", picture or "-")]
    refuse_inputs(outputs, [("class names", class_names or "-")])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # all of it is in the report
        dataset = open_dataset(
            data,
            None if data_format is None else data_format.value,
            None if split == ALL else split,
            class_names=names,
            use_difficult=True,
            coordinates=coordinates.value,
            on_error="skip",
        )
        refuse_data(outputs, data, dataset)
        with _output.Counter(len(dataset.listed_ids), "looking") as counter:
            report = check_data(dataset, tiny=tiny, on_image=counter.step)
        if picture is not None and len(dataset):
            save_picture(picture, dataset_sheet(dataset))
    if json_file is not None:
        _output.write_json(json_file, {"oxidet": oxidet.__version__, **report.to_dict()})
    if json_file != "-":
        print(report)
        if picture is not None and len(dataset):
            _output.say(f"picture: {_output.printable(picture)}")
    if not report.ok:
        raise typer.Exit(PROBLEMS)
