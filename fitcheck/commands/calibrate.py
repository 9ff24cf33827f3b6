"""``fitcheck calibrate``: measure this machine, and use the measurements from then on."""

from __future__ import annotations

from fitcheck.errors import FitcheckError
from fitcheck.output.progress import progress
from fitcheck.session import Session, require_user_folder
from fitcheck.types import Calibration, Machine, Report
from fitcheck.units import format_rate


def calibrate(session: Session, seconds: float) -> Report:
    """Measure the memory, and an installed engine with a model that is already here, for about ``seconds``."""
    from time import monotonic

    from msgspec.structs import replace

    from fitcheck.calibrate.engines import engines
    from fitcheck.calibrate.measure import calibrate as measure
    from fitcheck.calibrate.stored import save
    from fitcheck.catalog.installed import installed

    start = monotonic()
    if session.machine.pretended:
        raise FitcheckError("bad_option", "calibrate measures this machine, not one that is pretended")
    folder = require_user_folder()
    machine: Machine = replace(session.machine, calibration=None)
    with progress() as show:
        models = installed().models
        left = seconds - (monotonic() - start)
        found, outcome = measure(machine, models, engines(), session.estimator.estimate, show, max(1.0, left))
    try:
        path = save(found, folder)
    except OSError as error:
        raise FitcheckError(
            "storage", f"cannot keep the measurements: {error.strerror}", "set FITCHECK_HOME"
        ) from error
    session.use(replace(machine, calibration=found))
    trials = [f"{trial.engine}: {trial.model.id}, {trial.decode_per_s:.1f} tokens/s" for trial in outcome.trials]
    notes = (*trials, *outcome.failures, *_factors(found), f"kept in {path}")
    return session.report("calibrate", _summary(found, len(trials)), notes=notes, next_steps=("fitcheck scan",))


def forget(session: Session) -> Report:
    """Remove what was measured."""
    from fitcheck.calibrate.stored import forget as remove

    removed = remove(require_user_folder())
    summary = "the measurements are removed" if removed else "there were no measurements"
    return session.report("calibrate", summary, next_steps=("fitcheck scan",))


def _summary(found: Calibration, trials: int) -> str:
    bandwidth = found.ram_bandwidth_bytes_per_s
    memory = "not measured" if bandwidth is None else format_rate(bandwidth)
    engines = f"{trials} model runs" if trials else "no installed engine with a model at hand: memory only"
    return f"memory bandwidth {memory}; {engines}"


def _factors(found: Calibration) -> tuple[str, ...]:
    operations = found.operation_factors
    return tuple(
        f"{backend}: {speed:.2f} x the predicted speed, {operations[backend]:.2f} x the time per operation"
        for backend, speed in found.speed_factors.items()
    )
