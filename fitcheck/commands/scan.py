"""``fitcheck scan``: what runs on this machine, best first."""

from __future__ import annotations

from fitcheck.advise.rank import rank
from fitcheck.session import Session
from fitcheck.types import Fit, Report, Request, Verdict

SHOWN = 10


def scan(session: Session, request: Request, limit: int | None = SHOWN) -> Report:
    """Rank the catalog on the session's machine. ``limit`` None: everything that runs."""
    catalog = session.catalog
    ranking = rank(catalog.models, session.machine, request, session.estimator, session.qualities, limit)
    return session.report(
        "scan",
        _summary(ranking.fits),
        request,
        fits=ranking.fits,
        hidden_fits=ranking.hidden_fits,
        hidden_not=ranking.hidden_not,
        best=ranking.best,
        notes=(*ranking.notes, *catalog.warnings),
        next_steps=tuple(_next_steps(ranking.fits)),
    )


def _summary(fits: tuple[Fit, ...]) -> str:
    if not fits:
        return "nothing in the catalog runs on this machine as asked"
    best = fits[0]
    return f"best: {best.model} {best.quant}" + (", a tight fit" if best.verdict is Verdict.TIGHT else "")


def _next_steps(fits: tuple[Fit, ...]) -> list[str]:
    if not fits:
        return ["fitcheck machine"]
    return [f"fitcheck explain {fits[0].model}", *([fits[0].command] if fits[0].command else [])]
