"""What a glance rules out, every estimate would rule out too."""

from __future__ import annotations

import pytest

from fitcheck import catalog, facts
from fitcheck.advise.choose import Chooser
from fitcheck.estimate.fit import Estimator
from fitcheck.probe.pretend import pretend
from fitcheck.types import Request

MACHINES = ("Raspberry Pi 5 8GB", "Ryzen 7 7700", "RTX 3060", "M4 Max 64GB", "2x RTX 3090")


@pytest.mark.parametrize("name", MACHINES)
def test_a_model_out_of_reach_fails_the_estimate(name: str) -> None:
    chooser = Chooser(pretend(name), Request(), Estimator(facts.load()))
    models = [model for model in catalog.load().models if model.shape is not None]
    out = [model for model in models if not chooser.is_within_reach(model)]
    assert out, "nothing was ruled out: the test shows nothing"
    assert [model.id for model in out if chooser.choose(model).passes] == []
