"""Against a real card: what llama.cpp and transformers allocated on an NVIDIA H100 80GB HBM3 (``h100_memory.json``)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from fitcheck import catalog, facts
from fitcheck.estimate.fit import Estimator
from fitcheck.estimate.placement import candidate, split_by
from fitcheck.probe.pretend import pretend
from fitcheck.types import Request

MEASURED = json.loads((Path(__file__).parents[2] / "data" / "h100_memory.json").read_text())
MODELS = {model.id: model for model in catalog.load().models}
CARD = pretend("H100 SXM + Xeon Platinum 8480+")
ESTIMATOR = Estimator(facts.load())


def _name(row: dict[str, Any]) -> str:
    return f"{row['model']} {row['quant']} -ngl {row['gpu_layers']} --n-cpu-moe {row['cpu_expert_layers']}"


@pytest.mark.parametrize("row", MEASURED["llama.cpp"], ids=_name)
def test_llama_cpp_allocated_what_is_predicted(row: dict[str, Any]) -> None:
    model = MODELS[row["model"]]
    request = Request(context_tokens=row["context"], quant=row["quant"], runtime="llama.cpp", logits_tokens=1)
    ground = ESTIMATOR.ground(model, row["quant"], CARD, request, "llama.cpp")
    split = split_by(ground.load, (1,), row["gpu_layers"], row["cpu_expert_layers"])
    assert ground.plan is not None
    host, card = candidate(ground, split, ground.plan(split)).uses
    assert (card.weights, card.kv + card.state) == (row["gpu_weights"], row["gpu_context"])
    assert (card.compute, host.compute, host.kv) == (row["gpu_compute"], row["host_compute"], row["host_context"])
    assert card.need == pytest.approx(
        row["used_after_prompt"], abs=120 << 20
    )  # the driver's context, kernels and pools


@pytest.mark.parametrize("row", MEASURED["transformers"], ids=lambda row: row["model"])
def test_transformers_takes_what_is_predicted(row: dict[str, Any]) -> None:
    model = MODELS[row["model"]]
    request = Request(context_tokens=row["context"], quant="BF16", runtime="transformers")
    _, card = ESTIMATOR.place(model, "BF16", CARD, request, "transformers").uses
    assert card.need == pytest.approx(row["used"], rel=0.04)
