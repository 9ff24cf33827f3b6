"""``python -m fitcheck.accuracy.fit_speed``: measurements.csv and speed_priors.json in, speed_model.json out.

Parameters are fitted to all rows that train; the intervals come from sources that were left out, every source weighing
the same. Plain Python; a second run writes the same bytes.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from statistics import median

import msgspec
from msgspec.structs import replace

from fitcheck import facts
from fitcheck.accuracy import measurements
from fitcheck.accuracy.measurements import Measured
from fitcheck.accuracy.validation import Outcome, base_parameters, fitted, left_out, weights
from fitcheck.estimate.speed_model import SpeedModel, Spread

PRIORS = Path(__file__).parent / "speed_priors.json"
MODEL = facts.DATA / "speed_model.json"
HOLDS = 0.8  # the share of new sources' measurements that an interval is meant to hold
WIDEST = 1.2  # ln: an end further off says nothing any more (start-up times, prompt caches) and is cut there
NO_DATA = 0.3  # ln: how much wider, at both ends, where no source ran this backend
NARROWEST = 0.02  # ln: nor does one that promises more
STEPS = 200  # at how many shares an interval may begin
DIGITS = 6


def main() -> None:
    """Fit, write, and say what was written."""
    model = make(measurements.load())
    MODEL.write_bytes(msgspec.json.format(msgspec.json.encode(model), indent=1) + b"\n")
    print(f"{MODEL}: {len(model.parameters)} parameters, {len(model.spreads)} intervals")


def priors() -> SpeedModel:
    """The form of the model and what is believed before the data."""
    return msgspec.json.decode(PRIORS.read_bytes(), type=SpeedModel)


def parts(rows: Sequence[Measured]) -> list[list[Measured]]:
    """What is fitted apart, because no parameter is shared: each test, on processors and elsewhere."""
    return [
        [row for row in rows if row.test == test and row.on_cpu == on_cpu]
        for test in ("decode", "prefill")
        for on_cpu in (False, True)
    ]


def make(rows: Sequence[Measured]) -> SpeedModel:
    """The whole fit."""
    model = priors()
    parameters = base_parameters(model)
    outcomes: list[Outcome] = []
    unseen: list[Outcome] = []
    for part in parts(rows):
        parameters |= fitted(part, [row.terms(model) for row in part], weights(part), model)
        outcomes += left_out(part, model, lambda row: row.source)
        if not part[0].on_cpu and part[0].test == "decode":
            unseen = left_out(part, model, lambda row: row.hardware)
    return replace(
        model,
        source="fitted to measurements.csv by python -m fitcheck.accuracy.fit_speed",
        parameters={key: float(f"{parameters[key]:.{DIGITS}g}") for key in sorted(parameters)},
        spreads=spreads(outcomes),
        unseen=round(_unseen(outcomes, unseen), 3),
    )


def spreads(outcomes: Sequence[Outcome]) -> dict[str, Spread]:
    """test/backend -> the interval of ln(actual time / likely time), as a new source would see it. Processors have
    their own; backends of GPUs share one, because their errors reach equally far, and say how many sources saw them."""
    found: dict[str, Spread] = {}
    for test in sorted({outcome.row.test for outcome in outcomes}):
        cells: dict[str, list[tuple[str, float]]] = defaultdict(list)
        for name, source, error in cell_errors([outcome for outcome in outcomes if outcome.row.test == test]):
            cells[name].append((source, error))
        cells.pop("llamafile", None)
        on_cpu = cells.pop("cpu", [])
        common = _interval([item for own in cells.values() for item in own])
        found[f"{test}/other"] = _cut(common.widened(NO_DATA))
        for backend, own in sorted(cells.items()):
            found[f"{test}/{backend}"] = replace(common, sources=_sources(own))
        if on_cpu:
            found[f"{test}/cpu"] = _interval(on_cpu)
    return found


def kind(row: Measured) -> str:
    """The group that a row's errors count in: its backend or the engine that has kernels of its own, llamafile's slower
    ones apart."""
    return "llamafile" if row.engine == "llamafile" and not row.on_cpu else row.backend


def cell_errors(outcomes: Sequence[Outcome]) -> list[tuple[str, str, float]]:
    """(kind, source, median ln(actual time / likely time)) of every cell."""
    cells: dict[tuple[str, ...], list[Outcome]] = defaultdict(list)
    for outcome in outcomes:
        cells[outcome.row.cell].append(outcome)
    return [(kind(found[0].row), cell[0], median(item.error for item in found)) for cell, found in cells.items()]


def _interval(errors: Sequence[tuple[str, float]]) -> Spread:
    """The narrowest interval that holds 8 of 10 (source, error) of a source that is not among them: an end is the
    share of n + 1 sources, the new one included, where n were seen (split conformal prediction). At most half of what
    it leaves out lies below it: slow machines are further off than fast ones. Taking the narrowest costs some points
    of the eighty where sources are few (three of 20); ``fitcheck.accuracy.speed`` counts what is held."""
    sources = _sources(errors)
    found = []
    for step in range(STEPS + 1):
        below = (1.0 - HOLDS) / 2.0 * step / STEPS
        # the k-th of n values stands in the middle of its own weight, at the share (k - 1/2) / n
        low, high = (_quantile_of(errors, (share * (sources + 1) - 0.5) / sources) for share in (below, below + HOLDS))
        found.append(_cut(Spread(low, high, sources)))
    return min(found, key=lambda spread: spread.high - spread.low)


def _sources(errors: Sequence[tuple[str, float]]) -> int:
    return len({source for source, _ in errors})


def _quantile_of(errors: Sequence[tuple[str, float]], share: float) -> float:
    """Weighted quantile of (source, error), every source weighing the same."""
    sizes = Counter(source for source, _ in errors)
    ordered = sorted((error, 1.0 / sizes[source]) for source, error in errors)
    return _quantile(ordered, share * len(sizes))


def _quantile(ordered: Sequence[tuple[float, float]], wanted: float) -> float:
    """Where the running weight reaches ``wanted``, each value standing in the middle of its own weight."""
    before = 0.0
    points = []
    for value, weight in ordered:
        points.append((before + weight / 2.0, value))
        before += weight
    if wanted <= points[0][0]:
        return points[0][1]
    for (left, low), (right, high) in pairwise(points):
        if wanted <= right:
            return low + (high - low) * (wanted - left) / (right - left)
    return points[-1][1]


def _cut(spread: Spread) -> Spread:
    low, high = max(-WIDEST, min(spread.low, -NARROWEST)), min(WIDEST, max(spread.high, NARROWEST))
    return Spread(round(low, 3), round(high, 3), spread.sources)


def _unseen(source_out: Sequence[Outcome], hardware_out: Sequence[Outcome]) -> float:
    """How much wider the common decode interval is at either end, on average, where the hardware was left out."""
    seen, unseen = (
        _interval([item[1:] for item in cell_errors(found) if item[0] not in ("cpu", "llamafile")])
        for found in ([item for item in source_out if item.row.test == "decode"], hardware_out)
    )
    return max(0.0, ((unseen.high - unseen.low) - (seen.high - seen.low)) / 2.0)


if __name__ == "__main__":
    main()
