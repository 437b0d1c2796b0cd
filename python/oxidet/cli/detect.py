"""``oxidet detect``: objects in images as a table, pictures, JSON, CSV and the JSON of COCO."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

import oxidet
from oxidet.cli import _formats, _options, _output
from oxidet.cli._images import STDIN, OutputPaths, find_images, read_stdin
from oxidet.cli._journal import Journal, Record
from oxidet.cli._models import load_named_detector, resolve
from oxidet.data import DataLoader, ImageError, read_image
from oxidet.detections import Detections
from oxidet.models.detection import Detector
from oxidet.visualize import draw, save_png
from oxidet.visualize.draw import legible_scale

TABLE_IMAGES = 100  # whose objects are listed; of more, the classes are counted
READERS = 2  # threads that decode ahead


def detect(
    images: Annotated[
        list[str],
        typer.Argument(
            metavar="IMAGE",
            help="Image files, folders of images, patterns such as '*.jpg', or - for standard "
            "input: an image, or paths, one a line.",
        ),
    ],
    weights: _options.Weights,
    save_images: Annotated[
        Path | None,
        typer.Option(
            "--save-images",
            "--out",
            metavar="DIR",
            help="Write an annotated PNG of every image into this folder.",
        ),
    ] = None,
    json_file: Annotated[
        str | None,
        typer.Option(
            "--json",
            metavar="FILE",
            help="Write what was found as JSON; '-' is standard output. FILE.jsonl gets a line an "
            "image as it is done, and only what is new when run again.",
        ),
    ] = None,
    csv_file: Annotated[
        str | None,
        typer.Option("--csv", metavar="FILE", help="Write a line for every object, or to '-'."),
    ] = None,
    coco_file: Annotated[
        str | None,
        typer.Option("--coco", metavar="FILE", help="Write a data set in COCO's form, or to '-'."),
    ] = None,
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
            help="Report what scores above this; by default 0.5.",
        ),
    ] = None,
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
    batch: _options.Batch = 1,
    overwrite: Annotated[
        bool,
        typer.Option("--overwrite", help="Start anew instead of continuing a run that stopped."),
    ] = False,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="Print no table, only what went wrong.")
    ] = False,
    threads: _options.Threads = None,
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
      find . -name '*.jpg' | oxidet detect - --weights run/best.npz --csv out.csv
      oxidet detect street.jpg --weights fasterrcnn.pth --save-images found \\
          --model faster_rcnn_vgg16 --normalization caffe
    """
    _options.set_threads(threads)
    files = [file for file in (json_file, csv_file, coco_file) if file is not None]
    if files.count(STDIN) > 1:
        raise ValueError("--json, --csv, --coco: expected at most one of them to be '-'")
    if len(set(map(os.path.realpath, files))) < len(files):
        raise ValueError("--json, --csv, --coco: expected different files")
    piped = None
    if STDIN in images:
        listed, piped = read_stdin()
        place = images.index(STDIN)
        images = [*images[:place], *listed, *images[place + 1 :]]
    paths, missing = find_images(images)
    if piped is not None:
        paths.append(Path(STDIN))
    if save_images is not None:
        save_images.mkdir(parents=True, exist_ok=True)
    for file in files:
        _output.prepare_file(file)
    detector = load_named_detector(weights, model, normalization, class_names)
    score = detector.score_threshold if score is None else score
    nms = detector.nms_threshold if nms_threshold is None else nms_threshold

    run = Run(detector, score, nms, save_images, piped)
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
    complete = False
    try:
        if not keep and journal.done:
            _output.note(
                f"continuing: {_output.count(len(journal.done), 'image')} done before "
                f"({journal_path})"
            )
        run.process(paths, journal, batch)
        problems = [{"path": p.argument, "error": p.reason} for p in missing]
        everything = Everything(problems, journal)
        if json_file is not None and not json_file.endswith(".jsonl"):
            _formats.write_json(json_file, header, everything)
        if csv_file is not None:
            _formats.write_csv(csv_file, journal)
        if coco_file is not None:
            _formats.write_coco(coco_file, detector.class_names, journal)
        if not quiet:
            _print_found(journal, save_images, stderr=STDIN in files)
        for record in everything:
            if "error" in record:
                _output.error(f"{record['path']}: {record['error']}")
        complete = True
    finally:
        if not complete and journal_path is not None and journal.done:
            _output.note(
                f"{journal_path} has the {_output.count(len(journal.done), 'image')} done so far; "
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


class Everything:
    """Records of what no image stands for, and then those of a journal."""

    def __init__(self, problems: Sequence[Record], journal: Journal) -> None:
        self.problems = problems
        self.journal = journal

    def __iter__(self) -> Iterator[Record]:
        yield from self.problems
        yield from self.journal


class Pictures:
    """Pixels of images, or the reason why there are none."""

    def __init__(self, paths: Sequence[Path], piped: bytes | None) -> None:
        self.paths = paths
        self.piped = piped

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[Path, Any]:
        path = self.paths[index]
        try:
            source = self.piped if self.piped is not None and str(path) == STDIN else path
            return path, read_image(source)
        except ImageError as error:
            return path, str(error).removeprefix(f"{path}: ").removeprefix("<bytes>: ")
        except OSError as error:
            return path, error.strerror or str(error)
        except MemoryError:
            return path, "not enough memory"


class Run:
    """One pass over the images that are not done yet."""

    def __init__(
        self,
        detector: Detector,
        score: float,
        nms: float,
        save_images: Path | None,
        piped: bytes | None,
    ) -> None:
        self.detector = detector
        self.score = score
        self.nms = nms
        self.save_images = save_images
        self.piped = piped

    def process(self, paths: Sequence[Path], journal: Journal, batch: int) -> None:
        """Detect, draw and write down."""
        own = {path for path in journal.done.values() if path is not None}
        remaining = [
            path for path in paths if str(path) not in journal.done and str(path) not in own
        ]
        targets = None
        if self.save_images is not None:
            targets = OutputPaths(paths, self.save_images, journal.done)
        before = len(journal.done)
        with (
            DataLoader(
                Pictures(remaining, self.piped), batch_size=batch, num_workers=READERS
            ) as loader,
            _output.Counter(before + len(remaining), "detecting", before) as counter,
        ):
            for pictures in loader:
                for path, pixels, found in self._detect(pictures):
                    if isinstance(found, str):
                        journal.append({"path": str(path), "error": found})
                    else:
                        target = None if targets is None else targets.next(path)
                        if target is not None:
                            scale = legible_scale(*pixels.shape[1:])
                            save_png(target, draw(pixels, found, scale=scale), quick=True)
                        journal.append(_record(path, found, target))
                    counter.step()

    def _detect(
        self, pictures: Sequence[tuple[Path, Any]]
    ) -> Iterator[tuple[Path, Any, Detections | str]]:
        """What is found in each picture of a batch, or why nothing can be."""
        good = [pixels for _, pixels in pictures if not isinstance(pixels, str)]
        try:
            found = iter(self._found(good))
        except (ArithmeticError, MemoryError, ValueError) as error:
            if len(pictures) == 1:
                yield pictures[0][0], None, _output.describe(error)
                return
            for picture in pictures:  # one of them spoils it; which?
                yield from self._detect([picture])
            return
        for path, pixels in pictures:
            yield path, pixels, pixels if isinstance(pixels, str) else next(found)

    def _found(self, images: Sequence[Any]) -> list[Detections]:
        if not images:
            return []
        return [
            Detections(
                *found, class_names=self.detector.class_names, image_size=image.shape[1:]
            ).top(len(found[2]))
            for image, found in zip(
                images, self.detector.detect_images(images, self.score, self.nms), strict=True
            )
        ]


def _record(path: Path, found: Detections, annotated: Path | None) -> Record:
    """One image's entry in the journal and in the JSON."""
    rows = list(found)
    height, width = found.image_size or (0, 0)
    return {
        "path": str(path),
        "width": width,
        "height": height,
        "boxes": [list(row.box) for row in rows],
        "labels": [row.label for row in rows],
        "names": [row.name for row in rows],
        "scores": [row.score for row in rows],
        "annotated": None if annotated is None else str(annotated),
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


def _print_found(journal: Journal, save_images: Path | None, stderr: bool) -> None:
    """The table of objects, or, of many images, that of classes, and a line with the sum."""
    listed = len(journal.done) - journal.problems <= TABLE_IMAGES
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
