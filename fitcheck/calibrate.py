"""Measure this machine, so that estimates lean on it: memory bandwidth, and an installed engine with a model at hand.

Nothing here runs, and nothing is written, unless ``fitcheck calibrate`` is typed. Engines are asked in this order:
llama-bench, llama-server, then Ollama and LM Studio where they listen on this machine. What was measured is kept in
``calibration.json`` in the user's own folder, for this hardware only.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from hashlib import sha256
from math import exp, log
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from fitcheck.types import Calibration, Fit, Machine, Model, Request, Speed

FILE = "calibration.json"
BANDWIDTH_S = 3.0
TRIAL_S = 120.0  # longest that one engine may take with one model
PROMPT_TOKENS, ANSWER_TOKENS = 512, 128
LEAST_PROMPT_TOKENS, LEAST_ANSWER_TOKENS = 64, 16  # of a machine that is slow
REPETITIONS = 3  # of llama-bench, which reads the prompt once more beforehand
MOST_TRIALS = 3
LARGEST_BYTES = 6 * 1024**3  # larger files take longer than a minute to load and run
PLAUSIBLE = (0.05, 20.0)  # measured / predicted; beyond, something else was measured

Progress = Callable[[str, float], None]  # what is done now, share that is done
Predict = Callable[[Model, Machine, Request], Fit]


class Lengths(Struct, frozen=True):
    """Tokens of a trial. ``cached_tokens``: those in the cache before the answer; llama-bench answers without them."""

    prompt_tokens: int = PROMPT_TOKENS
    answer_tokens: int = ANSWER_TOKENS
    cached_tokens: int = PROMPT_TOKENS


class Trial(Struct, frozen=True):
    """What an engine did with one model, tokens/s. ``backend`` as it names it, None where it does not say."""

    engine: str
    model: Model
    decode_per_s: float
    prefill_per_s: float | None = None
    backend: str | None = None
    lengths: Lengths = Lengths()


def calibrate(
    machine: Machine, models: Sequence[Model], predict: Predict, progress: Progress, seconds: float = 60.0
) -> tuple[Calibration, tuple[Trial, ...]]:
    """Measure the memory, then engines with installed ``models`` (files) for about ``seconds``.

    ``predict`` is the estimator's. Without an engine or a model only the bandwidth is measured.
    """
    from datetime import date

    progress("memory bandwidth", 0.0)
    per_s = memory_bandwidth(machine)
    found = Calibration(date.today().isoformat(), machine_key(machine), per_s)
    measured = replace(machine, calibration=found)

    def speed_of(model: Model) -> Speed | None:
        return predict(model, measured, _request(model, "llama.cpp", PROMPT_TOKENS, ANSWER_TOKENS)).speed

    trials = run_engines(models, speed_of, progress, seconds)
    progress("done", 1.0)
    return with_trials(found, trials, machine, predict), trials


def memory_bandwidth(machine: Machine, seconds: float = BANDWIDTH_S) -> float | None:
    """Read bandwidth of all threads in bytes/s: the best of many short runs, since other work only slows them down."""
    from time import monotonic

    from fitcheck.probe.bandwidth import measure, plan
    from fitcheck.probe.host import LiveHost

    planned = plan(LiveHost(), machine.cpu.threads, machine.ram.usable_bytes)
    if planned is None:
        return None
    end, best = monotonic() + seconds, 0.0
    while monotonic() < end:
        best = max(best, measure(planned) or 0.0)
    return best or None


def with_trials(found: Calibration, trials: Sequence[Trial], machine: Machine, predict: Predict) -> Calibration:
    """The calibration with measured / predicted of each backend: the geometric mean over its trials."""
    decode: dict[str, list[float]] = {}
    prefill: dict[str, list[float]] = {}
    calibrated = replace(machine, calibration=found)
    without_gpu = replace(calibrated, accelerators=())
    for trial in trials:
        where = without_gpu if trial.backend == "cpu" else calibrated
        lengths = trial.lengths
        request = _request(trial.model, trial.engine, lengths.cached_tokens, lengths.answer_tokens)
        fit = predict(trial.model, where, request)
        speed, backend = fit.speed, _backend_of(fit, where)
        if speed is None or backend is None or trial.backend not in (None, backend):
            continue  # a split, or a backend that estimates are not made for
        decode.setdefault(backend, []).append(trial.decode_per_s / speed.decode_per_s.likely)
        if trial.prefill_per_s:
            request = _request(trial.model, trial.engine, lengths.prompt_tokens, lengths.answer_tokens)
            read = predict(trial.model, where, request).speed
            if read is not None and read.prefill_per_s is not None:
                prefill.setdefault(backend, []).append(trial.prefill_per_s / read.prefill_per_s.likely)
    return replace(found, speed_factors=_means(decode), prefill_factors=_means(prefill))


def _request(model: Model, engine: str, prompt_tokens: int, answer_tokens: int) -> Request:
    return Request(
        context_tokens=2048,
        prompt_tokens=prompt_tokens,
        answer_tokens=answer_tokens,
        quant=model.file_quant,
        runtime=engine,
    )


def _means(ratios: dict[str, list[float]]) -> dict[str, float]:
    low, high = PLAUSIBLE
    means = {}
    for backend, found in ratios.items():
        usable = [log(ratio) for ratio in found if low < ratio < high]
        if usable:
            means[backend] = round(exp(sum(usable) / len(usable)), 4)
    return means


def _backend_of(fit: Fit, machine: Machine) -> str | None:
    """The one backend that the placement uses; None for a split, which says nothing about either side."""
    devices = [use.device for use in fit.placement.devices if use.last_layer > use.first_layer]
    if devices == ["cpu"]:
        return "cpu"
    if len(devices) == 1 and (backends := machine.accelerators[int(devices[0][3:])].backends):
        return backends[0].value
    return None


# --------------------------------------------------------------------------------------------------------------------
# Keeping it


def machine_key(machine: Machine) -> str:
    """What tells this hardware from another: processor, threads and accelerators."""
    cards = [f"{card.name}/{card.pool.total_bytes >> 30}" for card in machine.accelerators]
    text = "|".join([machine.cpu.name, str(machine.cpu.logical_cpus), *cards])
    return sha256(text.encode()).hexdigest()[:16]


def save(calibration: Calibration, folder: Path) -> Path:
    """Write it to the user's folder, which is made if need be. Raises OSError."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / FILE
    path.write_bytes(msgspec.json.format(msgspec.json.encode(calibration), indent=2) + b"\n")
    return path


def load(machine: Machine, folder: Path | None) -> Calibration | None:
    """What was measured on this hardware; None where nothing was, or the file is another machine's or damaged."""
    if folder is None or machine.pretended:
        return None
    try:
        found = msgspec.json.decode((folder / FILE).read_bytes(), type=Calibration)
    except (OSError, msgspec.DecodeError):
        return None
    return found if found.machine_key == machine_key(machine) else None


def forget(folder: Path) -> bool:
    """Remove it; False if there was nothing."""
    try:
        (folder / FILE).unlink()
    except FileNotFoundError:
        return False
    return True


# --------------------------------------------------------------------------------------------------------------------
# Engines


def run_engines(
    models: Sequence[Model], speed_of: Callable[[Model], Speed | None], progress: Progress, seconds: float
) -> tuple[Trial, ...]:
    """Run what is installed on up to three installed models, until ``seconds`` are over. ``speed_of`` says about how
    fast a model is, by which the trials are made as short as that needs."""
    from time import monotonic

    start, trials = monotonic(), []
    files = candidates(models)[:MOST_TRIALS][::-1]  # the largest last, with the time that the others leave
    runners: list[tuple[str, Callable[[Model, Lengths], Trial | None]]] = [
        ("llama-bench", llama_bench),
        ("llama-server", llama_server),
        ("ollama", ollama),
        ("lmstudio", lm_studio),
    ]
    for name, runner in runners:
        for number, model in enumerate(files):
            spent = (monotonic() - start) / seconds
            if spent >= 1.0:
                break
            progress(f"{name}: {model.name}", min(0.95, max(spent, number / MOST_TRIALS)))
            left = seconds * (1.0 - spent) / (len(files) - number)
            trial = runner(model, lengths_for(speed_of(model), left))
            if trial is not None:
                trials.append(trial)
        if trials:
            break  # one engine is enough: the factors are of the backend, not of the engine
    return tuple(trials)


def lengths_for(speed: Speed | None, seconds: float) -> Lengths:
    """Prompt and answer that this model reads and writes a few times in ``seconds``: a third for each, one to load."""
    if speed is None or speed.prefill_per_s is None:
        return Lengths()
    prompt = seconds / 3 / (REPETITIONS + 1) * speed.prefill_per_s.likely
    answer = seconds / 3 / REPETITIONS * speed.decode_per_s.likely
    prompt_tokens = int(min(PROMPT_TOKENS, max(LEAST_PROMPT_TOKENS, prompt))) // 16 * 16
    answer_tokens = int(min(ANSWER_TOKENS, max(LEAST_ANSWER_TOKENS, answer)))
    return Lengths(prompt_tokens, answer_tokens, prompt_tokens)


def candidates(models: Sequence[Model]) -> list[Model]:
    """Models that can be run here quickly: text models from files, the largest of them first."""
    sizes = {model.id: _file_bytes(model) for model in models}
    usable = [model for model in models if model.shape is not None and 0 < sizes[model.id] <= LARGEST_BYTES]
    return sorted(usable, key=lambda model: sizes[model.id], reverse=True)


def _file_bytes(model: Model) -> int:
    try:
        return Path(model.path).stat().st_size if model.path else 0
    except OSError:
        return 0


def llama_bench(model: Model, lengths: Lengths) -> Trial | None:
    """Run ``llama-bench`` on a GGUF file."""
    tokens = ["-p", str(lengths.prompt_tokens), "-n", str(lengths.answer_tokens)]
    printed = _run(["llama-bench", "-m", str(model.path), *tokens, "-r", str(REPETITIONS), "-o", "json"])
    return None if printed is None else parse_llama_bench(printed, model)


def parse_llama_bench(printed: bytes, model: Model) -> Trial | None:
    """The JSON that ``llama-bench -o json`` prints -> a trial; None where it holds no decode speed."""
    try:
        rows = msgspec.json.decode(printed, type=list[dict[str, Any]])
    except msgspec.DecodeError:
        return None
    speeds = {bool(row.get("n_gen")): _speed_in(row) for row in rows}
    if not speeds.get(True):
        return None
    answer, prompt = (max(int(row.get(name) or 0) for row in rows) for name in ("n_gen", "n_prompt"))
    backend = str(rows[0].get("backends", "")).split(",")[0].strip().lower()
    known = {"cuda": "cuda", "rocm": "rocm", "metal": "metal", "mtl": "metal", "vulkan": "vulkan", "sycl": "sycl"}
    lengths = Lengths(prompt, answer, cached_tokens=0)
    return Trial("llama.cpp", model, speeds[True], speeds.get(False) or None, known.get(backend, "cpu"), lengths)


def _speed_in(row: dict[str, Any]) -> float:
    """The median of the repetitions, which one that other work slowed down does not move; else their mean."""
    from statistics import median

    samples = row.get("samples_ts")
    return float(median(samples) if samples else row.get("avg_ts") or 0.0)


def llama_server(model: Model, lengths: Lengths) -> Trial | None:
    """Start ``llama-server`` on a free local port, ask once, stop it."""
    import socket
    import subprocess
    from time import monotonic, sleep

    tool = _tool("llama-server")
    if tool is None:
        return None
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    arguments = [tool, "-m", str(model.path), "-c", "2048", "--host", "127.0.0.1", "--port", str(port)]
    server = subprocess.Popen(arguments, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        end = monotonic() + TRIAL_S / 2
        while monotonic() < end and server.poll() is None:
            if _ask(f"http://127.0.0.1:{port}/health", None, 2.0) is not None:
                return _completion(port, model, lengths)
            sleep(0.3)
        return None
    finally:
        server.kill()
        server.wait()


def _completion(port: int, model: Model, lengths: Lengths) -> Trial | None:
    prompt = _prompt(lengths)
    question = {"prompt": prompt, "n_predict": lengths.answer_tokens, "ignore_eos": True, "cache_prompt": False}
    answer = _ask(f"http://127.0.0.1:{port}/completion", question, TRIAL_S)
    timings = (answer or {}).get("timings")
    if not isinstance(timings, dict) or not timings.get("predicted_per_second"):
        return None
    per_s = float(timings["predicted_per_second"])
    return Trial("llama.cpp", model, per_s, timings.get("prompt_per_second"), lengths=lengths)


def ollama(model: Model, lengths: Lengths) -> Trial | None:
    """Ask a running Ollama for the model, if it has it under this name."""
    options = {"num_predict": lengths.answer_tokens, "num_ctx": 2048, "temperature": 0}
    question = {"model": model.id, "prompt": _prompt(lengths), "stream": False, "options": options}
    answer = _ask("http://127.0.0.1:11434/api/generate", question, TRIAL_S)
    if not answer or not answer.get("eval_duration") or not answer.get("eval_count"):
        return None
    prefill = None
    if answer.get("prompt_eval_duration") and (answer.get("prompt_eval_count") or 0) >= lengths.prompt_tokens // 2:
        prefill = answer["prompt_eval_count"] / answer["prompt_eval_duration"] * 1e9
    return Trial("ollama", model, answer["eval_count"] / answer["eval_duration"] * 1e9, prefill, lengths=lengths)


def lm_studio(model: Model, lengths: Lengths) -> Trial | None:
    """Ask a running LM Studio for the model, if it has it under this name."""
    question = {
        "model": model.id,
        "messages": [{"role": "user", "content": _prompt(lengths)}],
        "max_tokens": lengths.answer_tokens,
        "temperature": 0,
    }
    answer = _ask("http://127.0.0.1:1234/api/v0/chat/completions", question, TRIAL_S)
    stats = (answer or {}).get("stats")
    if not isinstance(stats, dict) or not stats.get("tokens_per_second"):
        return None
    return Trial("lmstudio", model, float(stats["tokens_per_second"]), lengths=lengths)


def _prompt(lengths: Lengths) -> str:
    return "Explain step by step how a computer adds two numbers. " * (lengths.prompt_tokens // 11)


def _tool(name: str) -> str | None:
    from shutil import which

    return which(name)


def _run(arguments: Sequence[str]) -> bytes | None:
    """What an installed tool printed; None if it is absent, failed or took too long."""
    import subprocess

    tool = _tool(arguments[0])
    if tool is None:
        return None
    try:
        done = subprocess.run(
            [tool, *arguments[1:]], stdin=subprocess.DEVNULL, capture_output=True, timeout=TRIAL_S, check=False
        )
    except (subprocess.TimeoutExpired, OSError):
        return None
    return done.stdout if done.returncode == 0 else None


def _ask(url: str, question: dict[str, Any] | None, timeout_s: float) -> dict[str, Any] | None:
    """A JSON answer of a program on this machine; None where nobody listens or the answer makes no sense."""
    from urllib.request import Request as Call
    from urllib.request import urlopen

    body = None if question is None else msgspec.json.encode(question)
    call = Call(url, data=body, headers={"Content-Type": "application/json"})
    try:
        with urlopen(call, timeout=timeout_s) as reply:
            return msgspec.json.decode(reply.read(1 << 20), type=dict[str, Any])
    except (OSError, ValueError, msgspec.DecodeError):
        return None
