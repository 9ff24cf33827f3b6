"""The header of a model is enough to say what the engine allocates, whatever its architecture.

Truth: small models of 135 architectures, planned by llama.cpp itself from the same hyper-parameters; of some the
tensors tell what hyper-parameters do not.
"""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from fitcheck import facts
from fitcheck.accuracy.memory_score import read
from fitcheck.catalog.gguf_shape import shape_from_gguf
from fitcheck.estimate.buffers import BufferQuestion, compute_buffers, layer_split, upper_bound
from fitcheck.estimate.cache import CacheSettings, cache_forms, widest_value
from fitcheck.estimate.graph.architectures import ARCHITECTURES
from fitcheck.estimate.graph.tensors import HOST
from fitcheck.estimate.memory import caches_of
from fitcheck.types import Shape, Tensor


def _name(row: dict[str, Any]) -> str:
    return " ".join((row["architecture"], row["variant"])) if "variant" in row else str(row["architecture"])


ROWS: dict[str, Any] = {_name(row): row for row in read("engine_graphs.json.gz")["rows"]}
CARDS = {"cpu": 0, "cpu off": 0, "cpu four": 0, "gpu": 1, "gpu q8_0": 1, "gpu logits": 1, "split": 1, "x2": 2}
CONTEXTS = {"cpu off": 4096, "cpu four": 16384, "gpu q8_0": 16384}
SEQUENCES = {"cpu four": 4}
EVERY_ROW = "gpu logits"  # as llama-bench asks
ON_GPU = 3  # layers of a split, the output matrix among them
TABLE = facts.load().quantizations


def _shape(row: dict[str, Any]) -> Shape:
    name = row["architecture"]
    metadata = {f"{name}.{key}": value for key, value in row["hyperparameters"].items()}
    listed = row.get("tensors")
    tensors = [Tensor(tensor, tuple(dims), "F32") for tensor, dims in listed.items()] if listed else None
    shape = shape_from_gguf(name, metadata, row["vocabulary"], tensors)
    assert shape is not None
    return shape


def _questions(row: dict[str, Any]) -> list[tuple[BufferQuestion, dict[str, Any]]]:
    shape = _shape(row)
    layers = shape.n_layers * shape.num_loops
    every_row = ARCHITECTURES[row["architecture"]].family in ("encoder", "t5_encoder")
    found = []
    for name, truth in row["bytes"].items():
        cards = CARDS[name]
        kv_type = "q8_0" if "q8_0" in name else "f16"
        devices = layer_split(layers, cards) if cards else ()
        if name == "split":
            devices = (HOST,) * (layers + 1 - ON_GPU) + (1,) * ON_GPU
        question = BufferQuestion(
            architecture=row["architecture"],
            shape=shape,
            context_tokens=CONTEXTS.get(name, 8192),
            sequences=SEQUENCES.get(name, 1),
            outputs=0 if every_row or name == EVERY_ROW else SEQUENCES.get(name, 1),
            kv_type_k=kv_type,
            kv_type_v=kv_type,
            flash_attention=truth["flash"],
            flash_turned_off=not truth["flash"] and "off" not in name,
            layer_devices=devices,
            weight_type=lambda layer, tensor: "f32",
            fuses=False,
        )
        found.append((question, truth))
    return found


@pytest.mark.parametrize("architecture", sorted(ROWS))
def test_compute_buffers_are_those_of_the_engine(architecture: str) -> None:
    for question, truth in _questions(ROWS[architecture]):
        found = compute_buffers(question)
        assert found.exact
        assert list(found.bytes) == truth["compute"]


@pytest.mark.parametrize("architecture", sorted(ROWS))
def test_caches_are_those_of_the_engine(architecture: str) -> None:
    layout = TABLE.layout(architecture)
    for question, truth in _questions(ROWS[architecture]):
        shape = question.shape
        transposed = not question.flash_attention and not question.flash_turned_off
        settings = CacheSettings(
            context_tokens=question.context_tokens,
            sequences=question.sequences,
            type_k=question.kv_type_k,
            type_v=question.kv_type_v,
            padded_v=widest_value(shape) if transposed else None,
        )
        caches = caches_of(shape, cache_forms(shape, layout), settings, TABLE)
        cards = max(question.layer_devices, default=0)
        expected = (caches.gpu if cards else caches.host).total + caches.state.total
        assert expected == sum(truth["context"])


@pytest.mark.parametrize("architecture", sorted(name for name in ROWS if not name.startswith("t5")))
def test_a_bound_without_the_graph_is_never_below_the_engine(architecture: str) -> None:
    """What a model of an architecture of tomorrow would get; T5's bias on scores, alone in this, is beyond it."""
    for question, truth in _questions(ROWS[architecture]):
        found = upper_bound(replace(question, architecture="of-tomorrow"))
        assert all(bound >= real for bound, real in zip(found.bytes, truth["compute"], strict=True))
