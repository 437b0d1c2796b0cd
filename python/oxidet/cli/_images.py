"""Which images a command line means, and under which names their results are written."""

from __future__ import annotations

import glob
import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from oxidet.cli._inputs import is_below
from oxidet.cli._pictures import is_own
from oxidet.cli._usage import UsageError

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".ppm", ".tif", ".tiff", ".webp")
STDIN = "-"


class Image(NamedTuple):
    """An image file, and which folder below the one that was named it is in."""

    path: Path
    folder: str = ""


class Missing(NamedTuple):
    """An argument that stands for no image."""

    argument: str
    reason: str


def read_list(file: str) -> list[str]:
    """The paths in a file, or, for ``"-"``, on standard input: one a line.

    Where there is a NUL byte, as ``find -print0`` writes, only that separates them.
    """
    content = sys.stdin.buffer.read() if file == STDIN else Path(file).read_bytes()
    if b"\0" in content:
        lines = content.split(b"\0")
    else:
        lines = [line.rstrip(b"\r") for line in content.split(b"\n")]
    return [os.fsdecode(line) for line in lines if line]


def find_images(
    arguments: Iterable[str], leave_out: Path | None = None
) -> tuple[list[Image], list[Missing]]:
    """The image files that files, folders and patterns stand for, each once, in order.

    A folder stands for the files in it, and in the folders below, with the ending of an image,
    hidden ones aside, sorted; a pattern, where no file has that very name, for what matches it,
    ``**`` for folders of any depth. A file counts as an image whatever its name. ``leave_out`` is a
    folder that is passed over where it lies below another or a pattern matches what is in it.
    """
    found: dict[str, Image] = {}
    missing: list[Missing] = []
    avoided = set() if leave_out is None else {os.path.realpath(leave_out)}
    for argument in arguments:
        if os.path.lexists(argument):
            paths = [Path(argument)]
        else:
            matches = sorted(glob.glob(argument, recursive=True))
            paths = [Path(match) for match in matches if not _is_in(match, avoided)]
            if not matches:
                pattern = glob.has_magic(argument)
                reason = "matches no file" if pattern else "no such file or folder"
                missing.append(Missing(argument, reason))
            elif not paths:
                missing.append(Missing(argument, f"matches only what is in {leave_out}"))
        for path in paths:
            if not path.is_dir():
                if _is_named_pipe(path):
                    missing.append(Missing(str(path), "expected an image file, got a named pipe"))
                    continue
                found.setdefault(os.path.realpath(path), Image(path))
                continue
            some = False
            real = os.path.realpath(path)
            if real in avoided:
                raise UsageError(
                    f"--save-images: expected another folder than that of images, {path}"
                )
            for name, image in _images_in(path, "", real, {real, *avoided}, missing):
                found.setdefault(name, image)
                some = True
            if not some and (not missing or missing[-1].argument != str(path)):
                missing.append(Missing(str(path), f"no images ({', '.join(IMAGE_SUFFIXES)})"))
    return list(found.values()), missing


def _images_in(
    folder: Path, below: str, real: str, seen: set[str], missing: list[Missing]
) -> Iterator[tuple[str, Image]]:
    """The images in a folder and in those below, with their real paths.

    ``seen`` are the real paths of folders that are not entered, as links could lead in circles.
    """
    try:
        with os.scandir(folder) as entries:
            listed = sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        missing.append(Missing(str(folder), error.strerror or str(error)))
        return
    for entry in listed:
        if entry.name.startswith("."):
            continue
        path = os.path.join(real, entry.name)
        if entry.is_symlink():
            path = os.path.realpath(path)
        if entry.is_dir():
            if path not in seen:
                seen.add(path)
                inner = os.path.join(below, entry.name)
                yield from _images_in(folder / entry.name, inner, path, seen, missing)
        elif entry.name.lower().endswith(IMAGE_SUFFIXES):
            if entry.is_file():
                yield path, Image(folder / entry.name, below)
            elif not os.path.exists(path):
                missing.append(Missing(str(folder / entry.name), "a link to no file"))


def _is_in(path: str, folders: set[str]) -> bool:
    """Whether a path is that of one of the folders, given as real paths, or of what is in it."""
    real = os.path.realpath(path) if folders else ""
    return any(is_below(real, folder) for folder in folders)


def _is_named_pipe(path: Path) -> bool:
    """Whether to read a path could wait forever; those that a shell makes of <(...) are written."""
    if os.path.dirname(os.path.abspath(path)) in ("/dev/fd", "/proc/self/fd"):
        return False
    return path.is_fifo()


class OutputPaths:
    """A ``.png`` in ``folder`` for every image: no two the same, none of them an input, and none of
    them a file that is there already, unless it is a picture of an earlier run.

    Named after the image, and in the folders that it is in below the one that was named; where that
    name is taken, ``-2``, ``-3``, ... is added. Names that differ in case alone count as the same,
    as some file systems hold them to be. ``done`` has images that already have a picture, or None.
    """

    def __init__(
        self, images: Sequence[Image], folder: Path, done: Mapping[str, str | None] | None = None
    ) -> None:
        self.folder = folder
        self._real: dict[str, str] = {}
        self._taken = {self._key(image.path) for image in images}
        # Of a link, the file it leads to is as little to be written to as the link itself.
        links = (image.path for image in images if os.path.islink(image.path))
        self._taken.update(os.path.realpath(path).lower() for path in links)
        self._taken.update(self._key(Path(path)) for path in (done or {}).values() if path)

    def next(self, image: Image) -> Path:
        """The picture of the next image."""
        stem = "stdin" if str(image.path) == STDIN else image.path.stem
        folder = self.folder / image.folder
        path, number = folder / f"{stem}.png", 1
        while self._key(path) in self._taken or self._is_of_others(path):
            number += 1
            path = folder / f"{stem}-{number}.png"
        self._taken.add(self._key(path))
        return path

    def _is_of_others(self, path: Path) -> bool:
        return os.path.lexists(path) and (os.path.islink(path) or not is_own(path))

    def _key(self, path: Path) -> str:
        """The same for every way to write a path."""
        folder = os.path.dirname(path)
        if folder not in self._real:
            self._real[folder] = os.path.realpath(folder)
        return os.path.join(self._real[folder], path.name).lower()
