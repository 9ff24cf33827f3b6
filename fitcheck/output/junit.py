"""Checks as JUnit XML: one test case per model."""

from __future__ import annotations

from xml.sax.saxutils import escape, quoteattr

from fitcheck.output.document import clean
from fitcheck.types import Check, Report


def draw(report: Report) -> str:
    """One test suite. A model that does not meet the request is a failure that lists every reason."""
    failures = sum(not check.passed for check in report.checks)
    lines = [
        '<?xml version="1.0" encoding="UTF-8"?>',
        f'<testsuites tests="{len(report.checks)}" failures="{failures}">',
        f'  <testsuite name="fitcheck" tests="{len(report.checks)}" failures="{failures}" errors="0">',
        *(line for check in report.checks for line in _case(check)),
        "  </testsuite>",
        "</testsuites>",
    ]
    return "\n".join(lines) + "\n"


def _case(check: Check) -> list[str]:
    name = quoteattr(clean(check.model))
    if check.passed:
        return [f'    <testcase classname="fitcheck" name={name}/>']
    reasons = [f"{r.name}: needs {r.needed}, has {r.found}" for r in check.requirements if not r.met]
    text = escape(clean_lines(reasons))
    return [
        f'    <testcase classname="fitcheck" name={name}>',
        f"      <failure message={quoteattr(clean('; '.join(reasons)))}>{text}</failure>",
        "    </testcase>",
    ]


def clean_lines(lines: list[str]) -> str:
    """Lines of outside text, none of which holds a control character."""
    return "\n".join(clean(line) for line in lines)
