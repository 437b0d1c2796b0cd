"""A weight file as a hostile stream of bytes: what it says of itself is checked before it is used.

Two things can go wrong with a length read from a file. It can point past the end, which every read
checks; or it can be true and still ruinous, as a few kilobytes that unpack to terabytes. Against
that, everything a reader allocates is drawn from one allowance per file.
"""

from __future__ import annotations

import os
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

#: More named parts than any network has tensors, few enough to list in memory.
MAX_ENTRIES = 1 << 17


class WeightFileError(ValueError):
    """A weight file is truncated, malformed, of an unknown kind, or holds what is not read.

    The message names the file, what was expected and what came.
    """


def brief(value: object) -> str:
    """``value`` for a message: text and numbers as they are, of anything else only the type.

    What a file describes may be built so that printing it never ends.
    """
    if value is None or isinstance(value, (str, bytes, int, float)):
        text = repr(value)
        return text if len(text) <= 80 else f"{text[:77]}..."
    return f"an object of type {type(value).__name__}"


class Source:
    """A binary file with bounds-checked reads and an allowance of memory.

    Parameters
    ----------
    file
        Open for reading, seekable.
    path
        How messages name the file.
    max_bytes
        What all arrays read from the file may take together. By default 64 times the
        size of the file plus 256 MiB: compressed weights, which are mostly noise, stay far
        below it.
    """

    def __init__(self, file: BinaryIO, path: str, max_bytes: int | None = None) -> None:
        self.path = path
        self.size = file.seek(0, os.SEEK_END)
        self._file = file
        self._limit = 64 * self.size + (256 << 20) if max_bytes is None else max_bytes
        self._spent = 0

    def error(self, message: str) -> WeightFileError:
        """The exception for this file, for the caller to raise."""
        return WeightFileError(f"{self.path}: {message}")

    def check_range(self, offset: int, length: int, what: str) -> None:
        """Refuse a range that is not inside the file."""
        if offset < 0 or length < 0 or offset + length > self.size:
            raise self.error(
                f"expected {length} bytes of {what} at offset {offset}, "
                f"got a file of {self.size} bytes (truncated or corrupt)"
            )

    def spend(self, nbytes: int, what: str) -> None:
        """Draw ``nbytes``, about to be allocated for ``what``, from the allowance."""
        self._spent += nbytes
        if self._spent > self._limit:
            raise self.error(
                f"expected arrays of at most {self._limit} bytes from a file of {self.size} bytes, "
                f"got {nbytes} bytes for {what}, {self._spent} in all "
                "(max_bytes= raises the limit for a file you trust)"
            )

    def read(self, offset: int, length: int, what: str) -> bytes:
        """``length`` bytes at ``offset``."""
        self.check_range(offset, length, what)
        self._file.seek(offset)
        data = self._file.read(length)
        if len(data) != length:
            raise self.error(f"expected {length} bytes of {what}, got {len(data)}")
        return data

    def read_array(self, offset: int, length: int, what: str) -> NDArray[np.uint8]:
        """As :meth:`read`, into a new writable array."""
        self.check_range(offset, length, what)
        self.spend(length, what)
        array = np.empty(length, np.uint8)
        self._file.seek(offset)
        view, filled = array.data, 0
        while filled < length:
            count = self._file.readinto(view[filled:])  # type: ignore[attr-defined]
            if not count:
                raise self.error(f"expected {length} bytes of {what}, got {filled}")
            filled += count
        return array
