"""Files that are either the old one or the new one, never half of either.

The new content goes into a temporary file next to its destination, is forced to the disk, and only
then takes the destination's name. A full disk, an exception or a killed process before that last
step leaves the previous file as it was.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, BinaryIO, Literal, TextIO, overload


@overload
def atomic_write(
    path: str | os.PathLike[str],
    mode: Literal["wb"] = "wb",
    *,
    durable: bool = True,
    tag: str | None = None,
) -> contextlib.AbstractContextManager[BinaryIO]: ...


@overload
def atomic_write(
    path: str | os.PathLike[str],
    mode: Literal["w"],
    *,
    newline: str | None = None,
    durable: bool = True,
    tag: str | None = None,
) -> contextlib.AbstractContextManager[TextIO]: ...


def atomic_write(
    path: str | os.PathLike[str],
    mode: str = "wb",
    *,
    newline: str | None = None,
    durable: bool = True,
    tag: str | None = None,
) -> contextlib.AbstractContextManager[Any]:
    """Open a file for writing that replaces ``path`` when the block ends without an exception.

    On an exception the temporary file is removed and ``path`` stays as it was. A process killed
    inside the block leaves ``path`` as it was too, and beside it a hidden file
    ``.<name>.<random>.tmp``, which no reader takes for the real one.

    A symbolic link keeps pointing where it did, and its target is replaced. Permissions of a file
    that is replaced are kept. What is no regular file (a pipe, ``/dev/stdout``) cannot be replaced;
    what is written goes straight to its end.

    Parameters
    ----------
    path
        The destination. Its directory must exist.
    mode
        ``"wb"`` for bytes, ``"w"`` for text in UTF-8.
    newline
        As in :func:`open`, for text only (``csv`` asks for ``newline=""``).
    durable
        Wait until the disk has it. Without that, which is many times faster, a killed process still
        leaves whole files, but a power failure may not.
    tag
        What stands in place of ``<random>``, by which ``remove_leftovers`` knows the file again.
        Two who may write to one ``path`` at the same time need different ones.

    Raises
    ------
    OSError
        The file cannot be written: no such directory, no permission, no space left. It names
        ``path``, where the system's own error would name the temporary file or none.

    Examples
    --------
    >>> import os, tempfile
    >>> path = os.path.join(tempfile.mkdtemp(), "note.txt")
    >>> with atomic_write(path, "w") as file:
    ...     _ = file.write("first")
    >>> try:
    ...     with atomic_write(path, "w") as file:
    ...         _ = file.write("sec")
    ...         raise RuntimeError("the power fails")
    ... except RuntimeError:
    ...     print(open(path).read(), os.listdir(os.path.dirname(path)))
    first ['note.txt']
    """
    if mode not in ("wb", "w"):
        raise ValueError(f"mode: expected 'wb' or 'w', got {mode!r}")
    return _atomic_write(os.fspath(path), mode, newline, durable, tag or secrets.token_hex(6))


def remove_leftovers(folder: str | os.PathLike[str], tag: str, *, below: bool = False) -> None:
    """Remove the temporary files that killed processes left in a folder.

    Those with ``tag`` go, so nobody may be writing with it. ``below`` looks into the folders in it
    as well.

    >>> import os, tempfile
    >>> folder = tempfile.mkdtemp()
    >>> for name in (".a.png.run1.tmp", ".b.png.run2.tmp", "c.png"):
    ...     open(os.path.join(folder, name), "w").close()
    >>> remove_leftovers(folder, "run1")
    >>> sorted(os.listdir(folder))
    ['.b.png.run2.tmp', 'c.png']
    """
    for parent, folders, names in os.walk(folder):
        for name in names:
            if name.startswith(".") and name.endswith(f".{tag}.tmp"):
                with contextlib.suppress(OSError):
                    os.unlink(os.path.join(parent, name))
        if not below:
            folders.clear()


@contextlib.contextmanager
def _atomic_write(
    path: str, mode: str, newline: str | None, durable: bool, tag: str
) -> Iterator[IO[Any]]:
    how: Any = {"encoding": "utf-8" if mode == "w" else None, "newline": newline}
    try:
        previous = os.stat(path)
    except FileNotFoundError:
        previous = None
    # /dev/stdout is a regular file where the output is redirected to one, and must not be replaced.
    device = os.path.dirname(os.path.abspath(path)) in ("/dev", "/dev/fd")
    if previous is not None and (device or not stat.S_ISREG(previous.st_mode)):
        with _naming(path), open(path, mode.replace("w", "a"), **how) as file:
            yield file
        return

    target = Path(os.path.realpath(path))
    # Not tempfile.mkstemp: its files are private (0600), a new file here obeys the umask. Of the
    # name no more than fits into the 255 bytes of a file name, four to a character.
    temporary = target.with_name(f".{target.name[:48]}.{tag}.tmp")
    with _naming(path, instead_of=temporary), _removed_on_failure(temporary):
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
        with open(descriptor, mode, **how) as file:
            if previous is not None:
                os.fchmod(descriptor, stat.S_IMODE(previous.st_mode))
            yield file
            file.flush()
            if durable:
                os.fsync(descriptor)
        os.replace(temporary, target)
    if durable:
        _sync_directory(target.parent)


@contextlib.contextmanager
def _naming(path: str, instead_of: Path | None = None) -> Iterator[None]:
    """Errors of the system that name no file, or the temporary one, name ``path``."""
    try:
        yield
    except OSError as error:
        if error.errno is not None and error.filename in (None, str(instead_of)):
            error.filename, error.filename2 = path, None
        raise


@contextlib.contextmanager
def _removed_on_failure(path: Path) -> Iterator[None]:
    try:
        yield
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(path)
        raise


def _sync_directory(directory: Path) -> None:
    """Make the new name itself survive a power failure, where the file system can."""
    try:
        descriptor = os.open(directory, os.O_RDONLY)
    except PermissionError:
        return  # a directory one may write to but not read
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(descriptor)
