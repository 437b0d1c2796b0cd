"""Downloading one file over HTTP: continued where it broke off, verified before anyone sees it.

What has arrived lies in a *partial* file, and beside it a record of what it is part of. A transfer
that breaks, in this process or in an earlier one, goes on from there by a range request, which
names the version of the file that the part came from (``If-Range``). Whatever does not fit together
(the server ignores ranges, the file has changed, the offset is another) starts the file over.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import time
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from oxidet._arrays import integer, number
from oxidet._bars import new_bar
from oxidet._extras import require

#: Largest file that is downloaded unless the caller says otherwise, in bytes.
MAX_BYTES = 8 << 30
_CHUNK = 1 << 16
# A retry after at least so many new bytes does not count as one: the server is slow, not dead.
_PROGRESS = 1 << 20
_LONGEST_PAUSE = 10.0  # seconds
_BUSY = frozenset({408, 425, 429, 500, 502, 503, 504})
_CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+|\*)")


class DownloadError(OSError):
    """A file could not be downloaded, or is not the one that was expected.

    The message names the address, and what can be done.
    """


class _Broken(Exception):
    """This attempt failed in a way in which the next may not."""

    def __init__(self, reason: str, pause: float = 0.0) -> None:
        super().__init__(reason)
        self.pause = pause


class _StartOver(Exception):
    """What has arrived is of no use any more, for this reason."""


class ResumingDownloader:
    """Downloads over HTTP; a *downloader* for pooch, which calls it with address and file.

    Parameters
    ----------
    sha256
        The file's SHA-256 in hexadecimal digits, or at least its first 8. Without it, the length
        that the server announces is all that is checked.
    partial
        Where to collect what arrives, so that a later call can go on; by default beside the
        result. One call at a time may use it.
    progress
        Show a bar (where tqdm is installed). None: if there is a terminal or notebook to draw on.
    timeout
        Seconds without a single byte after which an attempt has failed.
    retries
        How many attempts in a row may fail.
    max_bytes
        Largest file to accept.

    Examples
    --------
    >>> import pooch                                                     # doctest: +SKIP
    >>> pooch.retrieve(url, "sha256:...", downloader=ResumingDownloader())   # doctest: +SKIP
    """

    sha256: str | None
    timeout: float
    retries: int
    max_bytes: int

    def __init__(
        self,
        sha256: str | None = None,
        *,
        partial: str | os.PathLike[str] | None = None,
        progress: bool | None = None,
        timeout: float = 30.0,
        retries: int = 4,
        max_bytes: int = MAX_BYTES,
    ) -> None:
        self.sha256 = None if sha256 is None else check_sha256(sha256)
        self.partial = partial
        self.progress = progress
        self.timeout = number(timeout, "timeout", 0)
        self.retries = integer(retries, "retries", 0)
        self.max_bytes = integer(max_bytes, "max_bytes", 0)

    def __call__(
        self, url: str, output_file: Any, pooch: Any = None, check_only: bool = False
    ) -> bool | None:
        """Download ``url`` to the path ``output_file``, which appears complete or not at all.

        With ``check_only``, only say whether the server has it.

        Raises
        ------
        DownloadError
            Also where the content is not what ``sha256`` says.
        """
        if urlsplit(url).scheme not in ("http", "https"):
            raise DownloadError(f"{url}: expected an address that begins with http:// or https://")
        requests = require("requests", extra="download")
        if check_only:
            reply = requests.head(url, timeout=self.timeout, allow_redirects=True)
            return bool(reply.status_code == 200)
        part = _Partial(Path(self.partial or f"{os.fspath(output_file)}.part"), url)
        with _Bar(self.progress, Path(urlsplit(url).path).name) as bar:
            self._complete(url, part, bar)
        os.replace(part.path, output_file)
        part.discard()
        return None

    def _complete(self, url: str, part: _Partial, bar: _Bar) -> None:
        """Bring the part to the whole file, verified."""
        failures = restarts = 0
        while True:
            before, continued = part.size, part.size > 0
            try:
                self._transfer(url, part, bar)
            except _StartOver as problem:
                part.discard()
                restarts += 1
                if restarts > self.retries + 1:
                    raise DownloadError(
                        f"{url}: gave up after starting over {restarts} times: {problem}"
                    ) from problem
                continue
            except _Broken as problem:
                failures = 0 if part.size - before >= _PROGRESS else failures + 1
                if failures > self.retries:
                    kept = f"; {part.size} bytes are kept to go on from" if part.size else ""
                    raise DownloadError(
                        f"{url}: the transfer failed {failures} times in a row: {problem}{kept}"
                    ) from problem
                time.sleep(max(min(0.25 * 2**failures, _LONGEST_PAUSE), problem.pause))
                continue
            if self.sha256 is None:
                return
            digest = file_sha256(part.path)
            if digest.startswith(self.sha256):
                return
            part.discard()
            if restarts or not continued:  # else a part from an earlier time may be to blame
                raise DownloadError(
                    f"{url}: expected a file with SHA-256 {self.sha256}, got one with {digest}: "
                    "damaged on the way, or another file than was published"
                )
            restarts += 1

    def _transfer(self, url: str, part: _Partial, bar: _Bar) -> None:
        """One request, to the end of the file."""
        requests = require("requests", extra="download")
        headers = {"Accept-Encoding": "identity", "User-Agent": "oxidet"}
        offset = part.size
        if offset and not (part.validator or self.sha256):
            # Nothing could tell whether the rest belongs to this beginning.
            raise _StartOver("the server names no version of the file")
        if offset:
            headers["Range"] = f"bytes={offset}-"
            if part.validator:
                headers["If-Range"] = part.validator
        fail = requests.exceptions
        try:
            response = requests.get(url, headers=headers, stream=True, timeout=self.timeout)
        except (fail.ConnectionError, fail.Timeout, fail.ChunkedEncodingError) as problem:
            raise _Broken(_innermost(problem)) from problem
        except (fail.RequestException, ValueError) as problem:
            raise DownloadError(f"{url}: {problem}") from problem
        with response:
            total = self._begin(url, response, part)
            if response.status_code == 416:
                return  # nothing is left to come
            self._check_size(url, total, part)
            bar.at(part.size, total)
            with open(part.path, "ab") as file:
                chunks = response.iter_content(_CHUNK)
                while True:
                    try:
                        chunk = next(chunks, b"")
                    except fail.RequestException as problem:
                        raise _Broken(_innermost(problem)) from problem
                    if not chunk:
                        break
                    file.write(chunk)
                    bar.advance(len(chunk))
                    if file.tell() > self.max_bytes:
                        self._check_size(url, file.tell(), part)
                file.flush()
                os.fsync(file.fileno())
                if total is not None and file.tell() < total:
                    raise _Broken(f"the connection closed after {file.tell()} of {total} bytes")
                if total is not None and file.tell() > total:
                    raise _StartOver(f"got {file.tell()} bytes where {total} were announced")

    def _begin(self, url: str, response: Any, part: _Partial) -> int | None:
        """Prepare the part for what the response brings; the length of the whole file, if known."""
        status, headers, offset = response.status_code, response.headers, part.size
        if urlsplit(url).scheme == "https" and urlsplit(response.url).scheme != "https":
            raise DownloadError(f"{url}: leads to {response.url}, which is not encrypted")
        if status in _BUSY:
            pause = headers.get("Retry-After", "")
            seconds = float(pause) if pause.isdecimal() else 0.0
            raise _Broken(f"HTTP status {status}", min(seconds, _LONGEST_PAUSE))
        if status == 416 and offset:
            # The part is the whole file already, or belongs to another one.
            if headers.get("Content-Range") == f"bytes */{offset}":
                return offset
            raise _StartOver("the file is shorter than the part of it that has arrived")
        if status not in (200, 206) or (status == 206 and not offset):
            raise DownloadError(f"{url}: expected the file, got HTTP status {status}")
        if headers.get("Content-Encoding", "identity") != "identity":
            raise DownloadError(
                f"{url}: expected the file as it is, got it {headers['Content-Encoding']}-encoded"
            )
        if status == 200:  # a new transfer, or the server ignores ranges, or the file has changed
            length = headers.get("Content-Length", "")
            total = int(length) if length.isdecimal() else None
            part.begin(headers.get("ETag"), headers.get("Last-Modified"), total)
            return total
        found = _CONTENT_RANGE.fullmatch(headers.get("Content-Range", ""))
        etag = headers.get("ETag", part.etag)
        if found is None or int(found[1]) != offset or (part.etag and etag != part.etag):
            raise _StartOver("the server continued with another part or version of the file")
        total = None if found[3] == "*" else int(found[3])
        if part.total is not None and total != part.total:
            raise _StartOver("the length of the file has changed")
        return total

    def _check_size(self, url: str, total: int | None, part: _Partial) -> None:
        if total is None:
            return
        if total > self.max_bytes:
            part.discard()
            raise DownloadError(
                f"{url}: expected at most {self.max_bytes} bytes (max_bytes), got {total}"
            )
        free = shutil.disk_usage(part.path.parent).free
        if total - part.size > free:
            raise DownloadError(
                f"{url}: expected room for {total - part.size} bytes in {part.path.parent}, "
                f"got {free}"
            )


class _Partial:
    """The beginning of a file, and which version of which file it is the beginning of."""

    def __init__(self, path: Path, url: str) -> None:
        self.path = path
        self.url = url
        self._record = path.with_name(f"{path.name}.json")
        self.etag: str | None = None
        self.modified: str | None = None
        self.total: int | None = None
        try:
            record = json.loads(self._record.read_text())
            known = record["url"] == url
            self.etag, self.modified = record["etag"], record["modified"]
            self.total = record["total"]
        except (OSError, ValueError, KeyError, TypeError):
            known = False
        if not known:
            self.discard()

    @property
    def size(self) -> int:
        try:
            return self.path.stat().st_size
        except FileNotFoundError:
            return 0

    @property
    def validator(self) -> str | None:
        """What an ``If-Range`` may name: an ETag that promises equal bytes, or a date."""
        if self.etag and not self.etag.startswith("W/"):
            return self.etag
        return self.modified

    def begin(self, etag: str | None, modified: str | None, total: int | None) -> None:
        """Become the empty beginning of this version."""
        self.discard()
        self.etag, self.modified, self.total = etag, modified, total
        record = {"url": self.url, "etag": etag, "modified": modified, "total": total}
        self._record.write_text(json.dumps(record))
        self.path.touch()

    def discard(self) -> None:
        self.etag = self.modified = self.total = None
        for path in (self.path, self._record):
            with suppress(FileNotFoundError):
                path.unlink()


class _Bar:
    """A bar of bytes, where one is wanted and can be drawn."""

    def __init__(self, wanted: bool | None, name: str) -> None:
        self._bar = new_bar(wanted, desc=name, unit="B", unit_scale=True, unit_divisor=1024)

    def __enter__(self) -> _Bar:
        return self

    def __exit__(self, *_error: object) -> None:
        if self._bar is not None:
            self._bar.close()

    def at(self, position: int, total: int | None) -> None:
        if self._bar is not None:
            self._bar.reset(total)
            self._bar.initial = self._bar.n = position
            self._bar.refresh()

    def advance(self, count: int) -> None:
        if self._bar is not None:
            self._bar.update(count)


def _innermost(problem: BaseException) -> str:
    """The reason at the bottom of what requests and urllib3 wrapped in each other."""
    seen = 0
    while seen < 8:
        inner = getattr(problem, "reason", None) or next(
            (item for item in problem.args[::-1] if isinstance(item, BaseException)), None
        )
        if not isinstance(inner, BaseException):
            break
        problem, seen = inner, seen + 1
    return str(problem) or type(problem).__name__


def check_sha256(text: str) -> str:
    """``text`` as lower-case digits, if it is a SHA-256 or at least 8 digits of its beginning."""
    digits = text.lower().removeprefix("sha256:") if isinstance(text, str) else ""
    if not re.fullmatch(r"[0-9a-f]{8,64}", digits):
        raise ValueError(f"sha256: expected 8 to 64 hexadecimal digits, got {text!r}")
    return digits


def file_sha256(path: str | os.PathLike[str]) -> str:
    """The SHA-256 of a file, in hexadecimal digits."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()
