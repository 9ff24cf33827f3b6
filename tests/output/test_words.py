from __future__ import annotations

from fitcheck.commands.scan import scan
from fitcheck.output.terminal import Terminal
from fitcheck.output.text import render
from fitcheck.output.words import machine_line, speed_for
from fitcheck.session import Session
from fitcheck.types import Cpu, Interval, Machine, Pool, Problem, Report, Request, Speed, Task

WRITES = Interval(31, 36, 44)
READS = Interval(1000, 1500, 2000)


def test_the_speed_of_an_embedding_model_is_how_fast_it_reads() -> None:
    speed = Speed(WRITES, WRITES, READS, None, None, "memory", 0, 0.0)
    assert speed_for(speed, Request()) == "31–44"
    assert speed_for(speed, Request(task=Task.EMBEDDING)) == "1,000–2,000"
    assert speed_for(None, Request()) == "unknown"


def test_a_scan_of_nothing_says_so() -> None:
    nothing = Report(command="scan", summary="nothing runs", request=Request())
    assert "no models to look at" in render(nothing, Terminal(tty=True, color=False))


def test_memory_of_unknown_size_is_not_called_none() -> None:
    unknown = Machine("linux", "x86_64", Cpu("Some CPU", 8, 16), Pool(0, None, 0))
    assert "RAM unknown" in machine_line(unknown)
    report = Report(command="machine", summary="", machine=unknown)
    assert "size unknown" in render(report, Terminal(tty=True))


def test_a_scan_says_what_to_pass_where_the_size_of_memory_is_unknown() -> None:
    problem = Problem("ram", "the size of memory is not known", "pass --ram, such as --ram 32GiB")
    unknown = Machine("linux", "x86_64", Cpu("Some CPU", 8, 16), Pool(0, None, 0), problems=(problem,))
    report = scan(Session.of(unknown), Request())
    assert not report.fits
    assert any("--ram" in note for note in report.notes)
