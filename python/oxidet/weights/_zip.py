"""Reading ZIP archives that may lie.

Only what weight files use: stored and deflated entries, ZIP64. The central directory at the end is
the sole authority on names and sizes, because torch's writer leaves zeros and NumPy's leaves
ZIP64 markers in the local headers; of a local header only the length of its variable part is used.
"""

from __future__ import annotations

import struct
import warnings
import zlib
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from oxidet.weights._source import MAX_ENTRIES, Source

_END = struct.Struct("<4s4H2IH")
_END64_LOCATOR = struct.Struct("<4sIQI")
_END64 = struct.Struct("<4sQ2H2I4Q")
_CENTRAL = struct.Struct("<4s6H3I5H2I")
_LOCAL = struct.Struct("<4s5H3I2H")
_STORED, _DEFLATED = 0, 8
_ENCRYPTED, _UTF8 = 1, 1 << 11
# No deflate stream expands by more: 258 bytes from a two-bit code.
_MAX_EXPANSION = 1032


class Entry(NamedTuple):
    """One file of the archive, as the central directory describes it."""

    name: str
    method: int
    crc: int
    stored_size: int
    size: int
    header_offset: int


class ZipReader:
    """The entries of a ZIP archive, by name and in the order of the directory."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.entries: dict[str, Entry] = {}
        self._warned = False
        offset, size, count = self._find_directory()
        source.check_range(offset, size, "ZIP directory")
        directory, at = source.read(offset, size, "ZIP directory"), 0
        for _ in range(count):
            entry, at = self._parse_entry(directory, at)
            if entry.name in self.entries:
                raise source.error(f"expected different names in the ZIP, got {entry.name!r} twice")
            if not entry.name.endswith("/"):  # a folder
                self.entries[entry.name] = entry

    def _find_directory(self) -> tuple[int, int, int]:
        """Offset, size and number of records of the central directory."""
        source = self.source
        tail_length = min(source.size, _END.size + 0xFFFF)  # the record, and a comment behind it
        tail_start = source.size - tail_length
        tail = source.read(tail_start, tail_length, "ZIP end record")
        at = tail.rfind(b"PK\x05\x06")
        if at < 0 or at + _END.size > tail_length:
            raise source.error("expected a ZIP end record, got none (a truncated file?)")
        _, _, _, _, count, size, offset, _ = _END.unpack_from(tail, at)

        locator_at = tail_start + at - _END64_LOCATOR.size
        if locator_at >= 0:
            locator = source.read(locator_at, _END64_LOCATOR.size, "ZIP64 locator")
            signature, _, end64_at, _ = _END64_LOCATOR.unpack(locator)
            if signature == b"PK\x06\x07":
                record = source.read(end64_at, _END64.size, "ZIP64 end record")
                signature, _, _, _, _, _, _, count, size, offset = _END64.unpack(record)
                if signature != b"PK\x06\x06":
                    raise source.error(f"expected a ZIP64 end record, got {signature!r}")
        if count > MAX_ENTRIES:
            raise source.error(f"expected at most {MAX_ENTRIES} entries in the ZIP, got {count}")
        return offset, size, count

    def _parse_entry(self, directory: bytes, at: int) -> tuple[Entry, int]:
        source = self.source
        if at + _CENTRAL.size > len(directory):
            raise source.error("expected more records in the ZIP directory, got its end")
        (
            signature, _, _, flags, method, _, _, crc, stored_size, size,
            name_length, extra_length, comment_length, _, _, _, offset,
        ) = _CENTRAL.unpack_from(directory, at)  # fmt: skip
        if signature != b"PK\x01\x02":
            raise source.error(f"expected a record of the ZIP directory, got {signature!r}")
        name_end = at + _CENTRAL.size + name_length
        extra_end = name_end + extra_length
        if extra_end + comment_length > len(directory):
            raise source.error("expected whole records in the ZIP directory, got part of one")
        raw_name = directory[at + _CENTRAL.size : name_end]
        try:
            name = raw_name.decode("utf-8" if flags & _UTF8 else "cp437")
        except UnicodeDecodeError:
            raise source.error(f"expected a UTF-8 name in the ZIP, got {raw_name!r}") from None
        if flags & _ENCRYPTED:
            raise source.error(f"expected plain ZIP entries, got {name!r}, which is encrypted")
        if method not in (_STORED, _DEFLATED):
            raise source.error(
                f"expected stored or deflated ZIP entries, got {name!r} with method {method}"
            )
        size, stored_size, offset = self._apply_zip64(
            name, directory[name_end:extra_end], size, stored_size, offset
        )
        possible = stored_size if method == _STORED else stored_size * _MAX_EXPANSION
        if size > possible or (method == _STORED and size != stored_size):
            raise source.error(
                f"expected at most {possible} bytes from the {stored_size} of ZIP entry {name!r}, "
                f"got a size of {size}"
            )
        entry = Entry(name, method, crc, stored_size, size, offset)
        return entry, extra_end + comment_length

    def _apply_zip64(self, name: str, extra: bytes, *fields: int) -> tuple[int, int, int]:
        """Size, stored size and offset, those that are 0xFFFFFFFF read from the ZIP64 extra."""
        values = list(fields)
        wanted = [index for index, value in enumerate(values) if value == 0xFFFFFFFF]
        at = 0
        while wanted and at + 4 <= len(extra):
            kind, length = struct.unpack_from("<2H", extra, at)
            if kind == 1:
                if length < 8 * len(wanted) or at + 4 + length > len(extra):
                    break
                for index, value in zip(
                    wanted, struct.unpack_from(f"<{len(wanted)}Q", extra, at + 4), strict=True
                ):
                    values[index] = value
                return values[0], values[1], values[2]
            at += 4 + length
        if wanted:
            raise self.source.error(f"expected ZIP64 sizes of entry {name!r}, got none")
        return values[0], values[1], values[2]

    def read(self, name: str, *, strict_checksum: bool) -> NDArray[np.uint8]:
        """The bytes of an entry.

        A wrong checksum is an error with ``strict_checksum``, else a warning, once per file:
        torch can be told to write meaningless ones.
        """
        entry, source = self.entries[name], self.source
        header = source.read(entry.header_offset, _LOCAL.size, f"ZIP header of {name!r}")
        signature, *_, name_length, extra_length = _LOCAL.unpack(header)
        if signature != b"PK\x03\x04":
            raise source.error(f"expected a ZIP header before entry {name!r}, got {signature!r}")
        start = entry.header_offset + _LOCAL.size + name_length + extra_length
        what = f"ZIP entry {name!r}"
        if entry.method == _STORED:
            data = source.read_array(start, entry.size, what)
        else:
            data = self._inflate(entry, source.read(start, entry.stored_size, what))
        if (checksum := zlib.crc32(data.data)) != entry.crc:
            message = f"expected checksum {entry.crc:#010x} of {what}, got {checksum:#010x}"
            if strict_checksum:
                raise source.error(message)
            if not self._warned:
                warnings.warn(f"{source.path}: {message}; the file may be damaged", stacklevel=2)
            self._warned = True
        return data

    def _inflate(self, entry: Entry, compressed: bytes) -> NDArray[np.uint8]:
        """Decompress to exactly the size the directory promised, a megabyte at a time."""
        source = self.source
        source.spend(entry.size, f"ZIP entry {entry.name!r}")
        array, filled = np.empty(entry.size, np.uint8), 0
        inflater = zlib.decompressobj(-zlib.MAX_WBITS)
        while not inflater.eof and filled <= entry.size:
            # One byte beyond the promise, so that a longer stream is noticed.
            room = min(entry.size - filled + 1, 1 << 20)
            try:
                chunk = inflater.decompress(compressed, room)
            except zlib.error as error:
                raise source.error(
                    f"expected deflated data in ZIP entry {entry.name!r}, got {error}"
                ) from None
            if not chunk and not inflater.eof:
                break  # the input ended before the stream did
            array[filled : filled + len(chunk)] = np.frombuffer(chunk, np.uint8)[
                : entry.size - filled
            ]
            compressed = inflater.unconsumed_tail
            filled += len(chunk)
        if not inflater.eof or filled != entry.size:
            came = "more" if filled > entry.size else f"{filled} and the end of the data"
            raise source.error(
                f"expected {entry.size} bytes from deflated ZIP entry {entry.name!r}, got {came}"
            )
        return array
