"""``oxidet demo``: find handwritten digits in composed scenes, and say how well it went.

Everything shown is measured here and now: the scenes are made of the test digits, which neither
training nor any choice has seen.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import typer

from oxidet.cli import _options, _output
from oxidet.cli._models import load_named_detector
from oxidet.cli._sheet import side_by_side
from oxidet.data import DigitScenes, lenet_input, load_digits
from oxidet.detections import Detection, Detections
from oxidet.pretrained import digit_classifier
from oxidet.train import evaluate_detector
from oxidet.train import match as match_detections
from oxidet.visualize import contact_sheet, save_png

MATCH = 0.5  # IoU from which on a detection and a digit are the same


class Row(NamedTuple):
    """A detection, a digit, or both, and how much they overlap."""

    found: Detection | None
    truth: Detection | None
    iou: float


class Scene(NamedTuple):
    """An image, what there is in it, what was found, and the two beside each other."""

    name: str
    image: Any
    truth: Detections
    found: Detections
    rows: list[Row]


def demo(
    out: Annotated[
        Path,
        typer.Option(
            "--out", metavar="DIR", rich_help_panel=_options.OUTPUT, help="Folder for the pictures."
        ),
    ] = Path("demo-output"),
    scenes: Annotated[
        int,
        typer.Option(
            min=1,
            max=100,
            metavar="N",
            rich_help_panel=_options.RUN,
            help="Scenes to show and draw.",
        ),
    ] = 6,
    evaluate_on: Annotated[
        int,
        typer.Option(
            "--evaluate-on",
            min=1,
            metavar="N",
            rich_help_panel=_options.RUN,
            help="Scenes to measure mAP on.",
        ),
    ] = 200,
    weights: Annotated[
        str,
        typer.Option(
            "--weights",
            metavar="FILE|digits",
            rich_help_panel=_options.RUN,
            help="Another digit detector.",
        ),
    ] = "digits",
    threads: _options.Threads = None,
) -> None:
    """Detect handwritten digits, and show how well.

    The scenes are composed of scans that training has not seen. Prints a table of detections beside
    the truth, the mAP on 200 scenes, and LeNet-5's accuracy on the 360 test digits; draws truth and
    detections side by side into PNG files.

    \b
    Examples:
      oxidet demo
      oxidet demo --out pictures --scenes 12
    """
    _options.set_threads(threads)
    out.mkdir(parents=True, exist_ok=True)
    detector = load_named_detector(weights)
    if detector.class_names != DigitScenes.class_names:
        names = ", ".join(detector.class_names)
        raise ValueError(f"--weights: expected a detector of the digits 0 to 9, got one of {names}")

    shown = []
    for name, image, truth in _output.track(list(_scenes(scenes)), "detecting"):
        found = detector.predict(image)
        shown.append(Scene(name, image, truth, found, match(found, truth)))
    _output.show(_table(shown))

    pairs = []
    for scene in _output.track(shown, "drawing"):
        pairs.append(side_by_side(scene.image, scene.truth, scene.found, _titles(scene)))
        save_png(out / f"{scene.name}.png", pairs[-1])
    save_png(out / "contact-sheet.png", contact_sheet(pairs, columns=2))

    started = time.perf_counter()
    result = evaluate_detector(detector, DigitScenes("test", length=evaluate_on), quiet=False)
    seconds = time.perf_counter() - started
    scans = load_digits("test")
    classifier = digit_classifier()
    right = int((classifier(lenet_input(scans.images)).argmax(axis=1) == scans.labels).sum())

    _print_summary(
        {
            "detector": f"mAP {result.mean_ap:.3f} at IoU 0.5 on "
            f"{_output.count(result.images, 'scene')} with "
            f"{_output.count(result.objects, 'digit')} "
            f"({1000 * seconds / result.images:.0f} ms a scene)",
            "LeNet-5": f"{right / len(scans.labels):.1%} of {len(scans.labels)} test digits right",
            "pictures": f"{os.path.join(out, '')}contact-sheet.png and "
            f"{_output.count(len(shown), 'scene')}",
        }
    )


def _scenes(count: int) -> Iterator[tuple[str, Any, Detections]]:
    """Name, image and truth of the first test scenes."""
    dataset = DigitScenes("test", length=count)
    for index in range(count):
        image, bbox, label, _ = dataset[index]
        truth = Detections.from_chainercv(bbox, label, class_names=dataset.class_names)
        yield f"scene-{index:03d}", image, truth


def match(found: Detections, truth: Detections) -> list[Row]:
    """Detections, best first, each with the digit it is taken for, then the missed digits.

    As in average precision, a detection goes to the free digit of its class that it overlaps most,
    by at least ``MATCH``. What is left over may still stand where a digit of another class is.
    """
    partner, iou = match_detections(found, truth, MATCH)
    rows = [
        Row(found[i], truth[int(k)] if k >= 0 else None, float(iou[i]))
        for i, k in enumerate(partner)
    ]
    missed = sorted(set(range(len(truth))) - set(partner.tolist()))
    return rows + [Row(None, truth[k], 0.0) for k in missed]


def _verdict(row: Row) -> str:
    """What is wrong about a row; nothing if it is right."""
    if row.found is None:
        return "missed"
    if row.truth is None:
        return "not there"
    return "" if row.found.label == row.truth.label else "wrong"


def _titles(scene: Scene) -> tuple[str, str]:
    """Headings for the truth and for what was found."""
    counts = Counter(_verdict(row) for row in scene.rows)
    total = _output.count(len(scene.truth), "digit")
    faults = [f"{counts[name]} {name}" for name in ("wrong", "not there") if counts[name]]
    found = ", ".join([f"found: {counts['']} of {total}", *faults])
    return f"{scene.name}: {total}", found


def _table(scenes: Sequence[Scene]) -> Any:
    table = _output.table(
        "scene", "found", "score", "truth", "IoU", "x1", "y1", "x2", "y2", "", left=("scene", "")
    )
    for scene in scenes:
        title = scene.name
        for row in scene.rows:
            digit = row.found or row.truth
            assert digit is not None  # a row is about something
            verdict = _verdict(row)
            table.add_row(
                title,
                row.found.name if row.found else "-",
                f"{row.found.score:.3f}" if row.found else "-",
                row.truth.name if row.truth else "-",
                f"{row.iou:.2f}" if row.found and row.truth else "-",
                *(f"{value:.0f}" for value in digit.box),
                verdict,
                style="red" if verdict else "",
            )
            title = ""
    return table


def _print_summary(rows: dict[str, str]) -> None:
    grid = _output.grid()
    for name, value in rows.items():
        grid.add_row(name, _output.printable(value))
    _output.show(grid)
