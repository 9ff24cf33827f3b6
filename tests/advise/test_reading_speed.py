"""How fast prompts are read is asked of the models that scan lists as well, and of embedding models instead of how
fast they write."""

from __future__ import annotations

import fitcheck
from fitcheck.commands.check import check_model
from fitcheck.session import Session
from fitcheck.types import Request, Task

MACHINE = fitcheck.pretend("RTX 4070")


def test_the_least_speed_of_an_embedding_model_is_that_at_which_it_reads() -> None:
    session = Session.of(MACHINE)
    model = session.model("nomic-embed-text-v1.5")
    slow, fast = (check_model(session, model, Request(min_decode_per_s=least)) for least in (100.0, 1e8))
    assert (slow.passed, fast.passed) == (True, False)
    (requirement,) = (each for each in fast.requirements if not each.met)
    assert requirement.name == "prefill"


def test_an_embedding_task_that_is_named_is_held_to_the_same() -> None:
    session = Session.of(MACHINE)
    model = session.model("qwen3-embedding-8b")
    request = Request(task=Task.EMBEDDING, min_decode_per_s=1e8)
    assert not check_model(session, model, request, task_given=True).passed


def test_only_models_that_read_as_fast_as_asked_are_listed() -> None:
    models = [Session().model(name) for name in ("qwen3-0.6b", "qwen3-8b", "gemma-3-27b")]
    for request in (Request(min_prefill_per_s=2000.0), Request(max_first_token_s=0.5)):
        listed = {fit.model for fit in fitcheck.rank(MACHINE, request, None, models)}
        passing = {model.id for model in models if fitcheck.check(model, MACHINE, request).passed}
        assert listed == passing


def test_nothing_is_left_out_where_reading_is_not_asked_about() -> None:
    models = [Session().model(name) for name in ("qwen3-0.6b", "qwen3-8b")]
    assert len(fitcheck.rank(MACHINE, Request(), None, models)) == 2
