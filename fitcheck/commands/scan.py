"""``fitcheck scan``: what runs on this machine, best first."""

from __future__ import annotations

from collections.abc import Iterator

from fitcheck.advise.rank import Ranking, rank
from fitcheck.session import Session
from fitcheck.types import Answer, Fit, Model, Report, Request

SHOWN = 8


def scan(session: Session, request: Request, limit: int | None = SHOWN, installed: bool = False) -> Report:
    """Rank the catalog, or the models that are already here, on the session's machine. ``limit`` None: everything
    that runs."""
    catalog = session.catalog
    models, problems = _installed() if installed else (catalog.models, catalog.warnings)
    ranking = rank(session.ranker(request, models), limit)
    return session.report(
        "scan",
        _summary(ranking, "catalog" if not installed else "folders of installed models"),
        request,
        fits=ranking.fits,
        hidden_fits=ranking.hidden_fits,
        hidden_not=ranking.hidden_not,
        best=ranking.best,
        notes=(
            *_order(session, ranking.fits),
            *ranking.notes,
            *problems,
            *session.unknown_memory(),
            *session.missing_tools(answer.command for answer in ranking.best),
        ),
        next_steps=tuple(_next_steps(ranking.best, installed)),
    )


def _installed() -> tuple[tuple[Model, ...], tuple[str, ...]]:
    from fitcheck.catalog.installed import installed

    found = installed()
    return found.models, found.problems


def _summary(ranking: Ranking, source: str) -> str:
    if not ranking.best:
        return f"nothing in the {source} runs on this machine as asked"
    best = ranking.best[0]
    return f"best for {best.task.value}: {best.model} {best.quant}"


def _order(session: Session, fits: tuple[Fit, ...]) -> Iterator[str]:
    """Whose scores make the order."""
    index = next((fit.quality.index for fit in fits if fit.quality), None)
    if index in session.catalog.indices:
        yield f"best first: {session.catalog.indices[index].name}, estimated where unmeasured"


def _next_steps(best: tuple[Answer, ...], installed: bool) -> Iterator[str]:
    if not best:
        yield "fitcheck scan" if installed else "fitcheck machine"
        return
    if best[0].command:
        yield best[0].command
    yield f"fitcheck explain {best[0].model}"
