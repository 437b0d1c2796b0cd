"""``oxidet`` as a process of its own, in a terminal or not."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import struct
import subprocess
import sys
import termios
from pathlib import Path
from typing import Any

import oxidet

OXIDET = (sys.executable, "-m", "oxidet")


def run_process(*arguments: object, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*OXIDET, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=120,
        env=environment(),
        **options,
    )


def environment(**changes: str) -> dict[str, str]:
    """The package that is under test, and no terminal settings."""
    package = str(Path(oxidet.__file__).parent.parent)
    paths = [package, *filter(None, [os.environ.get("PYTHONPATH")])]
    unwanted = ("FORCE_COLOR", "NO_COLOR", "COLUMNS", "TERM")
    kept = {name: value for name, value in os.environ.items() if name not in unwanted}
    return {**kept, "PYTHONPATH": os.pathsep.join(paths), "TERM": "xterm-256color", **changes}


def in_terminal(columns: int, *arguments: object, **variables: str) -> str:
    """What a command prints in a terminal of so many columns, escape sequences and all."""
    terminal, other_end = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("4H", 24, columns, 0, 0))
    process = subprocess.Popen(
        [*OXIDET, *map(str, arguments)],
        stdin=other_end,
        stdout=other_end,
        stderr=other_end,
        env=environment(**variables),
    )
    os.close(other_end)
    written = b""
    with contextlib.suppress(OSError):  # which is how a terminal ends
        while piece := os.read(terminal, 4096):
            written += piece
    os.close(terminal)
    assert process.wait(timeout=60) == 0
    return written.decode().replace("\r\n", "\n")
