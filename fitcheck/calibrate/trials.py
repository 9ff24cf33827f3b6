"""Which models are run, for how long, and what came of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from math import log
from pathlib import Path
from time import monotonic
from typing import Protocol

from msgspec import Struct

from fitcheck.types import Model, Speed

PROMPT_TOKENS, ANSWER_TOKENS = 512, 128
LEAST_PROMPT_TOKENS, LEAST_ANSWER_TOKENS = 64, 8  # of a machine that is slow; a shorter prompt is not read at all
REPETITIONS = 3
MOST_TRIALS = 3
LOAD_PER_S = 0.3e9  # bytes/s at which an engine reads a file and arranges its weights anew for the processor
READ_SHARE = 0.3  # of the time that is left, for reading a file before its trial
READ_BYTES = 8 << 20  # at once
PATIENCE = 1.5  # times its share of the time that a trial may take before it is stopped
LONGEST_SHARE = 0.5  # of all time, that a model may need at least and still be tried
PLAUSIBLE_PER_S = (0.01, 1e5)  # tokens/s of anything that a person runs

Say = Callable[[str], None]  # what is done now
SpeedOf = Callable[[Model], Speed | None]


class TrialError(Exception):
    """An engine gave no speed; the text is one line that says why."""


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


class Engine(Protocol):
    """An installed program that runs models. ``name`` is for people."""

    name: str

    def choose(self, models: Sequence[Model]) -> list[Model]:
        """Those of ``models`` that it can run here now, [] where it is not installed. Raises TrialError."""

    def run(self, model: Model, lengths: Lengths, seconds: float) -> Trial:
        """Run one of them, for ``seconds`` at most. Raises TrialError."""


class Outcome(Struct, frozen=True):
    """Trials, and one line for each that gave nothing."""

    trials: tuple[Trial, ...] = ()
    failures: tuple[str, ...] = ()


def run_trials(
    engines: Sequence[Engine], models: Sequence[Model], speed_of: SpeedOf, say: Say, seconds: float
) -> Outcome:
    """Run the first engine that works on up to three models, all within ``seconds``: one engine is enough, because what
    is measured belongs to the backend.

    The smallest model comes first and the largest last, with the time that the others leave. ``speed_of`` predicts;
    where the first trials were slower than that, the next ones are made shorter.
    """
    start = monotonic()
    trials: list[Trial] = []
    failures: list[str] = []
    for engine in engines:
        try:
            chosen = spread_out(engine.choose(models), speed_of, seconds - (monotonic() - start))
        except TrialError as error:
            failures.append(f"{engine.name}: {error}")
            continue
        pace = 1.0
        for number, model in enumerate(chosen):
            say(f"{engine.name}: {model.name}")
            read_ahead(model, READ_SHARE * (seconds - (monotonic() - start)))
            left = seconds - (monotonic() - start)
            share = left * _weight(model) / sum(_weight(other) for other in chosen[number:])
            predicted = speed_of(model)
            try:
                lengths = lengths_for(predicted, pace * (share - _load_s(model)))
                trial = engine.run(model, lengths, min(left, PATIENCE * share))
            except TrialError as error:
                failures.append(f"{engine.name}: {model.id}: {error}")
                continue
            trials.append(trial)
            pace = min(1.0, trial.decode_per_s / predicted.decode_per_s.likely) if predicted else 1.0
        if trials:
            break
    return Outcome(tuple(trials), tuple(failures))


def read_ahead(model: Model, seconds: float) -> None:
    """Have the system read a model's file into memory that is free, for ``seconds`` at most. An engine that maps it
    reads it piece by piece, which takes ten times as long.
    """
    import psutil

    if not model.path or _file_bytes(model) > psutil.virtual_memory().available:
        return
    end, piece = monotonic() + seconds, bytearray(READ_BYTES)
    with suppress(OSError), Path(model.path).open("rb", buffering=0) as file:
        while file.readinto(piece) and monotonic() < end:
            pass


def lengths_for(speed: Speed | None, seconds: float) -> Lengths:
    """Prompt and answer that this model reads and writes a few times in ``seconds``, half of them for each. No prompt
    where even a short one takes too long."""
    if speed is None:
        return Lengths()
    answer = int(seconds / 2 / REPETITIONS * speed.decode_per_s.likely)
    answer_tokens = min(ANSWER_TOKENS, max(LEAST_ANSWER_TOKENS, answer))
    prefill_per_s = speed.prefill_per_s.likely if speed.prefill_per_s else 0.0
    prompt = int(seconds / 2 / (REPETITIONS + 1) * prefill_per_s) // 16 * 16  # engines read it once more to warm up
    prompt_tokens = min(PROMPT_TOKENS, prompt) if prompt >= LEAST_PROMPT_TOKENS else 0
    return Lengths(prompt_tokens, answer_tokens, prompt_tokens)


def spread_out(models: Sequence[Model], speed_of: SpeedOf, seconds: float) -> list[Model]:
    """Up to three models of sizes far apart, ascending, none of which takes most of the time: a small one tells what an
    operation costs, a large one how fast memory is read."""
    usable = [(_file_bytes(model), model) for model in models if model.shape is not None]
    feasible = [(size, model) for size, model in usable if size and _least_s(model, speed_of(model)) < seconds]
    feasible.sort(key=lambda pair: (pair[0], pair[1].id))
    if len(feasible) <= MOST_TRIALS:
        return [model for _, model in feasible]
    (least, first), (most, last) = feasible[0], feasible[-1]
    middle = min(feasible[1:-1], key=lambda pair: abs(log(pair[0] / least) - log(most / pair[0])))
    return [first, middle[1], last]


def _least_s(model: Model, speed: Speed | None) -> float:
    """How much time there must be in all for this model to be tried."""
    if speed is None:
        return float("inf")
    answers_s = (1 + REPETITIONS * LEAST_ANSWER_TOKENS) / speed.decode_per_s.likely
    return (_load_s(model) + answers_s) / LONGEST_SHARE


def _weight(model: Model) -> float:
    """How much of the time a model gets: the larger, the longer it loads, but a small one must run long enough, too."""
    return float(_file_bytes(model) ** 0.5)


def _load_s(model: Model) -> float:
    return _file_bytes(model) / LOAD_PER_S


def _file_bytes(model: Model) -> int:
    try:
        return Path(model.path).stat().st_size if model.path else 0
    except OSError:
        return 0
