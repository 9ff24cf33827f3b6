"""The engines that can be measured: llama-bench and llama-server where they are on PATH, Ollama and LM Studio where
they listen on this machine.

References: llama.cpp tools/llama-bench/README.md and tools/server/README.md, docs.ollama.com/api, lmstudio.ai/docs
(REST API v0). What they print is outside text: a value of the wrong kind is a trial that failed.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from itertools import count
from statistics import median
from time import monotonic, sleep
from typing import Any

import msgspec

from fitcheck.calibrate.local_http import NotRunningError, ask, number_in, rows_of
from fitcheck.calibrate.trials import PLAUSIBLE_PER_S, REPETITIONS, Engine, Lengths, Trial, TrialError
from fitcheck.types import Model

OLLAMA_PORT, LM_STUDIO_PORT = 11434, 1234
LISTING_S = 3.0
_SENTENCE = "Explain step by step how a computer adds two numbers. "
_SENTENCE_TOKENS = 11
#: Backends by the beginning of what llama.cpp calls its devices; whatever else it names computes on the processor.
_BACKENDS = {"cuda": "cuda", "rocm": "rocm", "hip": "rocm", "metal": "metal", "mtl": "metal", "vulkan": "vulkan",
             "sycl": "sycl"}  # fmt: skip


def engines() -> tuple[Engine, ...]:
    """In the order in which they are tried: the ones that measure and do nothing else first."""
    return LlamaBench(), LlamaServer(), Ollama(), LmStudio()


class LlamaBench:
    """``llama-bench``: reads a GGUF file, prints a row of JSON per test."""

    name = "llama-bench"

    def choose(self, models: Sequence[Model]) -> list[Model]:
        """Every GGUF file."""
        return _files(models) if _tool(self.name) else []

    def run(self, model: Model, lengths: Lengths, seconds: float) -> Trial:
        """Prompt and answer, each a few times."""
        tokens = ["-p", str(lengths.prompt_tokens), "-n", str(lengths.answer_tokens)]
        return parse_llama_bench(
            _printed([self.name, "-m", str(model.path), *tokens, "-r", str(REPETITIONS), "-o", "jsonl"], seconds), model
        )


def parse_llama_bench(printed: bytes, model: Model) -> Trial:
    """The JSON lines that ``llama-bench -o jsonl`` prints -> a trial. Raises TrialError."""
    try:
        rows = [msgspec.json.decode(line, type=dict[str, Any]) for line in printed.splitlines() if line.strip()]
    except msgspec.DecodeError:
        raise TrialError("prints no JSON") from None
    answers = [row for row in rows if number_in(row, "n_gen") > 0]
    prompts = [row for row in rows if number_in(row, "n_prompt") > 0]
    if not answers:
        raise TrialError("prints no decode speed")
    backend = _backend(str(answers[0].get("backends", "")))
    lengths = Lengths(int(number_in(prompts[0], "n_prompt")) if prompts else 0, int(number_in(answers[0], "n_gen")), 0)
    prefill = _row_per_s(prompts[0]) if prompts else None
    return Trial("llama.cpp", model, _plausible(_row_per_s(answers[0])), prefill, backend, lengths)


def _row_per_s(row: dict[str, Any]) -> float:
    """The median of the repetitions, which one that other work slowed down does not move; else their mean."""
    samples = row.get("samples_ts")
    if isinstance(samples, list) and samples and all(isinstance(sample, (int, float)) for sample in samples):
        return float(median(samples))
    return number_in(row, "avg_ts")


class LlamaServer:
    """``llama-server``, started on a free port of this machine and stopped afterwards."""

    name = "llama-server"

    def choose(self, models: Sequence[Model]) -> list[Model]:
        """Every GGUF file."""
        return _files(models) if _tool(self.name) else []

    def run(self, model: Model, lengths: Lengths, seconds: float) -> Trial:
        """Start, ask a few times, stop."""
        import socket
        import subprocess

        end = monotonic() + seconds
        backend = self._backend()
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        tool = _tool(self.name) or self.name
        arguments = [tool, "-m", str(model.path), "-c", "2048", "--host", "127.0.0.1", "--port", str(port)]
        nothing = subprocess.DEVNULL
        try:
            server = subprocess.Popen(arguments, stdin=nothing, stdout=nothing, stderr=nothing)
        except OSError as error:
            raise TrialError(f"does not start: {error.strerror}") from None
        try:
            self._await(server, port, end)
            speeds = _repeated(lambda prompt, left: self._complete(port, prompt, lengths, left), lengths, end)
        finally:
            server.kill()
            server.wait()
        return _trial("llama.cpp", model, speeds, backend, lengths)

    def _backend(self) -> str | None:
        """The backend of its first device, "cpu" where it lists none, None where it cannot list them."""
        try:
            printed = _printed([self.name, "--list-devices"], LISTING_S).decode("utf-8", "replace")
        except TrialError:
            return None
        _, _, listed = printed.partition("Available devices:")
        names = listed.split()
        return _backend(names[0]) if names else "cpu"

    def _await(self, server: Any, port: int, end: float) -> None:
        """Until it answers: it says so once the model is loaded."""
        while (left := end - monotonic()) > 0:
            if server.poll() is not None:
                raise TrialError("stopped while it loaded the model")
            try:
                ask(port, "/health", None, min(2.0, left))
                return
            except TrialError:
                sleep(0.2)
        raise TrialError("did not load the model in time")

    def _complete(self, port: int, prompt: str, lengths: Lengths, seconds: float) -> tuple[float, float]:
        question = {"prompt": prompt, "n_predict": lengths.answer_tokens, "ignore_eos": True, "cache_prompt": False}
        timings = ask(port, "/completion", question, seconds).get("timings")
        if not isinstance(timings, dict):
            raise TrialError("its answer has no timings")
        read = number_in(timings, "prompt_n") >= lengths.prompt_tokens / 2
        return number_in(timings, "predicted_per_second"), number_in(timings, "prompt_per_second") if read else 0.0


class Ollama:
    """Ollama, where its service listens here."""

    name = "ollama"

    def __init__(self, port: int | None = None) -> None:
        self._port = port if port is not None else local_port(os.environ.get("OLLAMA_HOST", ""), OLLAMA_PORT)

    def choose(self, models: Sequence[Model]) -> list[Model]:
        """The models of its own store."""
        stored = [model for model in models if model.ollama_tags and model.id == f"ollama:{model.ollama_tags[0]}"]
        if not stored or self._port is None:
            return []
        rows = rows_of(ask(self._port, "/api/tags", None, LISTING_S), "models")
        served = {str(row.get("name")) for row in rows}
        return [model for model in stored if model.ollama_tags[0] in served]

    def run(self, model: Model, lengths: Lengths, seconds: float) -> Trial:
        """Ask a few times; the service loads the model before it answers the first time."""
        assert self._port is not None
        end, port, tag = monotonic() + seconds, self._port, model.ollama_tags[0]
        speeds = _repeated(lambda prompt, left: self._generate(port, tag, prompt, lengths, left), lengths, end)
        return _trial("ollama", model, speeds, self._backend(port, tag, end - monotonic()), lengths)

    def _generate(self, port: int, tag: str, prompt: str, lengths: Lengths, seconds: float) -> tuple[float, float]:
        options = {"num_predict": lengths.answer_tokens, "num_ctx": 2048, "temperature": 0}
        question = {"model": tag, "prompt": prompt, "stream": False, "raw": True, "keep_alive": "30s"}
        answer = ask(port, "/api/generate", {**question, "options": options}, seconds)
        read = number_in(answer, "prompt_eval_count") >= lengths.prompt_tokens / 2
        return _per_s(answer, "eval"), _per_s(answer, "prompt_eval") if read else 0.0

    def _backend(self, port: int, tag: str, seconds: float) -> str | None:
        """ "cpu" where all of the model is in RAM, None where all is on a GPU. Raises TrialError where it is split."""
        rows = rows_of(ask(port, "/api/ps", None, max(0.5, min(LISTING_S, seconds))), "models")
        sizes = next((row for row in rows if row.get("name") == tag), {})
        size, on_gpu = number_in(sizes, "size"), number_in(sizes, "size_vram")
        if not size or on_gpu >= 0.99 * size:
            return None
        if on_gpu > 0.01 * size:
            raise TrialError("runs partly on the processor, which tells nothing about either side")
        return "cpu"


def _per_s(answer: dict[str, Any], what: str) -> float:
    """Tokens/s of a phase that Ollama reports as a count and nanoseconds."""
    nanoseconds = number_in(answer, f"{what}_duration")
    return number_in(answer, f"{what}_count") / nanoseconds * 1e9 if nanoseconds > 0 else 0.0


class LmStudio:
    """LM Studio, where its server listens here."""

    name = "lmstudio"

    def __init__(self, port: int = LM_STUDIO_PORT) -> None:
        self._port = port
        self._keys: dict[str, str] = {}

    def choose(self, models: Sequence[Model]) -> list[Model]:
        """Files of its folder that its list names with the same quantisation."""
        stored = _files(models)
        try:
            rows = rows_of(ask(self._port, "/api/v0/models", None, LISTING_S), "data") if stored else []
        except NotRunningError:
            return []  # the files may be those of other programs
        for model in stored:
            row = next((row for row in rows if _is_listed(model, row)), None)
            if row is not None:
                self._keys[model.id] = str(row["id"])
        return [model for model in stored if model.id in self._keys]

    def run(self, model: Model, lengths: Lengths, seconds: float) -> Trial:
        """Ask a few times; the server loads the model before it answers the first time."""
        end, backends = monotonic() + seconds, list[str]()

        def complete(prompt: str, left: float) -> tuple[float, float]:
            question = {
                "model": self._keys[model.id],
                "messages": [{"role": "user", "content": prompt}],
                "max_tokens": lengths.answer_tokens,
                "temperature": 0,
            }
            answer = ask(self._port, "/api/v0/chat/completions", question, left)
            stats, runtime = answer.get("stats"), answer.get("runtime")
            if not isinstance(stats, dict):
                raise TrialError("its answer has no stats")
            if isinstance(runtime, dict):
                backends.append(str(runtime.get("name", "")))
            return number_in(stats, "tokens_per_second"), 0.0  # the time to the first token has more in it than prefill

        speeds = _repeated(complete, lengths, end)
        backend = _backend(*backends[0].split("-")) if backends else None
        return _trial("lmstudio", model, speeds, backend, lengths)


def _is_listed(model: Model, row: dict[str, Any]) -> bool:
    """Whether a row of LM Studio's list is this file: its key begins the file's name, in the same quantisation."""
    key = str(row.get("id", "")).lower().partition("@")[0].rpartition("/")[2]
    same = str(row.get("quantization", "")).upper() == (model.file_quant or "").upper()
    return bool(key) and same and row.get("compatibility_type") == "gguf" and model.id.lower().startswith(key)


# --------------------------------------------------------------------------------------------------------------------
# What they share


def _repeated(
    once: Callable[[str, float], tuple[float, float]], lengths: Lengths, end: float
) -> list[tuple[float, float]]:
    """(decode, prefill) speeds of a few questions, as many as are answered until ``end``. Each begins otherwise, so
    that no prompt is in a cache. Raises TrialError where not even the first is answered."""
    speeds: list[tuple[float, float]] = []
    for number in count(1):
        start = monotonic()
        try:
            speeds.append(once(f"{number}. " + _SENTENCE * (lengths.prompt_tokens // _SENTENCE_TOKENS), end - start))
        except TrialError:
            if not speeds:
                raise
            break
        if number == REPETITIONS or monotonic() + (monotonic() - start) > end:
            break
    return speeds


def _trial(
    engine: str, model: Model, speeds: Sequence[tuple[float, float]], backend: str | None, lengths: Lengths
) -> Trial:
    decode = median(speed for speed, _ in speeds)
    prefill = median(speed for _, speed in speeds)
    return Trial(engine, model, _plausible(decode), prefill or None, backend, lengths)


def _plausible(per_s: float) -> float:
    low, high = PLAUSIBLE_PER_S
    if not low < per_s < high:
        raise TrialError("reports no speed" if per_s == 0 else "reports an impossible speed")
    return per_s


def _backend(*names: str) -> str:
    """The backend that the first known of ``names`` begins with ("CUDA0:", "Vulkan", "cuda12"), else the processor."""
    words = (word.strip().lower() for name in names for word in name.split(","))
    return next((backend for word in words for start, backend in _BACKENDS.items() if word.startswith(start)), "cpu")


def local_port(address: str, default: int) -> int | None:
    """The port of an address such as "0.0.0.0:11434", "http://localhost" or ""; None where it is another machine's."""
    host = address.strip().rpartition("//")[2].partition("/")[0]
    name, _, port = host.rpartition(":") if ":" in host else (host, "", "")
    if name.strip("[]") not in ("", "127.0.0.1", "localhost", "0.0.0.0", "::", "::1"):
        return None
    return int(port) if port.isdecimal() and int(port) < 65536 else default


def _files(models: Sequence[Model]) -> list[Model]:
    return [model for model in models if model.path]


def _tool(name: str) -> str | None:
    from shutil import which

    return which(name)


def _printed(arguments: Sequence[str], seconds: float) -> bytes:
    """What an installed tool printed. Raises TrialError if it failed or took too long; then it is stopped."""
    import subprocess

    try:
        done = subprocess.run(
            [_tool(arguments[0]) or arguments[0], *arguments[1:]],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=max(0.1, seconds),
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise TrialError(f"did not finish within {seconds:.0f} s") from None
    except OSError as error:
        raise TrialError(f"does not start: {error.strerror}") from None
    if done.returncode != 0:
        raise TrialError(f"ended with exit code {done.returncode}")
    return done.stdout
