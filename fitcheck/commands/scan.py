"""``fitcheck scan``: what runs on this machine, best first."""

from __future__ import annotations

from collections.abc import Iterator

from fitcheck.advise.rank import rank
from fitcheck.session import Session
from fitcheck.types import Fit, Model, Report, Request, Verdict

SHOWN = 10


def scan(session: Session, request: Request, limit: int | None = SHOWN, installed: bool = False) -> Report:
    """Rank the catalog, or the models that are already here, on the session's machine. ``limit`` None: everything
    that runs."""
    catalog = session.catalog
    models, problems = _installed() if installed else (catalog.models, catalog.warnings)
    ranking = rank(models, session.machine, request, session.estimator, session.qualities, limit)
    return session.report(
        "scan",
        _summary(ranking.fits),
        request,
        fits=ranking.fits,
        hidden_fits=ranking.hidden_fits,
        hidden_not=ranking.hidden_not,
        best=ranking.best,
        notes=(*ranking.notes, *problems),
        next_steps=tuple(_next_steps(session, ranking.fits)),
    )


def _installed() -> tuple[tuple[Model, ...], tuple[str, ...]]:
    from fitcheck.catalog.installed import installed

    found = installed()
    return found.models, found.problems


def _summary(fits: tuple[Fit, ...]) -> str:
    if not fits:
        return "nothing in the catalog runs on this machine as asked"
    best = fits[0]
    return f"best: {best.model} {best.quant}" + (", a tight fit" if best.verdict is Verdict.TIGHT else "")


def _next_steps(session: Session, fits: tuple[Fit, ...]) -> Iterator[str]:
    if not fits:
        yield "fitcheck machine"
        return
    command = fits[0].command
    missing = session.missing_tool(command)
    if missing:
        yield f"get {missing[0]} from {missing[1]}"
    if command:
        yield command
    yield f"fitcheck explain {fits[0].model}"
