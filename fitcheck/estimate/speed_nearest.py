"""The published measurements nearest to a question."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import log

from fitcheck.types import Measurement, Model

CLASS = log(1.5)  # models whose active parameters differ by less are of one size


def read(text: str) -> tuple[Measurement, ...]:
    """The rows of measurements.csv whose label nobody doubts."""
    import csv

    return tuple(
        Measurement(
            hardware=row["hardware"],
            model=row["model"],
            quant=row["published_quant"] or row["quant"],
            backend=row["backend"],
            tokens_per_s=float(row["tokens_per_s"]),
            test=row["test"],
            source=row["url"],
            date=row["date"],
            engine=row["engine"],
        )
        for row in csv.DictReader(text.splitlines())
        if row["usable"] == "fit"
    )


def nearest(
    measurements: Iterable[Measurement],
    hardware: str,
    model: Model,
    quant: str,
    runtime: str,
    active_params: Mapping[str, int],
    limit: int = 3,
) -> tuple[Measurement, ...]:
    """Decode speeds published for this hardware: of this model first, then of models that read about as many weights
    per token, then of this quantisation, then with this engine, newest first.

    ``active_params``: of the models that rows may name; rows of others are left out.
    """
    own = max(1, model.params_active)
    known = {**active_params, model.id: own}

    def distance(row: Measurement) -> tuple[bool, float, bool, bool]:
        apart = abs(log(known[row.model] / own))
        return row.model != model.id, round(apart / CLASS), row.quant != quant, row.engine != runtime

    on_this = [row for row in measurements if row.hardware == hardware and row.test == "decode" and row.model in known]
    newest_first = sorted(on_this, key=lambda row: row.date, reverse=True)
    return tuple(sorted(newest_first, key=distance)[:limit])
