"""Files that a command reads are not to be written to."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from oxidet.cli._pictures import is_own
from oxidet.cli._usage import UsageError

Named = tuple[str, str | os.PathLike[str]]  # what a file is, or the option that names it

RESULT = b'{\n "oxidet": '  # how every JSON file of these commands begins


def refuse_inputs(outputs: Iterable[Named], inputs: Iterable[Named]) -> None:
    """Refuse to write to a file that is read, whatever the name or link it goes by.

    ``outputs`` are options with their files, ``inputs`` words for what a file is with the file.
    """
    written = {
        identity: (option, file)
        for option, file in outputs
        if (identity := _identity(file)) is not None
    }
    if not written:  # nothing there that could be lost
        return
    for kind, path in inputs:
        identity = _identity(path)
        if identity in written:
            option, file = written[identity]
            raise UsageError(f"{option}: expected a new file, got the {kind} {os.fspath(file)}")


def refuse_data(outputs: Iterable[Named], data: str | os.PathLike[str], dataset: Any) -> None:
    """Refuse to write to what a folder of labelled images consists of.

    A report or a picture of an earlier run is replaced wherever it is, unless it is an image of
    ``dataset``; any other file in the folder stays as it is.
    """
    root = os.path.realpath(data)
    there = [(option, file) for option, file in outputs if _identity(file) is not None]
    for option, file in there:
        if is_below(os.path.realpath(file), root) and not (_is_report(file) or is_own(file)):
            raise UsageError(f"{option}: expected a new file, got one of the data, {file}")
    if there:  # the images may lie elsewhere
        refuse_inputs(there, (("image", path) for path in _images(dataset)))


def is_below(path: str, folder: str) -> bool:
    """Whether a real path is that of a folder, or of something in it."""
    return path == folder or path.startswith(os.path.join(folder, ""))


def _images(dataset: Any) -> Iterable[Path]:
    for index in range(len(dataset)):
        try:
            yield dataset.image_path(index)
        except (OSError, ValueError):
            continue  # a report's business


def _is_report(path: str | os.PathLike[str]) -> bool:
    with open(path, "rb") as stream:
        return stream.read(len(RESULT)) == RESULT


def _identity(path: str | os.PathLike[str] | None) -> tuple[int, int] | None:
    """The same for all names of a regular file; None of what is none, or not there."""
    if path is None or os.fspath(path) == "-":
        return None
    try:
        found = os.stat(path)
    except (OSError, ValueError):
        return None
    return (found.st_dev, found.st_ino) if stat.S_ISREG(found.st_mode) else None
