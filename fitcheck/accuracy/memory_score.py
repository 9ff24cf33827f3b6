"""Counting how often predicted bytes are the true ones."""

from __future__ import annotations

import gzip
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

ROWS = Path(__file__).parents[2] / "tests" / "data"


class Bar(NamedTuple):
    """What must hold: the share that is exact, the largest error, the 95th percentile of errors."""

    exact: float
    largest: float
    percentile_95: float | None = None


class Score:
    """Errors of one quantity, relative to the truth."""

    def __init__(self) -> None:
        self.errors: list[float] = []

    def add(self, predicted: Sequence[int], true: Sequence[int]) -> bool:
        """Count one row, exact only where every device is; returns whether it is."""
        error = max(_error(p, t) for p, t in zip(predicted, true, strict=True))
        self.errors.append(error)
        return error == 0

    @property
    def exact(self) -> float:
        """Share of rows with no error at all."""
        return sum(error == 0 for error in self.errors) / len(self.errors)

    def percentile(self, share: float) -> float:
        """The error that ``share`` of the rows stay below."""
        return sorted(self.errors)[min(int(share * len(self.errors)), len(self.errors) - 1)]

    def meets(self, bar: Bar) -> bool:
        """Whether the bar is cleared."""
        within = bar.percentile_95 is None or self.percentile(0.95) <= bar.percentile_95
        return self.exact >= bar.exact and max(self.errors) <= bar.largest and within


def _error(predicted: int, true: int) -> float:
    if predicted == true:
        return 0.0
    return abs(predicted - true) / true if true else 1.0


def read(name: str) -> Any:
    """A file of truths."""
    return msgspec.json.decode(gzip.decompress((ROWS / name).read_bytes()))
