"""Calibration: what engines print is read, kept for this hardware only, and forgotten on request."""

from __future__ import annotations

from pathlib import Path

from msgspec.structs import replace

from fitcheck import catalog, facts
from fitcheck.calibrate import Trial, candidates, forget, load, machine_key, parse_llama_bench, save, with_trials
from fitcheck.estimate.fit import Estimator
from fitcheck.probe.pretend import pretend
from fitcheck.types import Calibration

MODEL = replace(next(m for m in catalog.load().models if m.id == "llama-3.2-1b"), file_quant="Q4_K_M")
BENCH = b"""[
 {"backends": "CUDA", "n_prompt": 512, "n_gen": 0, "avg_ts": 9000.5},
 {"backends": "CUDA", "n_prompt": 0, "n_gen": 128, "avg_ts": 301.25}
]"""


def test_llama_bench_is_read() -> None:
    trial = parse_llama_bench(BENCH, MODEL)
    assert trial == Trial("llama.cpp", MODEL, 301.25, 9000.5, "cuda")


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
    machine, estimator = pretend("RTX 4070"), Estimator(facts.load())

    def predict(model: object, where: object, request: object) -> object:
        return estimator.estimate(model, where, request)  # type: ignore[arg-type]

    trial = Trial("llama.cpp", MODEL, 250.0, 8000.0, "cuda")
    found = with_trials(Calibration("", ""), [trial], machine, predict)  # type: ignore[arg-type]
    again = with_trials(found, [trial], machine, predict)  # type: ignore[arg-type]
    assert set(found.speed_factors) == set(found.prefill_factors) == {"cuda"}
    assert abs(again.speed_factors["cuda"] - 1.0) < 1e-3  # nothing is left to correct


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
