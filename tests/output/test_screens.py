"""The screens, as they are drawn from recorded reports. ``pytest --snapshot-update`` accepts a change: look at it."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from syrupy.assertion import SnapshotAssertion

from fitcheck.output.terminal import Terminal
from fitcheck.output.text import render
from fitcheck.types import Report

REPORTS = Path(__file__).parent / "reports"
NAMES = ("scan", "check", "explain", "plan", "machine")


def report(name: str) -> Report:
    return msgspec.json.decode((REPORTS / f"{name}.json").read_bytes(), type=Report)


@pytest.mark.parametrize("width", [40, 80, 200])
@pytest.mark.parametrize("name", NAMES)
def test_a_terminal(name: str, width: int, snapshot: SnapshotAssertion) -> None:
    assert render(report(name), Terminal(tty=True, width=width)) == snapshot


@pytest.mark.parametrize("name", NAMES)
def test_a_pipe(name: str, snapshot: SnapshotAssertion) -> None:
    assert render(report(name), Terminal()) == snapshot


@pytest.mark.parametrize("form", ["markdown", "github", "junit"])
def test_a_check_for_ci(form: str, snapshot: SnapshotAssertion) -> None:
    assert render(report("check"), Terminal(), form) == snapshot


@pytest.mark.parametrize("name", NAMES)
def test_one_line_for_scripts(name: str, snapshot: SnapshotAssertion) -> None:
    text = render(report(name), Terminal(), quiet=True)
    assert text.count("\n") == 1
    assert text == snapshot


@pytest.mark.parametrize("name", NAMES)
def test_no_line_of_a_table_is_wider_than_the_terminal(name: str) -> None:
    """Prose breaks at spaces; what has none, an address or a command's argument, may stand out."""
    for width in range(40, 121, 8):
        lines = render(report(name), Terminal(tty=True, width=width)).splitlines()
        wide = [
            line
            for line in lines
            if len(line) > width and not any(mark in line for mark in ("http", " -hf ", "ollama run "))
        ]
        assert wide == []
