"""How good a model's answers are, on the scale of one public index, and what the quantisation costs.

The scale is the Artificial Analysis Intelligence Index of the snapshot that the catalog holds. One rule, in this order:

1. A model that the index measured has its measured score.
2. Any other is estimated, and marked so. The estimate is the mean of
   - size and age: a least-squares plane through the measured models over ln(effective size), release date and whether
     the model reasons, corrected by how far the measured models of its lineage lie off the plane. The effective size of
     a mixture of experts is the geometric mean of total and active parameters;
   - every other public score it has (LMArena, SWE-bench Verified, Aider polyglot), brought to the scale by matching the
     mean and the spread of the models that both measured.
   From it comes a margin of caution, so that of two alike the measured one leads: a larger one where neither the model
   nor its lineage has any public score. An estimate lies between its lineage's measured models: not above one that is
   as large and as new, not below one that is as small and as old. A fine-tune by others has the score of the model it
   was made from, a little less so that the original leads, and what reasoning adds where it adds that.
3. For coding, public coding scores count half; a model made for code that has none gets what such models gain.
4. Embedding models have a scale of their own, MTEB (Multilingual), and a plane of their own through those that it
   measured.
5. A quantisation costs a share of the score: 1 - exp(-KL divergence / 2), from the divergences that llama.cpp publishes
   for Llama 3 8B, falling slowly with size as its Llama 2 7B and 70B tables show. The type that a model was trained in
   is free.

Measured orders are never changed. The plane and the lines are computed from the catalog on every run, so a new score
needs no refit by hand. A measured model whose score is hidden is estimated within 2 points in the median, too high in
one of four (``tests/catalog/test_quality.py``).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from functools import cached_property

from msgspec import Struct

from fitcheck.advise.divergence import Divergence, QualityTables
from fitcheck.types import Model, Quality, Task

INDEX = "aa-intelligence"
EMBEDDING_INDEX = "mteb-multilingual"
PROXIES = ("lmarena-text", "swe-bench-verified", "aider-polyglot")
CODING_INDICES = ("swe-bench-verified", "aider-polyglot", "aa-coding")
_MARGIN = 2.0  # points below a like measured model; the plane's error is about 3.5
_MARGIN_UNKNOWN = 5.0  # the same for a lineage of which nothing was measured
_TUNED = 0.5  # points below the model that a fine-tune was made from
_CODER_GAIN = 2.0  # points; the measured code models lie 3 above the plane
_SIBLING_STEP = 0.25  # share of the plane's slope that a newer or larger sibling of a measured model surely gains
_FEWEST_SHARED = 5  # models that two indices must share before one is brought to the other's scale
_FEWEST_ON_PLANE = 3  # measured embedding models: size and age are the two slopes, none of them reasons
_UNDATED = 2024.5


class Standing(Struct, frozen=True):
    """A model's score before quantisation, where it comes from, whether it was measured, and on which scale it is."""

    score: float
    estimated: bool
    rule: str
    source: str = ""
    index: str = INDEX


class Line(Struct, frozen=True):
    """Another index -> the scale: ``slope`` x score + ``offset``."""

    slope: float
    offset: float


class Sibling(Struct, frozen=True):
    """A measured model of a lineage: where it stands in size and age, its score, and how far off the plane that is."""

    size: float
    year: float
    score: float
    offset: float


class Plane(Struct, frozen=True):
    """score = base + size x ln(effective billions) + age x (year - 2025) + reasoning (if the model reasons)."""

    base: float
    size: float
    age: float
    reasoning: float

    def at(self, features: Sequence[float]) -> float:
        """The score that size and age alone let expect."""
        one, size, age, reasons = features
        return self.base * one + self.size * size + self.age * age + self.reasoning * reasons


def effective_size(model: Model) -> float:
    """Billions of parameters: the geometric mean of total and active ones."""
    return math.sqrt(max(model.params, 1) * max(model.params_active, 1)) / 1e9


def year(released: str | None) -> float:
    """``2025-08-05`` or ``2025-08`` -> 2025.6; a model without a date counts as of mid 2024."""
    if not released:
        return _UNDATED
    parts = [int(part) for part in released.split("-")]
    month = parts[1] if len(parts) > 1 else 6
    return parts[0] + (month - 1) / 12 + (parts[2] - 1 if len(parts) > 2 else 14) / 365


def features(model: Model) -> tuple[float, float, float, float]:
    """One, ln(effective size), years since 2025, and 1 where the model reasons."""
    reasons = 1.0 if "reasoning" in model.abilities else 0.0
    return 1.0, math.log(effective_size(model)), year(model.released) - 2025, reasons


def score_on(model: Model, index: str) -> float | None:
    """The newest score of a model on an index."""
    if not model.benchmarks:
        return None
    scores = [(benchmark.date, benchmark.score) for benchmark in model.benchmarks if benchmark.index == index]
    return max(scores)[1] if scores else None


def _measured(model: Model, index: str) -> Standing:
    """The newest score on an index, as it was measured."""
    newest = max((b for b in model.benchmarks if b.index == index), key=lambda b: (b.date, b.score))
    return Standing(newest.score, False, f"measured, snapshot of {newest.date}", newest.source, index)


def least_squares(rows: Sequence[Sequence[float]], values: Sequence[float]) -> list[float]:
    """Weights that minimise the squared error: the normal equations, a little damped, by Gauss-Jordan elimination."""
    width = len(rows[0])
    matrix = [
        [sum(row[i] * row[j] for row in rows) + (1e-6 if i == j else 0.0) for j in range(width)]
        + [sum(row[i] * value for row, value in zip(rows, values, strict=True))]
        for i in range(width)
    ]
    for pivot in range(width):
        largest = max(range(pivot, width), key=lambda row: abs(matrix[row][pivot]))
        matrix[pivot], matrix[largest] = matrix[largest], matrix[pivot]
        scale = matrix[pivot][pivot]
        matrix[pivot] = [cell / scale for cell in matrix[pivot]]
        for row in range(width):
            if row != pivot:
                factor = matrix[row][pivot]
                matrix[row] = [cell - factor * top for cell, top in zip(matrix[row], matrix[pivot], strict=True)]
    return [matrix[row][width] for row in range(width)]


def _matched(pairs: Sequence[tuple[float, float]]) -> Line | None:
    """The line that gives the first scores the mean and the spread of the second."""
    if len(pairs) < _FEWEST_SHARED:
        return None
    means = [sum(pair[side] for pair in pairs) / len(pairs) for side in (0, 1)]
    spreads = [math.sqrt(sum((pair[side] - means[side]) ** 2 for pair in pairs)) for side in (0, 1)]
    if not spreads[0]:
        return None
    slope = spreads[1] / spreads[0]
    return Line(slope, means[1] - slope * means[0])


class Qualities:
    """Scores of models in quantisations, for the length of one run. ``of`` takes a microsecond for a known model."""

    def __init__(self, models: Iterable[Model], quantizations: QualityTables) -> None:
        models = tuple(models)
        self._by_id = {model.id: model for model in models}
        measured = [(model, score) for model in models if (score := score_on(model, INDEX)) is not None]
        self._plane = self._fit(measured)
        self._lineages = self._grouped(measured)
        self._lines = {
            index: line
            for index in {*PROXIES, *CODING_INDICES}
            if (line := _matched([(x, y) for model, y in measured if (x := score_on(model, index)) is not None]))
        }
        self._divergence = Divergence(quantizations)
        self._standings: dict[tuple[str, Task], Standing] = {}
        self._losses: dict[tuple[str, str], float] = {}

    def of(self, model: Model, quant: str, task: Task) -> Quality:
        """The quality of ``model`` in ``quant`` for ``task``; whether the model suits the task is not asked here."""
        standing = self.standing(model, task)
        key = (model.id, quant)
        share = self._losses.get(key)
        if share is None:
            share = self._losses[key] = self._divergence.loss(model, quant)
        loss = standing.score * share
        return Quality(standing.score - loss, standing.index, standing.estimated, loss, standing.rule, standing.source)

    def standing(self, model: Model, task: Task) -> Standing:
        """The score before quantisation."""
        key = (model.id, task if task in (Task.CODING, Task.EMBEDDING) else Task.CHAT)
        standing = self._standings.get(key)
        if standing is None:
            rules = {Task.CODING: self._for_code, Task.EMBEDDING: self._for_embedding}
            standing = self._standings[key] = rules.get(task, self._general)(model)
        return standing

    @cached_property
    def _embedding_plane(self) -> Plane:
        scored = [(model, score_on(model, EMBEDDING_INDEX)) for model in self._by_id.values()]
        return self._fit([(model, score) for model, score in scored if score is not None], _FEWEST_ON_PLANE)

    @staticmethod
    def _fit(measured: list[tuple[Model, float]], fewest: int = _FEWEST_SHARED) -> Plane:
        if len(measured) < fewest:
            return Plane(0.0, 5.0, 5.0, 0.0)  # a catalog without scores: the order of size and age is left
        return Plane(*least_squares([features(model) for model, _ in measured], [score for _, score in measured]))

    def _general(self, model: Model) -> Standing:
        score = score_on(model, INDEX)
        if score is not None:
            return _measured(model, INDEX)
        parent = self._by_id.get(model.derived_from or "")
        proxies = self._on_scale(model, PROXIES)
        if parent is not None and not proxies:
            return self._of_parent(model, parent)
        siblings = self._lineage(model)
        # few siblings say less about how far the lineage lies off the plane
        offset = sum(sibling.offset for sibling in siblings) / (len(siblings) + 1)
        expected = self._plane.at(features(model)) + offset
        parts = [expected, *(value for _, value in proxies)]
        used = ["size, age and family", *(index for index, _ in proxies)]
        margin = _MARGIN if proxies or siblings else _MARGIN_UNKNOWN
        floor, ceiling = self._between(model, siblings)
        score = min(max(sum(parts) / len(parts) - margin, floor, 1.0), ceiling)
        return Standing(score, True, f"estimated from {', '.join(used)}")

    def _of_parent(self, model: Model, parent: Model) -> Standing:
        standing = self.standing(parent, Task.CHAT)
        adds_reasoning = "reasoning" in model.abilities and "reasoning" not in parent.abilities
        score = max(standing.score - _TUNED + (max(self._plane.reasoning, 0.0) if adds_reasoning else 0.0), 1.0)
        return Standing(score, True, f"that of {parent.id}, of which it is a fine-tune", standing.source)

    def _for_code(self, model: Model) -> Standing:
        general = self.standing(model, Task.CHAT)
        coding = self._on_scale(model, CODING_INDICES)
        if coding:
            score = (general.score + sum(value for _, value in coding) / len(coding)) / 2
            names = ", ".join(index for index, _ in coding)
            return Standing(score, general.estimated, f"{general.rule}; half from {names}", general.source)
        if "coder" in model.abilities and general.estimated:
            return Standing(general.score + _CODER_GAIN, True, f"{general.rule}; made for code")
        return general

    def _for_embedding(self, model: Model) -> Standing:
        if score_on(model, EMBEDDING_INDEX) is not None:
            return _measured(model, EMBEDDING_INDEX)
        score = max(self._embedding_plane.at(features(model)) - _MARGIN, 1.0)
        return Standing(score, True, "estimated from size and age", index=EMBEDDING_INDEX)

    def _on_scale(self, model: Model, indices: Sequence[str]) -> list[tuple[str, float]]:
        """The model's scores on other indices, brought to the scale."""
        if not model.benchmarks:
            return []
        found = []
        for index in indices:
            score, line = score_on(model, index), self._lines.get(index)
            if score is not None and line is not None:
                found.append((index, line.slope * score + line.offset))
        return found

    def _lineage(self, model: Model) -> Sequence[Sibling]:
        return self._lineages.get(model.lineage, ()) if model.lineage else ()

    def _grouped(self, measured: list[tuple[Model, float]]) -> dict[str, list[Sibling]]:
        lineages: dict[str, list[Sibling]] = {}
        for model, score in measured:
            offset = score - self._plane.at(features(model))
            sibling = Sibling(effective_size(model), year(model.released), score, offset)
            lineages.setdefault(model.lineage, []).append(sibling)
        return lineages

    def _between(self, model: Model, siblings: Sequence[Sibling]) -> tuple[float, float]:
        """The least and the most that the measured models of the lineage allow."""
        size, age = effective_size(model), year(model.released)
        floor, ceiling = 0.0, math.inf
        for other in siblings:
            if other.size >= size and other.year >= age:
                ceiling = min(ceiling, other.score - self._surely(other.size / size, other.year - age))
            elif other.size <= size * 1.02 and other.year <= age:
                floor = max(floor, other.score + self._surely(max(size / other.size, 1.0), age - other.year))
        return floor, ceiling

    def _surely(self, times_larger: float, years_newer: float) -> float:
        return _SIBLING_STEP * (self._plane.size * math.log(times_larger) + self._plane.age * years_newer)
