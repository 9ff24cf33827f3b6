"""``fitcheck scan``: what runs on this machine, best first."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from fitcheck.advise.rank import rank
from fitcheck.session import Session
from fitcheck.types import Fit, Model, Report, Request, Verdict

SHOWN = 8


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
        notes=(
            *_order(session, ranking.fits),
            *ranking.notes,
            *problems,
            *_missing_tools(session, (answer.command for answer in ranking.best)),
        ),
        next_steps=tuple(_next_steps(ranking.fits)),
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


def _order(session: Session, fits: tuple[Fit, ...]) -> Iterator[str]:
    """Whose scores make the order."""
    index = next((fit.quality.index for fit in fits if fit.quality), None)
    if index in session.catalog.indices:
        yield f"best first: {session.catalog.indices[index].name}, estimated where unmeasured"


def _next_steps(fits: tuple[Fit, ...]) -> Iterator[str]:
    if not fits:
        yield "fitcheck machine"
        return
    if fits[0].command:
        yield fits[0].command
    yield f"fitcheck explain {fits[0].model}"


def _missing_tools(session: Session, commands: Iterable[str]) -> Iterator[str]:
    """One line for each program that the commands start and this machine does not have."""
    missing = dict.fromkeys(filter(None, map(session.missing_tool, commands)))
    return (f"to install {tool}: {page}" for tool, page in missing)
