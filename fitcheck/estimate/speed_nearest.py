"""The published measurements nearest to a question."""

from __future__ import annotations

from collections.abc import Iterable

from fitcheck.types import Measurement, Model


def nearest(
    measurements: Iterable[Measurement], hardware: str, model: Model, quant: str, limit: int = 3
) -> tuple[Measurement, ...]:
    """Decode speeds published for this hardware: of this model first, then of this quantisation, newest first."""

    def distance(row: Measurement) -> tuple[bool, bool]:
        return row.model != model.id, row.quant != quant

    on_this = [row for row in measurements if row.hardware == hardware and row.test == "decode"]
    newest_first = sorted(on_this, key=lambda row: row.date, reverse=True)
    return tuple(sorted(newest_first, key=distance)[:limit])
