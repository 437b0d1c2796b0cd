"""The look through the data before a training."""

from __future__ import annotations

import warnings
from typing import Literal

from oxidet.cli import _output
from oxidet.cli._data import open_data
from oxidet.cli._options import DataFormat
from oxidet.data import check_data

# What training cannot use. The rest, such as boxes beyond the image, is mended by the data sets.
FATAL = (
    "missing image",
    "unreadable image",
    "missing annotation",
    "unreadable annotation",
    "unknown label",
)
SHOWN = 5  # problems that are spelled out


def check_training_data(
    data: str,
    data_format: DataFormat | None,
    split: str,
    coordinates: Literal["voc", "inclusive", "edges"],
    on_error: Literal["raise", "skip"],
) -> None:
    """Say what there is, and name what is wrong; stop if that spoils a training."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # all of it is in the report
        dataset = open_data(
            data,
            split,
            data_format=data_format,
            coordinates=coordinates,
            on_error="skip",
        )
        with _output.Counter(len(dataset.listed_ids), "checking") as counter:
            report = check_data(dataset, on_image=counter.step)
    classes = ", ".join(f"{each.name} {each.objects}" for each in report.classes)
    _output.say(
        f"data: {_output.count(report.images, 'image')}, "
        f"{_output.count(report.objects, 'object')} ({_output.printable(classes)})",
        stderr=True,
    )
    if report.ok:
        return
    fatal = [fault for fault in report.problems if fault.kind in FATAL]
    listed = fatal or report.problems
    for fault in listed[:SHOWN]:
        _output.warning(f"{fault.kind}: {fault.message}")
    if len(listed) > SHOWN:
        _output.warning(f"and {len(listed) - SHOWN} more: oxidet check-data {data} lists all")
    if fatal and on_error == "raise":
        raise ValueError(
            f"--data: {_output.count(len(fatal), 'problem')} (--on-error skip trains on the rest)"
        )
