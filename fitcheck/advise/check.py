"""Does a model meet a request: every requirement with what is needed and what was found."""

from __future__ import annotations

from collections.abc import Iterator

from fitcheck.advise.suit import floor_per_s, licensed, suits, takes_context
from fitcheck.types import Fit, Interval, Licences, Model, Request, Requirement, Verdict
from fitcheck.units import format_bytes, format_speed, format_tokens


def requirements(model: Model, fit: Fit, request: Request) -> tuple[Requirement, ...]:
    """Everything that ``request`` asks of ``model``, met or not; memory first. Pure."""
    return tuple(_requirements(model, fit, request))


def _requirements(model: Model, fit: Fit, request: Request) -> Iterator[Requirement]:
    fits = fit.verdict is not Verdict.NO
    yield _memory(fit, fits)
    yield from _context(model, request)
    speed = fit.speed
    least = floor_per_s(model, request.task) if request.min_decode_per_s is None else request.min_decode_per_s
    if least:
        yield _rate("speed", least, speed.decode_per_s if speed else None, fits)
    if request.min_prefill_per_s is not None:
        yield _rate("prefill", request.min_prefill_per_s, speed.prefill_per_s if speed else None, fits)
    if request.max_first_token_s is not None:
        yield _first_token(request.max_first_token_s, speed.first_token_s if speed else None)
    if fit.placement.kind not in request.allow:
        wanted = " or ".join(kind.value for kind in request.allow)
        yield Requirement("placement", False, wanted, fit.placement.kind.value)
    if request.licences is not Licences.ANY:
        found = f"{model.licence or 'unknown licence'} ({model.openness.value.replace('_', ' ')})"
        yield Requirement("licence", licensed(model, request.licences), request.licences.value, found)


def task_requirement(model: Model, request: Request) -> Requirement:
    """Whether the model is made for the task that was named."""
    made_for = ", ".join((*model.modalities, *model.abilities))
    return Requirement("task", suits(model, request.task), request.task.value, made_for)


def _memory(fit: Fit, fits: bool) -> Requirement:
    """All of it against all there is; where that would do and one device is too small, that device."""
    what = f"({fit.quant}, {format_tokens(fit.context_tokens)})"
    short = [use for use in fit.placement.devices if use.need_bytes > use.have_bytes]
    if short and fit.need_bytes <= fit.have_bytes:
        needed = f"{format_bytes(short[0].need_bytes)} on {short[0].device} {what}"
        return Requirement("memory", fits, needed, format_bytes(short[0].have_bytes))
    return Requirement("memory", fits, f"{format_bytes(fit.need_bytes)} {what}", _memory_found(fit))


def _memory_found(fit: Fit) -> str:
    if not fit.have_bytes:
        return f"nothing that {fit.runtime} runs on"
    parts = [(use.have_bytes, use.device) for use in fit.placement.devices]
    if len(parts) < 2:
        return format_bytes(fit.have_bytes)
    return f"{format_bytes(fit.have_bytes)} ({' + '.join(f'{format_bytes(have)} {name}' for have, name in parts)})"


def _context(model: Model, request: Request) -> Iterator[Requirement]:
    if request.context_tokens is not None and not takes_context(model, request):
        found = f"{format_tokens(model.longest_context_tokens)}, the most this model takes"
        yield Requirement("context", False, format_tokens(request.context_tokens), found)


def _rate(name: str, least: float, found: Interval | None, fits: bool) -> Requirement:
    needed = f"{least:g} tokens/s"
    if found is None:
        return Requirement(name, False, needed, "unknown")
    text = format_speed(found.low, found.high) + ("" if fits else " at best, if it did fit")
    return Requirement(name, found.low >= least, needed, text)


def _first_token(most: float, found: Interval | None) -> Requirement:
    needed = f"at most {most:g} s"
    if found is None:
        return Requirement("first token", False, needed, "unknown")
    return Requirement("first token", found.high <= most, needed, f"{found.low:.1f}–{found.high:.1f} s")
