"""Encoders of images: bytes as the engine allocates them, and where a placement puts them.

Truth: ``tests/data/encoders.json``, from llama.cpp itself.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from fitcheck import catalog, facts
from fitcheck.accuracy.encoders_table import build, text_of
from fitcheck.api import pretend
from fitcheck.estimate.encoders import MOST_PATCHES, bound
from fitcheck.estimate.fit import Estimator
from fitcheck.estimate.graph.image_kinds import KINDS
from fitcheck.estimate.graph.image_plan import buffer_bytes, head_size, largest_image, loaded_image, planned, weights
from fitcheck.estimate.graph.planner import CUDA_RULES
from fitcheck.estimate.images import EncoderBytes, encoders_of
from fitcheck.types import Backend, FlashAttention, MediaEncoder, Model, PlacementKind, Request, Task

DATA = Path(__file__).parents[2] / "data" / "encoders.json"
ROWS: list[dict[str, Any]] = json.loads(DATA.read_text())["rows"]
FLASH = {"auto": None, "on": True, "off": False}
TABLES = facts.load()
CUDA_HEADS = TABLES.runtimes.row("llama.cpp").flash_heads["cuda"]
MODELS = {model.id: model for model in catalog.load().models}
VISION = Request(task=Task.VISION)


def encoders(row: dict[str, Any]) -> tuple[MediaEncoder, ...]:
    return msgspec.convert(row["encoders"], tuple[MediaEncoder, ...])


def has_kernel(size: int) -> bool:
    return size in CUDA_HEADS


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row["model"])
def test_the_plan_for_the_largest_image_is_the_engines(row: dict[str, Any]) -> None:
    for setting, (_, largest) in row["buffers"].items():
        place, flash = setting.split()
        backend = Backend.CUDA if place == "gpu" else None
        stored, *buffers = planned(encoders(row), backend, FLASH[flash], has_kernel)
        assert stored == row["weights"][place]
        assert buffers[: len(largest)] == largest, setting


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row["model"])
def test_the_plan_at_loading_is_the_engines(row: dict[str, Any]) -> None:
    """With flash attention on: what llama.cpp prints when it loads the file."""
    on_gpu = [
        buffer_bytes(encoder, loaded_image(encoder), True, CUDA_RULES, has_kernel(head_size(encoder)))
        for encoder in encoders(row)
    ]
    assert [sum(sizes) for sizes in zip(*on_gpu, strict=True)] == row["buffers"]["gpu on"][0]
    on_host = [buffer_bytes(encoder, loaded_image(encoder), True)[0] for encoder in encoders(row)]
    assert [sum(on_host)] == row["buffers"]["cpu auto"][0]


def test_every_encoder_of_the_catalog_was_compared_with_the_engine() -> None:
    compared = {encoders(row) for row in ROWS}
    assert {model.encoders for model in MODELS.values() if model.encoders} == compared


def test_the_table_is_what_the_planner_says() -> None:
    assert text_of(build()) == (facts.DATA / facts.ENCODERS).read_bytes()


def beyond_the_tower(encoder: MediaEncoder) -> int:
    """Weights in the file that the published tower has not, less those that it has and the file has not."""
    d, ffn = encoder.hidden_size, encoder.ffn_size
    if encoder.kind == "pixtral":
        return encoder.out_size  # a row of the language model's embedding
    if encoder.kind == "gemma4v" and encoder.standardized:
        return 2 * d  # constants, not parameters
    if encoder.kind == "resampler":
        return encoder.out_size * encoder.positions  # sines, written out
    if encoder.kind == "muse-glimmer":
        return -3 * d * encoder.patch_size**2  # the kernels of two frames, added up
    if encoder.kind == "mlp":
        return -(4 * d * d + 2 * d * ffn + 9 * d + ffn + 2 * d)  # the last layer and norm, which nothing reads
    return 0


@pytest.mark.parametrize("model", [model for model in MODELS.values() if model.encoders], ids=lambda model: model.id)
def test_an_encoder_has_the_published_weights(model: Model) -> None:
    towers = sum(params for tower, params in model.tower_params.items() if "vision" in tower)
    held = sum(weight.elements for encoder in model.encoders for weight in weights(encoder).values())
    counted = held - sum(map(beyond_the_tower, model.encoders))
    if model.architecture == "gemma3n":  # published in one count with the encoder of sound, which nothing loads
        assert 0 < counted < towers
    elif towers:
        assert counted == towers
    else:  # published in one count with the text model, which has a scale per layer that this one has not
        assert model.published_params is not None and model.shape is not None
        assert counted == model.published_params - model.params - model.shape.n_layers


def within_the_bound(row: dict[str, Any]) -> bool:
    """Whether its images have no more patches than the bound speaks of."""
    return all(math.prod(largest_image(each)) <= MOST_PATCHES * each.patch_size**2 for each in encoders(row)[:1])


@pytest.mark.parametrize("row", [row for row in ROWS if within_the_bound(row)], ids=lambda row: row["model"])
def test_the_bound_of_an_unknown_encoder_is_never_below_the_engine(row: dict[str, Any]) -> None:
    unknown = replace(MODELS[row["model"]], encoders=())
    for setting, (_, largest) in row["buffers"].items():
        place, flash = setting.split()
        found = bound(unknown, on_gpu=place == "gpu", flash=flash != "off")
        assert not found.exact and "bound" in found.note
        host_and_gpu = (found.host, found.gpu)[: len(largest)]
        assert all(most >= real for most, real in zip(host_and_gpu, largest, strict=True)), setting


def of(model: Model, backend: Backend | None, flash: FlashAttention = FlashAttention.AUTO) -> EncoderBytes:
    return encoders_of(model, flash, backend, CUDA_HEADS, TABLES.encoders).beside(backend is not None)


def test_without_flash_attention_the_scores_of_all_patches_take_gigabytes() -> None:
    model = MODELS["qwen3-vl-8b"]
    on, off = (of(model, Backend.CUDA, flash).gpu for flash in (FlashAttention.ON, FlashAttention.OFF))
    assert off > on + 4 * 16384**2 * 16


def test_a_card_without_a_kernel_for_the_heads_works_without_flash_attention() -> None:
    """Llama 4's encoder has heads of 88."""
    model = MODELS["llama-4-scout"]
    assert of(model, Backend.CUDA).gpu > of(model, None).host


def test_only_backends_that_keep_the_order_are_exact() -> None:
    model = MODELS["gemma-3-4b"]
    exact = {backend for backend in (None, *Backend) if of(model, backend).exact}
    assert exact == {None, Backend.CUDA, Backend.ROCM}


def test_an_encoder_of_which_nothing_is_known_says_so() -> None:
    model = replace(MODELS["gemma-3-4b"], encoders=(), tower_params={}, published_params=None)
    found = of(model, Backend.CUDA)
    assert (found.weights, found.exact) == (0, False) and "not counted" in found.note


def test_the_bound_counts_what_published_weights_have_beyond_the_text_model() -> None:
    model = MODELS["gemma-3-4b"]
    counted = replace(model, encoders=(), tower_params={"vision": 300, "projector": 40, "mtp": 5})
    beyond = replace(counted, tower_params={"mtp": 5}, published_params=model.params + 345)
    assert [of(each, None).weights for each in (counted, beyond)] == [680, 680]


def parts(model: str, request: Request, on: str) -> dict[tuple[str, str], int]:
    fit = Estimator(TABLES).estimate(MODELS[model], pretend(on), replace(request, quant="Q4_K_M"))
    return {(term.name, term.device): term.bytes for term in fit.terms if term.name.startswith("projector")}


def test_a_request_for_text_has_no_encoder() -> None:
    assert parts("qwen2.5-vl-7b", Request(), "RTX 4090") == {}


def test_the_first_card_carries_the_encoder_and_the_host_its_inputs() -> None:
    row = next(row for row in ROWS if row["model"] == "olmocr-2-7b-1025")  # the same encoder
    host, gpu = row["buffers"]["gpu auto"][1]
    assert parts("qwen2.5-vl-7b", VISION, "2x RTX 3060 12GB") == {
        ("projector", "gpu0"): row["weights"]["gpu"],
        ("projector_buffer", "gpu0"): gpu,
        ("projector_buffer", "cpu"): host,
    }


def test_the_host_carries_it_where_the_model_is() -> None:
    row = next(row for row in ROWS if row["model"] == "olmocr-2-7b-1025")
    on_host = replace(VISION, allow=(PlacementKind.CPU,))
    expected = {
        ("projector", "cpu"): row["weights"]["cpu"],
        ("projector_buffer", "cpu"): row["buffers"]["cpu auto"][1][0],
    }
    assert parts("qwen2.5-vl-7b", VISION, "cpu") == expected
    assert parts("qwen2.5-vl-7b", on_host, "RTX 4090") == expected


def test_every_kind_with_a_graph_is_compared_with_the_engine() -> None:
    assert set(KINDS) == {encoder.kind for row in ROWS for encoder in encoders(row)}
