"""What has been found so far, a line of JSON an image, so that a run that was stopped goes on.

A line is appended by one call of the system once its image is done, picture and all. A process
killed at any moment leaves whole lines and at most one torn one at the end, which the next run cuts
off. The first line says what the lines belong to: results of other weights or thresholds are not
mixed.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

try:
    import fcntl
except ImportError:  # no POSIX: nobody is kept from running the same command twice
    fcntl = None  # type: ignore[assignment]

SECONDS_BETWEEN_SYNCS = 5.0  # what a power failure may cost

# What sets the entries of a header.
OPTIONS = {
    "weights": "--weights",
    "class_names": "--class-names",
    "score_threshold": "--score",
    "nms_threshold": "--nms-threshold",
    "annotated": "--save-images",
}

Record = dict[str, Any]


class Journal:
    """Records of images in the order in which they were finished, in a file or, without a path, in
    a temporary one.

    Parameters
    ----------
    path
        The file; one that is there is continued.
    header
        What the records belong to. Only the entry ``"run"`` must be that of the file.
    overwrite
        Start anew.
    keep
        Whether the file stays when the run is complete.
    """

    problems: int

    def __init__(
        self, path: Path | None, header: Record, *, overwrite: bool = False, keep: bool = False
    ) -> None:
        self.path = path
        self.keep = keep
        self.done: dict[str, str | None] = {}
        """Paths of the images that earlier runs finished, and of their annotated pictures."""
        self.count = 0
        """How many images are finished by now."""
        self.problems = 0
        """How many of those have failed."""
        if path is None:
            descriptor, name = tempfile.mkstemp(prefix="oxidet-")
            os.unlink(name)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        self._file = os.fdopen(descriptor, "r+b", buffering=0)
        self._synced = time.monotonic()
        try:
            self._lock()
            if overwrite:
                self._file.truncate(0)
            self._read(header)
        except BaseException:
            self._file.close()
            raise

    @property
    def tag(self) -> str | None:
        """For the temporary files of all runs with this journal, of which the lock permits one."""
        if self.path is None:
            return None
        return hashlib.sha256(os.fsencode(os.path.realpath(self.path))).hexdigest()[:12]

    def _lock(self) -> None:
        if fcntl is None or self.path is None:
            return
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(f"{self.path}: another run is writing to it") from None
        except OSError:
            pass  # a file system without locks

    def _read(self, header: Record) -> None:
        """Take over what is there, up to the first line that is not whole."""
        end, first = 0, None
        with open(os.dup(self._file.fileno()), "rb") as lines:
            for line in lines:
                record = _parsed(line)
                if first is None:
                    if record is None and not _line(header).startswith(line):  # or a torn header
                        raise ValueError(f"{self.path}: expected results of oxidet detect")
                    first = record
                elif record is not None:
                    self._count(record)
                    self.done[record["path"]] = record.get("annotated")
                if record is None:
                    break
                end += len(line)
        if first is not None and first.get("run") != header["run"]:
            known = first.get("run", {})
            other = [key for key, value in header["run"].items() if known.get(key) != value]
            what = ", ".join(OPTIONS.get(key) or key for key in other) or "settings"
            raise ValueError(
                f"{self.path}: has results with other {what} (--overwrite to start anew)"
            )
        self._file.truncate(end)
        self._file.seek(0, os.SEEK_END)
        if first is None:
            self._write(header)

    def append(self, record: Record) -> None:
        """Add the record of an image, which has a ``"path"``; ``"error"`` if it has failed."""
        self._write(record)
        self._count(record)

    def _count(self, record: Record) -> None:
        self.count += 1
        self.problems += "error" in record

    def _write(self, record: Record) -> None:
        line = _line(record)
        written = os.write(self._file.fileno(), line)
        while written < len(line):  # a full disk raises, a pipe may take less at once
            written += os.write(self._file.fileno(), line[written:])
        now = time.monotonic()
        if self.path is not None and now - self._synced >= SECONDS_BETWEEN_SYNCS:
            os.fsync(self._file.fileno())
            self._synced = now

    def __iter__(self) -> Iterator[Record]:
        """All records, read one by one."""
        with open(os.dup(self._file.fileno()), "rb") as lines:
            lines.seek(0)
            next(lines)  # the header
            for line in lines:
                yield json.loads(line)

    def close(self, complete: bool) -> None:
        """Let go of the file; of one that is complete and not to be kept, remove it."""
        if self.path is not None:
            with contextlib.suppress(OSError):
                os.fsync(self._file.fileno())
            if complete and not self.keep:
                os.unlink(self.path)
        self._file.close()


def _line(record: Record) -> bytes:
    return json.dumps(record, allow_nan=False).encode() + b"\n"


def _parsed(line: bytes) -> Record | None:
    """The record in a line, if it is whole."""
    if not line.endswith(b"\n"):
        return None
    try:
        record = json.loads(line)
    except ValueError:
        return None
    return record if isinstance(record, dict) and ("path" in record or "run" in record) else None
