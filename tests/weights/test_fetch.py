"""Downloading weight files from a server on this machine that does what servers do."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from http_server import Site, serve
from oxidet import weights
from oxidet.weights import DownloadError, ResumingDownloader, _download, _fetch, _published

pytest.importorskip("pooch")

CONTENT = np.random.default_rng(0).bytes(1_000_001)
HALF = 524_288  # a whole number of the chunks that are read at a time


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    for name in list(os.environ):
        if name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    monkeypatch.setattr(_download, "_LONGEST_PAUSE", 0.0)
    with serve(CONTENT) as site:
        yield site


def get(site: Site, cache: Path, **options: Any) -> Path:
    options = {"sha256": site.sha256, "progress": False, **options}
    return weights.fetch("net.npz", site.url, cache=cache, **options)


def visible(cache: Path) -> list[str]:
    """Files of the cache that a reader may take for weights."""
    return [p.name for p in cache.rglob("*") if p.is_file() and not p.name.startswith(".")]


def parts(cache: Path) -> list[Path]:
    return [path for path in cache.rglob(".*") if ".part" in path.name]


def test_a_file_is_downloaded_once(site: Site, tmp_path: Path) -> None:
    path = get(site, tmp_path)
    assert path.read_bytes() == CONTENT
    assert path.name == "net.npz"
    assert get(site, tmp_path) == path
    assert len(site.requests) == 1
    assert visible(tmp_path) == ["net.npz"]
    assert parts(tmp_path) == []


def test_offline_the_cache_is_enough(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with serve(CONTENT) as site:
        path = get(site, tmp_path)
    monkeypatch.setattr(_fetch, "_retrieve", None)  # would be called
    assert get(site, tmp_path) == path  # its server is gone
    path.parent.chmod(0o500)
    try:
        assert get(site, tmp_path) == path
    finally:
        path.parent.chmod(0o700)


def test_without_a_server_the_error_says_where_the_file_would_be(
    site: Site, tmp_path: Path
) -> None:
    with serve(b"") as gone:
        pass
    with pytest.raises(DownloadError, match=r"refused.*not in the cache: .*net\.npz"):
        get(gone, tmp_path, retries=1)
    assert visible(tmp_path) == []


@pytest.mark.parametrize("validator", ["etag", "date", "checksum"])
def test_a_broken_transfer_goes_on(site: Site, tmp_path: Path, validator: str) -> None:
    site.breaks = [HALF]
    if validator != "etag":
        site.etag = None
    site.modified = "Mon, 05 Feb 2024 10:00:00 GMT" if validator == "date" else None
    digest = site.sha256 if validator == "checksum" else None
    assert get(site, tmp_path, sha256=digest).read_bytes() == CONTENT
    assert [r.get("Range") for r in site.requests] == [None, f"bytes={HALF}-"]
    expected = {"etag": site.current_etag, "date": site.modified, "checksum": None}
    assert site.requests[1].get("If-Range") == expected[validator]


def test_many_breaks_are_survived_while_there_is_progress(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_download, "_PROGRESS", 1)
    site.breaks = [1 << 17] * 7
    assert get(site, tmp_path, retries=1).read_bytes() == CONTENT
    assert len(site.requests) == 8


def test_a_later_call_goes_on_where_an_earlier_one_gave_up(site: Site, tmp_path: Path) -> None:
    site.breaks, site.statuses = [HALF], [200, 503]
    with pytest.raises(DownloadError, match=rf"failed 1 times .*{HALF} bytes are kept"):
        get(site, tmp_path, retries=0)
    assert visible(tmp_path) == []
    site.statuses = []
    assert get(site, tmp_path, retries=0).read_bytes() == CONTENT
    assert site.requests[-1]["Range"] == f"bytes={HALF}-"
    assert parts(tmp_path) == []


def test_a_server_that_ignores_ranges_starts_over(site: Site, tmp_path: Path) -> None:
    site.breaks, site.ranges = [HALF, HALF], False
    assert get(site, tmp_path).read_bytes() == CONTENT
    assert len(site.requests) == 3


def test_without_any_version_the_file_starts_over(site: Site, tmp_path: Path) -> None:
    site.breaks, site.etag = [HALF], None
    assert get(site, tmp_path, sha256=None).read_bytes() == CONTENT
    assert [r.get("Range") for r in site.requests] == [None, None]


@pytest.mark.parametrize("etag", ["content", 'W/"weak"', None])
def test_a_file_that_changed_in_between_starts_over(
    site: Site, tmp_path: Path, etag: str | None
) -> None:
    site.etag, site.breaks, site.statuses = etag, [HALF], [200, 503]
    new = CONTENT[::-1]
    digest = None if etag else site.sha256
    with pytest.raises(DownloadError):
        get(site, tmp_path, sha256="00000000", retries=0)
    site.content, site.statuses = new, []
    digest = site.sha256  # found wrong where no ETag tells
    assert get(site, tmp_path, sha256=digest, retries=0).read_bytes() == new


def test_a_shorter_file_in_between_starts_over(site: Site, tmp_path: Path) -> None:
    site.breaks, site.statuses, site.etag = [HALF], [200, 503], None
    with pytest.raises(DownloadError):
        get(site, tmp_path, retries=0)
    site.content, site.statuses = b"short", []
    assert get(site, tmp_path, retries=0).read_bytes() == b"short"


def test_a_part_that_is_whole_is_not_asked_for_again(site: Site, tmp_path: Path) -> None:
    """The process ended between the last byte and the new name."""
    part = tmp_path / "part"
    part.write_bytes(CONTENT)
    _Partial = _download._Partial
    partial = _Partial(part, site.url)
    assert partial.size == 0  # without its record it is nothing
    partial.begin(site.current_etag, None, len(CONTENT))
    part.write_bytes(CONTENT)
    ResumingDownloader(site.sha256, partial=part)(site.url, tmp_path / "out", None)
    assert (tmp_path / "out").read_bytes() == CONTENT
    assert site.requests[0]["Range"] == f"bytes={len(CONTENT)}-"


def test_wrong_ranges_end(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_download, "_PROGRESS", 1)
    site.breaks, site.wrong_range = [HALF] * 100, True
    with pytest.raises(DownloadError, match="gave up after starting over"):
        get(site, tmp_path, retries=2)
    assert len(site.requests) < 12


def test_a_corrupted_file_never_appears(site: Site, tmp_path: Path) -> None:
    digest = site.sha256
    site.content = CONTENT[:-1] + b"?"
    with pytest.raises(DownloadError, match=rf"expected a file with SHA-256 {digest}, got one"):
        get(site, tmp_path, sha256=digest)
    assert visible(tmp_path) == []
    assert parts(tmp_path) == []
    site.breaks = [HALF]
    with pytest.raises(DownloadError, match="SHA-256"):
        get(site, tmp_path, sha256=digest)
    assert len(site.requests) < 6


def test_a_file_damaged_in_the_cache_is_fetched_again(site: Site, tmp_path: Path) -> None:
    path = get(site, tmp_path)
    path.write_bytes(CONTENT[: HALF - 1])
    assert get(site, tmp_path) == path
    assert path.read_bytes() == CONTENT


def test_the_first_digits_of_a_checksum_are_enough(site: Site, tmp_path: Path) -> None:
    assert get(site, tmp_path, sha256=site.sha256[:8].upper()).read_bytes() == CONTENT
    url = f"{site.url[:-7]}net-{site.sha256[:8]}.pth?version=2"
    path = weights.fetch(url, cache=tmp_path, sha256="name")
    assert path.name == f"net-{site.sha256[:8]}.pth"
    with pytest.raises(DownloadError, match="SHA-256 00000000"):
        weights.fetch(f"{site.url[:-7]}net-00000000.pth", cache=tmp_path, sha256="name")


def test_a_server_that_stalls_is_left(site: Site, tmp_path: Path) -> None:
    site.stall = 1.0
    assert get(site, tmp_path, timeout=0.2).read_bytes() == CONTENT
    assert len(site.requests) == 2


@pytest.mark.parametrize("status", [500, 503, 429, 408])
def test_a_busy_server_is_asked_again(site: Site, tmp_path: Path, status: int) -> None:
    site.statuses = [status, status]
    assert get(site, tmp_path).read_bytes() == CONTENT


@pytest.mark.parametrize("status", [404, 403, 410, 204])
def test_a_file_that_is_not_there(site: Site, tmp_path: Path, status: int) -> None:
    site.statuses = [status]
    with pytest.raises(DownloadError, match=rf"{site.url}.*status {status}"):
        get(site, tmp_path)
    assert len(site.requests) == 1
    assert visible(tmp_path) == []


def test_redirects_are_followed(site: Site, tmp_path: Path) -> None:
    site.statuses = [302, 301]
    assert get(site, tmp_path).read_bytes() == CONTENT
    site.statuses = [302] * 100
    with pytest.raises(DownloadError, match="redirects"):
        weights.fetch("other.npz", site.url, cache=tmp_path / "2")


def test_a_truncated_body_is_noticed(site: Site, tmp_path: Path) -> None:
    site.announced = len(CONTENT) + 10
    with pytest.raises(DownloadError, match="failed 2 times"):
        get(site, tmp_path, sha256=None, retries=1)
    assert visible(tmp_path) == []


def test_a_body_of_unknown_length(site: Site, tmp_path: Path) -> None:
    site.length = False
    assert get(site, tmp_path).read_bytes() == CONTENT


def test_too_large_a_file(site: Site, tmp_path: Path) -> None:
    with pytest.raises(DownloadError, match=r"at most 1000 bytes .*, got 1000001"):
        get(site, tmp_path, max_bytes=1000)
    site.length = False
    with pytest.raises(DownloadError, match="at most 100000 bytes"):
        get(site, tmp_path, max_bytes=100_000)
    assert visible(tmp_path) + parts(tmp_path) == []


def test_a_full_disk_is_noticed_before_it_is(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = type("Usage", (), {"free": 1000})
    monkeypatch.setattr(_download.shutil, "disk_usage", lambda path: usage)
    with pytest.raises(DownloadError, match="expected room for 1000001 bytes"):
        get(site, tmp_path)


def test_a_compressed_answer_is_refused(site: Site, tmp_path: Path) -> None:
    site.extra = {"Content-Encoding": "br"}
    with pytest.raises(DownloadError, match="br-encoded"):
        get(site, tmp_path)


def test_https_does_not_become_http(site: Site, tmp_path: Path) -> None:
    import requests

    reply = requests.get(site.url)
    part = _download._Partial(tmp_path / "part", "https://example.org/x")
    with pytest.raises(DownloadError, match="not encrypted"):
        ResumingDownloader()._begin("https://example.org/x", reply, part)


def _fetch_in_process(url: str, sha256: str, cache: Path, results: Any) -> None:
    try:
        results.put(str(weights.fetch("net.npz", url, sha256, cache=cache, progress=False)))
    except BaseException as error:
        results.put(repr(error))


def test_processes_and_threads_at_once_download_once(site: Site, tmp_path: Path) -> None:
    site.stall = 0.3
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    arguments = (site.url, site.sha256, tmp_path, results)
    workers: list[Any] = [context.Process(target=_fetch_in_process, args=arguments)]
    workers += [context.Process(target=_fetch_in_process, args=arguments) for _ in range(2)]
    workers += [threading.Thread(target=_fetch_in_process, args=arguments) for _ in range(2)]
    for worker in workers:
        worker.start()
    paths = {results.get(timeout=20) for _ in workers}
    for worker in workers:
        worker.join()
    assert paths == {str(get(site, tmp_path))}
    assert len(site.requests) == 1
    assert Path(paths.pop()).read_bytes() == CONTENT


def test_without_locks_every_process_has_its_own_part(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import errno
    import fcntl

    def refuse(*_args: Any) -> None:
        raise OSError(errno.ENOLCK, "no locks")

    monkeypatch.setattr(fcntl, "flock", refuse)
    site.breaks = [HALF]
    assert get(site, tmp_path).read_bytes() == CONTENT
    assert parts(tmp_path) == []


def test_two_addresses_with_one_file_name_are_two_files(site: Site, tmp_path: Path) -> None:
    first = weights.fetch(site.url, cache=tmp_path)
    assert first.name == "net.npz"
    site.content = b"other"
    second = weights.fetch(f"{site.url}?v=2", cache=tmp_path)
    assert (first.read_bytes(), second.read_bytes()) == (CONTENT, b"other")


def test_the_cache_is_where_the_environment_says(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OXIDET_CACHE", str(tmp_path / "there"))
    assert tmp_path / "there" in weights.fetch("net.npz", site.url).parents
    monkeypatch.delenv("OXIDET_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert _fetch.cache_directory() == tmp_path / "xdg" / "oxidet"


def test_a_proxy_is_asked_for_the_file(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", site.url.rsplit("/", 2)[0])
    path = weights.fetch("net.npz", "http://weights.invalid/net.npz", cache=tmp_path)
    assert path.read_bytes() == CONTENT
    assert site.requests[0]["Host"] == "weights.invalid"


@pytest.mark.parametrize(
    ("name", "url", "sha256", "message"),
    [
        ("resnet51", None, None, r"near: .*resnet50.*got 'resnet51'"),
        ("resnet50.V9", None, None, "IMAGENET1K_V1, IMAGENET1K_V2 for resnet50"),
        ("x", "ftp://a/b", None, "url: expected http"),
        ("x", "a/b", None, "url: expected http"),
        ("../x", "http://a/b", None, "name: expected the name of a file"),
        ("a\\x", "http://a/b", None, "name: expected the name of a file"),
        ("a\0x", "http://a/b", None, "name: expected the name of a file"),
        ("x", "http://[::1/b", None, "url: expected http"),
        ("http://a/", None, None, "name: expected the name of a file"),
        ("http://a/%2e%2e", None, None, "name: expected the name of a file"),
        ("x", "http://a/b", "1234", "sha256: expected 8 to 64"),
        ("x", "http://a/b.pth", "name", "sha256: expected a checksum in the file name"),
    ],
)
def test_bad_arguments(name: str, url: str | None, sha256: str | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        weights.fetch(name, url, sha256)


def test_bad_limits(tmp_path: Path) -> None:
    for limits, error, message in [
        ({"timeout": "a"}, TypeError, "timeout: expected a number, got 'a'"),
        ({"timeout": -1}, ValueError, "timeout: expected a number of at least 0"),
        ({"retries": None}, TypeError, "retries: expected an integer"),
        ({"retries": -1}, ValueError, "retries: expected an integer of at least 0"),
        ({"max_bytes": 1.5}, TypeError, "max_bytes: expected an integer"),
    ]:
        options: Any = limits
        with pytest.raises(error, match=message):
            weights.fetch("x", "http://127.0.0.1:1/x", cache=tmp_path, **options)


def test_published_names(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_published, "_TORCHVISION", site.url.rsplit("/", 1)[0] + "/")
    files = (("resnet18", "IMAGENET1K_V1", "resnet18", site.sha256[:8], 256),)
    monkeypatch.setattr(_published, "_FILES", files)
    _published._table.cache_clear()
    try:
        path = weights.fetch("resnet18", cache=tmp_path)
        assert path == tmp_path / f"resnet18-{site.sha256[:8]}.pth"
        assert path.read_bytes() == CONTENT
        for name in ("ResNet18_Weights.IMAGENET1K_V1", "ResNet18_Weights.DEFAULT", "resnet18."):
            assert weights.fetch(name, cache=tmp_path) == path
        assert len(site.requests) == 1
    finally:
        _published._table.cache_clear()


def test_the_downloader_serves_pooch(site: Site, tmp_path: Path) -> None:
    import pooch

    site.breaks = [HALF]
    registry = pooch.create(tmp_path, site.url[:-7], registry={"net.npz": site.sha256})
    assert registry.is_available("net.npz", downloader=ResumingDownloader())
    path = registry.fetch("net.npz", downloader=ResumingDownloader(progress=False))
    assert Path(path).read_bytes() == CONTENT
    assert len(site.requests) == 2


def test_progress_is_shown_where_asked(
    site: Site, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("tqdm")
    get(site, tmp_path / "a")
    assert capsys.readouterr() == ("", "")
    site.breaks = [HALF]
    get(site, tmp_path / "b", progress=True)
    assert "net.npz: 100%" in capsys.readouterr().err


def test_an_interrupt_keeps_what_has_arrived(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(self: Any, count: int) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(_download._Bar, "advance", interrupt)
        with pytest.raises(KeyboardInterrupt):
            get(site, tmp_path)
    assert visible(tmp_path) == []
    assert get(site, tmp_path).read_bytes() == CONTENT
    assert site.requests[1]["Range"] == f"bytes={_download._CHUNK}-"
