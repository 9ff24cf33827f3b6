"""How long one estimate takes: ``python -m fitcheck.accuracy.estimates`` prints microseconds of processor time.

Models of the catalog in the placement that they get: on a GPU, split, on the processor. The collector runs as it does
in the program. Nothing is asked twice, so no answer is a remembered one:

- another context: the same model, quantisation and machine;
- another margin, another cache type: the same;
- another machine: the same model and quantisation, on a machine with other memory;
- another quantisation: of a model asked about before;
- a new model: never asked about, on a machine that was.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Iterator

from msgspec.structs import replace

from fitcheck.estimate.fit import Estimator
from fitcheck.session import Session
from fitcheck.types import Machine, Model, PlacementKind, Request, Verdict

QUANT, OTHER_QUANT = "Q4_K_M", "Q5_K_M"
MACHINES = {
    PlacementKind.GPU: ("RTX 4090", "M4 Pro 48GB"),
    PlacementKind.SPLIT: ("RTX 4070", "GTX 1660"),
    PlacementKind.CPU: ("Ryzen 5 5600 32GB",),
}
MODELS = 40  # of each placement
CONTEXTS = tuple(range(4096, 8192, 512))
MARGINS = tuple(megabytes << 20 for megabytes in range(512, 1024, 64))
LIMITS = {
    "another context": 50.0,
    "another margin": 50.0,
    "another cache type": 50.0,
    "another machine": 50.0,
    "another quantisation": 50.0,
    "a new model": 80.0,
}  # microseconds, median

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


def times(session: Session, placed: list[Placed]) -> dict[str, list[float]]:
    """Microseconds of each question, by what is new about it."""
    asked = Request()
    facts = session.facts
    estimator = Estimator(facts)
    machines = {id(machine): machine for _, machine in placed}
    warm = next(model for model in session.catalog.models if model.architecture and facts.weights.knows(model))
    for machine in machines.values():
        estimator.quick(warm, QUANT, machine, asked)
    found: dict[str, list[float]] = {name: [] for name in LIMITS}

    def ask(name: str, model: Model, quant: str, machine: Machine, request: Request) -> None:
        found[name].append(microseconds(lambda: estimator.quick(model, quant, machine, request)))

    for model, machine in placed:
        ask("a new model", model, QUANT, machine, asked)
    for model, machine in placed:
        ask("another quantisation", model, OTHER_QUANT, machine, asked)
    for model, machine in placed:
        for context in CONTEXTS:
            ask("another context", model, QUANT, machine, replace(asked, context_tokens=context))
        for margin in MARGINS:
            ask("another margin", model, QUANT, machine, replace(asked, margin_bytes=margin))
        ask("another cache type", model, QUANT, machine, replace(asked, kv_type_k="q8_0", kv_type_v="q8_0"))
        for other in _others(machine):
            ask("another machine", model, QUANT, other, asked)
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
    """Print the table; 1 where a limit is exceeded."""
    session = Session("cpu")
    session.facts.read()
    columns = {kind: times(session, placed_models(session, kind)) for kind in PlacementKind}
    print(f"{'median, 90 % below':22}" + "".join(f"{kind.value:>16}" for kind in columns) + "   microseconds")
    exceeded = False
    for name, most in LIMITS.items():
        rows = [sorted(found[name]) for found in columns.values()]
        medians = [statistics.median(row) for row in rows]
        over = max(medians) > most
        exceeded = exceeded or over
        cells = [f"{middle:8.0f} {row[int(0.9 * len(row))]:7.0f}" for middle, row in zip(medians, rows, strict=True)]
        print(f"{name:22}" + "".join(cells) + (f"   over {most:.0f}" if over else ""))
    return int(exceeded)


if __name__ == "__main__":
    sys.exit(main())
