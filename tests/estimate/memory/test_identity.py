"""A file that bears the name of a catalog's row is judged by its own shape."""

from __future__ import annotations

from msgspec.structs import replace

from fitcheck import catalog, facts
from fitcheck.catalog.names import find
from fitcheck.estimate.fit import Estimator
from fitcheck.probe.pretend import pretend
from fitcheck.types import Request


def test_a_namesake_gets_neither_the_weights_nor_the_buffers_of_the_catalogs_row() -> None:
    small = find("qwen3-8b", catalog.load())
    assert small.shape is not None
    large = find("qwen3-32b", catalog.load())
    namesake = replace(large, id=small.id, path="/models/qwen3-8b.gguf")
    estimator, machine, request = Estimator(facts.load()), pretend("H100"), Request(quant="Q8_0")
    assert estimator.estimate(small, machine, request).need_bytes < 12 * 2**30
    fit = estimator.estimate(namesake, machine, request)
    expected = estimator.estimate(large, machine, request)
    assert [(term.name, term.bytes) for term in fit.terms] == [(term.name, term.bytes) for term in expected.terms]
