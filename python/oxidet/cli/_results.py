"""What ``oxidet detect`` has found: as files, on standard output, and as a table."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from oxidet._atomic import remove_leftovers
from oxidet.cli import _formats, _output
from oxidet.cli._images import STDIN
from oxidet.cli._journal import Journal, Record
from oxidet.detections import Detections

TABLE_IMAGES = 100  # whose objects are listed; of more, the classes are counted


class Results:
    """What a run has found, and what stood for no image; where it is written to.

    ``outputs`` are the values of ``--json``, ``--csv`` and ``--coco``.
    """

    def __init__(
        self,
        journal: Journal,
        header: Record,
        problems: Sequence[Record],
        outputs: Mapping[str, str | None],
    ) -> None:
        self.journal = journal
        self.header = header
        self.problems = problems
        self.outputs = outputs
        for file in outputs.values():
            if journal.tag is not None and file not in (None, STDIN):
                remove_leftovers(os.path.dirname(os.path.realpath(file)), journal.tag)

    def __iter__(self) -> Iterator[Record]:
        yield from self.problems
        yield from self.journal

    def write(self, *, stdout: bool) -> None:
        """Write the files, or else what goes to standard output."""
        tag = self.journal.tag
        for form, file in self.outputs.items():
            if file is None or (file == STDIN) != stdout or file.endswith(".jsonl"):
                continue
            if form == "json":
                _formats.write_json(file, self.header, self, tag=tag)
            elif form == "csv":
                _formats.write_csv(file, self.journal, tag=tag)
            else:
                _formats.write_coco(file, self.header["class_names"], self.journal, tag=tag)

    def show(self, save_images: Path | None, quiet: bool) -> None:
        """Print the table, and what went wrong; on stderr if stdout is taken."""
        if not quiet:
            _print_found(self.journal, save_images, stderr=STDIN in self.outputs.values())
        for record in self:
            if "error" in record:
                _output.error(f"{record['path']}: {record['error']}")


def detections_table(results: Sequence[tuple[str, Detections]]) -> Any:
    """A table with a row for every object, or one that says there is none."""
    table = _output.table(
        "image", "object", "score", "x1", "y1", "x2", "y2", left=("image", "object")
    )
    for name, detections in results:
        title = _output.printable(name)
        if len(detections) == 0:
            table.add_row(title, "(nothing)", style="dim")
        for row in detections:
            corners = (f"{value:.1f}" for value in row.box)
            table.add_row(title, _output.printable(row.name), f"{row.score:.3f}", *corners)
            title = ""
    return table


def _print_found(journal: Journal, save_images: Path | None, stderr: bool) -> None:
    """The table of objects, or, of many images, that of classes, and a line with the sum."""
    listed = journal.count - journal.problems <= TABLE_IMAGES
    shown: list[tuple[str, Detections]] = []
    images, counts = 0, Counter[str]()
    for record in journal:
        if "error" in record:
            continue
        images += 1
        counts.update(record["names"])
        if listed:
            columns = (record[key] for key in ("boxes", "labels", "scores"))
            names = dict(zip(record["labels"], record["names"], strict=True))
            labels = [names.get(label, "") for label in range(max(names, default=-1) + 1)]
            shown.append((record["path"], Detections(*columns, class_names=labels)))
    if shown:
        _output.show(detections_table(shown), stderr=stderr)
    elif counts:
        _output.show(_counts_table(counts), stderr=stderr)
    line = f"{_output.count(counts.total(), 'object')} in {_output.count(images, 'image')}"
    if save_images is not None and images:
        line += f"; annotated in {os.path.join(_output.printable(save_images), '')}"
    _output.say(line, stderr=stderr)


def _counts_table(counts: Mapping[str, int]) -> Any:
    """How many objects of each class were found."""
    table = _output.table("object", "found", left=("object",))
    for name, number in sorted(counts.items(), key=lambda item: (-item[1], item[0])):
        table.add_row(_output.printable(name), str(number))
    return table
