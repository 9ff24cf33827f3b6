from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

import fitcheck
from fitcheck.output import wire
from fitcheck.types import Check, Cpu, Machine, Pool, Report, Requirement

MACHINE = Machine("linux", "x86_64", Cpu("a\x1b[31m\x9bcpu\u202e", 4, 8), Pool(2**34, 2**33, 2**33))
COMMITTED = Path(fitcheck.__file__).parent / "data" / "report.schema.json"


def test_the_committed_schema_is_the_generated_one() -> None:
    assert COMMITTED.read_bytes() == wire.schema_text(), "run: fitcheck schema > fitcheck/data/report.schema.json"


def test_no_character_that_a_terminal_obeys_is_in_the_json() -> None:
    text = wire.encode(Report(command="machine", summary="s", machine=MACHINE)).decode()
    assert not [c for c in text if not c.isprintable() and c != "\n"]
    assert wire.decode_machine(text.encode(), "x") == MACHINE


def test_a_machine_survives_the_round_trip() -> None:
    report = Report(command="machine", summary="s", machine=MACHINE)
    assert wire.decode_machine(wire.encode(report), "x") == MACHINE


def test_every_report_names_its_schema_and_its_outcome() -> None:
    report = msgspec.json.decode(wire.encode(Report(command="check", summary="no", answer=False, exit_code=1)))
    assert report["$schema"] == wire.schema()["$id"]
    assert (report["schema_version"], report["answer"], report["exit_code"]) == (1, False, 1)


@pytest.mark.parametrize("form", ["github", "junit"])
def test_reports_for_ci_escape_hostile_names(form: str) -> None:
    from fitcheck.output.terminal import Terminal
    from fitcheck.output.text import render

    name = 'm"><x a="\n::error::owned\x1b[31m%0A'
    failed = Check(name, False, (Requirement("memory", False, "<needs>", "a & b"),))
    text = render(Report(command="check", summary="", checks=(failed, Check("ok", True))), Terminal(), form)
    assert "\x1b" not in text
    if form == "junit":
        from xml.etree import ElementTree

        suite = ElementTree.fromstring(text)[0]
        assert (suite.get("tests"), suite.get("failures"), len(suite)) == ("2", "1", 2)
    else:
        assert [line[:8] for line in text.splitlines()] == ["::error ", "::notice"]
