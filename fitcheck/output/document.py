"""A report laid out for reading: lines, tables and bars, without a terminal, colours or widths.

A view turns a ``Report`` into a ``Document``; ``terminal``, ``tsv`` and ``markdown`` draw it.
"""

from __future__ import annotations

from msgspec import Struct

GOOD, WARN, BAD, DIM, STRONG, PLAIN = "good", "warn", "bad", "dim", "strong", ""


class Span(Struct, frozen=True):
    """A piece of text and what it means (good, warn, bad, dim, strong or nothing)."""

    text: str
    style: str = PLAIN


class Line(Struct, frozen=True):
    """One line of prose. ``indent``: columns that a continued line starts with. ``command``: never broken."""

    spans: tuple[Span, ...]
    indent: int = 0

    @property
    def text(self) -> str:
        """The line without styles."""
        return "".join(span.text for span in self.spans)


class Column(Struct, frozen=True):
    """``keep``: columns with the lowest value are left out first where the terminal is too narrow; ``right`` aligns.
    ``shorten``: texts may be cut, below ``least`` characters only when no other column is left to go. ``below``: where
    the terminal is too narrow even so, the last column stands under the others."""

    title: str
    right: bool = False
    keep: int = 9
    shorten: bool = False
    least: int = 24
    below: bool = False


class Table(Struct, frozen=True):
    """Rows of cells under columns; ``header``: whether the titles are shown to people."""

    columns: tuple[Column, ...]
    rows: tuple[tuple[Span, ...], ...]
    indent: int = 0
    header: bool = True


class Bar(Struct, frozen=True):
    """``share`` of the longest bar (0 to 1), with a word before and after."""

    label: str
    share: float
    value: Span


class Bars(Struct, frozen=True):
    """Bars under each other, on one scale."""

    rows: tuple[Bar, ...]
    indent: int = 0


Block = Line | Table | Bars


class Document(Struct, frozen=True):
    """``table_only``: in a pipe only the first table is printed (the rest is for people)."""

    blocks: tuple[Block, ...]
    table_only: bool = False


def line(*parts: str | Span, indent: int = 0) -> Line:
    """A line of plain strings and spans."""
    return Line(tuple(Span(part) if isinstance(part, str) else part for part in parts), indent)


BLANK = line("")


def clean(text: str) -> str:
    """Outside text without control characters, terminal escapes and writing-direction overrides, on one line."""
    return text if text.isprintable() else "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)
