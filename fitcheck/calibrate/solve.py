"""Measured speeds -> how this machine differs from the estimate: two factors per backend, and one for prompts.

A token's time is s / f + o x g: s seconds of reading and arithmetic, o seconds of operations, by the estimator. The
speed f and the dearness g of an operation are those that explain the trials best, between them and the belief that both
are about 1 (least squares of logarithms). Trials of a small and of a large model tell the two apart; one trial moves
both, each by its part of the time. Prompts get the mean of their ratios, and how far models lie from it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import exp, log, sqrt

from msgspec import Struct
from msgspec.structs import replace

from fitcheck.calibrate.trials import Lengths, Trial
from fitcheck.types import Calibration, Fit, Machine, Model, Request

PLAUSIBLE = (0.05, 20.0)  # measured / predicted; beyond, something else was measured
NOISE = 0.05  # sd of ln(measured time) in repeated trials
BELIEF_SD = 0.7  # of ln f and of ln g before the trials: half or twice is common
STEPS = 30
PREFILL_SD = 0.25  # of ln(prefill) between models on one machine, as published: 0.19 on processors, 0.26 on GPUs
PREFILL_BELIEF = 2.0  # how many trials that counts for

Predict = Callable[[Model, Machine, Request], Fit]


class Solved(Struct, frozen=True):
    """The factors f and g of a backend; variances of their logarithms, and the covariance."""

    speed: float
    operation: float
    variances: tuple[float, float, float]


class Observed(Struct, frozen=True):
    """One trial of decoding, in seconds per token: measured, and by the estimator in two parts."""

    measured_s: float
    growing_s: float
    operations_s: float


def with_trials(found: Calibration, trials: Sequence[Trial], machine: Machine, predict: Predict) -> Calibration:
    """The calibration with the factors of every backend that trials ran on."""
    decode: dict[str, list[Observed]] = {}
    prefill: dict[str, list[float]] = {}
    for trial in trials:
        where = replace(machine, accelerators=()) if trial.backend == "cpu" else machine
        backend = _backend_of(trial, replace(where, calibration=found), predict)
        if backend is None:
            continue
        observed = _observed(trial, found, where, backend, predict)
        if observed is None:
            continue
        decode.setdefault(backend, []).append(observed)
        ratio = _prefill_ratio(trial, found, where, predict)
        if ratio is not None:
            prefill.setdefault(backend, []).append(log(ratio))
    solved = {backend: solve(seen) for backend, seen in decode.items()}
    return replace(
        found,
        speed_factors={backend: round(factors.speed, 4) for backend, factors in solved.items()},
        operation_factors={backend: round(factors.operation, 4) for backend, factors in solved.items()},
        variances={backend: factors.variances for backend, factors in solved.items()},
        prefill_factors={backend: round(exp(_mean(ratios)), 4) for backend, ratios in prefill.items()},
        prefill_sds={backend: round(_sd_of_another(ratios), 4) for backend, ratios in prefill.items()},
    )


def solve(seen: Sequence[Observed]) -> Solved:
    """The factors that explain the trials best, by Gauss-Newton in their logarithms."""
    speed = dearness = 0.0  # logarithms
    variances = (BELIEF_SD**2, BELIEF_SD**2, 0.0)
    for _ in range(STEPS):
        a, b, c = BELIEF_SD**-2, 0.0, BELIEF_SD**-2  # the normal matrix [[a, b], [b, c]]
        p, q = -speed * a, -dearness * c
        for trial in seen:
            growing, operations = trial.growing_s / exp(speed), trial.operations_s * exp(dearness)
            total = growing + operations
            off = log(trial.measured_s / total) / NOISE
            by_speed, by_dearness = -growing / total / NOISE, operations / total / NOISE
            a, b, c = a + by_speed**2, b + by_speed * by_dearness, c + by_dearness**2
            p, q = p + by_speed * off, q + by_dearness * off
        determinant = a * c - b * b
        speed += _bounded((c * p - b * q) / determinant)
        dearness += _bounded((a * q - b * p) / determinant)
        variances = c / determinant, a / determinant, -b / determinant
    return Solved(exp(speed), exp(dearness), variances)


def _bounded(step: float) -> float:
    return max(-1.0, min(1.0, step))


def _observed(trial: Trial, found: Calibration, machine: Machine, backend: str, predict: Predict) -> Observed | None:
    """The trial beside the estimate of the same run; None where they cannot be of the same thing."""
    lengths = trial.lengths
    request = _request(trial, lengths.cached_tokens)

    def seconds(operations: float) -> float | None:
        factors = {backend: 1.0}, {backend: operations}
        assumed = replace(found, speed_factors=factors[0], operation_factors=factors[1])
        speed = predict(trial.model, replace(machine, calibration=assumed), request).speed
        return None if speed is None else 1.0 / speed.decode_per_s.likely

    whole, growing = seconds(1.0), seconds(0.0)
    if whole is None or growing is None or not PLAUSIBLE[0] < trial.decode_per_s * whole < PLAUSIBLE[1]:
        return None
    return Observed(1.0 / trial.decode_per_s, growing, whole - growing)


def _prefill_ratio(trial: Trial, found: Calibration, machine: Machine, predict: Predict) -> float | None:
    """Measured / predicted prefill speed."""
    if not trial.prefill_per_s:
        return None
    request = _request(trial, trial.lengths.prompt_tokens)
    speed = predict(trial.model, replace(machine, calibration=found), request).speed
    if speed is None or speed.prefill_per_s is None:
        return None
    ratio = trial.prefill_per_s / speed.prefill_per_s.likely
    return ratio if PLAUSIBLE[0] < ratio < PLAUSIBLE[1] else None


def _request(trial: Trial, prompt_tokens: int) -> Request:
    return request_for(trial.model, trial.engine, Lengths(prompt_tokens, trial.lengths.answer_tokens))


def request_for(model: Model, engine: str, lengths: Lengths) -> Request:
    """The question that a trial answers. ``engine`` is a row of runtimes.json."""
    return Request(
        context_tokens=2048,
        prompt_tokens=lengths.prompt_tokens,
        answer_tokens=lengths.answer_tokens,
        quant=model.file_quant,
        runtime=engine,
    )


def _mean(logarithms: Sequence[float]) -> float:
    return sum(logarithms) / len(logarithms)


def _sd_of_another(logarithms: Sequence[float]) -> float:
    """Standard deviation of ln(ratio) of a model that was not run."""
    n, mean = len(logarithms), _mean(logarithms)
    seen = sum((each - mean) ** 2 for each in logarithms)
    variance = (PREFILL_BELIEF * PREFILL_SD**2 + seen) / (PREFILL_BELIEF + n - 1)
    return sqrt(variance * (1 + 1 / n))


def _backend_of(trial: Trial, machine: Machine, predict: Predict) -> str | None:
    """The one backend that the estimate of a trial is of; None for a split, which says nothing about either side, and
    where the engine ran on another one."""
    fit = predict(trial.model, machine, _request(trial, trial.lengths.cached_tokens))
    devices = [use.device for use in fit.placement.devices if use.last_layer > use.first_layer]
    if len(devices) != 1:
        return None
    backend = "cpu"
    if devices[0] != "cpu":
        backends = machine.accelerators[int(devices[0][3:])].backends
        backend = backends[0].value if backends else ""
    return backend if backend and trial.backend in (None, backend) else None
