"""A Hub on the loopback interface that misbehaves on request."""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Body = bytes | Callable[[int, int], bytes]  # the whole, or (offset, length) -> bytes of a large sparse file


class FakeHub(ThreadingHTTPServer):
    """``files``: (repo, name) -> (body, size). ``behaviour``: repo -> how it answers (see ``_Handler``)."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files: dict[tuple[str, str], tuple[Body, int]] = {}
        self.behaviour: dict[str, str] = {}
        self.headers_seen: list[dict[str, str]] = []
        self.bytes_sent = 0
        self.ranges = 0
        self.other: FakeHub | None = None  # where ``redirect`` sends to

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def put(self, repo: str, name: str, body: Body, size: int | None = None) -> None:
        self.files[repo, name] = (body, len(body) if isinstance(body, bytes) else size or 0)


@contextmanager
def running_hub() -> Iterator[FakeHub]:
    hub = FakeHub()
    thread = threading.Thread(target=hub.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        hub.shutdown()
        hub.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    server: FakeHub
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.server.headers_seen.append(dict(self.headers))
        api = re.fullmatch(r"/api/models/([^/]+/[^/?]+)(\?.*)?", self.path)
        file = re.fullmatch(r"/([^/]+/[^/]+)/resolve/main/(.+)", self.path)
        repo = (api or file)[1] if api or file else ""
        behaviour = self.server.behaviour.get(repo, "")
        if behaviour.startswith("status "):
            self._fail(behaviour)
        elif api:
            self._listing(repo)
        elif file and (repo, file[2]) in self.server.files:
            self._file(repo, file[2], behaviour)
        else:
            self._reply(404, b"{}")

    def _fail(self, behaviour: str) -> None:
        """``status 403 X-Error-Code=GatedRepo``"""
        _, status, *headers = behaviour.split()
        self._reply(int(status), b"{}", dict(header.split("=", 1) for header in headers))

    def _listing(self, repo: str) -> None:
        names = [(name, size) for (owner, name), (_, size) in self.server.files.items() if owner == repo]
        if not names:
            self._reply(404, b"{}")
            return
        listing: dict[str, Any] = {
            "id": repo,
            "gated": False,
            "downloads": 7,
            "tags": ["license:apache-2.0"],
            "siblings": [{"rfilename": name, "size": size} for name, size in names],
        }
        self._reply(200, json.dumps(listing).encode())

    def _file(self, repo: str, name: str, behaviour: str) -> None:
        body, size = self.server.files[repo, name]
        if behaviour == "redirect" and self.server.other is not None:
            self._reply(302, b"", {"Location": f"{self.server.other.url}{self.path}"})
            return
        match = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        if match is None or behaviour == "no ranges":
            self._send(200, body, 0, size, {}, behaviour)
            return
        self.server.ranges += 1
        start, stop = int(match[1]), min(int(match[2]) + 1, size)
        self._send(206, body, start, stop, {"Content-Range": f"bytes {start}-{stop - 1}/{size}"}, behaviour)

    def _send(self, status: int, body: Body, start: int, stop: int, headers: dict[str, str], behaviour: str) -> None:
        self.send_response(status)
        length = stop - start
        self.send_header("Content-Length", str(length + 1000 if behaviour == "wrong length" else length))
        for key, value in headers.items():
            self.send_header(key, value)
        self.end_headers()
        if behaviour == "cut":
            length //= 2
        if behaviour in ("cut", "wrong length"):
            self.close_connection = True
        at = start
        try:
            while at < start + length:
                step = min(1 << 16, start + length - at)
                chunk = body[at : at + step] if isinstance(body, bytes) else body(at, step)
                self.wfile.write(chunk)
                self.server.bytes_sent += len(chunk)
                at += step
                if behaviour == "slow":
                    time.sleep(0.2)
        except OSError:
            self.close_connection = True

    def _reply(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for key, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(key, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""
