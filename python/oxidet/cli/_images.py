"""Which images a command line means, and under which names their results are written."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".ppm", ".tif", ".tiff", ".webp")


class Missing(NamedTuple):
    """An argument that stands for no image."""

    argument: str
    reason: str


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
            images = _images_in(path) if path.is_dir() else [path]
            if not images:
                missing.append(Missing(str(path), f"no images ({', '.join(IMAGE_SUFFIXES)})"))
            for image in images:
                found.setdefault(os.path.realpath(image), image)
    return list(found.values()), missing


def _images_in(folder: Path) -> list[Path]:
    return sorted(
        path
        for path in folder.iterdir()
        if path.suffix.lower() in IMAGE_SUFFIXES
        and not path.name.startswith(".")
        and path.is_file()
    )


def output_paths(images: Sequence[Path], folder: Path) -> list[Path]:
    """A ``.png`` in ``folder`` for every image: no two the same, and none of them an input.

    Named after the image; where that name is taken, ``-2``, ``-3``, ... is added. Names that
    differ in case alone count as the same, as some file systems hold them to be.
    """
    taken = {_key(image) for image in images}
    paths = []
    for image in images:
        path, number = folder / f"{image.stem}.png", 1
        while _key(path) in taken:
            number += 1
            path = folder / f"{image.stem}-{number}.png"
        taken.add(_key(path))
        paths.append(path)
    return paths


def _key(path: Path) -> str:
    """The same for every way to write a path."""
    return os.path.realpath(path).lower()
