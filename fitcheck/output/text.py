"""A report as text: the view of its command, drawn for a terminal, a pipe or a Markdown page."""

from __future__ import annotations

from importlib import import_module

from fitcheck.output.document import Document, clean
from fitcheck.output.terminal import Terminal, draw, in_ascii
from fitcheck.types import Report


def render(report: Report, terminal: Terminal, form: str = "text", quiet: bool = False, verbose: bool = False) -> str:
    """The report as text. ``form``: text, markdown, github or junit; ``quiet``: the one line that a script wants."""
    if form in ("github", "junit"):
        return str(import_module(f"fitcheck.output.{form}").draw(report))
    view = import_module(f"fitcheck.output.views.{report.command.partition('_')[0]}")
    if quiet:
        only = clean(view.quiet(report))
        text = only + "\n" if only else ""
    else:
        text = _drawn(view.document(report, verbose), terminal, form)
    return text if terminal.unicode else in_ascii(text)


def _drawn(document: Document, terminal: Terminal, form: str) -> str:
    if form == "markdown":
        from fitcheck.output.markdown import draw as draw_markdown

        return draw_markdown(document)
    if not terminal.tty:
        from fitcheck.output.tsv import draw as draw_tsv

        return draw_tsv(document)
    return draw(document, terminal)
