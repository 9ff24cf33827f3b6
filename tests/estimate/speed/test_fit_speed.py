"""The fit: robust, the same on every run, and never shown what it is asked about."""

from __future__ import annotations

from functools import cache
from math import log
from pathlib import Path
from random import Random

import pytest
from msgspec.structs import replace

from fitcheck.accuracy.fit_speed import _interval, spreads
from fitcheck.accuracy.measurements import Measured, load
from fitcheck.accuracy.regression import Observation, Prior, fit, solve
from fitcheck.accuracy.validation import Outcome, folds
from fitcheck.estimate.speed_model import Term, total_seconds

HEADER = (
    "source,url,date,grade,hardware,devices,backend,engine,threads,ram_gb_per_s,model,quant,published_quant,file_gib,"
    "test,prompt_tokens,generated_tokens,depth_tokens,flash_attention,kv_type,gpu_layers,cpu_expert_layers,split,"
    "tokens_per_s,usable,reason"
)


def wide(key: str) -> Prior:
    return Prior(0.0, 1.0, True) if key == "power" else Prior(1.0, 3.0)


def observations(noise: float, outliers: int) -> list[Observation]:
    random = Random(1)
    truth = {"read": 1.3, "operation": 4.0, "power": -0.25}
    rows = []
    for i in range(120):
        x = random.uniform(0.2, 5.0)
        terms = (
            Term("memory", random.uniform(0.5, 5.0), ("read",), (("power", x),)),
            Term("overhead", random.uniform(0.01, 1.0), ("operation",)),
        )
        seconds = total_seconds(terms, truth) * (1.0 + random.gauss(0.0, noise))
        rows.append(Observation(terms, seconds * (10.0 if i < outliers else 1.0), 1.0))
    return rows


def test_the_fit_finds_the_factors_and_exponents_that_made_the_times() -> None:
    found = fit(observations(0.0, 0), wide, iterations=30)
    assert found == pytest.approx({"read": 1.3, "operation": 4.0, "power": -0.25}, rel=0.01)


def test_a_few_absurd_measurements_hardly_move_the_fit() -> None:
    found = fit(observations(0.05, 6), wide, iterations=30)
    assert found["read"] == pytest.approx(1.3, rel=0.08)


def test_without_data_the_prior_stays() -> None:
    strict = fit([Observation((Term("memory", 1.0, ("read",)),), 5.0, 0.01)], lambda key: Prior(1.2, 0.01))
    assert strict["read"] == pytest.approx(1.2, rel=0.02)


def test_the_solver_solves() -> None:
    assert solve([[4.0, 0.0], [1.0, 3.0]], [6.0, 7.0]) == pytest.approx([1.0, 2.0])


def test_one_loud_source_weighs_as_much_as_a_quiet_one() -> None:
    loud = [("loud", 0.5)] * 1000
    quiet = [(f"quiet {i}", i / 100.0) for i in range(-10, 11)]
    spread = _interval(loud + quiet)
    assert spread.sources == 22
    assert -0.11 < spread.low < -0.06 and 0.07 < spread.high < 0.5


def test_measurements_are_asked_as_a_user_would_and_a_source_is_never_in_two_folds(tmp_path: Path) -> None:
    file = tmp_path / "measurements.csv"
    row = "{},u,2026-01,A,{},1,{},llama.cpp,,,llama-3.1-8b,Q4_K_M,,,decode,0,128,0,,,,,,{},{},"
    lines = [
        row.format("one", "NVIDIA GeForce RTX 4070", "cuda", 60.0, "fit"),
        row.format("one", "NVIDIA GeForce RTX 4070", "vulkan", 50.0, "score"),
        row.format("two", "AMD Ryzen 7 7700", "cpu", 9.0, "fit"),
        row.format("three", "NVIDIA GeForce RTX 4070", "cuda", 60.0, "no"),
    ]
    file.write_text("\n".join([HEADER, *lines]) + "\n")
    rows = load(file)
    assert [(r.source, r.trains, r.on_cpu) for r in rows] == [
        ("one", True, False),
        ("one", False, False),
        ("two", True, True),
    ]
    assert rows[1].machine.accelerators[0].backends[0].value == "vulkan"
    assert rows[0].machine.accelerators[0].catalog_name == "NVIDIA GeForce RTX 4070"
    assert log(rows[0].seconds * 60.0) == 0.0
    assert set(folds(rows, lambda r: r.source)) == {"one", "two"}


def test_a_run_with_no_more_threads_than_a_socket_has_cores_stays_on_that_socket(tmp_path: Path) -> None:
    file = tmp_path / "measurements.csv"
    row = (
        "s,u,2026-01,A,2x Intel Xeon Gold 6138,1,cpu,llama.cpp,{},256,llama-3.1-8b,Q4_K_M,,,decode,0,128,0,,,,,,9,fit,"
    )
    file.write_text("\n".join([HEADER, row.format(20), row.format(40)]) + "\n")
    one, both = (measured.machine for measured in load(file))
    assert (one.cpu.sockets, one.cpu.threads, both.cpu.sockets, both.cpu.threads) == (1, 20, 2, 40)
    assert one.ram.bandwidth is not None and both.ram.bandwidth is not None
    assert one.ram.bandwidth.per_s < both.ram.bandwidth.per_s


@cache
def some_row() -> Measured:
    return next(row for row in load() if row.test == "decode" and row.backend == "cuda" and row.engine == "llama.cpp")


def outcome(backend: str, number: int, error: float) -> Outcome:
    some = some_row()
    source = f"{backend} {number}"
    return Outcome(replace(some, source=source, backend=backend, cell=(source, *some.cell[1:])), error, "fold", {})


def test_backends_share_an_interval_that_says_how_many_sources_saw_each_and_one_that_nobody_saw_is_wider() -> None:
    seen = [outcome("cuda", i, (i - 15) / 100.0) for i in range(31)]
    found = spreads(seen + [outcome("rocm", i, 0.1) for i in range(3)])
    cuda, rocm = found["decode/cuda"], found["decode/rocm"]
    assert (cuda.low, cuda.high) == (rocm.low, rocm.high)
    assert (cuda.sources, rocm.sources) == (31, 3)
    assert found["decode/other"].low < cuda.low - 0.2 and found["decode/other"].high > cuda.high + 0.2


def test_the_interval_holds_four_of_five_sources_that_it_was_not_made_from() -> None:
    random = Random(7)
    held = 0
    for _ in range(150):
        errors = [random.gauss(0.0, 0.2) if random.random() < 0.8 else random.gauss(0.15, 0.4) for _ in range(81)]
        spread = _interval([(str(i), error) for i, error in enumerate(errors[1:])])
        held += spread.low <= errors[0] <= spread.high
    assert 0.74 < held / 150 < 0.86


def test_of_intervals_that_hold_as_much_the_narrowest_is_taken() -> None:
    slow = [(str(i), error) for i, error in enumerate([0.01 * i for i in range(-20, 21)] + [0.9, 1.0, 1.1, 1.2])]
    spread = _interval(slow)
    assert spread.high < 0.25
