"""Checks as GitHub workflow commands: one annotation per model, shown on the run's summary page."""

from __future__ import annotations

from fitcheck.output.document import clean
from fitcheck.types import Check, Report


def draw(report: Report) -> str:
    """``::notice`` for a model that passes, ``::error`` for one that does not (one line each, all reasons in it)."""
    return "".join(_annotation(check) + "\n" for check in report.checks)


def _annotation(check: Check) -> str:
    level = "notice" if check.passed else "error"
    return f"::{level} title={_property(f'fitcheck {check.model}')}::{_data(_message(check))}"


def _message(check: Check) -> str:
    if check.passed:
        return f"{check.model} {check.fit.quant if check.fit else ''} meets the request".replace("  ", " ")
    failed = [f"{r.name} needs {r.needed}, has {r.found}" for r in check.requirements if not r.met]
    nearest = f"; closest that passes: {check.nearest.model} {check.nearest.quant}" if check.nearest else ""
    return f"{check.model}: " + "; ".join(failed) + nearest


def _data(text: str) -> str:
    """Outside text must not start a workflow command of its own."""
    return clean(text).replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")
