"""Do scan, check, explain and plan give one answer? ``python -m fitcheck.accuracy.agreement`` asks all of them.

Every model of a sample on every machine of a list of pretended ones: the fit must be the same, number by number, and
scan must offer exactly what check passes.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence

from msgspec.structs import replace

from fitcheck.session import Session
from fitcheck.types import Fit, Model, Request

MACHINES = (
    "cpu",
    "Ryzen 5 5600 16GB",
    "EPYC 9654 384GB",
    "GTX 1660",
    "RTX 3060 12GB",
    "RTX 3090",
    "RTX 4070",
    "RTX 4090",
    "RTX 5090",
    "2x RTX 3090",
    "4x RTX 3090",
    "RX 7900 XTX",
    "Arc B580",
    "A100 80GB",
    "H100 80GB",
    "8x H100 80GB",
    "M1 16GB",
    "M4 Pro 48GB",
    "M3 Ultra 512GB",
    "GB10",
)
SAMPLE = 50


def sample(models: Sequence[Model], count: int = SAMPLE) -> list[Model]:
    """Every n-th model with a shape, by id."""
    known = sorted((model for model in models if model.shape is not None), key=lambda model: model.id)
    return known[:: max(1, len(known) // count)][:count]


def disagreements(
    machine: str, models: Sequence[Model], request: Request | None = None, limit: int | None = None
) -> Iterator[str]:
    """One line for each answer about ``models`` on ``machine`` that differs between commands. ``limit``: how many
    fits of a scan are worked out (None: all); of the others only whether check agrees is known."""
    from fitcheck.advise.suit import suits
    from fitcheck.commands.check import check_model
    from fitcheck.commands.explain import explain
    from fitcheck.commands.plan import own_fit
    from fitcheck.commands.scan import scan

    asked = request or Request()
    session = Session(machine)
    scanned = {fit.model: fit for fit in scan(session, asked, limit=limit).fits}
    for model in models:
        check = check_model(session, model, asked)
        answers = {
            "explain": explain(session, asked, model.id).fits[0],
            "plan": own_fit(session, model, asked),
        }
        if suits(model, asked.task):
            if check.passed != (model.id in scanned) and (limit is None or not check.passed):
                yield f"{machine}, {model.id}: check says {'yes' if check.passed else 'no'}, scan the contrary"
            if model.id in scanned:
                answers["scan"] = scanned[model.id]
        for command, fit in answers.items():
            if check.fit is None or numbers(fit) != numbers(check.fit):
                yield f"{machine}, {model.id}: check and {command} differ"


def numbers(fit: Fit) -> tuple[object, ...]:
    """Everything that commands must agree on."""
    speed = replace(fit.speed, nearest=()) if fit.speed else None  # which only explain looks up
    return fit.quant, fit.runtime, fit.verdict, fit.placement, fit.terms, fit.need_bytes, speed, fit.command


def main() -> int:
    """Print every disagreement; 1 where there is one."""
    models = sample(Session().catalog.models)
    found = 0
    for machine in MACHINES:
        for text in disagreements(machine, models):
            found += 1
            print(text)
    print(f"{len(MACHINES)} machines x {len(models)} models, 4 commands: {found} disagreements")
    return int(found > 0)


if __name__ == "__main__":
    sys.exit(main())
