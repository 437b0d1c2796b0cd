"""Text that may come from anybody's file, made fit for a terminal."""

from __future__ import annotations


def printable(text: str) -> str:
    """Text in one line: a name may come from anybody's file, and a terminal obeys what it reads."""
    if text.isprintable():
        return text
    return text.encode("unicode_escape", "surrogatepass").decode("ascii")
