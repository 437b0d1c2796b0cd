"""Text for people: what comes from anybody's file, made fit for a terminal, and large numbers."""

from __future__ import annotations


def printable(text: str) -> str:
    """Text in one line: a name may come from anybody's file, and a terminal obeys what it reads."""
    if text.isprintable():
        return text
    return text.encode("unicode_escape", "surrogatepass").decode("ascii")


def abbreviated(number: float, unit: str = "") -> str:
    """A number that is not negative, in two or three digits.

    >>> abbreviated(0), abbreviated(999), abbreviated(118_013_952), abbreviated(1_849_688_064, "B")
    ('0', '999', '118 M', '1.8 GB')
    """
    power = 0
    while number >= 999.5 and power < 4:
        number /= 1000
        power += 1
    digits = f"{number:.1f}" if power and number < 99.95 else f"{number:.0f}"
    letter = " kMGT"[power].strip() + unit
    return f"{digits} {letter}" if letter else digits
