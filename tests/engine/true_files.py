"""Sparse GGUF files of the catalog's models that llama.cpp itself loads: true shapes, no weights, no vocabulary.

The tensors and sizes are those of ``tests/sources/true_shapes.py``; this adds the keys that the engine insists on and
that no size depends on.
"""

from __future__ import annotations

import importlib.util
import random
from pathlib import Path
from typing import Any

import gguf

from fitcheck.types import Attention, LatentAttention, Model, Shape

SIGMOID = {"expert_gating_func": 2}
SECTIONS = {"rope.dimension_sections": [11, 11, 10, 0]}
SCALES = {"logit_scale": 1.0, "residual_scale": 1.0, "embedding_scale": 1.0, "attention.scale": 1.0}
INDEXER = {"attention.indexer.top_k": 2048, **SIGMOID}
HYPER_CONNECTIONS = {
    "hyper_connection.count": 4,
    "hyper_connection.sinkhorn_iterations": 20,
    "hyper_connection.epsilon": 1e-6,
}
KEYS: dict[str, dict[str, Any]] = {
    "deepseek4": {
        **HYPER_CONNECTIONS,
        "expert_gating_func": 4,
        "attention.compress_rope_freq_base": 160000.0,
        "swiglu_clamp_exp": 10.0,
    },
    "dots1": SIGMOID,
    "minimax-m2": SIGMOID,
    "exaone-moe": SIGMOID,
    "deepseek32": INDEXER,
    "glm-dsa": INDEXER,
    "granite": SCALES,
    "granitemoe": SCALES,
    "cohere2": {"logit_scale": 1.0},
    "cohere2moe": {"logit_scale": 1.0},
    "qwen2vl": SECTIONS,
    "qwen35": SECTIONS,
    "qwen35moe": SECTIONS,
    "llama4": {"interleave_moe_layer_step": 1},
    "ernie4_5-moe": {"interleave_moe_layer_step": 1},
    "glm5-next": {
        **HYPER_CONNECTIONS,
        **SIGMOID,
        "attention.indexer.top_k": 2048,
        "attention.indexer.kpool": 4,
        "attention.indexer.kpool_select_tail": True,
        "kda.gate_lower_bound": -5.0,
    },
    "qwen4exp": {
        **SECTIONS,
        "hyper_connection.count": 4,
        "hyper_connection.low_rank": 320,
        "attention.indexer.head_count": 4,
        "attention.indexer.key_length": 128,
        "attention.indexer.top_k": 2048,
        "rope.dimension_count": 64,
    },
    "gptneox": {"use_parallel_residual": True},
}


NGRAM_ARRAYS = {
    "qwen4exp.ple.layers": gguf.GGUFValueType.UINT32,
    "qwen4exp.ple.layer_multipliers": gguf.GGUFValueType.UINT64,
    "qwen4exp.ple.head_offsets": gguf.GGUFValueType.UINT64,
    "qwen4exp.ple.head_vocab_sizes": gguf.GGUFValueType.UINT64,
}


def _true_shapes() -> Any:
    path = Path(__file__).parents[1] / "sources" / "true_shapes.py"
    spec = importlib.util.spec_from_file_location("true_shapes_for_the_engine", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def fill(path: Path) -> Path:
    """Random weights of a hundredth or so, in place of the zeros of a sparse file."""
    chance = random.Random(1)
    tile = bytes(byte for _ in range(1 << 16) for byte in (chance.randrange(256), chance.choice((0x3C, 0xBC))))
    start = gguf.GGUFReader(path).data_offset
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.seek(start)
        for position in range(start, size, len(tile)):
            file.write(tile[: size - position])
    return path


def write(model: Model, path: Path) -> Path:
    """A BF16 file of the model."""
    shapes = _true_shapes()
    metadata, add = shapes._metadata, shapes._add

    def with_keys(model: Model, shape: Shape) -> dict[str, Any]:
        more = {f"{model.architecture}.{key}": value for key, value in KEYS.get(str(model.architecture), {}).items()}
        if model.architecture == "glm5-next":  # layers without KV heads keep a state
            kv_heads = [int(isinstance(layer.mixer, LatentAttention)) for layer in shape.each_layer()]
            more["glm5-next.attention.head_count_kv"] = kv_heads
        if model.architecture == "qwen4exp":  # layers without a ratio attend to everything
            ratios = [4 * isinstance(layer.mixer, Attention) for layer in shape.each_layer()]
            more["qwen4exp.attention.compress_ratios"] = ratios
        return {**metadata(model, shape), **more, "tokenizer.ggml.model": "none"}

    def add_any(writer: gguf.GGUFWriter, key: str, value: Any) -> None:
        if isinstance(value, str):
            writer.add_string(key, value)
        elif key in NGRAM_ARRAYS:
            writer.add_key_value(key, value, gguf.GGUFValueType.ARRAY, sub_type=NGRAM_ARRAYS[key])
        else:
            add(writer, key, value)

    shapes._metadata, shapes._add = with_keys, add_any
    written: Path = shapes.write(model, path)
    return written
