"""Draw a document for a person: columns that fit the width, words in colour, bars."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import groupby
from typing import TextIO

from msgspec import Struct

from fitcheck.output.document import DIM, STRONG, Bars, Column, Document, Line, Span, Table, clean

STYLES = {"good": "green", "warn": "yellow", "bad": "red", "dim": "dim", "strong": "bold"}
ASCII = str.maketrans(
    {"–": "-", "—": "-", "·": "|", "×": "x", "…": "...", "≤": "<=", "≥": ">=", "≈": "~", "→": "->", "²": "2", "�": "?"}
    | dict.fromkeys("▏▎▍▌▋▊▉", "") | {"█": "#"}
)  # fmt: skip
EIGHTHS = " ▏▎▍▌▋▊▉"
BAR_WIDTH = 30


class Terminal(Struct, frozen=True):
    """Where the answer goes. ``tty`` False is a pipe or a file: no width, no shortening."""

    tty: bool = False
    width: int = 80
    color: bool = False
    unicode: bool = True

    @classmethod
    def of(cls, stream: TextIO | None, environ: Mapping[str, str], color: str = "auto") -> Terminal:
        """Look at the stream and the environment (COLUMNS, TERM, NO_COLOR, FORCE_COLOR, locale)."""
        tty = stream is not None and stream.isatty()
        return cls(
            tty=tty,
            width=_width(environ) if tty else 80,
            color=_wants_color(tty, environ, color),
            unicode=_writes_unicode(stream, environ),
        )


def _width(environ: Mapping[str, str]) -> int:
    import os

    columns = environ.get("COLUMNS", "")
    if columns.isascii() and columns.isdigit() and int(columns[:6]) > 0:
        return max(20, int(columns[:6]))
    try:
        return max(20, os.get_terminal_size(1).columns or 80)
    except OSError:
        return 80


def _wants_color(tty: bool, environ: Mapping[str, str], color: str) -> bool:
    if color != "auto":
        return color == "always"
    if environ.get("NO_COLOR"):
        return False
    if environ.get("FORCE_COLOR"):
        return True
    return tty and environ.get("TERM") != "dumb"


def _writes_unicode(stream: TextIO | None, environ: Mapping[str, str]) -> bool:
    """Python writes UTF-8 even in the C locale; a locale that says C is believed all the same."""
    locale = next((environ[name] for name in ("LC_ALL", "LC_CTYPE", "LANG") if environ.get(name)), "")
    encoding = (getattr(stream, "encoding", None) or "utf-8").lower().replace("-", "")
    return encoding.startswith("utf") and locale not in ("C", "POSIX")


def draw(document: Document, terminal: Terminal) -> str:
    """The document as text for this terminal. Lines end in a newline; no line of a table is wider than the terminal."""
    lines = list(_lay_out(document, terminal.width))
    if not terminal.color:
        return "".join("".join(span.text for span in spans).rstrip() + "\n" for spans in lines)
    return _colored(lines)


def in_ascii(text: str) -> str:
    """The text for a terminal that has no other characters."""
    return text.translate(ASCII).encode("ascii", "replace").decode()


def _colored(lines: list[tuple[Span, ...]]) -> str:
    from io import StringIO

    from rich.console import Console
    from rich.text import Text

    out = StringIO()
    console = Console(file=out, force_terminal=True, width=10_000, highlight=False, markup=False, emoji=False)
    for spans in lines:
        text = Text.assemble(*((span.text, STYLES.get(span.style, "")) for span in spans))
        console.print(text, soft_wrap=True)
    return out.getvalue()


def _lay_out(document: Document, width: int) -> Iterator[tuple[Span, ...]]:
    for block in document.blocks:
        if isinstance(block, Line):
            yield from wrap(block, width)
        elif isinstance(block, Table):
            yield from table_lines(block, width) if block.rows else ()
        else:
            yield from _bar_lines(block, width)


def wrap(block: Line, width: int) -> Iterator[tuple[Span, ...]]:
    """Break prose at spaces; a word that is longer than the line stays whole."""
    current: list[Span] = []
    room = width
    for span in block.spans:
        for number, piece in enumerate(clean(span.text).split(" ")):
            word = piece if number == 0 else " " + piece
            if len(word) > room and word.strip() and current:
                yield _joined(current)
                word = " " * block.indent + word.lstrip()
                room, current = width, []
            current.append(Span(word, span.style))
            room -= len(word)
    yield _joined(current)


def _joined(spans: list[Span]) -> tuple[Span, ...]:
    """Neighbours of one style as one span."""
    return tuple(
        Span("".join(span.text for span in group), style)
        for style, group in groupby(spans, key=lambda span: span.style)
    )


def table_lines(table: Table, width: int) -> Iterator[tuple[Span, ...]]:
    """The table in aligned columns. Too narrow: least important columns go, then the longest names are shortened."""
    rows = [tuple(Span(clean(cell.text), cell.style) for cell in row) for row in table.rows]
    columns, room = table.columns, width - table.indent
    kept, widths = _fit_columns(table, columns, rows, room)
    below = columns[-1].below and sum(widths) + 2 * len(widths) - 2 > room
    if below:
        columns = columns[:-1]
        kept, widths = _fit_columns(table, columns, rows, room)
    shown = [columns[i] for i in kept]
    if table.header:
        yield _row_line([Span(column.title, DIM) for column in shown], shown, widths, table.indent)
    for row in rows:
        yield _row_line([row[i] for i in kept], shown, widths, table.indent)
        if below:
            yield (Span(" " * (table.indent + 2)), row[-1])


def _fit_columns(
    table: Table, columns: tuple[Column, ...], rows: list[tuple[Span, ...]], width: int
) -> tuple[list[int], list[int]]:
    """Which columns are kept, and how wide each of them is."""
    titles = [len(column.title) if table.header else 0 for column in columns]
    widths = [max([title, *(len(row[i].text) for row in rows)]) for i, title in enumerate(titles)]
    least = [min(w, column.least) if column.shorten else w for w, column in zip(widths, columns, strict=True)]
    kept = list(range(len(columns)))
    while sum(least[i] + 2 for i in kept) - 2 > width and len(kept) > 2:
        kept.remove(min(kept, key=lambda i: (columns[i].keep, -i)))
    shortened = [i for i in kept if columns[i].shorten]
    while sum(widths[i] + 2 for i in kept) - 2 > width and any(widths[i] > 4 for i in shortened):
        widths[max(shortened, key=lambda i: widths[i])] -= 1
    return kept, [widths[i] for i in kept]


def _row_line(cells: list[Span], columns: list[Column], widths: list[int], indent: int) -> tuple[Span, ...]:
    parts = [Span(" " * indent)] if indent else []
    for number, (cell, column, width) in enumerate(zip(cells, columns, widths, strict=True)):
        text = cell.text if len(cell.text) <= width else cell.text[: width - 1] + "…"
        last = number == len(cells) - 1
        padding = " " * (width - len(text))
        gap = "" if last else "  "
        if column.right:
            parts += [Span(padding), Span(text, cell.style), Span(gap)]
        else:
            parts += [Span(text, cell.style), Span(("" if last else padding) + gap)]
    return tuple(parts)


def _bar_lines(bars: Bars, width: int) -> Iterator[tuple[Span, ...]]:
    label_width = max((len(bar.label) for bar in bars.rows), default=0)
    value_width = max((len(bar.value.text) for bar in bars.rows), default=0)
    room = max(3, min(BAR_WIDTH, width - bars.indent - label_width - value_width - 4))
    for bar in bars.rows:
        yield (
            Span(" " * bars.indent + clean(bar.label).ljust(label_width) + "  "),
            Span(bar_text(bar.share, room).ljust(room), bar.value.style or STRONG),
            Span("  "),
            Span(clean(bar.value.text), bar.value.style),
        )


def bar_text(share: float, room: int) -> str:
    """A bar of ``share`` (0 to 1) of ``room`` cells, in eighths; something that is not nothing shows at least one."""
    eighths = round(max(0.0, min(1.0, share)) * room * 8)
    full, rest = divmod(max(eighths, 1 if share > 0 else 0), 8)
    return "█" * full + (EIGHTHS[rest] if rest else "")
