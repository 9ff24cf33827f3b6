"""The form of the speed model: time as a sum of terms, each a physical time multiplied by fitted factors.

A term's ``base_s`` is what the hardware's data sheet promises (bytes / bandwidth, FLOP / peak, operations x 1 s); the
factors named by its keys say how far reality is from it. An absent key means 1 (a factor) or 0 (an exponent): hardware
that nobody measured gets its backend's mean. Because every factor multiplies, the derivative of ln time by ln factor is
the share of the terms that contain it, which is all that the fit needs.
"""

from __future__ import annotations

from typing import NamedTuple

from msgspec import Struct


class Term(NamedTuple):
    """``base_s`` seconds, times each factor of ``keys``, times x ** exponent for each (exponent's key, x)."""

    what: str  # memory, compute, overhead, link
    base_s: float
    keys: tuple[str, ...]
    powers: tuple[tuple[str, float], ...] = ()


class Spread(Struct, frozen=True):
    """The 80 % interval: ln(actual time / likely time) lies in [low, high] in 8 of 10 cases of a new source."""

    low: float
    high: float
    sources: int


class Parameter(Struct, frozen=True):
    """What a family of parameters means: its unit and, in one line, what it stands for."""

    unit: str
    about: str


class SpeedModel(Struct, frozen=True):
    """fitcheck/data/speed_model.json.

    ``parameters``: key -> value; ``about`` explains them by the first two words of the key. ``operations``: kernels or
    graph nodes per part of a layer. ``runtimes``: runtime -> the backend it brings along (vllm, mlx), where it does
    not use the accelerator's. ``spreads``: "decode.cuda" -> interval.
    """

    date: str
    about: dict[str, Parameter]
    parameters: dict[str, float]
    operations: dict[str, float]
    runtimes: dict[str, str]
    spreads: dict[str, Spread]


def term_seconds(term: Term, parameters: dict[str, float]) -> float:
    """The time of one term, in seconds."""
    seconds = term.base_s
    for key in term.keys:
        seconds *= parameters.get(key, 1.0)
    for key, x in term.powers:
        seconds *= x ** parameters.get(key, 0.0)
    return seconds


def total_seconds(terms: list[Term], parameters: dict[str, float]) -> float:
    """The time of all terms, one after the other."""
    return sum(term_seconds(term, parameters) for term in terms)
