"""Yes or no, every requirement that is not met, and the nearest that passes."""

from __future__ import annotations

from collections.abc import Iterator

from fitcheck.output.document import BAD, BLANK, DIM, GOOD, STRONG, Block, Document, Span, line
from fitcheck.output.words import speed_for, where
from fitcheck.types import Check, Fit, Report, Request, Requirement
from fitcheck.units import format_bytes


def document(report: Report, verbose: bool = False) -> Document:
    """Every model's verdict."""
    return Document(tuple(block for check in report.checks for block in _blocks(check, verbose)) + _end(report))


def quiet(report: Report) -> str:
    """The models that pass."""
    return " ".join(check.model for check in report.checks if check.passed)


def _blocks(check: Check, verbose: bool) -> Iterator[Block]:
    fit = check.fit
    if check.passed:
        yield line(
            Span("yes", GOOD), "  ", Span(check.model, STRONG), f" {_how(fit, check.request)}" if fit else "", indent=5
        )
    else:
        yield line(
            Span("no", BAD), "   ", Span(check.model, STRONG), " does not meet the request on this machine", indent=5
        )
    shown = [requirement for requirement in check.requirements if verbose or not requirement.met]
    if shown:
        yield BLANK
        yield from _requirements(shown)
    if not check.passed:
        yield BLANK
        if check.nearest:
            yield line(
                f"     closest that passes: {check.nearest.model} {_how(check.nearest, check.request)}", indent=10
            )


def _requirements(shown: list[Requirement]) -> Iterator[Block]:
    """One line each, needed under needed and found under found."""
    name_width = max(len(requirement.name) for requirement in shown)
    needs_width = max(len(requirement.needed) for requirement in shown)
    for requirement in shown:
        needs = f"     {requirement.name:{name_width}}  needs {requirement.needed:{needs_width}}  "
        yield line(needs, Span(f"has {requirement.found}", GOOD if requirement.met else BAD), indent=name_width + 7)


def _how(fit: Fit, request: Request | None) -> str:
    return f"{fit.quant}, {format_bytes(fit.need_bytes)} on {where(fit)}, {speed_for(fit.speed, request)} tokens/s"


def _end(report: Report) -> tuple[Block, ...]:
    steps = tuple(line(f"     {_label(step, report.answer):21}{step}", indent=26) for step in report.next_steps)
    return (*steps, *(line(Span(f"     {note}", DIM), indent=5) for note in report.notes))


def _label(step: str, answer: bool | None) -> str:
    if not answer:
        return "what would run it:"
    return "get it from:" if step.startswith("https://") else "run it with:"
