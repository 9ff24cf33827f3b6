"""Calibration: what engines print is read, kept for this hardware only, and forgotten on request."""

from __future__ import annotations

from pathlib import Path

import pytest
from msgspec.structs import replace

from fitcheck import catalog, facts
from fitcheck.calibrate import (
    ANSWER_TOKENS,
    LEAST_ANSWER_TOKENS,
    PROMPT_TOKENS,
    Lengths,
    Trial,
    candidates,
    forget,
    lengths_for,
    load,
    machine_key,
    parse_llama_bench,
    run_engines,
    save,
    with_trials,
)
from fitcheck.estimate.fit import Estimator
from fitcheck.probe.pretend import pretend
from fitcheck.types import Calibration, Fit, Machine, Model, Request, Speed

MODEL = replace(next(m for m in catalog.load().models if m.id == "llama-3.2-1b"), file_quant="Q4_K_M")
ESTIMATOR = Estimator(facts.load())
BENCH = b"""[
 {"backends": "CUDA", "n_prompt": 512, "n_gen": 0, "avg_ts": 9000.5},
 {"backends": "CUDA", "n_prompt": 0, "n_gen": 128, "avg_ts": 301.25}
]"""


def _predict(model: Model, machine: Machine, request: Request) -> Fit:
    return ESTIMATOR.estimate(model, machine, request)


def _speed(machine: Machine) -> Speed | None:
    return _predict(MODEL, machine, Request(context_tokens=2048, quant="Q4_K_M", runtime="llama.cpp")).speed


def test_llama_bench_is_read() -> None:
    trial = parse_llama_bench(BENCH, MODEL)
    assert trial == Trial("llama.cpp", MODEL, 301.25, 9000.5, "cuda", Lengths(512, 128, cached_tokens=0))


def test_one_slow_repetition_does_not_count() -> None:
    trial = parse_llama_bench(b'[{"n_gen": 32, "avg_ts": 11.95, "samples_ts": [14.3, 3.6, 17.9]}]', MODEL)
    assert trial is not None and trial.decode_per_s == 14.3


def test_output_without_a_decode_speed_is_no_trial() -> None:
    assert parse_llama_bench(b"not json", MODEL) is None
    assert parse_llama_bench(b"[]", MODEL) is None
    assert parse_llama_bench(b'[{"n_gen": 0, "avg_ts": 5}]', MODEL) is None


def test_what_was_measured_is_kept_for_this_hardware_and_forgotten(tmp_path: Path) -> None:
    here = replace(pretend("RTX 4070"), pretended=False)
    elsewhere = replace(pretend("RTX 4090"), pretended=False)
    found = Calibration("2026-01-01", machine_key(here), 5e10, speed_factors={"cuda": 0.9})
    save(found, tmp_path / "new")
    assert load(here, tmp_path / "new") == found
    assert load(elsewhere, tmp_path / "new") is None
    assert load(replace(here, pretended=True), tmp_path / "new") is None
    assert forget(tmp_path / "new") and not forget(tmp_path / "new")
    assert load(here, tmp_path / "new") is None


def test_a_damaged_file_is_no_calibration(tmp_path: Path) -> None:
    (tmp_path / "calibration.json").write_text('{"date": 5')
    assert load(replace(pretend("RTX 4070"), pretended=False), tmp_path) is None


def test_after_calibration_the_trial_itself_is_predicted() -> None:
    machine = pretend("RTX 4070")
    trial = Trial("llama.cpp", MODEL, 250.0, 8000.0, "cuda")
    found = with_trials(Calibration("", ""), [trial], machine, _predict)
    again = with_trials(found, [trial], machine, _predict)
    assert set(found.speed_factors) == set(found.prefill_factors) == {"cuda"}
    assert abs(again.speed_factors["cuda"] - 1.0) < 1e-3  # nothing is left to correct


def test_an_engine_that_runs_on_the_processor_says_nothing_about_the_card() -> None:
    machine = pretend("RTX 4070")
    on_cpu = Trial("llama.cpp", MODEL, 20.0, 100.0, "cpu")
    on_vulkan = replace(on_cpu, backend="vulkan")  # estimates for this card are of CUDA
    found = with_trials(Calibration("", ""), [on_cpu, on_vulkan], machine, _predict)
    alone = _speed(replace(machine, accelerators=()))
    assert set(found.speed_factors) == {"cpu"} and alone is not None
    assert found.speed_factors["cpu"] == pytest.approx(20.0 / alone.decode_per_s.likely, rel=0.2)


def test_an_answer_without_the_prompt_in_the_cache_is_predicted_as_such() -> None:
    machine = replace(pretend("RTX 4070"), accelerators=())
    with_prompt = Trial("llama.cpp", MODEL, 10.0, 100.0, "cpu")
    without = replace(with_prompt, lengths=Lengths(cached_tokens=0))
    factors = [
        with_trials(Calibration("", ""), [trial], machine, _predict).speed_factors["cpu"]
        for trial in (with_prompt, without)
    ]
    assert factors[1] < factors[0]  # the same speed is less of an achievement


def test_slow_machines_run_shorter_trials() -> None:
    fast, slow = _speed(pretend("RTX 4070")), _speed(replace(pretend("RTX 4070"), accelerators=()))
    assert lengths_for(fast, 20.0) == lengths_for(None, 20.0) == Lengths(PROMPT_TOKENS, ANSWER_TOKENS, PROMPT_TOKENS)
    short = lengths_for(slow, 5.0)
    assert LEAST_ANSWER_TOKENS <= short.answer_tokens < ANSWER_TOKENS and short.prompt_tokens < PROMPT_TOKENS


def test_the_time_is_shared_between_the_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = [tmp_path / f"{number}.gguf" for number in range(2)]
    for number, file in enumerate(files):
        file.write_bytes(b"0" * (2 - number))
    models = [replace(MODEL, id=file.name, path=str(file)) for file in files]
    asked: list[Lengths] = []

    def bench(model: Model, lengths: Lengths) -> Trial:
        asked.append(lengths)
        return Trial("llama.cpp", model, 10.0, lengths=lengths)

    monkeypatch.setattr("fitcheck.calibrate.llama_bench", bench)
    slow = _speed(replace(pretend("RTX 4070"), accelerators=()))
    trials = run_engines(models, lambda model: slow, lambda text, share: None, 10.0)
    assert [trial.model.id for trial in trials] == ["1.gguf", "0.gguf"]  # the larger one with the time that is left
    assert all(lengths.prompt_tokens < PROMPT_TOKENS for lengths in asked)


def test_only_files_that_load_quickly_are_run(tmp_path: Path) -> None:
    small, large = tmp_path / "a.gguf", tmp_path / "b.gguf"
    small.write_bytes(b"0" * 10)
    large.write_bytes(b"0" * 20)
    models = [
        replace(MODEL, id="a", path=str(small)),
        replace(MODEL, id="b", path=str(large)),
        replace(MODEL, id="c", path=str(tmp_path / "absent.gguf")),
        replace(MODEL, id="d"),
    ]
    assert [model.id for model in candidates(models)] == ["b", "a"]
