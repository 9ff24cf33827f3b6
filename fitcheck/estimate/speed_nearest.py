"""The published measurements nearest to a question."""

from __future__ import annotations

from collections.abc import Iterable

from fitcheck.types import Measurement, Model


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
    measurements: Iterable[Measurement], hardware: str, model: Model, quant: str, runtime: str, limit: int = 3
) -> tuple[Measurement, ...]:
    """Decode speeds published for this hardware: of this model first, then of this quantisation, then with this
    engine, newest first."""

    def distance(row: Measurement) -> tuple[bool, bool, bool]:
        return row.model != model.id, row.quant != quant, row.engine != runtime

    on_this = [row for row in measurements if row.hardware == hardware and row.test == "decode"]
    newest_first = sorted(on_this, key=lambda row: row.date, reverse=True)
    return tuple(sorted(newest_first, key=distance)[:limit])
