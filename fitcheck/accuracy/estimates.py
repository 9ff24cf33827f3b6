"""How long one estimate takes: ``python -m fitcheck.accuracy.estimates`` prints microseconds of processor time.

Models of the catalog in the placement that they get: on a GPU, split, on the processor. As in the program, nothing
collects garbage. ``Estimator.estimate`` and ``fitcheck.estimate`` remember their answers: the same question again must
take at most ``LIMIT``. All other rows are the numbers that ranking needs (``Estimator.quick``), of questions that were
never asked before, about a model in a quantisation

- that was asked about: with another context, with another margin, on a machine with other memory;
- that was asked about, with a type of cache that was not;
- that was not asked about: another quantisation of a model that was, a model that never was.
"""

from __future__ import annotations

import gc
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial

from msgspec.structs import replace

from fitcheck import api
from fitcheck.estimate.fit import Estimator
from fitcheck.session import Session
from fitcheck.types import Fit, Machine, Model, PlacementKind, Request, Verdict

QUANT, OTHER_QUANT = "Q4_K_M", "Q5_K_M"
MACHINES = {
    PlacementKind.GPU: ("RTX 4090", "M4 Pro 48GB"),
    PlacementKind.SPLIT: ("RTX 4070", "GTX 1660"),
    PlacementKind.CPU: ("Ryzen 5 5600 32GB",),
}
MODELS = 40  # of each placement
CONTEXTS = tuple(range(4096, 8192, 512))
MARGINS = tuple(megabytes << 20 for megabytes in range(512, 1024, 64))
AGAIN = ("the same again", "fitcheck.estimate again")
LIMIT = 50.0  # microseconds, median

Placed = tuple[Model, Machine]


def placed_models(session: Session, kind: PlacementKind) -> list[Placed]:
    """Models of the catalog that get a placement, each with a machine, evenly over the catalog."""
    estimator = Estimator(session.facts)
    machines = [Session(name).machine for name in MACHINES[kind]]
    known = session.facts.weights
    models = [model for model in session.catalog.models if model.architecture and known.knows(model)]
    found = []
    for number, model in enumerate(models):
        machine = machines[number % len(machines)]
        quick = estimator.quick(model, QUANT, machine, Request())
        if quick.kind is kind and quick.verdict is not Verdict.NO:
            found.append((model, machine))
    return found[:: max(1, len(found) // MODELS)][:MODELS]


def warm_estimator(session: Session, placed: list[Placed]) -> Estimator:
    """One that was asked about another model on each of the machines."""
    facts = session.facts
    estimator = Estimator(facts)
    warm = next(model for model in session.catalog.models if model.architecture and facts.weights.knows(model))
    for machine in {id(machine): machine for _, machine in placed}.values():
        estimator.quick(warm, QUANT, machine, Request())
    return estimator


def times(session: Session, placed: list[Placed]) -> dict[str, list[float]]:
    """Microseconds of each question, by what is new about it."""
    asked = Request()
    whole = replace(asked, quant=QUANT)
    estimator = Estimator(session.facts)
    found: dict[str, list[float]] = {}
    functions: tuple[Callable[..., Fit], ...] = (estimator.estimate, api.estimate)
    for name, function in zip(AGAIN, functions, strict=True):
        asked_before = [partial(function, model, machine, whole) for model, machine in placed]
        for question in asked_before:
            question()
        found[name] = [microseconds(question) for question in asked_before]

    def ask(name: str, model: Model, quant: str, machine: Machine, request: Request) -> None:
        took = microseconds(partial(estimator.quick, model, quant, machine, request))
        found.setdefault(name, []).append(took)

    estimator = warm_estimator(session, placed)
    for model, machine in placed:
        ask("a new model", model, QUANT, machine, asked)
    for model, machine in placed:
        ask("another quantisation", model, OTHER_QUANT, machine, asked)
    for model, machine in placed:
        for context in CONTEXTS:
            ask("another context", model, QUANT, machine, replace(asked, context_tokens=context))
        for margin in MARGINS:
            ask("another margin", model, QUANT, machine, replace(asked, margin_bytes=margin))
        for other in _others(machine):
            ask("another machine", model, QUANT, other, asked)
        ask("another cache type", model, QUANT, machine, replace(asked, kv_type_k="q8_0", kv_type_v="q8_0"))
    return found


def microseconds(question: Callable[[], object]) -> float:
    """Processor time of one call."""
    start = time.thread_time_ns()
    question()
    return (time.thread_time_ns() - start) / 1000


def _others(machine: Machine) -> Iterator[Machine]:
    """The machine with a little less memory."""
    for megabytes in range(16, 144, 16):
        ram = replace(machine.ram, usable_bytes=machine.ram.usable_bytes - (megabytes << 20))
        yield replace(machine, ram=ram)


def main() -> int:
    """Print the table; 1 where the same question again takes longer than the limit."""
    gc.disable()
    session = Session("cpu")
    session.facts.read()
    columns = {kind: times(session, placed_models(session, kind)) for kind in PlacementKind}
    print(f"{'median, 90 % below':24}" + "".join(f"{kind.value:>16}" for kind in columns) + "   microseconds")
    for name in columns[PlacementKind.GPU]:
        rows = [sorted(found[name]) for found in columns.values()]
        cells = [f"{statistics.median(row):8.0f} {row[int(0.9 * len(row))]:7.0f}" for row in rows]
        print(f"{name:24}" + "".join(cells))
    slowest = max(statistics.median(found[name]) for found in columns.values() for name in AGAIN)
    if slowest > LIMIT:
        print(f"missed: the same again takes {slowest:.0f}, at most {LIMIT:.0f}")
    return int(slowest > LIMIT)


if __name__ == "__main__":
    sys.exit(main())
