"""Where the tables of a benchmark go."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TextIO


def to_file_or_screen(path: Path | None, write: Callable[[TextIO], None]) -> None:
    """Let ``write`` write to a file, which is then shown, or to the screen at once."""
    if path is None:
        write(sys.stdout)
        return
    with path.open("w") as file:
        write(file)
    print(path.read_text())
