"""What ``fitcheck calibrate`` measured here, applied to the terms of a time.

Two numbers per backend: how fast this machine reads and computes, and what an operation costs it however small it is.
The first alone would make tiny models, whose time is mostly operations, as wrong as before.
"""

from __future__ import annotations

from math import sqrt

from fitcheck.estimate.speed_model import Seconds, Spread
from fitcheck.estimate.speed_terms import Running
from fitcheck.types import Machine

NORMAL_80 = 1.2816  # standard deviations to either end of an 80 % interval
CALIBRATED = Spread(-0.1, 0.1, 1)  # a decode speed measured on this machine, applied to another model
UNKNOWN_PREFILL_SD = 0.35  # of ln(time) of another model's prompt, where a calibration does not say


def is_calibrated(run: Running, machine: Machine, test: str) -> bool:
    """Whether every backend that the placement uses was measured here. ``test`` is decode or prefill."""
    factors = _speed_factors(machine, test)
    return bool(factors) and all(device.backend in factors for device in run.devices)


def calibrated_seconds(time: Seconds, run: Running, machine: Machine, test: str) -> float:
    """A time in seconds: of a split over several backends, by the slowest one's measurements."""
    if not is_calibrated(run, machine, test):
        return time.work + time.overhead
    calibration = machine.calibration
    assert calibration is not None
    backends, factors = {device.backend for device in run.devices}, _speed_factors(machine, test)
    slowdown = 1.0 / min(factors[backend] for backend in backends)
    operations = calibration.operation_factors if test == "decode" else {}
    dearness = max(operations.get(backend, slowdown) for backend in backends)
    return time.work * slowdown + time.overhead * dearness


def calibrated_spread(test: str, run: Running, machine: Machine, step: Seconds | None) -> Spread:
    """The interval that is left where every backend was measured here. ``step``: the time of a token, of decoding."""
    if test == "decode":
        return CALIBRATED.widened(_left_open(step, run, machine))
    sds = machine.calibration.prefill_sds if machine.calibration else {}
    most = NORMAL_80 * max(sds.get(device.backend, UNKNOWN_PREFILL_SD) for device in run.devices)
    return Spread(-most, most, 1)


def _left_open(step: Seconds | None, run: Running, machine: Machine) -> float:
    """By how much ln(time) of decoding is uncertain after the trials, at either end of an 80 % interval: little for
    models like those that were run, much for a small one where only a large one was."""
    calibration = machine.calibration
    if calibration is None or step is None:
        return 0.0
    share = step.overhead / (step.work + step.overhead)
    variance = max(
        (1 - share) ** 2 * of_speed + share**2 * of_operation - 2 * share * (1 - share) * together
        for of_speed, of_operation, together in (
            calibration.variances.get(device.backend, (0.0, 0.0, 0.0)) for device in run.devices
        )
    )
    return NORMAL_80 * sqrt(max(0.0, variance))


def _speed_factors(machine: Machine, test: str) -> dict[str, float]:
    calibration = machine.calibration
    if calibration is None:
        return {}
    return calibration.speed_factors if test == "decode" else calibration.prefill_factors
