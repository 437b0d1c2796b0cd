"""Pictures that the commands write, and by which they know them again.

A command that chooses the name of a file itself may meet one of that name that is somebody else's.
Its own pictures say in their first bytes where they come from, so that the same command replaces
what it wrote and nothing else.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from oxidet import _extras
from oxidet._atomic import atomic_write
from oxidet.cli._usage import UsageError

SOFTWARE = {"Software": "oxidet"}
# A PNG's signature, then its size as a chunk of 25 bytes, then this text as one.
SIGNATURE = b"\x89PNG\r\n\x1a\n"
MARK = b"\x00\x00\x00\x0ftEXtSoftware\x00oxidet"
BEGIN = len(SIGNATURE) + 25 + len(MARK)


def save_picture(path: Path, picture: Any, *, quick: bool = False, tag: str | None = None) -> None:
    """Write a Pillow image or a plot to a PNG that is whole or not there, and marked as ours.

    ``quick``, for many pictures, compresses little and does not wait for the disk. ``tag`` is that
    of :func:`atomic_write`.
    """
    with atomic_write(path, durable=not quick, tag=tag) as file:
        if hasattr(picture, "savefig"):
            picture.savefig(file, format="png", dpi=120, metadata=SOFTWARE)
            return
        info = _extras.require("PIL.PngImagePlugin", extra="images").PngInfo()
        for name, value in SOFTWARE.items():
            info.add_text(name, value)
        picture.save(file, format="PNG", pnginfo=info, **({"compress_level": 1} if quick else {}))


def is_own(path: str | os.PathLike[str]) -> bool:
    """Whether a path leads to a picture of :func:`save_picture`; not to one that was edited."""
    if not os.path.isfile(path):  # to read from a pipe could take for ever
        return False
    try:
        with open(path, "rb") as file:
            begin = file.read(BEGIN)
    except OSError:
        return False
    return begin.startswith(SIGNATURE) and begin.endswith(MARK)


def refuse_others(option: str, files: Iterable[Path]) -> None:
    """Refuse to replace any file but a picture of :func:`save_picture`."""
    for file in files:
        if os.path.lexists(file) and not is_own(file):
            raise UsageError(f"{option}: expected a new file, got one that is not oxidet's, {file}")
