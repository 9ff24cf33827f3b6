"""Which models are run and for how long: all within the time, whatever is installed and whatever goes wrong."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from time import monotonic, sleep

import pytest
from msgspec.structs import replace

from fitcheck.calibrate.measure import calibrate
from fitcheck.calibrate.trials import (
    ANSWER_TOKENS,
    LEAST_ANSWER_TOKENS,
    PROMPT_TOKENS,
    Lengths,
    Trial,
    TrialError,
    lengths_for,
    read_ahead,
    run_trials,
    spread_out,
)
from fitcheck.probe.pretend import pretend
from fitcheck.types import Fit, Interval, Machine, Model, Placement, PlacementKind, Request, Speed, Verdict


def speed(decode_per_s: float, prefill_per_s: float | None) -> Speed:
    each = Interval(decode_per_s, decode_per_s, decode_per_s)
    prefill = Interval(prefill_per_s, prefill_per_s, prefill_per_s) if prefill_per_s else None
    return Speed(each, each, prefill, None, None, "memory", 0, 0.0)


FAST, SLOW = speed(300.0, 9000.0), speed(3.0, 10.0)


class Engine:
    """Runs in no time, or fails with ``error``, or takes all the time that it is given."""

    def __init__(self, name: str, error: str = "", hangs: bool = False) -> None:
        self.name, self.error, self.hangs = name, error, hangs
        self.asked: list[tuple[str, Lengths, float]] = []

    def choose(self, models: Sequence[Model]) -> list[Model]:
        return list(models)

    def run(self, model: Model, lengths: Lengths, seconds: float) -> Trial:
        self.asked.append((model.id, lengths, seconds))
        if self.hangs:
            sleep(seconds)
            raise TrialError("no answer in time")
        if self.error:
            raise TrialError(self.error)
        return Trial(self.name, model, 10.0, lengths=lengths)


def files(folder: Path, stored: Model, *sizes: int) -> list[Model]:
    """Models of so many bytes; the files are sparse."""
    models = []
    for size in sizes:
        path = folder / f"{size}.gguf"
        with path.open("wb") as file:
            file.truncate(size)
        models.append(replace(stored, id=path.name, path=str(path)))
    return models


def quiet(what: str) -> None:
    assert what


def test_slow_machines_run_shorter_trials() -> None:
    assert lengths_for(FAST, 20.0) == Lengths(PROMPT_TOKENS, ANSWER_TOKENS, PROMPT_TOKENS)
    short = lengths_for(speed(10.0, 100.0), 12.0)
    assert LEAST_ANSWER_TOKENS < short.answer_tokens < ANSWER_TOKENS and 0 < short.prompt_tokens < PROMPT_TOKENS
    assert lengths_for(SLOW, 8.0) == Lengths(0, LEAST_ANSWER_TOKENS, 0)  # a prompt would take too long


def test_the_smallest_the_largest_and_one_between_are_run(tmp_path: Path, stored: Model) -> None:
    models = files(tmp_path, stored, 10**9, 10**8, 2 * 10**8, 3 * 10**8, 5 * 10**9, 9 * 10**10)
    chosen = spread_out([*models, replace(stored, id="absent", path="/none"), replace(stored, path=None)], fast, 60.0)
    assert [model.id for model in chosen] == ["100000000.gguf", "1000000000.gguf", "5000000000.gguf"]


def fast(model: Model) -> Speed:
    return FAST


def test_a_model_that_would_take_most_of_the_time_is_not_run(tmp_path: Path, stored: Model) -> None:
    assert spread_out(files(tmp_path, stored, 10**8), lambda model: speed(0.5, None), 60.0) == []
    assert spread_out(files(tmp_path, stored, 10**8), lambda model: None, 60.0) == []


def test_the_time_is_shared_by_size_and_the_last_gets_the_rest(tmp_path: Path, stored: Model) -> None:
    engine = Engine("bench")
    outcome = run_trials([engine], files(tmp_path, stored, 10**8, 4 * 10**8), fast, quiet, 30.0)
    assert [trial.model.id for trial in outcome.trials] == ["100000000.gguf", "400000000.gguf"]
    (_, _, first), (_, _, last) = engine.asked
    assert first < 0.6 * 30 and last == pytest.approx(30.0, abs=3.0)  # but for what reading the files took


def test_a_file_is_read_ahead_for_no_longer_than_there_is_time(tmp_path: Path, stored: Model) -> None:
    small, large, endless = files(tmp_path, stored, 10**6, 8 * 10**9, 10**12)
    for model in (small, large, endless, replace(stored, path=str(tmp_path / "absent")), replace(stored, path=None)):
        start = monotonic()
        read_ahead(model, 0.1)
        assert monotonic() - start < 1.0


def test_a_machine_slower_than_predicted_gets_shorter_trials(tmp_path: Path, stored: Model) -> None:
    engine = Engine("bench")  # 10 tokens/s
    run_trials([engine], files(tmp_path, stored, 10**8, 10**8 + 1), lambda model: speed(100.0, 1000.0), quiet, 10.0)
    (_, first, _), (_, second, _) = engine.asked
    assert second.answer_tokens < first.answer_tokens


def test_the_next_engine_is_tried_where_one_fails_and_each_failure_is_one_line(tmp_path: Path, stored: Model) -> None:
    broken, works, unused = Engine("a", "prints no JSON"), Engine("b"), Engine("c")
    outcome = run_trials([broken, works, unused], files(tmp_path, stored, 10**8), fast, quiet, 30.0)
    assert outcome.failures == ("a: 100000000.gguf: prints no JSON",)
    assert [trial.engine for trial in outcome.trials] == ["b"] and not unused.asked


def test_engines_that_hang_do_not_take_more_than_the_time(tmp_path: Path, stored: Model) -> None:
    start = monotonic()
    hanging = [Engine("a", hangs=True), Engine("b", hangs=True)]
    outcome = run_trials(hanging, files(tmp_path, stored, 10**6, 2 * 10**6, 3 * 10**6), fast, quiet, 1.0)
    assert monotonic() - start < 1.5
    assert not outcome.trials and outcome.failures


def test_calibrate_keeps_to_its_seconds(tmp_path: Path, stored: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fitcheck.calibrate.measure.memory_bandwidth", lambda machine, seconds: 1e10)
    placement = Placement(PlacementKind.CPU, ())

    def predict(model: Model, machine: Machine, request: Request) -> Fit:
        return Fit(model.id, "", "", Verdict.FITS, placement, (), 0, 0, 0, 0, 0, FAST, None)

    start, shown = monotonic(), list[tuple[str, float]]()
    models = files(tmp_path, stored, 10**6, 2 * 10**6)

    def show(what: str, share: float) -> None:
        shown.append((what, share))

    found, outcome = calibrate(pretend("cpu"), models, [Engine("a", hangs=True)], predict, show, 4.0)
    assert monotonic() - start < 4.0
    shares = [share for _, share in shown]
    assert len(shares) > 3 and shares == sorted(shares) and shown[-1] == ("done", 1.0)  # it moves while an engine runs
    assert found.ram_bandwidth_bytes_per_s == 1e10 and not found.speed_factors and len(outcome.failures) == 2
