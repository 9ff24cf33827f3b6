from __future__ import annotations

from fitcheck.output.terminal import Terminal
from fitcheck.output.text import render
from fitcheck.output.words import speed_for
from fitcheck.types import Interval, Report, Request, Speed, Task

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
