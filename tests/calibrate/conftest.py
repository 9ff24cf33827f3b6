"""Programs that stand in for the engines: servers on a free port, and tools on PATH."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from fitcheck import catalog
from fitcheck.types import Model

Handle = Callable[[str, dict[str, Any]], Any]  # (path, question) -> answer: JSON-able, or bytes as they are
MODEL = replace(next(m for m in catalog.load().models if m.id == "llama-3.2-1b"), file_quant="Q4_K_M")


class Server(ThreadingHTTPServer):
    """Answers with what ``handle`` returns; an ``int`` is a status. ``asked`` keeps the questions."""

    daemon_threads = True

    def __init__(self, handle: Handle) -> None:
        self.handle, self.asked = handle, list[tuple[str, dict[str, Any]]]()
        super().__init__(("127.0.0.1", 0), _Handler)

    @property
    def port(self) -> int:
        return int(self.server_address[1])

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that hangs up is what some tests are about."""


class _Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        self._answer({})

    def do_POST(self) -> None:
        self._answer(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

    def _answer(self, question: dict[str, Any]) -> None:
        self.server.asked.append((self.path, question))
        answer = self.server.handle(self.path, question)
        status = 200
        if isinstance(answer, tuple):
            status, answer = answer
        self.send_response(status)
        self.end_headers()
        if isinstance(answer, Iterator):
            for piece in answer:
                self.wfile.write(piece)
                self.wfile.flush()
            return
        self.wfile.write(answer if isinstance(answer, bytes) else json.dumps(answer).encode())

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


Serve = Callable[[Handle], Server]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Start a server that answers with a function."""
    running: list[Server] = []

    def start(handle: Handle) -> Server:
        server = Server(handle)
        running.append(server)
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        return server

    yield start
    for server in running:
        server.shutdown()
        server.server_close()


@pytest.fixture
def stored(tmp_path: Path) -> Model:
    """A model with a file, as Ollama and LM Studio would keep it."""
    path = tmp_path / "Llama-3.2-1B-Instruct-Q4_K_M.gguf"
    path.write_bytes(b"GGUF")
    return replace(MODEL, id="Llama-3.2-1B-Instruct-Q4_K_M", path=str(path))


@pytest.fixture
def tool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], None]:
    """Put a program on PATH, and nothing else: (name, its Python source)."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))

    def install(name: str, source: str) -> None:
        path = folder / name
        path.write_text(f"#!{sys.executable}\n{source}")
        path.chmod(0o755)

    return install
