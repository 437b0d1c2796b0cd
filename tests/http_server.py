"""A web server on this machine that misbehaves as told."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Site:
    """What the server serves at every address, and how; tests change it between requests."""

    content: bytes
    #: After how many bytes of a body the connection breaks, one number per request, then never.
    breaks: list[int] = field(default_factory=list)
    #: Status codes to answer with, one per request, then those of a working server.
    statuses: list[int] = field(default_factory=list)
    ranges: bool = True
    etag: str | None = "content"  # "content": computed from it
    modified: str | None = None
    length: bool = True  # announce the length of the body
    announced: int | None = None  # ... as this number
    stall: float = 0.0  # seconds to wait in the middle of a body, once
    extra: dict[str, str] = field(default_factory=dict)
    wrong_range: bool = False
    location: str | None = None
    url: str = ""
    requests: list[dict[str, str]] = field(default_factory=list)

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.content).hexdigest()

    @property
    def current_etag(self) -> str | None:
        return f'"{self.sha256[:16]}"' if self.etag == "content" else self.etag


@contextmanager
def serve(content: bytes) -> Iterator[Site]:
    site = Site(content)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            answer(self, site)

        def do_HEAD(self) -> None:
            self.send_response(404 if site.statuses else 200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_args: Any) -> None:
            pass

    class Server(ThreadingHTTPServer):
        def handle_error(self, *_args: Any) -> None:
            """A client that hung up is no news."""

    server = Server(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.block_on_close = False
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    site.url = f"http://127.0.0.1:{server.server_address[1]}/files/net.npz"
    try:
        yield site
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def answer(handler: BaseHTTPRequestHandler, site: Site) -> None:
    site.requests.append(dict(handler.headers))
    status = site.statuses.pop(0) if site.statuses else 200
    if status != 200:
        handler.send_response(status)
        if status in (301, 302):
            handler.send_header("Location", site.location or site.url)
        handler.send_header("Content-Length", "5")
        handler.end_headers()
        handler.wfile.write(b"sorry")
        return
    body, start = site.content, 0
    wanted = handler.headers.get("Range")
    condition = handler.headers.get("If-Range")
    fits = condition is None or condition in (site.current_etag, site.modified)
    if wanted and site.ranges and fits:
        start = int(wanted.removeprefix("bytes=").removesuffix("-"))
        if start >= len(body):
            handler.send_response(416)
            handler.send_header("Content-Range", f"bytes */{len(body)}")
            handler.send_header("Content-Length", "0")
            handler.end_headers()
            return
        handler.send_response(206)
        said = start + 1 if site.wrong_range else start
        handler.send_header("Content-Range", f"bytes {said}-{len(body) - 1}/{len(body)}")
    else:
        handler.send_response(200)
    body = body[start:]
    if site.current_etag:
        handler.send_header("ETag", site.current_etag)
    if site.modified:
        handler.send_header("Last-Modified", site.modified)
    for name, value in site.extra.items():
        handler.send_header(name, value)
    if site.length:
        handler.send_header("Content-Length", str(site.announced or len(body)))
    else:
        handler.send_header("Connection", "close")
        handler.close_connection = True
    handler.end_headers()
    stop = site.breaks.pop(0) if site.breaks else len(body)
    pause, site.stall = site.stall, 0.0
    try:
        if pause:
            handler.wfile.write(body[: stop // 2])
            handler.wfile.flush()
            time.sleep(pause)
            handler.wfile.write(body[stop // 2 : stop])
        else:
            handler.wfile.write(body[:stop])
    except OSError:
        pass
    if stop < len(body) or site.announced:
        handler.close_connection = True
