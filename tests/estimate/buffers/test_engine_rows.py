"""Compute buffers agree with llama.cpp's own allocations, per device and to the byte."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from fitcheck.catalog.gguf_shape import shape_from_gguf
from fitcheck.estimate.buffers import BufferQuestion, compute_buffers, layer_split

ROWS = Path(__file__).parents[2] / "data" / "llama_cpp_memory.json.gz"
EVERY = 101  # of the rows; a prime, so that models, contexts and placements mix
GPUS = {"cpu": 0, "full": 1, "x2": 2}


def _table() -> dict[str, Any]:
    table: dict[str, Any] = json.loads(gzip.decompress(ROWS.read_bytes()))
    return table


def _sample() -> list[tuple[dict[str, Any], dict[str, Any]]]:
    table = _table()
    rows = [dict(zip(table["columns"], row, strict=True)) for row in table["rows"]]
    chosen = [row for row in rows if row["placement"] in GPUS][::EVERY]
    return [(table["models"][row["model"]], row) for row in chosen]


def _question(model: dict[str, Any], row: dict[str, Any]) -> BufferQuestion:
    architecture = model["architecture"]
    metadata = {f"{architecture}.{key}": value for key, value in model["hyperparameters"].items()}
    shape = shape_from_gguf(architecture, metadata, model["n_vocab"])
    assert shape is not None
    gpus = GPUS[row["placement"]]
    # the split counts prediction layers, which are not loaded
    devices = layer_split(model["hyperparameters"]["block_count"], gpus) if gpus else ()
    return BufferQuestion(
        architecture=architecture,
        shape=shape,
        context_tokens=row["n_ctx"],
        ubatch_tokens=row["n_ubatch"],
        sequences=row["n_seq_max"],
        outputs=row["n_outputs_max"],
        kv_type_k=row["kv_type"],
        kv_type_v=row["kv_type"],
        flash_attention=row["flash_resolved"] == "on",
        swa_full=bool(row["swa_full"]),
        kv_unified=bool(row["kv_unified"]),
        layer_devices=devices[: shape.n_layers] + devices[-1:] if gpus else (),
        fuses=False,
    )


def test_sampled_rows_are_exact_on_every_device() -> None:
    sample = _sample()
    wrong = []
    for model, row in sample:
        found = compute_buffers(_question(model, row))
        assert found.exact
        if list(found.bytes) != row["compute"]:
            wrong.append((model["model"], row["placement"], row["n_ctx"], found.bytes, row["compute"]))
    assert not wrong
    assert len(sample) > 50


def test_sample_holds_most_architectures_and_every_setting() -> None:
    sample = _sample()
    assert len({model["architecture"] for model, _ in sample}) >= 20
    for setting in ("placement", "kv_type", "flash_resolved", "n_ubatch", "n_seq_max", "n_outputs_max"):
        assert len({row[setting] for _, row in sample}) > 1, setting


@pytest.mark.parametrize("context", [4096, 131_072])
def test_worked_example_of_llama_8b(context: int) -> None:
    """The sum that docs/compute-buffers.md explains, term by term."""
    table = _table()
    model = next(model for model in table["models"] if model["model"] == "Llama-3.1-8B")
    metadata = {f"llama.{key}": value for key, value in model["hyperparameters"].items()}
    shape = shape_from_gguf("llama", metadata, model["n_vocab"])
    assert shape is not None
    question = BufferQuestion(
        architecture="llama", shape=shape, context_tokens=context, layer_devices=(1,) * (shape.n_layers + 1)
    )
    width, heads, feed_forward, tokens = 4096, 4096, 14_336, 512
    layer = 4 * tokens * (2 * width + heads + 3 * feed_forward)
    mask = 2 * context * tokens
    inputs = 4 * tokens + 2 * 8 * tokens + 128
    host = 2 * 4 * tokens * width + mask + 2 * 4 * tokens + 2 * 8 * tokens + 32
    assert compute_buffers(question).bytes == (host, layer + mask + inputs)
