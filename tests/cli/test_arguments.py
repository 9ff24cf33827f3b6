"""What is read without the command-line library is what the library reads."""

from __future__ import annotations

from typing import Any

import pytest
import typer
from hypothesis import given, settings
from hypothesis import strategies as st

from fitcheck import parser
from fitcheck.arguments import read
from fitcheck.cli import COMMANDS
from fitcheck.parameters import parameters_of

LIBRARY = typer.main.get_command(parser.application(COMMANDS))


class CalledError(Exception):
    """The values that a command was called with."""


def by_library(words: tuple[str, ...], typed: list[str]) -> dict[str, Any] | None:
    """What the library makes of the words; None where it finds a mistake or prints help instead."""

    def raise_values(command: object, values: dict[str, Any]) -> None:
        raise CalledError(values)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parser, "call", raise_values)
        try:
            LIBRARY([*words, *typed], prog_name="fitcheck", standalone_mode=False)
        except CalledError as called:
            values: dict[str, Any] = called.args[0]
            return values
        except Exception as error:  # noqa: BLE001 - the library's errors are known by what they can do
            assert hasattr(error, "format_message"), error
    return None


def plainly(words: tuple[str, ...], typed: list[str]) -> dict[str, Any] | None:
    return read(parameters_of(COMMANDS[words]), typed)


VALUES = ("8", "8k", "32k", "-3", "0", "1.5", "1e3", "nan", " 7", "1_0", "", "-", "--", "q8_0", "chat", "Chat", "any")
NAMES = sorted({name for command in COMMANDS.values() for p in parameters_of(command) for name in p.declared.names})
WORDS = st.one_of(
    st.sampled_from(NAMES),
    st.sampled_from(VALUES),
    st.builds("{}={}".format, st.sampled_from(NAMES), st.sampled_from(VALUES)),
    st.builds("{}{}".format, st.sampled_from(NAMES), st.sampled_from(VALUES)),
    st.sampled_from(("-h", "--help", "--version", "--no-json", "--contex", "qwen3:14b", "./a.gguf", "Größe")),
    st.text(max_size=6),
)


def options_of(words: tuple[str, ...]) -> st.SearchStrategy[list[str]]:
    """Mostly well-formed options of one command, so that both readers get to their values."""
    found = []
    for parameter in parameters_of(COMMANDS[words]):
        for name in parameter.declared.names:
            flag = parameter.kind is bool
            found.append(st.just([name]) if flag else st.tuples(st.just(name), st.sampled_from(VALUES)).map(list))
    loose = st.lists(st.sampled_from(("qwen3:14b", "gpt2")), max_size=2)
    return st.lists(st.one_of(*found, loose), max_size=4).map(lambda parts: [word for part in parts for word in part])


@settings(max_examples=1500, deadline=None)
@given(st.sampled_from(sorted(COMMANDS)).flatmap(lambda words: st.tuples(st.just(words), options_of(words))))
def test_well_formed_options_have_the_same_values(asked: tuple[tuple[str, ...], list[str]]) -> None:
    plain = plainly(*asked)
    if plain is not None:
        assert repr(plain) == repr(by_library(*asked))  # by text: nan is nan


@settings(max_examples=1500, deadline=None)
@given(st.sampled_from(sorted(COMMANDS)), st.lists(WORDS, max_size=5))
def test_whatever_is_typed_is_read_alike_or_left_to_the_library(words: tuple[str, ...], typed: list[str]) -> None:
    plain = plainly(words, typed)
    if plain is not None:
        assert repr(plain) == repr(by_library(words, typed))


USUAL = {
    ("scan",): ([], ["--json"], ["--on", "RTX 4090", "-n", "1", "--all"], ["--for=coding", "-c", "32k", "--kv=q8_0"]),
    ("check",): (["qwen3:14b"], ["a", "b", "--first", "--quiet"], [], ["a", "--allow", "gpu", "--allow", "split,cpu"]),
    ("explain",): (["qwen3:14b", "--margin", "2GiB"], ["--format", "markdown", "qwen3:14b"]),
    ("plan",): (["qwen3:14b", "--min-speed", "15"],),
    ("machine",): ([], ["--json"], ["--capture", "folder"]),
    ("catalog", "list"): ([], ["qwen", "--for", "vision", "--max-params", "8b"]),
    ("catalog", "show"): (["gpt2"],),
}


@pytest.mark.parametrize(("words", "typed"), [(words, typed) for words, many in USUAL.items() for typed in many])
def test_what_people_and_scripts_type_needs_no_library(words: tuple[str, ...], typed: list[str]) -> None:
    assert plainly(words, typed) is not None


MISTAKES = (
    ["--bogus"],
    ["-h"],
    ["--help"],
    ["-n5"],
    ["--on", "--json"],
    ["--json=yes"],
    ["--context"],
    ["--for", "cooking"],
    ["--parallel", "0"],
)


@pytest.mark.parametrize("typed", MISTAKES, ids=str)
def test_mistakes_and_help_are_left_to_the_library(typed: list[str]) -> None:
    assert plainly(("scan",), typed) is None
