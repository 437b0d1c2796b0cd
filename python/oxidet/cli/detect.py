"""``oxidet detect``: objects in images as a table, pictures, JSON, CSV and the JSON of COCO."""

from __future__ import annotations

import hashlib
import os
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

import oxidet
from oxidet._atomic import remove_leftovers
from oxidet.cli import _formats, _options, _output
from oxidet.cli._detecting import Run
from oxidet.cli._images import STDIN, Image, find_images, read_list
from oxidet.cli._journal import Journal, Record
from oxidet.cli._models import load_named_detector, resolve
from oxidet.cli._usage import UsageError
from oxidet.detections import Detections

TABLE_IMAGES = 100  # whose objects are listed; of more, the classes are counted


def detect(
    images: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="IMAGE",
            show_default=False,
            rich_help_panel="Input",
            help="Image files, folders (with all below), quoted patterns such as "
            "'shots/**/*.jpg', and - for an image on standard input.",
        ),
    ] = None,
    *,
    files_from: Annotated[
        str | None,
        typer.Option(
            "--files-from",
            metavar="FILE",
            rich_help_panel="Input",
            help="Also the images that a file lists, one path a line; '-' is standard input.",
        ),
    ] = None,
    weights: _options.Weights,
    model: _options.Model = None,
    normalization: _options.Normalization = None,
    class_names: _options.ClassNames = None,
    score: Annotated[
        float | None,
        typer.Option(
            "--score",
            "--score-threshold",
            min=0,
            max=1,
            metavar="SCORE",
            rich_help_panel=_options.DETECTOR,
            help="Report what scores above this; by default 0.5.",
        ),
    ] = None,
    nms_threshold: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=1,
            metavar="IOU",
            rich_help_panel=_options.DETECTOR,
            help="Of two boxes of a class that overlap more than this (IoU), keep the better one. "
            "By default the model's own threshold.",
        ),
    ] = None,
    save_images: Annotated[
        Path | None,
        typer.Option(
            "--save-images",
            "--out",
            metavar="DIR",
            rich_help_panel=_options.OUTPUT,
            help="Write an annotated PNG of every image into this folder.",
        ),
    ] = None,
    json_file: Annotated[
        str | None,
        typer.Option(
            "--json",
            metavar="FILE",
            rich_help_panel=_options.OUTPUT,
            help="Write what was found as JSON; '-' is standard output. FILE.jsonl gets a line an "
            "image as it is done, and only what is new when run again.",
        ),
    ] = None,
    csv_file: Annotated[
        str | None,
        typer.Option(
            "--csv",
            metavar="FILE",
            rich_help_panel=_options.OUTPUT,
            help="Write a line for every object, or to '-'.",
        ),
    ] = None,
    coco_file: Annotated[
        str | None,
        typer.Option(
            "--coco",
            metavar="FILE",
            rich_help_panel=_options.OUTPUT,
            help="Write a data set in COCO's form, or to '-'.",
        ),
    ] = None,
    quiet: Annotated[
        bool,
        typer.Option(
            "--quiet",
            "-q",
            rich_help_panel=_options.OUTPUT,
            help="Print no table, only what went wrong.",
        ),
    ] = False,
    progress: Annotated[
        bool | None,
        typer.Option(
            "--progress/--no-progress",
            rich_help_panel=_options.OUTPUT,
            help="Show rate and time left: a bar in a terminal, else a line every ten seconds. By "
            "default in a terminal alone.",
        ),
    ] = None,
    batch: _options.Batch = 1,
    threads: _options.Threads = None,
    overwrite: Annotated[
        bool,
        typer.Option(
            "--overwrite",
            rich_help_panel=_options.RUN,
            help="Start anew instead of continuing a run that stopped.",
        ),
    ] = False,
) -> None:
    """Detect objects in images.

    Prints a table; writes annotated pictures, JSON, CSV and COCO's JSON. An image that cannot be
    read is named and the others are processed all the same; the exit code is then 1. What is done
    is kept in a file FILE.partial beside the first output: the same command goes on where it was
    stopped.

    \b
    Examples:
      oxidet detect scene.png --weights digits --save-images found
      oxidet detect photos/ 'more/*.jpg' --weights run/best.npz --json out.json
      curl -s https://example.org/a.jpg | oxidet detect - --weights run/best.npz
      git ls-files '*.png' | oxidet detect --files-from - --weights digits
      oxidet detect street.jpg --weights fasterrcnn.pth --save-images found \\
          --model faster_rcnn_vgg16 --normalization caffe
    """
    _options.set_threads(threads)
    files = [file for file in (json_file, csv_file, coco_file) if file is not None]
    if files.count(STDIN) > 1:
        raise UsageError("--json, --csv, --coco: expected at most one of them to be '-'")
    if len(set(map(os.path.realpath, files))) < len(files):
        raise UsageError("--json, --csv, --coco: expected different files")
    arguments = list(images or ())
    if not arguments and files_from is None:
        raise UsageError("IMAGE: expected files, folders, patterns, '-' or --files-from")
    if files_from == STDIN and STDIN in arguments:
        raise UsageError("--files-from: expected another file than '-', which is the image")
    if files_from is not None:
        arguments += read_list(files_from)
    piped = sys.stdin.buffer.read() if STDIN in arguments else None
    found, missing = find_images((a for a in arguments if a != STDIN), leave_out=save_images)
    if piped is not None:
        found.append(Image(Path(STDIN)))
    if save_images is not None:
        save_images.mkdir(parents=True, exist_ok=True)
    for file in files:
        _output.prepare_file(file)
    detector = load_named_detector(weights, model, normalization, class_names)
    score = detector.score_threshold if score is None else score
    nms = detector.nms_threshold if nms_threshold is None else nms_threshold

    journal_path, keep = _journal_path(files, save_images)
    header = {
        "oxidet": oxidet.__version__,
        "weights": weights,
        "class_names": list(detector.class_names),
        "score_threshold": score,
        "nms_threshold": nms,
    }
    settings = {**header, "annotated": None if save_images is None else str(save_images)}
    del settings["oxidet"]
    if journal_path is not None:
        settings["weights"] = _digest(resolve(weights))
    journal = Journal(journal_path, {**header, "run": settings}, overwrite=overwrite, keep=keep)
    outputs = {"json": json_file, "csv": csv_file, "coco": coco_file}
    problems = [{"path": p.argument, "error": p.reason} for p in missing]
    results = Results(journal, header, problems, outputs)
    complete = False
    try:
        if not keep and journal.done:
            _output.note(
                f"continuing: {_output.count(len(journal.done), 'image')} done before "
                f"({journal_path})"
            )
        run = Run(detector, score, nms, save_images, piped)
        try:
            run.process(found, journal, batch, progress)
        except KeyboardInterrupt:
            if journal_path is None:  # then this is all that is left of it
                results.write(stdout=True)
                results.show(save_images, quiet)
            raise
        results.write(stdout=False)
        complete = True
        results.write(stdout=True)
        results.show(save_images, quiet)
    finally:
        if not complete and journal_path is not None and journal.count:
            _output.note(
                f"{journal_path} has the {_output.count(journal.count, 'image')} done so far; "
                "the same command goes on"
            )
        journal.close(complete)
    if missing or journal.problems:
        raise typer.Exit(1)


def _journal_path(files: Sequence[str], save_images: Path | None) -> tuple[Path | None, bool]:
    """Where a run keeps what is done, and whether that is one of its results."""
    for file in files:
        if file.endswith(".jsonl"):
            return Path(file), True
    for file in files:
        if file != STDIN and (os.path.isfile(file) or not os.path.lexists(file)):
            return Path(f"{file}.partial"), False
    if save_images is not None:
        return save_images / "detections.partial", False
    return None, False


def _digest(path: Path) -> str:
    """What tells one weight file from another."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()


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
