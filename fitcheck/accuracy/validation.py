"""Whole sources left out: what a model fitted to the others says about each measurement.

A source with many cells is a fold of its own, the small ones are pooled. A source is one submitter (one host, one
habit); rows of one source are so alike that a random split would flatter by a factor of two.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from math import log
from typing import NamedTuple

from fitcheck.accuracy.measurements import Measured
from fitcheck.accuracy.regression import HUBER, Observation, Prior, fit
from fitcheck.estimate.speed_model import SpeedModel, Term, total_seconds
from fitcheck.types import Backend

GRADES = {"A": 1.0, "B": 0.7, "C": 0.35}
LARGE = 8  # cells that make a group a fold of its own
POOLS = 14
SOURCE_POWER = 0.3  # a source of n cells counts n ** -0.3 per cell: not n times, not once


class Outcome(NamedTuple):
    """A measurement, ln(predicted speed / measured speed), and the parameters that predicted it."""

    row: Measured
    error: float
    fold: str
    parameters: dict[str, float]


def weights(rows: Sequence[Measured]) -> list[float]:
    """How much each row counts in the fit: its grade, shared among the rows of its cell, less in large sources."""
    in_cell = Counter(row.cell for row in rows)
    in_source = Counter(cell[0] for cell in in_cell)
    return [GRADES[row.grade] / in_cell[row.cell] * in_source[row.source] ** -SOURCE_POWER for row in rows]


def fitted(
    rows: Sequence[Measured],
    terms: Sequence[Sequence[Term]],
    counts: Sequence[float],
    model: SpeedModel,
    huber: float = HUBER,
) -> dict[str, float]:
    """The parameters that occur in the terms, from the rows that train."""

    def prior(key: str) -> Prior:
        family = model.family(key)
        return Prior(family.value, family.sd, family.exponent)

    observations = [
        Observation(row_terms, row.seconds, count)
        for row, row_terms, count in zip(rows, terms, counts, strict=True)
        if row.trains
    ]
    return fit(observations, prior, huber=huber)


def base_parameters(model: SpeedModel) -> dict[str, float]:
    """What is believed where nothing was measured: whole keys, and families that all their members start from."""
    backends = [backend.value for backend in Backend] + sorted(set(model.runtime_backends.values()))
    found = {}
    for key, family in model.families.items():
        if key.count("/") > 2 or family.exponent:
            found[key] = family.value
        elif key.endswith("/backend"):
            for backend in backends:
                found.setdefault(f"{key}/{backend}", model.family(f"{key}/{backend}").value)
    return found


def left_out(
    rows: Sequence[Measured],
    model: SpeedModel,
    group: Callable[[Measured], str],
    terms_of: Callable[[Measured], Sequence[Term]] | None = None,
    huber: float = HUBER,
) -> list[Outcome]:
    """Every row predicted by parameters that were fitted without its fold. ``group`` names what is left out whole."""
    terms = [terms_of(row) if terms_of else row.terms(model) for row in rows]
    counts = weights(rows)
    base = base_parameters(model)
    outcomes = []
    fold_of = folds(rows, group)
    for fold in sorted(set(fold_of.values())):
        inside = [fold_of[group(row)] == fold for row in rows]
        keep = [i for i, is_inside in enumerate(inside) if not is_inside]
        found = fitted([rows[i] for i in keep], [terms[i] for i in keep], [counts[i] for i in keep], model, huber)
        parameters = {**base, **found}
        for row, row_terms, is_inside in zip(rows, terms, inside, strict=True):
            if is_inside:
                error = log(row.seconds / total_seconds(row_terms, parameters))
                outcomes.append(Outcome(row, error, fold, parameters))
    return outcomes


def folds(rows: Sequence[Measured], group: Callable[[Measured], str]) -> dict[str, str]:
    """group -> fold, the same on every run."""
    cells: dict[str, set[tuple[str, ...]]] = defaultdict(set)
    for row in rows:
        cells[group(row)].add(row.cell)
    small = sorted(name for name, found in cells.items() if len(found) < LARGE)
    found = {name: f"pool {i % POOLS}" for i, name in enumerate(small)}
    return {**{name: name for name in cells}, **found}
