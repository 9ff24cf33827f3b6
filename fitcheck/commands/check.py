"""``fitcheck check``: yes or no, with every requirement that is not met and the nearest model that passes."""

from __future__ import annotations

from pathlib import Path

from msgspec import Struct
from msgspec.structs import replace

from fitcheck.advise.check import requirements, task_requirement
from fitcheck.advise.command import plan_command
from fitcheck.advise.suit import for_model, for_task
from fitcheck.errors import EXIT_NO, EXIT_OK, FitcheckError
from fitcheck.options import RequestOptions
from fitcheck.session import Session
from fitcheck.types import Check, Fit, Model, Report, Request


class Wish(Struct, frozen=True):
    """A model that is needed, or one of several (``names`` in order of preference). ``task_given``: it was named.
    ``where``: the file and line that ask for it."""

    names: tuple[str, ...]
    request: Request
    task_given: bool = False
    where: str = ""


class Grant(Struct, frozen=True):
    """What was found about a wish: the model that passes, or all that do not. ``notes``: what names were taken for."""

    checks: list[Check]
    notes: tuple[str, ...] = ()


def check(session: Session, request: Request, wishes: tuple[Wish, ...]) -> Report:
    """Yes when every wish is met. ``request`` is what the command line asked of all of them."""
    tried = [_grant(session, wish) for wish in wishes]
    checks = tuple(c for grant in tried for c in grant.checks)
    passed = all(grant.checks[-1].passed for grant in tried)
    notes = dict.fromkeys(note for grant in tried for note in grant.notes)
    return session.report(
        "check",
        _summary(checks, passed),
        request,
        answer=passed,
        exit_code=EXIT_OK if passed else EXIT_NO,
        checks=checks,
        fits=tuple(c.fit for c in checks if c.fit),
        notes=(*notes, *session.unknown_memory(), *session.missing_tools(_next_steps(checks, passed))),
        next_steps=tuple(_next_steps(checks, passed)),
    )


def wishes_of_file(path: Path, options: RequestOptions) -> tuple[Wish, ...]:
    """What the application in ``path`` needs; the options of the command line go first."""
    from fitcheck.configuration import load

    return tuple(
        Wish(wanted.names, wanted.request(options), bool(options.task or wanted.options.task), wanted.where)
        for wanted in load(path)
    )


def _grant(session: Session, wish: Wish) -> Grant:
    """What ``_try`` finds; an error says where the wish stands."""
    try:
        return _try(session, wish)
    except FitcheckError as error:
        if not wish.where:
            raise
        raise FitcheckError(error.code, f"{wish.where}: {error.message}", error.hint) from error


def _try(session: Session, wish: Wish) -> Grant:
    """The first model that passes, alone; where none does, all of them with what comes closest."""
    asked = [session.asked(name, wish.request) for name in wish.names]
    attempts = []
    for each in asked:
        attempts.append(check_model(session, each.model, each.request, wish.task_given))
        if attempts[-1].passed:
            return Grant([replace(attempts[-1], chosen=len(asked) > 1)], each.notes)
    found = [
        replace(attempt, nearest=_nearest(session, name, attempt, wish))
        for name, attempt in zip(wish.names, attempts, strict=True)
    ]
    return Grant(found, tuple(note for each in asked for note in each.notes))


def check_model(session: Session, model: Model, request: Request, task_given: bool = False) -> Check:
    """One model against one request. An embedding model is held to what embedding needs unless a task was named."""
    request = for_task(request) if task_given else for_model(model, request)
    chooser = session.chooser(request)
    fit = chooser.estimate(chooser.choose(model))
    found = requirements(model, fit, request)
    if task_given:
        found = (*found, task_requirement(model, request))
    return Check(model.id, all(r.met for r in found), found, fit, request=request)


def _nearest(session: Session, name: str, attempt: Check, wish: Wish) -> Fit | None:
    """The model itself in another quantisation than the one that was asked for or named, else the best model that
    passes."""
    tried = attempt.request or wish.request
    if tried.quant:
        free = replace(tried, quant=None, runtime=wish.request.runtime)
        other = check_model(session, session.model(name), free, wish.task_given)
        if other.passed:
            return other.fit
    ranker = session.ranker(replace(tried, quant=wish.request.quant, runtime=wish.request.runtime))
    return next(map(ranker.fit, ranker.best(tried.task, 1)), None)


def _summary(checks: tuple[Check, ...], passed: bool) -> str:
    if passed:
        return "yes: " + ", ".join(c.model for c in checks)
    return "no: " + ", ".join(c.model for c in checks if not c.passed)


def _next_steps(checks: tuple[Check, ...], passed: bool) -> list[str]:
    if passed:
        return [c.fit.command for c in checks if c.fit and c.fit.command]
    failed = next(c for c in checks if not c.passed)
    return [plan_command(failed.model, failed.request or Request())]
