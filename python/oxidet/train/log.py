"""The log of a run: one JSON object a line, every line complete, nothing twice after a resume."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Mapping
from typing import Any

from oxidet._text import printable

MOST_CLASSES = 6  # whose scores one line shows


class JsonLog:
    """Appends records to a file, one JSON object a line, each on the disk's way when written.

    Opening keeps the lines up to ``iteration`` and cuts off what follows: the lines of a run that
    went on after its last checkpoint and is now repeated from there, and a line that a killed
    process left unfinished.

    NaN and infinity, which JSON does not know, become null.

    Only one process at a time may have a log open: BlockingIOError where another has. The lock goes
    with the process, however it ends.

    Examples
    --------
    >>> import os, tempfile
    >>> path = os.path.join(tempfile.mkdtemp(), "log.jsonl")
    >>> log = JsonLog(path)
    >>> log.write({"iteration": 1, "total_loss": 0.5})
    >>> log.write({"iteration": 2, "total_loss": float("nan")})
    >>> log.close()
    >>> JsonLog(path, iteration=1).close()  # resumed from a checkpoint of iteration 1
    >>> read_log(path)
    [{'iteration': 1, 'total_loss': 0.5}]
    """

    path: str

    def __init__(self, path: str | os.PathLike[str], iteration: int = 0) -> None:
        self.path = os.fspath(path)
        self._file = open(self.path, "a+b")  # noqa: SIM115 - closed by close()
        try:
            _lock(self._file)
        except BlockingIOError:
            self._file.close()
            raise BlockingIOError(
                f"{self.path}: expected a log that no other process writes to, got one in use"
            ) from None
        self._file.truncate(_kept_bytes(self._file, iteration))

    def write(self, record: Mapping[str, Any]) -> None:
        """Append one record."""
        line = json.dumps(_plain(record), ensure_ascii=False, allow_nan=False)
        # One write of the whole line: a process killed now leaves all of it or nothing.
        self._file.write(line.encode() + b"\n")
        self._file.flush()

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def read_log(path: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """The records of a log, oldest first; an unfinished last line is left out.

    >>> import os, tempfile
    >>> path = os.path.join(tempfile.mkdtemp(), "log.jsonl")
    >>> with open(path, "w") as file:
    ...     _ = file.write('{"iteration": 1, "total_loss": 2.5}\\n{"iteration": 2, "tot')
    >>> read_log(path)
    [{'iteration': 1, 'total_loss': 2.5}]
    """
    with open(path, "rb") as file:
        return [record for _, record in _records(file)]


def _lock(file: Any) -> None:
    """Keep others from locking the same file until it is closed; BlockingIOError if one has."""
    try:
        import fcntl
    except ImportError:  # not a Unix
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if isinstance(error, BlockingIOError):
            raise
        # A file system without locks: better unprotected than not at all.


def _records(file: Any) -> Iterator[tuple[int, dict[str, Any]]]:
    """(length of the line in bytes, record), as long as lines are whole."""
    for line in file:
        try:
            record = json.loads(line)
        except ValueError:
            return
        if not line.endswith(b"\n") or not isinstance(record, dict):
            return
        yield len(line), record


def _kept_bytes(file: Any, iteration: int) -> int:
    file.seek(0)
    kept = 0
    for length, record in _records(file):
        if not isinstance(record.get("iteration"), int) or record["iteration"] > iteration:
            break
        kept += length
    return kept


def _plain(value: Any) -> Any:
    """``value`` in types that JSON has."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, (bool, int, str)) or value is None:
        return value
    number = float(value)
    return number if math.isfinite(number) else None


def brief(record: Mapping[str, Any]) -> str:
    """The main figures of an evaluation, and those of the classes where they are few."""
    parts = [
        f"{name} {value:.4f}"
        for name, value in record.items()
        if isinstance(value, float) and (not name.startswith("coco_") or name == "coco_AP")
    ]
    for values in record.values():
        if isinstance(values, Mapping) and len(values) <= MOST_CLASSES:
            parts += [f"{printable(str(name))} {value:.4f}" for name, value in values.items()]
    return ", ".join(parts)
