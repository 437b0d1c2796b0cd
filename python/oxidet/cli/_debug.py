"""Whether ``--debug`` was given, and what it shows of images that fail while others go on."""

from __future__ import annotations

wanted = False


def trace(problem: BaseException) -> None:
    """Print the traceback of what one image fails with, if anybody wants it."""
    if wanted:
        import traceback

        traceback.print_exception(problem)
