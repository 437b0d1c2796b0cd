"""Which images a command line means, and under which names their results are written."""

from __future__ import annotations

import glob
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".ppm", ".tif", ".tiff", ".webp")
STDIN = "-"
# What image files of the usual formats begin with; no path does.
MAGIC = (
    b"\xff\xd8\xff", b"\x89PNG", b"GIF8", b"BM", b"II*\0", b"MM\0*", b"RIFF", b"P5", b"P6",
    b"\0\0\0",
)  # fmt: skip


class Missing(NamedTuple):
    """An argument that stands for no image."""

    argument: str
    reason: str


def read_stdin() -> tuple[list[str], bytes | None]:
    """What is on standard input: paths, one a line, or the bytes of one image."""
    stream = sys.stdin.buffer
    content = stream.read()
    if content.startswith(MAGIC):
        return [], content
    lines = (os.fsdecode(line.rstrip(b"\r")) for line in content.split(b"\n"))
    return [line for line in lines if line], None


def find_images(arguments: Iterable[str]) -> tuple[list[Path], list[Missing]]:
    """The image files that files, folders and patterns stand for, each once, in order.

    A folder stands for the files in it with the ending of an image, hidden ones aside, sorted; a
    pattern, where no file has that very name, for what matches it, ``**`` for folders of any depth.
    A file counts as an image whatever its name.
    """
    found: dict[str, Path] = {}
    missing: list[Missing] = []
    for argument in arguments:
        if os.path.lexists(argument):
            paths = [Path(argument)]
        else:
            paths = [Path(match) for match in sorted(glob.glob(argument, recursive=True))]
            if not paths:
                pattern = glob.has_magic(argument)
                reason = "matches no file" if pattern else "no such file or folder"
                missing.append(Missing(argument, reason))
        for path in paths:
            images = _images_in(path) if path.is_dir() else {os.path.realpath(path): path}
            if not images:
                missing.append(Missing(str(path), f"no images ({', '.join(IMAGE_SUFFIXES)})"))
            for real, image in images.items():
                found.setdefault(real, image)
    return list(found.values()), missing


def _images_in(folder: Path) -> dict[str, Path]:
    """The images in a folder by their real paths."""
    real = os.path.realpath(folder)
    found = {}
    with os.scandir(folder) as entries:
        for entry in sorted(entries, key=lambda entry: entry.name):
            if (
                entry.name.lower().endswith(IMAGE_SUFFIXES)
                and not entry.name.startswith(".")
                and entry.is_file()
            ):
                path = os.path.join(real, entry.name)
                found[os.path.realpath(path) if entry.is_symlink() else path] = Path(
                    folder, entry.name
                )
    return found


class OutputPaths:
    """A ``.png`` in ``folder`` for every image: no two the same, and none of them an input.

    Named after the image; where that name is taken, ``-2``, ``-3``, ... is added. Names that
    differ in case alone count as the same, as some file systems hold them to be. ``done`` has
    images that already have a picture, or None.
    """

    def __init__(
        self, images: Sequence[Path], folder: Path, done: Mapping[str, str | None] | None = None
    ) -> None:
        self.folder = folder
        self._real: dict[str, str] = {}
        self._taken = {self._key(image) for image in images}
        # Of a link, the file it leads to is as little to be written to as the link itself.
        links = filter(os.path.islink, images)
        self._taken.update(os.path.realpath(image).lower() for image in links)
        self._taken.update(self._key(Path(path)) for path in (done or {}).values() if path)

    def next(self, image: Path) -> Path:
        """The picture of the next image."""
        stem = "stdin" if str(image) == STDIN else image.stem
        path, number = self.folder / f"{stem}.png", 1
        while self._key(path) in self._taken or os.path.islink(path):
            number += 1
            path = self.folder / f"{stem}-{number}.png"
        self._taken.add(self._key(path))
        return path

    def _key(self, path: Path) -> str:
        """The same for every way to write a path."""
        folder = os.path.dirname(path)
        if folder not in self._real:
            self._real[folder] = os.path.realpath(folder)
        return os.path.join(self._real[folder], path.name).lower()
