"""A publisher's own mix takes the bytes of its published file, or says that they are not known."""

from __future__ import annotations

import pytest

from fitcheck import catalog, facts
from fitcheck.estimate.publisher_mix import describe, published
from fitcheck.estimate.quantize import weights
from fitcheck.types import Model, Weights

TABLE = facts.load().quantizations
MODELS = {model.id: model for model in catalog.load().models}
DYNAMIC = {name: mix for name, mix in TABLE.publisher_mixes.items() if mix.layers is not None}


def with_published_file() -> list[tuple[Model, str]]:
    return [
        (model, quant)
        for model in MODELS.values()
        for quant, mix in DYNAMIC.items()
        if model.shape is not None and published(model, quant, mix.publisher)
    ]


def layer_bytes(found: Weights) -> int:
    return sum(layer.total for layer in found.each_layer())


def test_the_bytes_are_those_of_the_published_file() -> None:
    pairs = with_published_file()
    assert len(pairs) > 120
    for model, quant in pairs:
        file = published(model, quant, DYNAMIC[quant].publisher)
        assert file is not None
        if file.parts:
            continue  # holds layers that are not loaded
        found = weights(model, quant, TABLE)
        total = found.total if file.tensors_only else found.file_bytes
        assert abs(total - file.bytes) < 1000, (model.id, quant)
        assert not found.exact


@pytest.mark.parametrize("quant", sorted(DYNAMIC))
def test_without_a_file_the_size_is_the_usual_one_and_said_to_be_so(quant: str) -> None:
    model = MODELS["llama-3.1-8b"]
    like, found = (weights(model, name, TABLE) for name in (DYNAMIC[quant].like, quant))
    assert layer_bytes(found) / layer_bytes(like) == pytest.approx(DYNAMIC[quant].layers, abs=1e-3)
    assert found.total - like.total == layer_bytes(found) - layer_bytes(like)
    assert not found.exact
    assert "not known" in describe(model, quant, TABLE)


def test_published_files_lie_around_the_usual_size() -> None:
    """Half of them above it, half below: the usual size is their median."""
    for quant, mix in DYNAMIC.items():
        shares = [
            layer_bytes(weights(model, quant, TABLE)) / layer_bytes(weights(model, mix.like, TABLE))
            for model, named in with_published_file()
            if named == quant
        ]
        if len(shares) >= 8:
            above = sum(share > (mix.layers or 0) for share in shares) / len(shares)
            assert 0.25 < above < 0.75, (quant, shares)


def test_a_mix_that_keeps_two_matrices_larger_is_known_in_full() -> None:
    """Q2_K and Q2_K_L of Kimi-K2.5 are 358,637,722,528 and 359,784,602,528 bytes (bartowski's listing)."""
    model = MODELS["kimi-k2.5"]
    plain, larger = (weights(model, quant, TABLE) for quant in ("Q2_K", "Q2_K_L"))
    assert larger.total - plain.total == 359_784_602_528 - 358_637_722_528
    assert larger.exact


def test_a_known_mix_needs_no_description() -> None:
    assert describe(MODELS["llama-3.1-8b"], "Q4_K_M", TABLE) == ""
    assert describe(MODELS["llama-3.1-8b"], "Q6_K_L", TABLE) == ""
