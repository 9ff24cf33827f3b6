"""What was measured and where it is kept."""

from __future__ import annotations

from fitcheck.output.document import Document, line
from fitcheck.output.words import next_steps
from fitcheck.types import Report


def document(report: Report, verbose: bool = False) -> Document:
    """The measurements, one to a line."""
    return Document((line(report.summary), *(line(note, indent=2) for note in report.notes), *next_steps(report)))


def quiet(report: Report) -> str:
    """The measurement in one line."""
    return report.summary
