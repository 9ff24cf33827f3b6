"""One question has one answer from every command. The whole grid: ``python -m fitcheck.accuracy.agreement``."""

from __future__ import annotations

import pytest

from fitcheck.accuracy.agreement import disagreements, numbers, sample
from fitcheck.commands.scan import scan
from fitcheck.session import Session
from fitcheck.types import Request, Task


@pytest.mark.parametrize("machine", ["cpu", "RTX 4070", "2x RTX 3090", "M4 Pro 48GB"])
def test_scan_check_explain_and_plan_agree(machine: str) -> None:
    models = sample(Session().catalog.models, 8)
    assert len(models) == 8
    assert list(disagreements(machine, models, limit=20)) == []


def test_a_difference_would_be_noticed() -> None:
    from fitcheck import api

    machine = api.pretend("RTX 4070")
    short, long = (api.estimate("qwen3-14b", machine, Request(context_tokens=n)) for n in (4096, 16384))
    assert numbers(short) != numbers(long)


@pytest.mark.parametrize("on", ["RTX 3090", "M1 8GB", "RTX 3060"])
def test_the_answer_about_images_in_a_scan_is_that_of_a_scan_for_images(on: str) -> None:
    session = Session(on)
    among_others = next(answer for answer in scan(session, Request()).best if answer.task is Task.VISION)
    assert scan(session, Request(task=Task.VISION)).best == (among_others,)
