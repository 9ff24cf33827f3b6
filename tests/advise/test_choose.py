from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fitcheck.advise.choose import Chooser
from fitcheck.advise.suit import COMFORT_PER_S, THINKING_FLOOR_PER_S, floor_per_s, suits
from fitcheck.errors import FitcheckError
from fitcheck.types import Cpu, Interval, Machine, Model, PlacementKind, Pool, Request, Task, Verdict

QUANTS = ("Q8_0", "Q6_K", "Q5_K_M", "Q4_K_M", "Q3_K_M", "Q2_K")
SIZES = dict(zip(QUANTS, (8.5, 6.6, 5.7, 4.9, 4.0, 3.2), strict=True))  # GB of an 8B model
MACHINE = Machine("linux", "x86_64", Cpu("test", 8, 16), Pool(2**35, None, 2**35))


def model(*abilities: str, modalities: tuple[str, ...] = ("text",)) -> Model:
    return Model("m", "M", None, 8_000_000_000, 8_000_000_000, abilities=abilities, modalities=modalities)


class OneModelEstimator:
    """Speed is bandwidth / size, and what is larger than ``memory`` does not fit (GB, GB/s)."""

    def __init__(self, memory: float, bandwidth: float) -> None:
        self.memory, self.bandwidth, self.asked = memory, bandwidth, 0

    def quants(self, model: Model, request: Request) -> tuple[str, ...]:
        return QUANTS

    def quick(self, model: Model, quant: str, machine: Machine, request: Request) -> Any:
        self.asked += 1
        if quant not in SIZES:
            raise FitcheckError("unknown_quant", "no")
        speed = self.bandwidth / SIZES[quant]
        return SimpleNamespace(
            verdict=Verdict.FITS if SIZES[quant] <= self.memory else Verdict.NO,
            kind=PlacementKind.CPU,
            need_bytes=int(SIZES[quant] * 1e9),
            have_bytes=int(self.memory * 1e9),
            decode_per_s=Interval(speed, speed, speed),
        )


def chosen(memory: float, bandwidth: float, request: Request | None = None) -> tuple[str, bool, bool]:
    estimator: Any = OneModelEstimator(memory, bandwidth)
    choice = Chooser(MACHINE, request or Request(), estimator).choose(model())
    return choice.quant, choice.fits, choice.passes


@pytest.mark.parametrize(
    ("memory", "bandwidth", "expected"),
    [
        (24, 1000, ("Q8_0", True, True)),  # room and speed: the best
        (6, 1000, ("Q5_K_M", True, True)),  # the best that fits
        (24, 120, ("Q5_K_M", True, True)),  # the best that is comfortable: 120 / 5.7 > 20
        (24, 60, ("Q4_K_M", True, True)),  # none is comfortable: the common one
        (24, 22, ("Q3_K_M", True, True)),  # the common one is below the floor: 22 / 4.9 < 5
        (24, 10, ("Q4_K_M", True, False)),  # nothing is fast enough
        (3.5, 1000, ("Q3_K_M", False, False)),  # two bits are never taken unasked
        (1, 1000, ("Q3_K_M", False, False)),
    ],
)
def test_the_quantisation_is_the_best_that_fits_and_is_comfortable(
    memory: float, bandwidth: float, expected: tuple[str, bool, bool]
) -> None:
    assert chosen(memory, bandwidth) == expected


def test_what_is_asked_for_is_taken_as_it_is() -> None:
    assert chosen(24, 1000, Request(quant="Q2_K")) == ("Q2_K", True, True)
    with pytest.raises(FitcheckError):
        chosen(24, 1000, Request(quant="nonsense"))


def test_a_placement_that_is_not_allowed_does_not_fit() -> None:
    assert chosen(24, 1000, Request(allow=(PlacementKind.GPU,)))[1:] == (False, False)


def test_the_asked_speed_replaces_the_floor() -> None:
    assert chosen(24, 10, Request(min_decode_per_s=0.5)) == ("Q4_K_M", True, True)
    assert chosen(24, 1000, Request(min_decode_per_s=1e6))[2] is False


@given(st.floats(1, 40), st.floats(1, 2000), st.floats(1, 4), st.floats(1, 4))
def test_more_memory_and_bandwidth_never_hurt(memory: float, bandwidth: float, more: float, faster: float) -> None:
    quant, fits, passes = chosen(memory, bandwidth)
    better_quant, better_fits, better_passes = chosen(memory * more, bandwidth * faster)
    assert better_fits >= fits
    assert better_passes >= passes
    if passes:
        assert QUANTS.index(better_quant) <= QUANTS.index(quant)


def test_nothing_is_computed_twice() -> None:
    estimator: Any = OneModelEstimator(24, 60)
    chooser = Chooser(MACHINE, Request(), estimator)
    chooser.choose(model())
    asked = estimator.asked
    chooser.choose(model())
    assert estimator.asked == asked <= len(QUANTS)


def test_embedding_and_base_models_are_never_offered_for_chat() -> None:
    assert not suits(model(modalities=("embedding",)), Task.CHAT)
    assert not suits(model("base"), Task.CHAT)
    assert not suits(model("base", "coding"), Task.CODING)
    assert suits(model(modalities=("embedding",)), Task.EMBEDDING)
    assert suits(model("tools"), Task.CHAT)


def test_a_model_that_thinks_first_has_to_be_faster() -> None:
    assert floor_per_s(model("reasoning"), Task.CHAT) == THINKING_FLOOR_PER_S > floor_per_s(model(), Task.CHAT)
    assert COMFORT_PER_S >= THINKING_FLOOR_PER_S
