"""Weights, caches and states agree with what llama.cpp itself says it stores and allocates."""

from __future__ import annotations

import pytest

from fitcheck import catalog, facts
from fitcheck.accuracy import memory as accuracy
from fitcheck.accuracy.memory import Predictor, models_of, rows_of, score_weights
from fitcheck.accuracy.memory_score import read
from fitcheck.estimate import tensors
from fitcheck.types import Model

TABLE = facts.load().quantizations


@pytest.fixture(scope="module")
def models() -> dict[str, Model]:
    return models_of(read("llama_cpp_memory.json.gz")["models"], from_catalog=True)


def test_files_have_the_bytes_that_llama_quantize_gives_them(models: dict[str, Model]) -> None:
    score, _ = score_weights(models, TABLE)
    assert len(score.errors) >= 450
    assert score.meets(accuracy.BARS["weights"])


def test_caches_and_states_are_allocated_as_predicted_on_every_device(models: dict[str, Model]) -> None:
    predictor = Predictor(TABLE)
    wrong = []
    for row in list(rows_of(read("llama_cpp_memory.json.gz")))[::7]:
        load = predictor.load(models[row.model], row)
        _, context = predictor.weights_and_context(load, row)
        true = [*row.context, *[0] * (len(context) - len(row.context))]
        if list(context) != true:
            wrong.append((row.model, row.n_ctx, row.kv_type, row.placement))
    assert not wrong


def test_every_shape_of_the_catalog_adds_up_to_its_parameters() -> None:
    off = [
        model.id
        for model in catalog.load().models
        if model.shape is not None and tensors.parameters(model.shape)[0] != model.params
    ]
    assert not off
