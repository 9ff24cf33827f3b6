"""Weights as MLX itself stores them, byte for byte."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fitcheck import catalog, facts
from fitcheck.estimate.quantize import weights

TRUTH = json.loads((Path(__file__).parents[2] / "data" / "mlx_weights.json").read_text())["weights"]


@pytest.mark.parametrize("name", TRUTH)
def test_weights_are_those_that_mlx_makes(name: str) -> None:
    model = next(model for model in catalog.load().models if model.id == name)
    table = facts.load().quantizations
    found = {quant: weights(model, quant, table).total for quant in TRUTH[name]}
    assert found == TRUTH[name]
