"""Memory by part and device, speed and what bounds it, the context curve, quality, licence and sources."""

from __future__ import annotations

from collections.abc import Iterator

from fitcheck.output.document import (
    BAD,
    BLANK,
    DIM,
    STRONG,
    Bar,
    Bars,
    Block,
    Column,
    Document,
    Span,
    Table,
    line,
)
from fitcheck.output.words import devices, next_steps, room_for, speed_for, verdict, where
from fitcheck.types import ContextPoint, Fit, Interval, Report, Speed, Task, Term, Verdict
from fitcheck.units import format_bytes, format_rate, format_speed, format_tokens

_COLUMNS = (
    Column("MEMORY", keep=99),
    Column("ON", keep=97),
    Column("GIB", right=True, keep=98),
    Column("HOW", keep=7, shorten=True, least=44),
    Column("FROM", keep=1, shorten=True),
)
_NAMES = {
    "weights": "weights",
    "kv_cache": "kv cache",
    "recurrent_state": "recurrent state",
    "compute_buffer": "compute buffer",
    "output_buffer": "output buffer",
    "runtime_overhead": "runtime",
}


def document(report: Report, verbose: bool = False) -> Document:
    """The arithmetic of the report's one fit."""
    return Document(tuple(_blocks(report, report.fits[0])))


def quiet(report: Report) -> str:
    """Need and speed in one line."""
    fit = report.fits[0]
    speed = speed_for(fit.speed, report.request)
    return f"{fit.model} {fit.quant} {fit.verdict.value} {format_bytes(fit.need_bytes)} {speed}"


def _blocks(report: Report, fit: Fit) -> Iterator[Block]:
    yield line(
        Span(f"{fit.model} {fit.quant}", STRONG),
        f" with {fit.runtime} on {devices(fit)}: ",
        verdict(fit.verdict),
        indent=2,
    )
    yield BLANK
    yield Table(_COLUMNS, tuple(_term(term) for term in fit.terms) + tuple(_totals(fit)))
    yield BLANK
    yield Bars(tuple(_part_bars(fit)))
    yield BLANK
    writes = report.request is None or report.request.task is not Task.EMBEDDING
    yield from _speed(fit.speed, writes)
    yield from _curve(report.context_curve, fit, writes)
    yield from _quality(fit)
    for note in (*fit.notes, *report.notes):
        yield line(Span(note, DIM if note.startswith("source") else ""), indent=2)
    if fit.placement.flags and fit.verdict is not Verdict.NO:
        yield line(Span(f"flags of this placement: {' '.join(fit.placement.flags)}", DIM), indent=2)
    yield BLANK
    yield from next_steps(report)


def _gib(count: int) -> str:
    return f"{count / 2**30:.2f}"


def _name(term: str) -> str:
    return _NAMES.get(term, term.replace("_", " "))


def _term(term: Term) -> tuple[Span, ...]:
    return Span(_name(term.name)), Span(term.device), Span(_gib(term.bytes)), Span(term.formula), Span(term.source, DIM)


def _totals(fit: Fit) -> Iterator[tuple[Span, ...]]:
    """What each device needs of what it has."""
    for use in fit.placement.devices:
        left = use.have_bytes - use.need_bytes
        rest = f"{_gib(left)} left" if left >= 0 else f"{_gib(-left)} missing"
        style = "" if left >= 0 else BAD
        how = Span(f"of {_gib(use.have_bytes)}: {rest}", style)
        yield Span("total", STRONG), Span(use.device), Span(_gib(use.need_bytes), STRONG), how, Span("")


def _part_bars(fit: Fit) -> Iterator[Bar]:
    sums: dict[str, int] = {}
    for term in fit.terms:
        sums[term.name] = sums.get(term.name, 0) + term.bytes
    longest = max(sums.values(), default=1)
    for name, count in sums.items():
        yield Bar(_name(name), count / longest, Span(format_bytes(count)))


def _speed(speed: Speed | None, writes: bool) -> Iterator[Block]:
    if speed is None:
        return
    decode = speed.decode_per_s
    rate = f"{_figures(speed.bytes_per_token / 1e9)} GB per token at {format_rate(speed.bandwidth_per_s)}"
    likely = f"{decode.likely:.0f}" if decode.likely >= 10 else f"{decode.likely:.1f}"
    written = f"{speed_for(speed, None)} tokens/s ({likely} likely), bound by {speed.bound_by}: {rate}"
    for number, text in enumerate(filter(None, (written if writes else "", _prompt(speed, writes)))):
        yield line(Span(" " * 8 if number else "SPEED   ", DIM), text, indent=8)
    if speed.assumed:
        yield line(f"        ~ assumed: {', '.join(speed.assumed)}", indent=8)
    for found in speed.nearest[:3]:
        what = f"{found.tokens_per_s:.4g} tokens/s, {found.model} {found.quant} on {found.hardware}"
        text = f"measured elsewhere: {what} with {found.engine} ({found.source})"
        yield line(" " * 8 + text, indent=8)


def _prompt(speed: Speed, writes: bool) -> str:
    parts = []
    if speed.prefill_per_s and not _says_nothing(speed.prefill_per_s):
        mark = "roughly " if speed.rough_prefill else ""
        parts.append(f"prompt {mark}{format_speed(speed.prefill_per_s.low, speed.prefill_per_s.high)} tokens/s")
    if writes and speed.first_token_s and not _says_nothing(speed.first_token_s):
        parts.append(f"first token in {_seconds(speed.first_token_s)}")
    if speed.load_s:
        parts.append(f"loads in {_seconds(speed.load_s)}")
    return "; ".join(parts)


def _says_nothing(interval: Interval) -> bool:
    """So wide that nobody could act on it."""
    return interval.high > 10 * interval.low


def _seconds(interval: Interval) -> str:
    return f"{_figures(interval.low)}–{_figures(interval.high)} s"


def _figures(value: float) -> str:
    """Two figures, and all of those before the point."""
    return f"{value:.2g}" if value < 10 else f"{value:.0f}"


def _curve(points: tuple[ContextPoint, ...], fit: Fit, writes: bool) -> Iterator[Block]:
    if not points:
        return
    yield BLANK
    speeds = "; speeds when it is full" if writes else ""
    most = f": room for {room_for(fit)} on {where(fit)}{speeds}" if fit.verdict is not Verdict.NO else ""
    yield line(Span("CONTEXT", DIM), most)
    longest = max(point.need_bytes for point in points)
    yield Bars(tuple(_point(point, longest, writes) for point in points))


def _point(point: ContextPoint, longest: int, writes: bool) -> Bar:
    where = f" {point.kind.value}" if point.kind else ""
    decode = point.decode_per_s
    speed = f", {format_speed(decode.low, decode.high)} tokens/s" if decode and writes else ""
    value = f"{format_bytes(point.need_bytes)}{where + speed if point.fits else ', no'}"
    return Bar(format_tokens(point.context_tokens), point.need_bytes / longest, Span(value, "" if point.fits else BAD))


def _quality(fit: Fit) -> Iterator[Block]:
    yield BLANK
    found = fit.quality
    if found is not None:
        how = f"estimated: {found.rule.removeprefix('estimated ')}" if found.estimated else found.source
        loss = f", {found.quant_loss:.1f} of it lost to {fit.quant}" if found.quant_loss >= 0.05 else ""
        yield line(f"quality: {found.score:.0f} on {found.index}{loss} ({how})", indent=2)
