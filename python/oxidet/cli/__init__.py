"""The command line: ``oxidet detect``, ``train``, ``eval``, ``check-data``, ``demo`` and ``info``.

One module a command; each says what it needs in its function's signature, which is also its help.
Exit codes: 0 success, 1 something failed, 2 wrong usage, 130 interrupted. Every error is one line
on stderr, ``--debug`` shows the traceback instead.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from oxidet import _extras

INTERRUPTED = 130  # what a shell reports for a process that Ctrl-C ended


def main(args: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code; ``args`` are ``sys.argv[1:]`` if not given."""
    try:
        for module in ("typer", "rich"):
            _extras.require(module, extra="cli")
    except ImportError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    try:
        from oxidet.cli import _app
    except KeyboardInterrupt:
        return INTERRUPTED
    return _app.run(sys.argv[1:] if args is None else args)
