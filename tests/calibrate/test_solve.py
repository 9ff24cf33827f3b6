"""From trials to factors: what a machine does differently is found again, and nothing is concluded from nonsense."""

from __future__ import annotations

from math import exp

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from fitcheck import catalog, facts
from fitcheck.calibrate.solve import PLAUSIBLE, Observed, request_for, solve, with_trials
from fitcheck.calibrate.trials import Lengths, Trial
from fitcheck.estimate.fit import Estimator
from fitcheck.probe.pretend import pretend
from fitcheck.types import Calibration, Fit, Interval, Machine, Model, Request

MODELS = {model.id: replace(model, file_quant="Q4_K_M") for model in catalog.load().models}
MODEL, TINY, LARGE, EXPERTS = (
    MODELS[name] for name in ("llama-3.2-1b", "lfm2.5-230m", "llama-3.1-8b", "qwen3-30b-a3b")
)
ESTIMATOR = Estimator(facts.load())
CARD = pretend("RTX 4090")
PROCESSOR = replace(CARD, accelerators=())
EMPTY = Calibration("", "")


def predict(model: Model, machine: Machine, request: Request) -> Fit:
    return ESTIMATOR.estimate(model, machine, request)


def decode_per_s(model: Model, machine: Machine) -> float:
    speed = predict(model, machine, request_for(model, "llama.cpp", Lengths())).speed
    assert speed is not None
    return speed.decode_per_s.likely


def test_after_calibration_the_trial_itself_is_predicted() -> None:
    trial = Trial("llama.cpp", MODEL, 0.8 * decode_per_s(MODEL, CARD), 8000.0, "cuda")
    found = with_trials(EMPTY, [trial], CARD, predict)
    assert set(found.speed_factors) == set(found.operation_factors) == set(found.prefill_factors) == {"cuda"}
    calibrated = replace(CARD, calibration=found)
    assert decode_per_s(MODEL, calibrated) == pytest.approx(trial.decode_per_s, rel=0.01)


@pytest.mark.parametrize(("speed", "operation"), [(0.7, 0.4), (1.3, 2.5)])
def test_a_small_and_a_large_model_tell_speed_and_operations_apart(speed: float, operation: float) -> None:
    factors = {"speed_factors": {"cuda": speed}, "operation_factors": {"cuda": operation}}
    truth = replace(CARD, calibration=Calibration("", "", **factors))  # type: ignore[arg-type]
    trials = [Trial("llama.cpp", model, decode_per_s(model, truth), None, "cuda") for model in (TINY, LARGE)]
    found = with_trials(EMPTY, trials, CARD, predict)
    for model in (TINY, MODEL, LARGE, EXPERTS):
        assert decode_per_s(model, replace(CARD, calibration=found)) == pytest.approx(
            decode_per_s(model, truth), rel=0.05
        )


@given(st.lists(st.tuples(st.floats(1e-5, 5.0), st.floats(1e-6, 1.0), st.floats(*PLAUSIBLE)), min_size=1, max_size=4))
def test_factors_stay_finite_whatever_was_measured(seen: list[tuple[float, float, float]]) -> None:
    trials = [
        Observed((growing + operations) * slowness, growing, operations) for growing, operations, slowness in seen
    ]
    found = solve(trials)
    assert all(exp(-8.0) < factor < exp(8.0) for factor in (found.speed, found.operation))
    of_speed, of_operation, together = found.variances
    assert of_speed * of_operation > together**2  # a covariance matrix


def test_no_trials_leave_the_belief() -> None:
    found = solve([])
    assert (found.speed, found.operation) == (1.0, 1.0) and found.variances[2] == 0.0


def test_an_engine_that_runs_on_the_processor_says_nothing_about_the_card() -> None:
    on_cpu = Trial("llama.cpp", MODEL, 20.0, 100.0, "cpu")
    on_vulkan = replace(on_cpu, backend="vulkan")  # estimates for this card are of CUDA
    found = with_trials(EMPTY, [on_cpu, on_vulkan], CARD, predict)
    assert set(found.speed_factors) == {"cpu"}
    assert decode_per_s(MODEL, replace(PROCESSOR, calibration=found)) == pytest.approx(20.0, rel=0.05)


def test_an_answer_without_the_prompt_in_the_cache_is_predicted_as_such() -> None:
    with_prompt = Trial("llama.cpp", MODEL, 10.0, 100.0, "cpu")
    without = replace(with_prompt, lengths=Lengths(cached_tokens=0))
    factors = [with_trials(EMPTY, [trial], PROCESSOR, predict).speed_factors["cpu"] for trial in (with_prompt, without)]
    assert factors[1] < factors[0]  # the same speed is less of an achievement


def width(model: Model, machine: Machine) -> float:
    speed = predict(model, machine, request_for(model, "llama.cpp", Lengths())).speed
    assert speed is not None
    return speed.decode_per_s.high / speed.decode_per_s.low


def test_what_no_trial_was_like_keeps_a_wide_interval() -> None:
    large = Trial("llama.cpp", LARGE, 0.8 * decode_per_s(LARGE, CARD), None, "cuda")
    small = Trial("llama.cpp", TINY, 0.8 * decode_per_s(TINY, CARD), None, "cuda")
    by_one, by_both = (
        replace(CARD, calibration=with_trials(EMPTY, trials, CARD, predict)) for trials in ([large], [small, large])
    )
    assert width(LARGE, by_one) < 1.6 < width(TINY, by_one)
    assert width(TINY, by_both) < 1.6 and width(LARGE, by_both) < 1.6
    for model in (TINY, LARGE, EXPERTS):
        assert width(model, by_one) <= width(model, CARD)  # to measure something is never worse than nothing


def test_prompts_are_as_uncertain_as_the_trials_differ() -> None:
    def prompt(model: Model, machine: Machine) -> Interval:
        speed = predict(model, machine, request_for(model, "llama.cpp", Lengths())).speed
        assert speed is not None and speed.prefill_per_s is not None
        return speed.prefill_per_s

    def widths(*ratios: float) -> float:
        trials = [
            Trial("llama.cpp", model, 10.0, ratio * prompt(model, PROCESSOR).likely, "cpu")
            for model, ratio in zip((TINY, MODEL, LARGE), ratios, strict=False)
        ]
        found = prompt(EXPERTS, replace(PROCESSOR, calibration=with_trials(EMPTY, trials, PROCESSOR, predict)))
        return found.high / found.low

    alike, apart, one = widths(1.2, 1.2, 1.2), widths(0.8, 1.2, 1.8), widths(1.2)
    before = prompt(EXPERTS, PROCESSOR)
    assert 1.2 < alike < one and alike < apart
    assert max(one, apart) <= before.high / before.low


def test_a_speed_that_cannot_be_of_this_machine_is_not_believed() -> None:
    wrong = Trial("llama.cpp", MODEL, 90_000.0, 9e9, "cuda")
    assert with_trials(EMPTY, [wrong], CARD, predict) == EMPTY
