"""Published weights by name, and any file by address: from the cache, or downloaded into it."""

from __future__ import annotations

import errno
import hashlib
import importlib
import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from oxidet._extras import require
from oxidet.weights._download import (
    MAX_BYTES,
    DownloadError,
    ResumingDownloader,
    check_sha256,
    file_sha256,
)
from oxidet.weights._published import find_published

_CHECKSUM_IN_NAME = re.compile(r"-([0-9a-f]{8,64})\.\w+$")
_WITHOUT_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.ENOTSUP, errno.EINVAL)


def fetch(
    name: str,
    url: str | None = None,
    sha256: str | None = None,
    *,
    cache: str | os.PathLike[str] | None = None,
    progress: bool | None = None,
    timeout: float = 30.0,
    retries: int = 4,
    max_bytes: int = MAX_BYTES,
) -> Path:
    """The path of a weight file in the cache, downloaded first where it is not there yet.

    A file in the cache is used without a look at the network. A transfer that breaks goes on where
    it stopped, also in a later call or another process; the file appears in the cache once it is
    complete and its checksum right. Several processes may fetch the same file at once: one
    downloads, the others wait. Proxies and certificates are taken from the environment, as
    requests does. Needs the extra ``download``.

    Parameters
    ----------
    name
        Published weights (``"resnet50"`` for torchvision's default, ``"resnet50.IMAGENET1K_V1"``,
        ``"inception_v4"``; see :func:`list_published`), or an address. With ``url``, the
        name that the file shall have in the cache.
    url
        Where the file is, for what is not published under a known name; http or https.
    sha256
        The file's SHA-256, or at least its first 8 digits. ``"name"`` takes it from
        a file name as torchvision's (``resnet50-0676ba61.pth``), as is done by itself for known
        names and for addresses of download.pytorch.org.
    cache
        Directory; by default the environment variable ``OXIDET_CACHE``, else ``oxidet`` in the
        user's directory for caches.
    progress
        Whether to show a bar, None: where there is a terminal or notebook.
    timeout
        Seconds without a byte after which an attempt counts as failed.
    retries
        Failed attempts in a row after which to give up.
    max_bytes
        Largest file to accept.

    Raises
    ------
    ValueError
        Unknown weights, an address or a checksum that is none.
    DownloadError
        (an OSError) The file cannot be had, or is not the one expected. The message names the
        address.
    ImportError
        The extra is not installed.

    Examples
    --------
    >>> from oxidet import weights
    >>> weights.load(weights.fetch("resnet18"))["fc.weight"].shape       # doctest: +SKIP
    (1000, 512)
    """
    if not isinstance(name, str):
        raise TypeError(f"name: expected a str, got {type(name).__name__}")
    if url is None and is_url(name):
        name, url = _name_in(name), name
    if url is None:
        entry = find_published(name)
        url, digest, relative = entry.url, entry.sha256, Path(entry.file)
        if sha256 not in (None, "name"):
            digest = check_sha256(str(sha256))
    else:
        if not isinstance(url, str) or not is_url(url):
            raise ValueError(f"url: expected http://... or https://..., got {url!r}")
        if name in ("", ".", "..") or name != Path(name).name or set(name) & set("\\\0"):
            raise ValueError(f"name: expected the name of a file, got {name!r}")
        digest = _expected_checksum(url, sha256)
        # Two addresses may end in the same name.
        relative = Path(hashlib.sha256(url.encode()).hexdigest()[:12], name)
    path = cache_directory(cache) / relative
    if _is_right(path, digest):
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    with _locked(path) as alone:
        if _is_right(path, digest):  # another process has just fetched it
            return path
        with suppress(FileNotFoundError):
            path.unlink()  # damaged
        suffix = "" if alone else f".{secrets.token_hex(6)}"
        downloader = ResumingDownloader(
            digest,
            partial=path.with_name(f".{path.name}{suffix}.part"),
            progress=progress,
            timeout=timeout,
            retries=retries,
            max_bytes=max_bytes,
        )
        try:
            _retrieve(url, path, downloader)
        except DownloadError as error:
            raise DownloadError(f"{error} (not in the cache: {path})") from error
    return path


def cache_directory(cache: str | os.PathLike[str] | None = None) -> Path:
    """Where :func:`fetch` keeps its files."""
    if cache is not None:
        return Path(cache).expanduser()
    if given := os.environ.get("OXIDET_CACHE"):
        return Path(given).expanduser()
    return Path(require("pooch", extra="download").os_cache("oxidet"))


def is_url(text: str) -> bool:
    """Whether ``text`` is the address of something on the web."""
    try:
        parts = urlsplit(text)
    except ValueError:  # a bracket that nothing closes
        return False
    return parts.scheme in ("http", "https") and bool(parts.netloc)


def _name_in(url: str) -> str:
    return unquote(urlsplit(url).path).rsplit("/", 1)[-1]


def _expected_checksum(url: str, sha256: str | None) -> str | None:
    if sha256 is not None and sha256 != "name":
        return check_sha256(sha256)
    found = _CHECKSUM_IN_NAME.search(_name_in(url))
    if sha256 == "name" and found is None:
        raise ValueError(f"sha256: expected a checksum in the file name, got {_name_in(url)!r}")
    if found and (sha256 == "name" or urlsplit(url).hostname == "download.pytorch.org"):
        return found[1]
    return None


def _is_right(path: Path, digest: str | None) -> bool:
    return path.is_file() and (digest is None or file_sha256(path).startswith(digest))


def _retrieve(url: str, path: Path, downloader: ResumingDownloader) -> None:
    pooch = require("pooch", extra="download")
    logger = pooch.get_logger()
    level = logger.level
    logger.setLevel("WARNING")  # it would advise on checksums, which the downloader has checked
    try:
        pooch.retrieve(url, None, fname=path.name, path=path.parent, downloader=downloader)
    finally:
        logger.setLevel(level)


@contextmanager
def _locked(path: Path) -> Iterator[bool]:
    """Wait until no other process fetches ``path``; False where the file system has no locks."""
    with open(path.with_name(f".{path.name}.lock"), "w") as file:
        alone = True
        try:
            fcntl: Any = importlib.import_module("fcntl")  # not on Windows
            fcntl.flock(file, fcntl.LOCK_EX)
        except ImportError:
            alone = False
        except OSError as error:
            if error.errno not in _WITHOUT_LOCKS:
                raise
            alone = False
        yield alone  # closing the file gives the lock back
