from __future__ import annotations

import io
import os
from collections.abc import Callable

import pytest

from fitcheck.output.document import Bar, Bars, Column, Document, Span, Table, clean, line
from fitcheck.output.markdown import draw as draw_markdown
from fitcheck.output.terminal import Terminal, bar_text, draw, in_ascii
from fitcheck.output.tsv import draw as draw_tsv

HOSTILE = "evil\x1b[31m\x07\x9b1m\u202e[link=x]click[/link]\r\n\x00"
TABLE = Table(
    (Column("MODEL", keep=99, shorten=True), Column("QUANT", keep=1), Column("TOKENS/S", right=True, keep=8)),
    (
        (Span("a-model-with-a-very-long-name-that-goes-on-and-on"), Span("Q4_K_M"), Span("31–44")),
        (Span("b"), Span("Q8_0"), Span("1.2–2.0")),
    ),
)


@pytest.mark.parametrize("width", [20, 28, 40, 60, 80, 200])
def test_no_line_of_a_table_is_wider_than_the_terminal(width: int) -> None:
    text = draw(Document((TABLE,)), Terminal(tty=True, width=width))
    assert max(map(len, text.splitlines())) <= width
    assert len(text.splitlines()) == 3


def test_columns_of_least_importance_go_before_a_name_is_shortened_much() -> None:
    text = draw(Document((TABLE,)), Terminal(tty=True, width=41))
    assert "QUANT" not in text
    assert "TOKENS/S" in text
    assert "a-model-with-a-very-long-name-…" in text


def test_a_command_that_does_not_fit_beside_the_others_stands_whole_below_them() -> None:
    columns = (Column("FOR", keep=98), Column("MODEL", keep=5), Column("RUN", keep=99, below=True))
    table = Table(columns, ((Span("chat"), Span("a-model"), Span("run it with this")),))
    wide, less, narrow = (draw(Document((table,)), Terminal(tty=True, width=width)) for width in (40, 25, 20))
    assert wide.splitlines()[1] == "chat  a-model  run it with this"
    assert less.splitlines()[1] == "chat  run it with this"
    assert narrow.splitlines()[1:] == ["chat  a-model", "  run it with this"]


def test_prose_breaks_at_spaces_and_never_inside_a_command() -> None:
    text = draw(
        Document((line("Next: ", "fitcheck explain something-rather-long", indent=6),)), Terminal(tty=True, width=30)
    )
    assert text == "Next: fitcheck explain\n      something-rather-long\n"


def hostile_document() -> Document:
    table = Table((Column(""),), ((Span(HOSTILE),),))
    return Document((line(HOSTILE), table, Bars((Bar(HOSTILE, 0.5, Span(HOSTILE)),))))


DRAWERS: dict[str, Callable[[Document], str]] = {
    "terminal": lambda document: draw(document, Terminal(tty=True)),
    "pipe": draw_tsv,
    "Markdown": draw_markdown,
}


@pytest.mark.parametrize("drawer", DRAWERS.values(), ids=DRAWERS)
def test_escapes_in_names_never_reach_the_output(drawer: Callable[[Document], str]) -> None:
    drawn = drawer(hostile_document())
    assert not [character for character in drawn if not character.isprintable() and character not in "\n\t"]


def test_markup_of_the_terminal_library_is_printed_as_it_stands() -> None:
    text = draw(Document((line("[bold red]x[/] :smile: [link=file:///etc]y[/link]"),)), Terminal(tty=True, color=True))
    assert text == "[bold red]x[/] :smile: [link=file:///etc]y[/link]\n"


def test_colour_only_repeats_what_words_say() -> None:
    document = Document((line(Span("tight", "warn")),))
    colored = draw(document, Terminal(tty=True, color=True))
    assert colored != draw(document, Terminal(tty=True)) == "tight\n"
    assert "\x1b[33mtight" in colored


def test_ascii_terminals_get_ascii() -> None:
    document = Document((line("31–44 · 2× … ≤ é 中"), Bars((Bar("8k", 0.5, Span("x")),))))
    drawn = in_ascii(draw(document, Terminal(tty=True)))
    assert drawn.startswith("31-44 | 2x ... <= ? ?\n8k  ####")


@pytest.mark.parametrize(
    ("environ", "tty", "color"),
    [
        ({}, True, True),
        ({}, False, False),
        ({"NO_COLOR": "1"}, True, False),
        ({"NO_COLOR": ""}, True, True),
        ({"FORCE_COLOR": "1"}, False, True),
        ({"NO_COLOR": "1", "FORCE_COLOR": "1"}, True, False),
        ({"TERM": "dumb"}, True, False),
    ],
)
def test_colour_follows_the_conventions(environ: dict[str, str], tty: bool, color: bool) -> None:
    stream = io.StringIO()
    stream.isatty = lambda: tty  # type: ignore[method-assign]
    assert Terminal.of(stream, environ).color is color


@pytest.mark.parametrize(("columns", "width"), [("40", 40), ("200", 200), ("3", 20), ("0", 80), ("x", 80), ("٣٤", 80)])
def test_the_width_is_that_of_columns_where_it_is_a_number(columns: str, width: int) -> None:
    stream = io.StringIO()
    stream.isatty = lambda: True  # type: ignore[method-assign]
    assert Terminal.of(stream, {"COLUMNS": columns}).width == width


def test_a_bar_grows_with_its_share_and_never_vanishes() -> None:
    lengths = [bar_text(share / 100, 20) for share in range(101)]
    assert lengths[0] == ""
    assert lengths[1] != ""
    assert [len(bar) for bar in lengths] == sorted(len(bar) for bar in lengths)
    assert lengths[100] == "█" * 20


def test_a_table_in_a_pipe_is_complete_and_tab_separated() -> None:
    document = Document((line("prose"), TABLE), table_only=True)
    assert draw_tsv(document).splitlines() == [
        "MODEL\tQUANT\tTOKENS/S",
        "a-model-with-a-very-long-name-that-goes-on-and-on\tQ4_K_M\t31–44",
        "b\tQ8_0\t1.2–2.0",
    ]


def test_clean_leaves_ordinary_text_alone() -> None:
    assert clean("Qwen3 14B – 中文 ×2") == "Qwen3 14B – 中文 ×2"


def test_a_terminal_that_does_not_know_its_width_has_80_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    stream.isatty = lambda: True  # type: ignore[method-assign]
    monkeypatch.setattr(os, "get_terminal_size", lambda fd: os.terminal_size((0, 0)))
    assert Terminal.of(stream, {}).width == 80
