"""The scenes of ``oxidet demo``, and what is said about them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from oxidet.cli import _output
from oxidet.data import DigitScenes
from oxidet.detections import Detection, Detections
from oxidet.train import match as match_detections

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


def test_scenes(count: int) -> Iterator[tuple[str, Any, Detections]]:
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


def titles(scene: Scene) -> tuple[str, str]:
    """Headings for the truth and for what was found."""
    counts = Counter(_verdict(row) for row in scene.rows)
    total = _output.count(len(scene.truth), "digit")
    faults = [f"{counts[name]} {name}" for name in ("wrong", "not there") if counts[name]]
    found = ", ".join([f"found: {counts['']} of {total}", *faults])
    return f"{scene.name}: {total}", found


def table(scenes: Sequence[Scene]) -> Any:
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


def print_summary(rows: dict[str, str]) -> None:
    grid = _output.grid()
    for name, value in rows.items():
        grid.add_row(name, _output.printable(value))
    _output.show(grid)
