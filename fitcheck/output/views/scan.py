"""The ranked table, the best answer per task, and what to do next."""

from __future__ import annotations

from collections.abc import Iterator

from fitcheck.output.document import BLANK, DIM, STRONG, Block, Column, Document, Span, Table, line
from fitcheck.output.words import machine_line, next_steps, speed_for, verdict, where
from fitcheck.types import Fit, Report, Request, Task
from fitcheck.units import format_bytes, format_tokens

COLUMNS = (
    Column("MODEL", keep=99, shorten=True),
    Column("QUANT", keep=6),
    Column("NEEDS", right=True, keep=5),
    Column("ON", keep=4),
    Column("TOKENS/S", right=True, keep=8),
    Column("VERDICT", keep=9),
)

BEST = (
    Column("BEST FOR", keep=98),
    Column("MODEL", keep=5),
    Column("QUANT", keep=4),
    Column("RUN IT WITH", keep=99, below=True),
)


def document(report: Report, verbose: bool = False) -> Document:
    """The ranked table, the best answers and the next step."""
    return Document(tuple(_blocks(report)), table_only=True)


def quiet(report: Report) -> str:
    """The id of the best model, or nothing."""
    return report.best[0].model if report.best else ""


def _blocks(report: Report) -> Iterator[Block]:
    if report.machine:
        yield line(machine_line(report.machine), indent=2)
        yield BLANK
    yield Table(COLUMNS, tuple(_row(fit, report.request) for fit in report.fits))
    hidden = _hidden(report)
    if hidden:
        yield line(Span(hidden, DIM), indent=4)
    yield line(Span(_footnote(report), DIM))
    if report.best:
        yield BLANK
        rows = tuple((Span(b.task.value), Span(b.model, STRONG), Span(b.quant), Span(b.command)) for b in report.best)
        yield Table(BEST, rows)
    for note in report.notes:
        yield line(Span(note, DIM), indent=2)
    yield from next_steps(report)


def _row(fit: Fit, request: Request | None) -> tuple[Span, ...]:
    return (
        Span(fit.model, STRONG),
        Span(fit.quant),
        Span(format_bytes(fit.need_bytes)),
        Span(where(fit)),
        Span(speed_for(fit.speed, request)),
        verdict(fit.verdict),
    )


def _hidden(report: Report) -> str:
    if not report.fits and not report.hidden_not:
        return "no models to look at"
    if not report.fits:
        return f"nothing runs here as asked; {report.hidden_not} do not fit or are too slow"
    more = f"{report.hidden_fits} more fit (--all), " if report.hidden_fits else ""
    left = f"{report.hidden_not} do not fit or are too slow" if report.hidden_not else ""
    return f"... {more}{left}".removesuffix(", ") if more or left else ""


def _footnote(report: Report) -> str:
    request = report.request
    context = "full" if request is None or request.context_tokens is None else format_tokens(request.context_tokens)
    settings = ", ".join(dict.fromkeys((f"{context} context", *(fit.runtime for fit in report.fits))))
    assumed = any(fit.speed and fit.speed.assumed for fit in report.fits)
    reading = " Tokens/s are read, not written." if request is not None and request.task is Task.EMBEDDING else ""
    mark = " ~ marks speeds that rest on an assumption." if assumed and not reading else ""
    return f"{settings}.{reading}{mark}"
