"""``fitcheck calibrate`` itself: memory first, then an engine, within the time that was given."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from time import monotonic

from msgspec.structs import replace

from fitcheck.calibrate.solve import Predict, request_for, with_trials
from fitcheck.calibrate.stored import machine_key
from fitcheck.calibrate.trials import Engine, Lengths, Outcome, Say, run_trials
from fitcheck.types import Calibration, Machine, Model, Speed

Progress = Callable[[str, float], None]  # what is done now, share that is done

BANDWIDTH_S = 3.0
TICK_S = 0.2
RESERVE_S = 3.0  # to stop the last engine, compute the factors and write them


def calibrate(
    machine: Machine,
    models: Sequence[Model],
    engines: Sequence[Engine],
    predict: Predict,
    progress: Progress,
    seconds: float = 60.0,
) -> tuple[Calibration, Outcome]:
    """Measure the memory, then engines with installed ``models`` (files), in no more than ``seconds``.

    ``predict`` is the estimator's. Without an engine or a model only the bandwidth is measured.
    """
    from datetime import date

    end = monotonic() + seconds
    with _by_the_clock(progress, seconds) as say:
        say("memory bandwidth")
        per_s = memory_bandwidth(machine, min(BANDWIDTH_S, seconds / 4))
        found = Calibration(date.today().isoformat(), machine_key(machine), per_s)
        measured = replace(machine, calibration=found)

        def speed_of(model: Model) -> Speed | None:
            return predict(model, measured, request_for(model, "llama.cpp", Lengths())).speed

        left = end - monotonic() - RESERVE_S
        outcome = run_trials(engines, models, speed_of, say, left) if left > 0 else Outcome()
    return with_trials(found, outcome.trials, machine, predict), outcome


@contextmanager
def _by_the_clock(progress: Progress, seconds: float) -> Iterator[Say]:
    """A progress that moves with the time, since nobody knows how far an engine is: a function that takes what is done
    now."""
    from threading import Event, Thread

    start, doing, stopped = monotonic(), ["starting"], Event()

    def tick() -> None:
        while not stopped.wait(TICK_S):
            progress(doing[-1], min(0.99, (monotonic() - start) / seconds))

    clock = Thread(target=tick, name="progress", daemon=True)
    clock.start()
    try:
        yield doing.append
    finally:
        stopped.set()
        clock.join()
    progress("done", 1.0)


def memory_bandwidth(machine: Machine, seconds: float = BANDWIDTH_S) -> float | None:
    """Read bandwidth of all threads in bytes/s: what the quicker quarter of many short runs reaches, since other work
    only slows them down."""
    from fitcheck.probe.bandwidth import measure, plan
    from fitcheck.probe.host import LiveHost

    planned = plan(LiveHost(), machine.cpu.threads, machine.ram.usable_bytes)
    if planned is None:
        return None
    end, runs = monotonic() + seconds, list[float]()
    while monotonic() < end:
        runs.append(measure(planned) or 0.0)
    return sorted(runs)[len(runs) * 3 // 4] or None
