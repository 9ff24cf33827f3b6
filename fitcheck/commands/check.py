"""``fitcheck check``: yes or no, with every requirement that is not met and the nearest model that passes."""

from __future__ import annotations

from msgspec.structs import replace

from fitcheck.advise.check import requirements, task_requirement
from fitcheck.advise.choose import Chooser
from fitcheck.advise.rank import rank
from fitcheck.errors import EXIT_NO, EXIT_OK, FitcheckError
from fitcheck.session import Session
from fitcheck.types import Check, Fit, Model, Report, Request, Task


def check(
    session: Session, request: Request, names: list[str], task_given: bool = False, first: bool = False
) -> Report:
    """Check each named model. ``first``: yes when one of them passes, and that one is chosen."""
    if not names:
        raise FitcheckError("no_model", "no model named", "fitcheck check llama3.1:8b")
    models = [session.model(name) for name in names]
    checks: list[Check] = []
    for model in models:
        checks.append(check_model(session, model, request, task_given))
        if first and checks[-1].passed:
            checks[-1] = replace(checks[-1], chosen=True)
            break
    passed = any(c.passed for c in checks) if first else all(c.passed for c in checks)
    if not passed:
        nearest = _nearest(session, request)
        checks = [c if c.passed else replace(c, nearest=nearest) for c in checks]
    return session.report(
        "check",
        _summary(checks, passed),
        request,
        answer=passed,
        exit_code=EXIT_OK if passed else EXIT_NO,
        checks=tuple(checks),
        fits=tuple(c.fit for c in checks if c.fit),
        next_steps=tuple(_next_steps(checks, passed)),
    )


def check_model(session: Session, model: Model, request: Request, task_given: bool = False) -> Check:
    """One model against one request. An embedding model is held to what embedding needs unless a task was named."""
    if not task_given and "embedding" in model.modalities:
        request = replace(request, task=Task.EMBEDDING)
    chooser = Chooser(session.machine, request, session.estimator)
    fit = chooser.estimate(chooser.choose(model))
    found = requirements(model, fit, request)
    if task_given:
        found = (*found, task_requirement(model, request))
    return Check(model.id, all(r.met for r in found), found, fit)


def _nearest(session: Session, request: Request) -> Fit | None:
    ranking = rank(session.catalog.models, session.machine, request, session.estimator, session.qualities, 1)
    return ranking.fits[0] if ranking.fits else None


def _summary(checks: list[Check], passed: bool) -> str:
    chosen = next((c.model for c in checks if c.chosen), None)
    if chosen:
        return f"yes: {chosen}"
    failed = ", ".join(c.model for c in checks if not c.passed)
    return "yes" if passed else f"no: {failed}"


def _next_steps(checks: list[Check], passed: bool) -> list[str]:
    if passed:
        fit = next(c.fit for c in checks if c.passed)
        return [fit.command] if fit and fit.command else []
    return [f"fitcheck plan {next(c.model for c in checks if not c.passed)}"]
