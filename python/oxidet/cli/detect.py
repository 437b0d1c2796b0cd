"""``oxidet detect``: objects in images, as a table, annotated pictures and JSON."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import typer

import oxidet
from oxidet.cli import _options, _output
from oxidet.cli._images import Missing, find_images, output_paths
from oxidet.cli._models import load_named_detector
from oxidet.data import ImageError, read_image
from oxidet.detections import Detections
from oxidet.models.detection import Detector
from oxidet.visualize import draw, save_png
from oxidet.visualize.draw import legible_scale


class Result(NamedTuple):
    """What was found in one image, and where the annotated picture lies."""

    path: Path
    detections: Detections
    annotated: Path | None


def detect(
    images: Annotated[
        list[str],
        typer.Argument(
            metavar="IMAGE", help="Image files, folders of images, or patterns such as '*.jpg'."
        ),
    ],
    weights: _options.Weights,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", metavar="DIR", help="Write an annotated PNG of every image into this folder."
        ),
    ] = None,
    json_file: Annotated[
        str | None,
        typer.Option(
            "--json", metavar="FILE", help="Write what was found as JSON; '-' is standard output."
        ),
    ] = None,
    model: _options.Model = None,
    normalization: _options.Normalization = None,
    class_names: _options.ClassNames = None,
    score_threshold: Annotated[
        float,
        typer.Option(min=0, max=1, metavar="SCORE", help="Report what scores above this."),
    ] = 0.5,
    nms_threshold: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=1,
            metavar="IOU",
            help="Of two boxes of a class that overlap more than this (IoU), keep the better one. "
            "By default the model's own threshold.",
        ),
    ] = None,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="Print no table, only what went wrong.")
    ] = False,
    threads: _options.Threads = None,
) -> None:
    """Detect objects in images.

    Prints a table; writes annotated pictures with --out and JSON with --json. An image that cannot
    be read is named and the others are processed all the same; the exit code is then 1.

    \b
    Examples:
      oxidet detect scene.png --weights digits --out found
      oxidet detect photos/ 'more/*.jpg' --weights run/best.npz --json out.json
      oxidet detect street.jpg --weights fasterrcnn.pth --out found \\
          --model faster_rcnn_vgg16 --normalization caffe
    """
    _options.set_threads(threads)
    paths, missing = find_images(images)
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
    _output.prepare_json(json_file)
    detector = load_named_detector(weights, model, normalization, class_names)
    nms = detector.nms_threshold if nms_threshold is None else nms_threshold
    results, failed = _detect_all(detector, paths, out, score_threshold, nms)

    if json_file is not None:
        content = {
            "oxidet": oxidet.__version__,
            "weights": weights,
            "class_names": list(detector.class_names),
            "score_threshold": score_threshold,
            "nms_threshold": nms,
            "images": [_plain(result) for result in results],
            "errors": [{"path": p.argument, "error": p.reason} for p in (*missing, *failed)],
        }
        _output.write_json(json_file, content)
    if not quiet:
        _print_table(results, out, stderr=json_file == "-")
    for problem in (*missing, *failed):
        _output.error(f"{problem.argument}: {problem.reason}")
    if missing or failed:
        raise typer.Exit(1)


def _detect_all(
    detector: Detector, paths: Sequence[Path], out: Path | None, score: float, nms: float
) -> tuple[list[Result], list[Missing]]:
    targets = [None] * len(paths) if out is None else output_paths(paths, out)
    results: list[Result] = []
    failed: list[Missing] = []
    for path, target in _output.track(list(zip(paths, targets, strict=True)), "detecting"):
        try:
            pixels = read_image(path)
        except ImageError as error:
            failed.append(Missing(str(path), str(error).removeprefix(f"{path}: ")))
            continue
        except OSError as error:
            failed.append(Missing(str(path), error.strerror or str(error)))
            continue
        found = detector.predict(pixels, score_threshold=score, nms_threshold=nms)
        if target is not None:
            save_png(target, draw(pixels, found, scale=legible_scale(*pixels.shape[1:])))
        # Without the pixels: a folder of pictures need not fit into memory.
        results.append(Result(path, found.replace(image=None, path=str(path)), target))
    return results, failed


def _plain(result: Result) -> dict[str, Any]:
    """One image's entry in the JSON."""
    rows = list(result.detections)
    height, width = result.detections.image_size or (0, 0)
    return {
        "path": str(result.path),
        "width": width,
        "height": height,
        "boxes": [list(row.box) for row in rows],
        "labels": [row.label for row in rows],
        "names": [row.name for row in rows],
        "scores": [row.score for row in rows],
        "annotated": None if result.annotated is None else str(result.annotated),
    }


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


def _print_table(results: Sequence[Result], out: Path | None, stderr: bool) -> None:
    if results:
        rows = [(str(result.path), result.detections) for result in results]
        _output.show(detections_table(rows), stderr=stderr)
    objects = sum(len(result.detections) for result in results)
    line = f"{_output.count(objects, 'object')} in {_output.count(len(results), 'image')}"
    if out is not None and results:
        line += f"; annotated in {os.path.join(_output.printable(out), '')}"
    _output.say(line, stderr=stderr)
