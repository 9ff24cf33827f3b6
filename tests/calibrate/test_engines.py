"""Engines are really asked: llama-bench and llama-server as processes, Ollama and LM Studio as servers that speak the
documented forms. Whatever they do instead is one clear line and no trial."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from time import monotonic, sleep
from typing import Any

import pytest
from msgspec.structs import replace

from fitcheck.calibrate.engines import LlamaBench, LlamaServer, LmStudio, Ollama, local_port
from fitcheck.calibrate.local_http import LARGEST_BYTES
from fitcheck.calibrate.trials import Lengths, Trial, TrialError
from fitcheck.types import Model

Handle = Callable[[str, dict[str, Any]], Any]  # (path, question) -> answer
Serve = Callable[[Handle], Any]
LENGTHS = Lengths(110, 16, 110)
TAG = "llama3.2:1b"
processes = pytest.mark.skipif(sys.platform == "win32", reason="stand-ins are scripts with a #! line")


def ollama_answers(size_vram: int = 0) -> Handle:
    """As docs.ollama.com/api documents it."""

    def handle(path: str, question: dict[str, Any]) -> Any:
        if path == "/api/tags":
            return {"models": [{"name": TAG, "model": TAG, "size": 1321098329, "details": {"format": "gguf"}}]}
        if path == "/api/ps":
            return {"models": [{"name": TAG, "size": 2000, "size_vram": size_vram}]}
        assert path == "/api/generate" and question["model"] == TAG and question["stream"] is False
        return {
            "model": TAG,
            "response": "…",
            "done": True,
            "total_duration": 5043500667,
            "load_duration": 5025959,
            "prompt_eval_count": 112,
            "prompt_eval_duration": 500_000_000,
            "eval_count": question["options"]["num_predict"],
            "eval_duration": 800_000_000,
        }

    return handle


def studio_answers(path: str, question: dict[str, Any]) -> Any:
    """As LM Studio documents its REST API v0."""
    if path == "/api/v0/models":
        row = {
            "id": "llama-3.2-1b-instruct",
            "object": "model",
            "type": "llm",
            "publisher": "lmstudio-community",
            "arch": "llama",
            "compatibility_type": "gguf",
            "quantization": "Q4_K_M",
            "state": "not-loaded",
            "max_context_length": 131072,
        }
        return {"object": "list", "data": [{**row, "id": "llama-3.2-1b", "compatibility_type": "mlx"}, row]}
    assert path == "/api/v0/chat/completions" and question["model"] == "llama-3.2-1b-instruct"
    return {
        "object": "chat.completion",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "…"}}],
        "usage": {"prompt_tokens": 24, "completion_tokens": 53, "total_tokens": 77},
        "stats": {"tokens_per_second": 51.4, "time_to_first_token": 0.111, "generation_time": 0.954},
        "model_info": {"arch": "llama", "quant": "Q4_K_M", "format": "gguf", "context_length": 4096},
        "runtime": {"name": "llama.cpp-linux-x86_64-nvidia-cuda-avx2", "version": "1.52.0"},
    }


def in_ollama(model: Model) -> Model:
    return replace(model, id=f"ollama:{TAG}", ollama_tags=(TAG,))


# --------------------------------------------------------------------------------------------------------------------
# As documented


def test_ollama_is_asked_for_its_own_models(serve: Serve, stored: Model) -> None:
    server = serve(ollama_answers())
    engine, model = Ollama(server.port), in_ollama(stored)
    assert engine.choose([stored, model, replace(model, id="ollama:b", ollama_tags=("b",))]) == [model]
    assert engine.run(model, LENGTHS, 5.0) == Trial("ollama", model, 20.0, 224.0, "cpu", LENGTHS)
    prompts = [question["prompt"] for path, question in server.asked if path == "/api/generate"]
    assert len(set(prompts)) == 3  # a prompt that was asked before would be in its cache


def test_ollama_says_where_the_model_is(serve: Serve, stored: Model) -> None:
    model = in_ollama(stored)
    assert Ollama(serve(ollama_answers(2000)).port).run(model, LENGTHS, 5.0).backend is None
    with pytest.raises(TrialError, match="partly on the processor"):
        Ollama(serve(ollama_answers(1000)).port).run(model, LENGTHS, 5.0)


def test_lm_studio_is_asked_for_the_file_that_it_lists(serve: Serve, stored: Model) -> None:
    engine = LmStudio(serve(studio_answers).port)
    other = replace(stored, id="Llama-3.2-1B-Instruct-Q8_0", file_quant="Q8_0")
    assert engine.choose([other, stored]) == [stored]
    assert engine.run(stored, LENGTHS, 5.0) == Trial("lmstudio", stored, 51.4, None, "cuda", LENGTHS)


@processes
def test_llama_server_is_started_asked_and_stopped(tool: Callable[[str, str], None], stored: Model) -> None:
    tool("llama-server", LLAMA_SERVER)
    engine = LlamaServer()
    assert engine.choose([stored]) == [stored]
    trial = engine.run(stored, LENGTHS, 20.0)
    assert trial == Trial("llama.cpp", stored, 33.0, 440.0, "vulkan", LENGTHS)


LLAMA_SERVER = """
import json, sys
from http.server import BaseHTTPRequestHandler, HTTPServer
if "--list-devices" in sys.argv:
    print("Available devices:\\n  Vulkan0: AMD Radeon 780M (16000 MiB, 15000 MiB free)")
    raise SystemExit
class Handler(BaseHTTPRequestHandler):
    health = 0
    def do_GET(self):
        Handler.health += 1
        loading = Handler.health < 3
        self.send_response(503 if loading else 200); self.end_headers()
        self.wfile.write(b'{"error": {"code": 503}}' if loading else b'{"status": "ok"}')
    def do_POST(self):
        question = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        timings = {"prompt_n": 111, "prompt_per_second": 440.0, "predicted_n": question["n_predict"],
                   "predicted_per_second": 33.0}
        self.send_response(200); self.end_headers()
        self.wfile.write(json.dumps({"content": "", "timings": timings}).encode())
    def log_message(self, *args): pass
HTTPServer(("127.0.0.1", int(sys.argv[sys.argv.index("--port") + 1])), Handler).serve_forever(0.01)
"""


@processes
def test_llama_bench_is_run_and_read(tool: Callable[[str, str], None], stored: Model) -> None:
    tool(
        "llama-bench",
        "import sys, json; p, n = (int(sys.argv[sys.argv.index(x) + 1]) for x in ('-p', '-n'))\n"
        "print(json.dumps({'backends': 'CUDA', 'n_prompt': p, 'n_gen': 0, 'avg_ts': 9000.5}))\n"
        "print(json.dumps({'backends': 'CUDA', 'n_prompt': 0, 'n_gen': n, 'avg_ts': 11.9, 'samples_ts': [14, 3, 17]}))",
    )
    trial = LlamaBench().run(stored, LENGTHS, 10.0)  # one slow repetition does not count
    assert trial == Trial("llama.cpp", stored, 14.0, 9000.5, "cuda", Lengths(110, 16, cached_tokens=0))


def test_what_is_not_installed_is_not_tried(
    tool: Callable[[str, str], None], serve: Serve, stored: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = serve(studio_answers)
    server.shutdown()
    server.server_close()
    assert LlamaBench().choose([stored]) == LlamaServer().choose([stored]) == []
    assert LmStudio(server.port).choose([stored]) == []
    assert Ollama(server.port).choose([stored]) == []  # no model of its own: nothing to say
    with pytest.raises(TrialError, match=r"^is not running$"):
        Ollama(server.port).choose([in_ollama(stored)])
    monkeypatch.setenv("OLLAMA_HOST", "gpu-box.local:11434")
    assert Ollama().choose([in_ollama(stored)]) == []  # another machine's speed is not this one's


def test_the_address_of_ollama_is_read_as_ollama_reads_it() -> None:
    addresses = ("", "127.0.0.1", "0.0.0.0:8080", "http://localhost:99/", "[::1]:7", "10.0.0.2:11434", ":5000")
    assert [local_port(address, 11434) for address in addresses] == [11434, 11434, 8080, 99, 7, None, 5000]


# --------------------------------------------------------------------------------------------------------------------
# Anything else


def dripping() -> Iterator[bytes]:
    while True:
        yield b" "
        sleep(0.02)


BROKEN: dict[str, tuple[Any, str]] = {
    "garbage": (b"\x00\xff<html>", "is not what it documents"),
    "another kind of JSON": ([1, 2], "is not what it documents"),
    "nested without end": (b'{"a":' + b"[" * 100_000, "is not what it documents"),
    "numbers beyond sense": (b'{"eval_count": 1e999, "eval_duration": 1}', "is not what it documents|impossible speed"),
    "no numbers": ({"eval_count": "many", "stats": "fast", "timings": []}, "no speed|no stats|no timings"),
    "an error": ((404, {"error": "model '\x1b[31m' not found"}), r"^answers 404 to \S+: model ' \[31m' not found$"),
    "a redirect": ((302, b""), "answers 302"),
    "a huge body": (b"x" * (LARGEST_BYTES + 10), "larger than 1 MiB"),
    "slow": (lambda: sleep(2.0), "no answer"),
    "dripping": (dripping, "no answer"),
}


@pytest.mark.parametrize("case", BROKEN)
@pytest.mark.parametrize("engine", [Ollama, LmStudio])
def test_a_server_that_does_something_else_is_one_line(
    engine: type[Ollama] | type[LmStudio], case: str, serve: Serve, stored: Model
) -> None:
    broken, line = BROKEN[case]
    model = in_ollama(stored) if engine is Ollama else stored
    proper = ollama_answers() if engine is Ollama else studio_answers

    def handle(path: str, question: dict[str, Any]) -> Any:
        if not question:
            return proper(path, question)  # the list of models
        return broken() if callable(broken) else broken

    asked = engine(serve(handle).port)
    assert asked.choose([model]) == [model]
    start = monotonic()
    with pytest.raises(TrialError, match=line) as caught:
        asked.run(model, LENGTHS, 0.5)
    assert monotonic() - start < 1.5
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("rows", [{"models": "none"}, {"models": [7, {"name": 5}]}, b"[]", b""])
def test_a_list_that_is_none_is_one_line_or_nothing(rows: object, serve: Serve, stored: Model) -> None:
    engine = Ollama(serve(lambda path, question: rows).port)
    try:
        assert engine.choose([in_ollama(stored)]) == []
    except TrialError as error:
        assert str(error).isprintable()


@processes
@pytest.mark.parametrize(
    ("source", "line"),
    [
        ("print('not json')", "prints no JSON"),
        ("print('[]')", "prints no JSON"),
        ('print(\'{"n_gen": 0, "avg_ts": 5}\')', "no decode speed"),
        ('print(\'{"n_gen": 8, "avg_ts": 1e30}\')', "impossible speed"),
        ("raise SystemExit(3)", "exit code 3"),
        ("import time; time.sleep(30)", "did not finish within 1 s"),
    ],
)
def test_a_bench_that_fails_is_one_line(
    source: str, line: str, tool: Callable[[str, str], None], stored: Model
) -> None:
    tool("llama-bench", source)
    with pytest.raises(TrialError, match=line):
        LlamaBench().run(stored, LENGTHS, 1.0)


@processes
@pytest.mark.parametrize(
    ("source", "line"),
    [("raise SystemExit(1)", "stopped while it loaded"), ("import time; time.sleep(30)", "did not load")],
)
def test_a_server_that_does_not_come_up_is_one_line(
    source: str, line: str, tool: Callable[[str, str], None], stored: Model
) -> None:
    tool("llama-server", source)
    with pytest.raises(TrialError, match=line):
        LlamaServer().run(stored, LENGTHS, 1.0)
