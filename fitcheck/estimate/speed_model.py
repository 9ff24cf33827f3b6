"""The form of the speed model: time as a sum of terms, each a physical time multiplied by fitted factors.

A term's ``base_s`` is what the data sheet promises (bytes / bandwidth, FLOP / peak, operations x 1 us); the factors
named by its keys say how far reality is from it. A key reads test/term/level/name: "decode/read/backend/cuda",
"decode/device/hardware/NVIDIA L4". An absent key means 1 (a factor) or 0 (an exponent): hardware that nobody
measured gets its backend's mean. Because every factor multiplies, the derivative of ln time by ln factor is the share
of the terms that contain it, which is all that the fit needs.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import repeat
from math import prod
from typing import NamedTuple

from msgspec import Struct

Powers = tuple[tuple[str, float], ...]  # exponents' keys, and what is raised to them


class Seconds(NamedTuple):
    """A time: of reading, arithmetic and links, and of what operations cost however small they are."""

    work: float
    overhead: float


class Term(Struct, frozen=True):
    """``base_s`` seconds, times each factor of ``keys``, times x ** exponent for each (exponent's key, x)."""

    what: str  # memory, compute, overhead, link
    base_s: float
    keys: tuple[str, ...]
    powers: Powers = ()


class Spread(Struct, frozen=True):
    """The 80 % interval: ln(actual time / likely time) lies in [low, high] in 8 of 10 cases of a new source.
    ``sources``: how many sources it was seen in."""

    low: float
    high: float
    sources: int

    def widened(self, by: float) -> Spread:
        """The same, wider by ``by`` at both ends."""
        return Spread(self.low - by, self.high + by, self.sources)


class Family(Struct, frozen=True):
    """What the parameters under "test/term/level" (or a whole key) mean, and what was believed before the data.

    ``value``: median of a factor (mean of an exponent); ``sd``: of its logarithm (of the exponent itself).
    """

    about: str
    value: float = 1.0
    sd: float = 0.1
    unit: str = "1"
    exponent: bool = False


class SpeedModel(Struct, frozen=True):
    """fitcheck/data/speed_model.json, written by ``python -m fitcheck.accuracy.fit_speed``.

    ``families`` explain the parameters. ``operations``: kernels or graph nodes per part of a layer.
    ``runtime_backends``: runtime -> the backend that it brings along (vllm, mlx) in place of the accelerator's.
    ``memories``: kind of memory -> compute capabilities and gfx targets that have it. ``quant_classes``: quantisation
    -> class of its dot products on a CPU (absent: super-blocks). ``dequantising``: builds ("2024 cuda") and compute
    capabilities that multiply quantised prompts in FP16. ``spreads``: "decode/cuda" -> interval. ``unseen``: what ln
    widths gain at both ends on hardware without measurements, ``assumed`` where an input is assumed, ``other_engine``
    with an engine that nobody measured on such hardware.
    """

    date: str
    source: str
    families: dict[str, Family]
    operations: dict[str, float]
    runtime_backends: dict[str, str]
    memories: dict[str, tuple[str, ...]]
    quant_classes: dict[str, str]
    dequantising: tuple[str, ...]
    parameters: dict[str, float] = {}
    spreads: dict[str, Spread] = {}
    unseen: float = 0.0
    assumed: float = 0.0
    other_engine: float = 0.0

    def family(self, key: str) -> Family:
        """The family of a parameter: its own entry, or that of its test, term and level."""
        return self.families.get(key) or self.families["/".join(key.split("/", 3)[:3])]


def factor_of(parameters: dict[str, float], keys: tuple[str, ...], powers: Powers = (), start: float = 1.0) -> float:
    """``start`` times the factors of ``keys`` and each x to the power of its exponent."""
    found = prod(map(parameters.get, keys, repeat(1.0)), start=start)
    for key, x in powers:
        found *= x ** parameters.get(key, 0.0)
    return found


def term_seconds(term: Term, parameters: dict[str, float]) -> float:
    """The time of one term, in seconds."""
    return factor_of(parameters, term.keys, term.powers, term.base_s)


def total_seconds(terms: Iterable[Term], parameters: dict[str, float]) -> float:
    """The time of all terms, one after the other."""
    return sum([term_seconds(term, parameters) for term in terms])


def seconds_of(terms: Iterable[Term], parameters: dict[str, float]) -> Seconds:
    """The same, what operations cost apart."""
    work = overhead = 0.0
    for term in terms:
        seconds = term_seconds(term, parameters)
        if term.what == "overhead":
            overhead += seconds
        else:
            work += seconds
    return Seconds(work, overhead)
