"""What this machine lacks, the smallest hardware of each kind, and the best model that runs here instead."""

from __future__ import annotations

from collections.abc import Iterator

from fitcheck.output.document import BAD, BLANK, DIM, GOOD, STRONG, Block, Column, Document, Span, Table, line
from fitcheck.output.words import next_steps, speed_for, where
from fitcheck.types import Hardware, Report, Request
from fitcheck.units import format_bytes, format_tokens

_COLUMNS = (
    Column("KIND", keep=6),
    Column("SMALLEST THAT DOES IT", keep=99, shorten=True),
    Column("NEEDS", right=True, keep=5),
    Column("ON", keep=4),
    Column("TOKENS/S", right=True, keep=8),
)
_KINDS = {
    "this_machine": "this machine, with",
    "one_card": "one consumer card",
    "two_cards": "two consumer cards",
    "mac": "Mac",
    "mini_pc": "unified mini-PC",
    "workstation": "workstation card",
    "datacentre": "datacentre",
}


def document(report: Report, verbose: bool = False) -> Document:
    """The table of hardware with its verdict on this machine first."""
    return Document(tuple(_blocks(report)), table_only=True)


def quiet(report: Report) -> str:
    """The first hardware that would do."""
    return report.hardware[0].what if report.hardware else ""


def _blocks(report: Report) -> Iterator[Block]:
    check, request, own = report.checks[0], report.request, report.fits[0]
    word = Span("yes", GOOD) if check.passed else Span("no", BAD)
    asked = f" {own.quant}, {format_tokens(own.context_tokens)} context. This machine: "
    yield line(Span(check.model, STRONG), asked, word, indent=2)
    for requirement in check.requirements:
        if not requirement.met:
            yield line(f"  {requirement.name}: needs {requirement.needed}, has {requirement.found}", indent=4)
    yield BLANK
    if report.hardware and request and request.quant != own.quant:
        yield line(f"In {request.quant}, what most publishers ship:", indent=2)
    yield Table(_COLUMNS, tuple(_row(option, request) for option in report.hardware))
    found = {option.kind for option in report.hardware} | {"this_machine"}
    missing = [name for kind, name in _KINDS.items() if kind not in found]
    if missing and not check.passed:
        yield line(Span(f"none does it: {', '.join(missing)}", DIM), indent=2)
    for note in report.notes:
        yield line(Span(note, DIM), indent=2)
    yield BLANK
    if report.best and not check.passed:
        best = report.best[0]
        yield line(f"Best for {best.task.value} here instead: ", Span(f"{best.model} {best.quant}", STRONG), indent=2)
    yield from next_steps(report)


def _row(option: Hardware, request: Request | None) -> tuple[Span, ...]:
    return (
        Span(_KINDS.get(option.kind, option.kind)),
        Span(option.what, STRONG),
        Span(format_bytes(option.fit.need_bytes)),
        Span(where(option.fit)),
        Span(speed_for(option.fit.speed, request)),
    )
