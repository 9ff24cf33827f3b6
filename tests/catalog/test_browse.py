"""Listing models by what they must have, and one model's facts with their sources."""

from __future__ import annotations

import pytest

from fitcheck.catalog import Catalog
from fitcheck.catalog.browse import Filters, facts, listed, parse_params
from fitcheck.errors import FitcheckError
from fitcheck.types import Licences, Openness


def test_without_filters_every_model_is_listed_by_family_and_size(catalog: Catalog) -> None:
    models = listed(catalog, Filters())
    assert len(models) == len(catalog.models)
    qwen3 = [model.params for model in models if model.family == "Qwen3"]
    assert qwen3 == sorted(qwen3)


@pytest.mark.parametrize(
    ("filters", "holds"),
    [
        (Filters(max_params=parse_params("4b")), lambda model: model.params <= 4e9),
        (Filters(modality="vision"), lambda model: "vision" in model.modalities),
        (Filters(family="GEMMA"), lambda model: "gemma" in (model.family + model.lineage + model.developer).lower()),
        (Filters(licence="apache"), lambda model: model.licence == "Apache-2.0"),
        (Filters(licences=Licences.OPEN), lambda model: model.openness is Openness.FULLY_OPEN),
        (Filters(licences=Licences.PERMISSIVE), lambda model: model.openness is not Openness.RESTRICTED),
        (Filters(suits=lambda model: "reasoning" in model.abilities), lambda model: "reasoning" in model.abilities),
    ],
)  # fmt: skip
def test_a_filter_keeps_what_holds_and_drops_the_rest(catalog: Catalog, filters: Filters, holds: object) -> None:
    kept = listed(catalog, filters)
    assert 0 < len(kept) < len(catalog.models)
    assert callable(holds)
    assert all(holds(model) for model in kept)


def test_filters_narrow_each_other(catalog: Catalog) -> None:
    both = {model.id for model in listed(catalog, Filters(family="qwen", max_params=parse_params("1b")))}
    assert "qwen3-0.6b" in both
    assert both == {model.id for model in listed(catalog, Filters(family="qwen"))} & {
        model.id for model in listed(catalog, Filters(max_params=10**9))
    }


def test_facts_name_their_sources(catalog: Catalog) -> None:
    model = next(model for model in catalog.models if model.id == "qwen3-30b-a3b")
    found = {fact.name: fact for fact in facts(model, catalog)}
    assert found["parameters"].value == "30.5B, 3.0B per token"
    assert found["licence"].value == "Apache License 2.0 (permissive)"
    assert "exactly (30,532,122,624)" in found["checked"].value
    assert found["context"].value == "40k, 128k extended"
    assert all(
        fact.source for fact in found.values() if fact.name in ("released", "licence", "parameters", "file", "score")
    )


def test_every_model_can_be_shown(catalog: Catalog) -> None:
    for model in catalog.models:
        assert all(fact.value and fact.value.isprintable() for fact in facts(model, catalog))


@pytest.mark.parametrize(
    ("text", "params"),
    [("8b", 8 * 10**9), ("1.5B", 1_500_000_000), ("270m", 270_000_000), ("1t", 10**12), ("500", 500)],
)
def test_sizes_read_as_people_write_them(text: str, params: int) -> None:
    assert parse_params(text) == params


@pytest.mark.parametrize("text", ["", "big", "-1b", "8 gb", "1e9", "9" * 50])
def test_a_bad_size_is_refused(text: str) -> None:
    with pytest.raises(FitcheckError) as refused:
        parse_params(text)
    assert refused.value.code == "bad_option"
