"""Against a real card: what llama.cpp and transformers allocated on an NVIDIA H100 80GB HBM3 (``h100_memory.json``)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from fitcheck import catalog, facts
from fitcheck.accuracy import memory_cuda
from fitcheck.accuracy.memory_cuda import Row, predicted
from fitcheck.estimate.fit import Estimator
from fitcheck.probe.pretend import pretend
from fitcheck.types import Request

MEASURED = json.loads((Path(__file__).parents[2] / "data" / "h100_memory.json").read_text())
MODELS = {model.id: model for model in catalog.load().models}
CARD = pretend(memory_cuda.CARD)
ESTIMATOR = Estimator(facts.load())


def _name(row: dict[str, Any]) -> str:
    return f"{row['model']} {row['quant']} -ngl {row['gpu_layers']} --n-cpu-moe {row['cpu_expert_layers']}"


@pytest.mark.parametrize("row", MEASURED["llama.cpp"], ids=_name)
def test_llama_cpp_allocated_what_is_predicted(row: dict[str, Any]) -> None:
    asked = Row(
        model=row["model"],
        quant=row["quant"],
        context=row["context"],
        kv_type="f16",
        flash_attention="auto",
        ubatch=512,
        outputs=1,
        sequences=1,
        gpu_layers=row["gpu_layers"],
        cpu_expert_layers=row["cpu_expert_layers"],
    )
    host, card = predicted(asked, MODELS[row["model"]], CARD, ESTIMATOR)
    on_host, on_card = host.parts, card.parts
    assert (on_card.weights, on_card.kv + on_card.state) == (row["gpu_weights"], row["gpu_context"])
    assert (on_card.compute, on_host.compute, on_host.kv) == (
        row["gpu_compute"],
        row["host_compute"],
        row["host_context"],
    )
    driver_bytes = 120 << 20  # so far its context, kernels and pools may be off
    assert card.need == pytest.approx(row["used_after_prompt"], abs=driver_bytes)


@pytest.mark.parametrize("row", MEASURED["transformers"], ids=lambda row: row["model"])
def test_transformers_takes_what_is_predicted(row: dict[str, Any]) -> None:
    model = MODELS[row["model"]]
    request = Request(context_tokens=row["context"], quant="BF16", runtime="transformers")
    _, card = ESTIMATOR.place(model, "BF16", CARD, request, "transformers").uses
    assert card.need == pytest.approx(row["used"], rel=0.04)
