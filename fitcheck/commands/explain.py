"""``fitcheck explain``: the arithmetic behind one model's answer."""

from __future__ import annotations

from msgspec.structs import replace

from fitcheck.advise.command import plan_command
from fitcheck.advise.explain import context_curve, licence_in_plain_words
from fitcheck.advise.suit import for_model
from fitcheck.estimate.runtimes import LLAMA_CPP
from fitcheck.estimate.speed_nearest import nearest
from fitcheck.session import Session
from fitcheck.types import Fit, Model, Report, Request, Speed, Task, Verdict
from fitcheck.units import format_tokens

_SHOWN_SOURCES = 6


def explain(session: Session, request: Request, name: str) -> Report:
    """Work one model out in full, in the quantisation that ``scan`` and ``check`` would take."""
    asked = session.asked(name, request)
    model, request = asked.model, for_model(asked.model, asked.request)
    chooser = session.chooser(request)
    fit = chooser.estimate(chooser.choose(model))
    speed = fit.speed if request.task is Task.EMBEDDING else _with_published(session, fit, model)
    fit = replace(fit, quality=session.qualities.of(model, fit.quant, request.task), speed=speed)
    return session.report(
        "explain",
        f"{model.id} {fit.quant} with {fit.runtime}: {fit.verdict.value}",
        request,
        fits=(fit,),
        models=(model,),
        context_curve=context_curve(model, fit, session.machine, request, session.estimator),
        notes=(*asked.notes, *_notes(session, model, fit), *session.missing_tools(_next_steps(model, fit, request))),
        next_steps=tuple(_next_steps(model, fit, request)),
    )


def _with_published(session: Session, fit: Fit, model: Model) -> Speed | None:
    """The speed, with what others measured on the same hardware: this model if there is such, else others."""
    if fit.speed is None:
        return None
    cards = {f"gpu{card.index}": card.catalog_name for card in session.machine.accelerators}
    hardware = next((cards[use.device] for use in fit.placement.devices if use.device in cards), None)
    active_params = {each.id: max(1, each.params_active) for each in session.catalog.models}
    found = nearest(
        session.facts.measurements,
        hardware or session.machine.cpu.name,
        model,
        fit.quant,
        fit.runtime,
        active_params,
    )
    return replace(fit.speed, nearest=found)


def _notes(session: Session, model: Model, fit: Fit) -> list[str]:
    notes = [f"licence: {licence_in_plain_words(model)}"]
    has_such_a_cache = session.facts.runtimes.row(fit.runtime).memory == LLAMA_CPP
    most, most_q8 = fit.max_context_tokens or 0, fit.max_context_q8_tokens or 0
    if has_such_a_cache and most_q8 > most > 0:
        notes.append(f"{format_tokens(most_q8)} of context with --kv q8_0")
    sources = session.catalog.sources
    used = dict.fromkeys(model.sources.values())
    notes += [f"source: {sources[key]}" for key in list(used)[:_SHOWN_SOURCES] if key in sources]
    return notes


def _next_steps(model: Model, fit: Fit, request: Request) -> list[str]:
    if fit.verdict is Verdict.NO:
        return [plan_command(model.id, request)]
    return [fit.command] if fit.command else [f"fitcheck check {model.id}"]
