"""Ranking by evidence: known orderings hold, estimates stay below what was measured, quantisation costs."""

from __future__ import annotations

import time

import pytest
from msgspec.structs import replace

from fitcheck.advise.divergence import Divergence
from fitcheck.advise.quality import EMBEDDING_INDEX, INDEX, Qualities, effective_size, least_squares, score_on, year
from fitcheck.advise.suit import suits
from fitcheck.catalog import Catalog
from fitcheck.estimate.quantizations import Quantizations
from fitcheck.types import Model, Task


@pytest.fixture(scope="module")
def models(catalog: Catalog) -> dict[str, Model]:
    return {model.id: model for model in catalog.models}


@pytest.fixture(scope="module")
def qualities(catalog: Catalog, quantizations: Quantizations) -> Qualities:
    return Qualities(catalog.models, quantizations)


@pytest.mark.parametrize(
    "order",
    [
        # newer beats older of the same size
        ("llama-2-7b", "llama-3-8b", "llama-3.1-8b"),
        ("llama-2-70b", "llama-3-70b", "llama-3.1-70b", "llama-3.3-70b"),
        ("qwen1.5-7b-chat", "qwen2-7b-instruct", "qwen2.5-7b-instruct", "qwen3-8b", "qwen3.5-9b"),
        ("qwen1.5-14b-chat", "qwen2.5-14b-instruct", "qwen3-14b"),
        ("qwen3.5-27b", "qwen3.6-27b", "qwen3.8-27b"),
        ("gemma-7b", "gemma-2-9b", "gemma-3-12b", "gemma-4-12b"),
        ("mistral-7b-instruct-v0.1", "mistral-7b-instruct-v0.2", "mistral-7b-instruct-v0.3"),
        ("glm-4.5", "glm-4.6", "glm-4.7", "glm-5"),
        ("granite-3.0-8b-instruct", "granite-3.3-8b-instruct", "granite-4.1-8b"),
        # larger beats smaller of the same generation
        ("llama-2-7b", "llama-2-13b", "llama-2-70b"),
        ("llama-3.2-1b", "llama-3.2-3b", "llama-3.1-8b", "llama-3.1-70b", "llama-3.1-405b"),
        ("qwen2.5-0.5b-instruct", "qwen2.5-1.5b-instruct", "qwen2.5-3b-instruct", "qwen2.5-7b-instruct",
         "qwen2.5-14b-instruct", "qwen2.5-32b-instruct", "qwen2.5-72b-instruct"),
        ("qwen3-0.6b", "qwen3-1.7b", "qwen3-4b", "qwen3-8b", "qwen3-14b", "qwen3-32b", "qwen3-235b-a22b"),
        ("gemma-3-270m", "gemma-3-1b", "gemma-3-4b", "gemma-3-12b", "gemma-3-27b"),
        ("gpt-oss-20b", "gpt-oss-120b"),
        ("deepseek-r1-distill-qwen-1.5b", "deepseek-r1-distill-qwen-7b", "deepseek-r1-distill-qwen-14b",
         "deepseek-r1-distill-qwen-32b"),
        ("mixtral-8x7b", "mixtral-8x22b"),
        ("tinyllama-1.1b-chat-v1.0", "llama-3.2-1b"),
        ("phi-3-mini-4k-instruct", "phi-4-mini-instruct", "phi-4"),
    ],
)  # fmt: skip
def test_known_orderings_hold(order: tuple[str, ...], models: dict[str, Model], qualities: Qualities) -> None:
    scores = [qualities.standing(models[name], Task.CHAT).score for name in order]
    assert scores == sorted(scores)
    assert len(set(scores)) == len(scores)


def test_a_measured_model_has_its_measured_score(catalog: Catalog, qualities: Qualities) -> None:
    measured = [model for model in catalog.models if score_on(model, INDEX) is not None]
    assert len(measured) >= 60
    for model in measured:
        quality = qualities.of(model, model.native_dtype, Task.CHAT)
        assert (quality.score, quality.estimated, quality.index) == (score_on(model, INDEX), False, INDEX)
        assert quality.source in catalog.sources


def test_an_estimate_never_outranks_a_measured_sibling_that_is_as_large_and_as_new(
    catalog: Catalog, qualities: Qualities
) -> None:
    standings = {model.id: qualities.standing(model, Task.CHAT) for model in catalog.models}
    measured = [model for model in catalog.models if not standings[model.id].estimated]
    compared = 0
    for model in catalog.models:
        if not standings[model.id].estimated or model.derived_from:
            continue
        for other in measured:
            same_line = model.lineage and model.lineage == other.lineage
            if (
                same_line
                and effective_size(other) >= effective_size(model)
                and year(other.released) >= year(model.released)
            ):
                compared += 1
                assert standings[model.id].score <= standings[other.id].score, (model.id, other.id)
    assert compared > 100


def test_an_estimate_hardly_ever_outranks_a_measured_model_twice_as_large_and_half_a_year_newer(
    catalog: Catalog, qualities: Qualities
) -> None:
    standings = {model.id: qualities.standing(model, Task.CHAT) for model in catalog.models}
    measured = [model for model in catalog.models if not standings[model.id].estimated]
    pairs = [
        standings[model.id].score > standings[other.id].score
        for model in catalog.models
        for other in measured
        if standings[model.id].estimated
        and effective_size(other) >= 2 * effective_size(model)
        and year(other.released) >= year(model.released) + 0.5
    ]
    assert sum(pairs) <= 0.001 * len(pairs)


def test_an_estimate_is_near_the_score_that_was_hidden_and_rarely_above_it(
    catalog: Catalog, quantizations: Quantizations
) -> None:
    errors = []
    for model in catalog.models:
        score = score_on(model, INDEX)
        if score is not None:
            bare = replace(model, benchmarks=tuple(b for b in model.benchmarks if b.index != INDEX))
            others = [bare if other.id == model.id else other for other in catalog.models]
            errors.append(Qualities(others, quantizations).standing(bare, Task.CHAT).score - score)
    assert sorted(abs(error) for error in errors)[len(errors) // 2] <= 2.5
    assert sum(error > 0 for error in errors) <= 0.3 * len(errors)
    assert max(errors) <= 6


def test_a_fine_tune_without_scores_is_not_better_than_its_base(models: dict[str, Model], qualities: Qualities) -> None:
    for name in ("hermes-3-llama-3.1-8b", "ornith-1.5-9b", "nextcoder-7b"):
        model = models[name]
        parent = models[model.derived_from or ""]
        standing = qualities.standing(model, Task.CHAT)
        assert standing.estimated
        assert standing.score <= qualities.standing(parent, Task.CHAT).score


def test_the_score_falls_with_every_step_of_quantisation(models: dict[str, Model], qualities: Qualities) -> None:
    ladder = ("BF16", "Q8_0", "Q6_K", "Q5_K_M", "Q4_K_M", "Q3_K_M", "Q2_K", "IQ2_XXS", "IQ1_S")
    scores = [qualities.of(models["llama-3.1-8b"], quant, Task.CHAT).score for quant in ladder]
    assert scores == sorted(scores, reverse=True)
    assert scores[4] > 0.97 * scores[0]  # Q4_K_M: the recommended one
    assert scores[6] < 0.90 * scores[0]  # Q2_K
    assert scores[8] < 0.50 * scores[0]  # IQ1_S


def test_a_large_model_in_2_bits_beats_a_small_one_in_8_but_not_one_of_half_its_size(
    models: dict[str, Model], qualities: Qualities
) -> None:
    large = qualities.of(models["qwen2.5-72b-instruct"], "Q2_K", Task.CHAT).score
    assert large > qualities.of(models["qwen2.5-7b-instruct"], "Q8_0", Task.CHAT).score
    assert large < qualities.of(models["qwen2.5-32b-instruct"], "Q8_0", Task.CHAT).score
    tiny = qualities.of(models["llama-3.1-8b"], "IQ1_S", Task.CHAT).score
    assert tiny < qualities.of(models["llama-3.2-3b"], "Q8_0", Task.CHAT).score


def test_the_type_that_a_model_was_trained_in_costs_nothing(models: dict[str, Model], qualities: Qualities) -> None:
    assert qualities.of(models["gpt-oss-20b"], "MXFP4", Task.CHAT).quant_loss == 0
    assert 0 < qualities.of(models["gpt-oss-20b"], "Q4_K_M", Task.CHAT).quant_loss < 0.2
    assert qualities.of(models["qwen3-8b"], "MXFP4", Task.CHAT).quant_loss > 0.1


def test_an_unmeasured_format_costs_what_a_k_quant_of_its_bits_costs(quantizations: Quantizations) -> None:
    divergence = Divergence(quantizations)
    assert divergence.of("Q5_K_M") < divergence.of("AWQ") < divergence.of("Q3_K_M")
    assert divergence.of("FP8") < divergence.of("Q6_K")
    assert divergence.of("UD-Q4_K_XL") == pytest.approx(divergence.of("Q4_K_M"))


def test_coding_scores_lift_models_that_code(models: dict[str, Model], qualities: Qualities) -> None:
    def gain(name: str) -> float:
        model = models[name]
        return qualities.standing(model, Task.CODING).score - qualities.standing(model, Task.CHAT).score

    assert gain("qwen2.5-coder-7b-instruct") > 0
    assert gain("deepseek-v4-flash") > 0  # SWE-bench Verified 79
    assert gain("llama-4-maverick") < 0  # Aider polyglot 15.6
    assert gain("qwen3-8b") == 0


def test_only_chat_models_are_offered_for_chat(models: dict[str, Model]) -> None:
    for name in ("bge-m3", "qwen3-embedding-8b", "llama-guard-3-8b", "starcoder2-7b", "gpt2", "translategemma-27b-it"):
        assert not suits(models[name], Task.CHAT)
    for name in ("llama-3.1-8b", "qwen3.6-27b", "gpt-oss-20b", "gemma-3-27b"):
        assert suits(models[name], Task.CHAT)
    assert suits(models["bge-m3"], Task.EMBEDDING)


def test_an_unknown_model_is_judged_by_size_and_age(catalog: Catalog, qualities: Qualities) -> None:
    like = next(model for model in catalog.models if model.id == "llama-3.1-8b")
    plain = replace(like, id="mine", lineage="", benchmarks=(), params=7_000_000_000, params_active=6_500_000_000)
    larger = replace(plain, id="mine-larger", params=70_000_000_000, params_active=69_000_000_000)
    scores = [qualities.of(model, "Q8_0", Task.CHAT) for model in (plain, larger)]
    assert scores[0].score < scores[1].score
    assert all(score.estimated for score in scores)


def test_a_catalog_without_scores_still_orders_by_size(catalog: Catalog, quantizations: Quantizations) -> None:
    bare = [replace(model, benchmarks=()) for model in catalog.models if model.lineage == "llama"]
    qualities = Qualities(bare, quantizations)
    by_id = {model.id: model for model in bare}
    small, large = (qualities.standing(by_id[name], Task.CHAT).score for name in ("llama-3.1-8b", "llama-3.1-70b"))
    assert small < large


def test_least_squares_finds_an_exact_plane() -> None:
    rows = [(1.0, x, y) for x in range(4) for y in range(4)]
    weights = least_squares(rows, [3 + 2 * x - y for _, x, y in rows])
    assert weights == pytest.approx([3, 2, -1], abs=1e-4)


def test_judging_is_fast_enough_for_a_scan(catalog: Catalog, qualities: Qualities) -> None:
    for model in catalog.models:
        qualities.of(model, "Q4_K_M", Task.CHAT)
    start = time.process_time()
    for model in catalog.models:
        qualities.of(model, "Q4_K_M", Task.CHAT)
    assert (time.process_time() - start) / len(catalog.models) < 20e-6


def test_embedding_models_are_compared_on_their_own_index(models: dict[str, Model], qualities: Qualities) -> None:
    order = ("qwen3-embedding-8b", "qwen3-embedding-4b", "qwen3-embedding-0.6b", "bge-m3", "all-minilm-l6-v2")
    standings = [qualities.standing(models[name], Task.EMBEDDING) for name in order]
    assert {standing.index for standing in standings} == {EMBEDDING_INDEX}
    assert [standing.score for standing in standings] == sorted((s.score for s in standings), reverse=True)
    assert [standing.estimated for standing in standings] == [False, True, False, False, True]
    assert qualities.of(models["qwen3-embedding-4b"], "Q8_0", Task.EMBEDDING).index == EMBEDDING_INDEX
    assert qualities.standing(models["qwen3-14b"], Task.CHAT).index == INDEX
