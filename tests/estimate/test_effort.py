"""How much work a quick estimate is: calls of functions are counted, which no busy machine makes more of."""

from __future__ import annotations

import sys
from collections.abc import Callable

import pytest
from msgspec.structs import replace

from fitcheck import catalog, facts
from fitcheck.catalog.names import find
from fitcheck.estimate.fit import Estimator
from fitcheck.probe.pretend import pretend
from fitcheck.types import Machine, Model, Request

FACTS = facts.load()
FACTS.read()
CATALOG = catalog.load()
REQUEST = Request()
QUANT = "Q4_K_M"
#: a dense model on a card, one split by layers, one split by experts, one on the processor
PLACED = (
    ("qwen3-8b", "RTX 4090"),
    ("qwen3-32b", "RTX 4070"),
    ("qwen3-30b-a3b", "RTX 4070"),
    ("qwen3-8b", "Ryzen 5 5600 32GB"),
)


#: a fifth more than today, of a placement on one device and of a split
ANOTHER_CONTEXT = 140, 390
SAME_PLACEMENT = 107, 148
ANOTHER_MACHINE = 118, 158
ANOTHER_QUANTISATION = 268, 711
NEW_MODEL = 400, 910


def calls(question: Callable[[], object]) -> int:
    """How many functions one question calls, built-in ones too."""
    counted = 0

    def count(frame: object, event: str, argument: object) -> None:
        nonlocal counted
        counted += event in ("call", "c_call")

    before = sys.getprofile()
    sys.setprofile(count)
    try:
        question()
    finally:
        sys.setprofile(before)
    return counted


@pytest.fixture(params=PLACED, ids=lambda pair: f"{pair[0]} on {pair[1]}")
def placed(request: pytest.FixtureRequest) -> tuple[Model, Machine]:
    model, hardware = request.param
    return find(model, CATALOG), pretend(hardware)


def most(bounds: tuple[int, int], machine: Machine) -> int:
    on_one_device, split = bounds
    return split if machine.accelerators and machine.accelerators[0].name.endswith("4070") else on_one_device


def warm(model: Model, machine: Machine) -> Estimator:
    """An estimator that has answered about other models on this machine, and about this one in one quantisation."""
    estimator = Estimator(FACTS)
    for other in ("llama-3.1-8b", "qwen3-4b", model.id):
        estimator.quick(find(other, CATALOG), QUANT, machine, REQUEST)
    return estimator


def test_another_context_takes_few_calls(placed: tuple[Model, Machine]) -> None:
    model, machine = placed
    estimator = warm(model, machine)
    asked = replace(REQUEST, context_tokens=6144)
    assert calls(lambda: estimator.quick(model, QUANT, machine, asked)) < most(ANOTHER_CONTEXT, machine)


def test_the_same_placement_again_takes_fewer(placed: tuple[Model, Machine]) -> None:
    model, machine = placed
    estimator = warm(model, machine)
    asked = replace(REQUEST, margin_bytes=1000 << 20)
    assert calls(lambda: estimator.quick(model, QUANT, machine, asked)) < most(SAME_PLACEMENT, machine)


def test_another_machine_takes_few_calls(placed: tuple[Model, Machine]) -> None:
    model, machine = placed
    estimator = warm(model, machine)
    other = replace(machine, ram=replace(machine.ram, usable_bytes=machine.ram.usable_bytes - (64 << 20)))
    assert calls(lambda: estimator.quick(model, QUANT, other, REQUEST)) < most(ANOTHER_MACHINE, machine)


def test_another_quantisation_takes_few_calls(placed: tuple[Model, Machine]) -> None:
    model, machine = placed
    estimator = warm(model, machine)
    assert calls(lambda: estimator.quick(model, "Q5_K_M", machine, REQUEST)) < most(ANOTHER_QUANTISATION, machine)


def test_a_new_model_takes_few_calls(placed: tuple[Model, Machine]) -> None:
    model, machine = placed
    estimator = Estimator(FACTS)
    estimator.quick(find("llama-3.1-8b", CATALOG), QUANT, machine, REQUEST)
    assert calls(lambda: estimator.quick(model, QUANT, machine, REQUEST)) < most(NEW_MODEL, machine)
