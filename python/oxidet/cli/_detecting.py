"""What ``oxidet detect`` does with its images, one batch after another."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from oxidet._atomic import remove_leftovers
from oxidet.cli import _debug, _output
from oxidet.cli._images import STDIN, Image, OutputPaths
from oxidet.cli._journal import Journal, Record
from oxidet.cli._pictures import save_picture
from oxidet.data import DataLoader, ImageError, read_image
from oxidet.detections import Detections
from oxidet.models.detection import Detector
from oxidet.visualize import draw
from oxidet.visualize.draw import legible_scale

READERS = 2  # threads that decode ahead


class Pictures:
    """Pixels of images, or the reason why there are none."""

    def __init__(self, images: Sequence[Image], piped: bytes | None) -> None:
        self.images = images
        self.piped = piped

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Image, Any]:
        image = self.images[index]
        path = image.path
        piped = self.piped if str(path) == STDIN else None
        if piped == b"":
            return image, "expected an image, got nothing on standard input"
        try:
            return image, read_image(path if piped is None else piped)
        except ImageError as error:
            _debug.trace(error)
            reason = str(error).removeprefix(f"{path}: ").removeprefix("<bytes>: ")
            return image, reason if piped is None else reason + _hint(piped)
        except OSError as error:
            _debug.trace(error)
            return image, error.strerror or str(error)
        except MemoryError as error:
            _debug.trace(error)
            return image, "not enough memory"


def _hint(piped: bytes) -> str:
    """What to do if the bytes that are no image begin with the path of a file."""
    first = piped.partition(b"\n")[0].rstrip(b"\r")
    return " (--files-from - reads a list of paths)" if os.path.lexists(first) else ""


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

    def process(
        self, images: Sequence[Image], journal: Journal, batch: int, progress: bool | None
    ) -> None:
        """Detect, draw and write down."""
        own = {path for path in journal.done.values() if path is not None}
        remaining = [
            image
            for image in images
            if str(image.path) not in journal.done and str(image.path) not in own
        ]
        targets = None
        if self.save_images is not None:
            targets = OutputPaths(images, self.save_images, journal.done)
            if journal.tag is not None:
                remove_leftovers(self.save_images, journal.tag, below=True)
        before = journal.count
        total = before + len(remaining)
        with (
            DataLoader(
                Pictures(remaining, self.piped), batch_size=batch, num_workers=READERS
            ) as loader,
            _output.Counter(total, "detecting", before, shown=progress) as counter,
        ):
            for pictures in loader:
                for image, pixels, found in self._detect(pictures):
                    if isinstance(found, str):
                        journal.append({"path": str(image.path), "error": found})
                    else:
                        target = None if targets is None else targets.next(image)
                        if target is not None:
                            _save_annotated(target, pixels, found, journal.tag)
                        journal.append(_record(image.path, found, target))
                    counter.step()

    def _detect(
        self, pictures: Sequence[tuple[Image, Any]]
    ) -> Iterator[tuple[Image, Any, Detections | str]]:
        """What is found in each picture of a batch, or why nothing can be."""
        good = [pixels for _, pixels in pictures if not isinstance(pixels, str)]
        try:
            found = iter(self._found(good))
        except (ArithmeticError, MemoryError, ValueError) as error:
            if len(pictures) == 1:
                _debug.trace(error)
                yield pictures[0][0], None, _output.describe(error)
                return
            for picture in pictures:  # one of them spoils it; which?
                yield from self._detect([picture])
            return
        for image, pixels in pictures:
            yield image, pixels, pixels if isinstance(pixels, str) else next(found)

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


def _save_annotated(target: Path, pixels: Any, found: Detections, tag: str | None) -> None:
    picture = draw(pixels, found, scale=legible_scale(*pixels.shape[1:]))
    target.parent.mkdir(parents=True, exist_ok=True)
    save_picture(target, picture, quick=True, tag=tag)
