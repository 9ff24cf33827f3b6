"""Yes or no, every requirement that is not met, and the nearest that passes."""

from __future__ import annotations

from collections.abc import Iterator

from fitcheck.output.document import BAD, BLANK, GOOD, STRONG, Block, Column, Document, Span, Table, line
from fitcheck.output.words import decode_speed, where
from fitcheck.types import Check, Fit, Report
from fitcheck.units import format_bytes

_COLUMNS = (Column(""), Column("needs", keep=9), Column("has", keep=9))


def document(report: Report, verbose: bool = False) -> Document:
    """Every model's verdict."""
    return Document(tuple(block for check in report.checks for block in _blocks(check, verbose)) + _end(report))


def quiet(report: Report) -> str:
    """The models that pass."""
    return " ".join(check.model for check in report.checks if check.passed)


def _blocks(check: Check, verbose: bool) -> Iterator[Block]:
    fit = check.fit
    if check.passed:
        yield line(Span("yes", GOOD), "  ", Span(check.model, STRONG), f" {_how(fit)}" if fit else "", indent=5)
    else:
        yield line(
            Span("no", BAD), "   ", Span(check.model, STRONG), " does not meet the request on this machine", indent=5
        )
    shown = [requirement for requirement in check.requirements if verbose or not requirement.met]
    if shown:
        yield BLANK
        rows = tuple(
            (Span(r.name), Span(f"needs {r.needed}"), Span(f"has {r.found}", GOOD if r.met else BAD)) for r in shown
        )
        yield Table(_COLUMNS, rows, indent=5, header=False)
    if not check.passed:
        yield BLANK
        if check.nearest:
            yield line(f"closest that passes: {check.nearest.model} {_how(check.nearest)}", indent=5)


def _how(fit: Fit) -> str:
    return f"{fit.quant}, {format_bytes(fit.need_bytes)} on {where(fit)}, {decode_speed(fit.speed)} tokens/s"


def _end(report: Report) -> tuple[Block, ...]:
    return tuple(line(step, indent=5) for step in report.next_steps)
