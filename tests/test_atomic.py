"""Atomic files: whatever stops the writing, the previous file stays."""

from __future__ import annotations

import csv
import errno
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from oxidet._atomic import atomic_write


def names(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


def test_writes_bytes_and_text(tmp_path: Path) -> None:
    with atomic_write(tmp_path / "a") as file:
        file.write(b"\0\1")
    assert (tmp_path / "a").read_bytes() == b"\0\1"
    with atomic_write(str(tmp_path / "a"), "w") as text:
        text.write("größer\n")
    assert (tmp_path / "a").read_text(encoding="utf-8") == "größer\n"
    with atomic_write(tmp_path / "t.csv", "w", newline="") as table:
        csv.writer(table).writerow([1, "x"])
    assert (tmp_path / "t.csv").read_bytes() == b"1,x\r\n"
    assert names(tmp_path) == ["a", "t.csv"]


def test_the_new_content_appears_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_text("old")
    with atomic_write(path, "w") as file:
        file.write("new" * 100_000)
        file.flush()
        assert path.read_text() == "old"
    assert path.read_text() == "new" * 100_000


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_an_exception_leaves_the_previous_file(tmp_path: Path, error: type) -> None:
    path = tmp_path / "a"
    for previous in (None, "old"):
        if previous:
            path.write_text(previous)

        def interrupted() -> None:
            with atomic_write(path) as file:
                file.write(b"half of it")
                raise error

        with pytest.raises(error):
            interrupted()
        assert names(tmp_path) == (["a"] if previous else [])
        assert previous is None or path.read_text() == previous


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_every_step_may_fail(tmp_path: Path, step: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a"
    path.write_text("old")

    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, step, fail)
    with pytest.raises(OSError, match="No space left") as caught, atomic_write(path) as file:
        file.write(b"new")
    assert caught.value.filename == str(path)
    assert path.read_text() == "old"
    assert names(tmp_path) == ["a"]


def run(code: str, path: Path) -> subprocess.CompletedProcess[str]:
    prelude = "import os, resource, signal, sys\nfrom oxidet._atomic import atomic_write\n"
    return subprocess.run(
        [sys.executable, "-c", prelude + code, str(path)], capture_output=True, text=True
    )


def test_a_disk_that_is_full(tmp_path: Path) -> None:
    """The system refuses to let the file grow, as a full disk does."""
    path = tmp_path / "a"
    path.write_text("old")
    code = """
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
with atomic_write(sys.argv[1]) as file:
    for _ in range(100):
        file.write(bytes(10_000))
"""
    done = run(code, path)
    assert done.returncode == 1
    assert "OSError" in done.stderr
    assert path.read_text() == "old"
    assert names(tmp_path) == ["a"]


def test_a_process_that_is_killed(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_text("old")
    code = """
with atomic_write(sys.argv[1]) as file:
    file.write(bytes(1_000_000))
    file.flush()
    os.kill(os.getpid(), signal.SIGKILL)
"""
    assert run(code, path).returncode == -signal.SIGKILL
    assert path.read_text() == "old"
    stray = [name for name in names(tmp_path) if name != "a"]
    assert all(name.startswith(".a.") and name.endswith(".tmp") for name in stray)
    with atomic_write(path, "w") as file:  # and it does not disturb the next attempt
        file.write("new")
    assert path.read_text() == "new"


def test_permissions(tmp_path: Path) -> None:
    path = tmp_path / "a"
    umask = os.umask(0o027)
    try:
        with atomic_write(path):
            pass
        assert path.stat().st_mode & 0o777 == 0o640
        path.chmod(0o604)
        with atomic_write(path):
            pass
        assert path.stat().st_mode & 0o777 == 0o604
    finally:
        os.umask(umask)


def test_a_device_that_is_full() -> None:
    with pytest.raises(OSError, match="No space left") as caught, atomic_write("/dev/full") as file:
        file.write(b"x")
    assert caught.value.filename == "/dev/full"


def test_a_symbolic_link_stays_one(tmp_path: Path) -> None:
    (tmp_path / "real").write_text("old")
    (tmp_path / "link").symlink_to("real")
    with atomic_write(tmp_path / "link", "w") as file:
        file.write("new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_text() == "new"


def test_a_pipe_is_written_directly(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    received: list[bytes] = []
    reader = threading.Thread(target=lambda: received.append(pipe.read_bytes()))
    reader.start()
    with atomic_write(pipe) as file:
        file.write(b"through")
    reader.join(timeout=10)
    assert received == [b"through"]
    assert pipe.is_fifo()


@pytest.mark.parametrize("redirected", [False, True])
def test_standard_output_by_name(tmp_path: Path, redirected: bool) -> None:
    """As a pipe, and as a file that the shell has opened: what was printed before stays."""
    code = """
import sys
from oxidet._atomic import atomic_write
print("before", flush=True)
with atomic_write("/dev/stdout", "w") as file:
    file.write("through")
"""
    command = [sys.executable, "-c", code]
    if redirected:
        with open(tmp_path / "out", "a") as out:
            subprocess.run(command, stdout=out, check=True)
        assert (tmp_path / "out").read_text() == "before\nthrough"
    else:
        assert subprocess.check_output(command, text=True) == "before\nthrough"


def test_long_names_and_wrong_places(tmp_path: Path) -> None:
    longest = tmp_path / ("n" * 255)
    with atomic_write(longest) as file:
        file.write(b"x")
    assert longest.read_bytes() == b"x"
    widest = tmp_path / ("\N{GRINNING FACE}" * 63)  # of four bytes each
    with atomic_write(widest) as file:
        file.write(b"x")
    assert widest.read_bytes() == b"x"
    missing = tmp_path / "no" / "folder"
    with pytest.raises(FileNotFoundError) as caught, atomic_write(missing):
        pass
    assert caught.value.filename == str(missing)
    with pytest.raises(IsADirectoryError), atomic_write(tmp_path):
        pass
    with pytest.raises(ValueError, match="mode: expected 'wb' or 'w', got 'a'"):
        atomic_write(tmp_path / "a", "a")  # type: ignore[call-overload]
