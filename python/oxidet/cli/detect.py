"""``oxidet detect``: objects in images as a table, pictures, JSON, CSV and the JSON of COCO."""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from oxidet.cli import _options
from oxidet.cli._images import STDIN, Image, find_images, read_list
from oxidet.cli._inputs import refuse_inputs
from oxidet.cli._journal import Journal
from oxidet.cli._usage import UsageError


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
    import oxidet
    from oxidet.cli import _output
    from oxidet.cli._detecting import Run
    from oxidet.cli._models import load_named_detector, resolve
    from oxidet.cli._results import Results

    _options.set_threads(threads)
    outputs = {"json": json_file, "csv": csv_file, "coco": coco_file}
    files = [file for file in outputs.values() if file is not None]
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
        listed = read_list(files_from)
        if not listed and not arguments:
            where = "standard input" if files_from == STDIN else files_from
            raise ValueError(f"--files-from: expected paths, got nothing on {where}")
        arguments += listed
    piped = sys.stdin.buffer.read() if STDIN in arguments else None
    found, missing = find_images((a for a in arguments if a != STDIN), leave_out=save_images)
    if piped is not None:
        found.append(Image(Path(STDIN)))
    journal_path, keep = _journal_path(files, save_images)
    written = [(f"--{form}", file) for form, file in outputs.items() if file is not None]
    if journal_path is not None and not keep:
        option = next((o for o, file in written if f"{file}.partial" == str(journal_path)), None)
        written.append((option or "--save-images", str(journal_path)))
        if os.path.realpath(journal_path) in map(os.path.realpath, files):
            raise UsageError(
                f"--json, --csv, --coco: expected none to be {journal_path}, where {option} keeps "
                "what is done"
            )
    read = [("weights", resolve(weights))]
    if files_from is not None:
        read.append(("list", Path(files_from)))
    refuse_inputs(written, [*read, *(("image", image.path) for image in found)])
    if save_images is not None:
        save_images.mkdir(parents=True, exist_ok=True)
    for file in files:
        _output.prepare_file(file)
    detector = load_named_detector(weights, model, normalization, class_names)
    score = detector.score_threshold if score is None else score
    nms = detector.nms_threshold if nms_threshold is None else nms_threshold

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
