"""What publishers do beyond the mix of a file's name is data with a source, and applies to their files alone."""

from __future__ import annotations

from collections import defaultdict

import pytest

from fitcheck import facts
from fitcheck.catalog import Catalog
from fitcheck.catalog.resolve import resolve
from fitcheck.catalog.verify import FileSize, file_sizes
from fitcheck.estimate.quantizations import Quantizations, Recipe
from fitcheck.estimate.quantize import type_of, weights

CLOSE = 0.003


def files_by_recipe(catalog: Catalog, quantizations: Quantizations) -> dict[str, list[FileSize]]:
    """The published files that each recipe predicts, by the recipe's source."""
    models = {model.id: model for model in catalog.models}
    found: dict[str, list[FileSize]] = defaultdict(list)
    for size in file_sizes(catalog, quantizations):
        for recipe in quantizations.recipes:
            if _applies(recipe, size, models[size.model].architecture):
                found[recipe.source].append(size)
    return found


def _applies(recipe: Recipe, size: FileSize, architecture: str | None) -> bool:
    owner = size.file.repo.partition("/")[0]
    return owner == recipe.publisher and architecture in recipe.architectures and size.file.quant in recipe.quants


def test_every_recipe_names_its_evidence(quantizations: Quantizations) -> None:
    assert {recipe.source for recipe in quantizations.recipes} <= set(quantizations.sources)


def test_no_two_recipes_speak_about_one_file(quantizations: Quantizations) -> None:
    keys = [
        (recipe.publisher, architecture, quant)
        for recipe in quantizations.recipes
        for architecture in recipe.architectures
        for quant in recipe.quants
    ]
    assert len(keys) == len(set(keys))


def test_a_recipe_says_more_than_one_file_of_its_publisher(catalog: Catalog, quantizations: Quantizations) -> None:
    """Sizes alone prove a recipe only where several agree; the others rest on a loader's print or a document."""
    by_recipe = files_by_recipe(catalog, quantizations)
    for source in ("unsloth gemma-4", "unsloth gemma-4 q8", "unsloth gemma-3n", "unsloth qwen3.5 moe"):
        assert sum(abs(size.error) <= CLOSE for size in by_recipe[source]) >= 2, source
        assert all(size.agrees for size in by_recipe[source]), source
    assert sum(abs(size.error) <= CLOSE for size in by_recipe["unsloth qwen3.5"]) >= 5


def test_an_exact_size_is_met_to_a_part_in_a_thousand(catalog: Catalog, quantizations: Quantizations) -> None:
    for source in ("unsloth gemma-4", "unsloth gemma-3n", "unsloth qwen3.5 moe"):
        for size in files_by_recipe(catalog, quantizations)[source]:
            assert not size.file.exact or abs(size.error) <= 0.001, size


def test_naming_a_publishers_repository_gives_its_files_and_naming_the_model_the_mix(
    catalog: Catalog, quantizations: Quantizations
) -> None:
    plain = resolve("gemma-4-12b", catalog)
    theirs = resolve("unsloth/gemma-4-12b-it-GGUF", catalog)
    assert (plain.publisher, theirs.publisher, theirs.id) == (None, "unsloth", plain.id)
    pinned = next(file for file in plain.files if file.quant == "Q4_K_M" and file.exact)
    assert weights(theirs, "Q4_K_M", quantizations).file_bytes == pytest.approx(pinned.bytes, rel=1e-4)
    assert weights(plain, "Q4_K_M", quantizations).file_bytes > pinned.bytes * 1.03


def test_the_estimate_of_a_publishers_files_is_not_that_of_the_ready_made_table(catalog: Catalog) -> None:
    known = facts.load()
    plain, theirs = resolve("gemma-4-12b", catalog), resolve("unsloth/gemma-4-12b-it-GGUF", catalog)
    assert known.weights.find(plain, "Q4_K_M") is not None
    assert known.weights.find(theirs, "Q4_K_M") is None
    assert known.weights.knows(theirs)


def test_a_publisher_without_a_recipe_gets_the_mix(catalog: Catalog, quantizations: Quantizations) -> None:
    plain, theirs = resolve("qwen3-8b", catalog), resolve("Qwen/Qwen3-8B-GGUF", catalog)
    assert weights(plain, "Q4_K_M", quantizations) == weights(theirs, "Q4_K_M", quantizations)


def test_the_type_of_one_tensor_follows_the_recipe(catalog: Catalog, quantizations: Quantizations) -> None:
    theirs = resolve("unsloth/Qwen3.5-35B-A3B-GGUF", catalog)
    found = type_of(theirs, "Q4_K_M", quantizations)
    assert [found(0, name) for name in ("attn_qkv", "ssm_out", "ffn_gate_exps", "ffn_down_exps")] == [
        "q8_0", "q8_0", "q4_k", "q5_k",
    ]  # fmt: skip


def test_values_that_a_recipe_types_are_not_counted_by_the_mix(catalog: Catalog, quantizations: Quantizations) -> None:
    """With attn_qkv named, the eight attn_v of Qwen3.5-4B are values 0 to 7 of 32: five of them get more bits."""
    theirs = resolve("unsloth/Qwen3.5-4B-GGUF", catalog)
    found = type_of(theirs, "Q4_K_M", quantizations)
    assert theirs.shape is not None
    full = [index for index, layer in enumerate(theirs.shape.each_layer()) if hasattr(layer.mixer, "n_heads")]
    assert sum(found(index, "attn_v") == "q6_k" for index in full) == 5


def test_a_pure_recipe_leaves_the_mix_nothing_to_choose(catalog: Catalog, quantizations: Quantizations) -> None:
    """ggml-org's scripts quantise with --pure: what they do not name is Q4_K, in every layer."""
    theirs = resolve("ggml-org/Qwen3.6-35B-A3B-GGUF", catalog)
    found = type_of(theirs, "Q4_K_M", quantizations)
    layers = range(theirs.shape.n_layers if theirs.shape else 0)
    assert {found(index, "ffn_down_exps") for index in layers} == {"q4_k"}
    assert {found(index, "ffn_down_shexp") for index in layers} == {"q8_0"}
    plain, pure = (weights(model, "Q4_K_M", quantizations) for model in (resolve("qwen3.6-35b-a3b", catalog), theirs))
    assert pure.total < plain.total
    assert (pure.token_embedding, pure.output > plain.output) == (plain.token_embedding, True)
