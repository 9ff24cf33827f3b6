"""``python -m fitcheck.accuracy.nested``: how much it flatters that settings are chosen on the folds that score them.

For every fold, the settings (where residuals stop to count squared, how far a model may stray from its kind) are those
that do best on the other folds; then the fold is scored with them. Close to the scores of ``fitcheck.accuracy.speed``
means that these hardly owe anything to the choice. Decode, GPU and unified memory; about three minutes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import product

from msgspec.structs import replace

from fitcheck.accuracy import fit_speed, measurements
from fitcheck.accuracy.measurements import Measured
from fitcheck.accuracy.speed import Score, columns, is_gpu, score
from fitcheck.accuracy.validation import Outcome, left_out
from fitcheck.estimate.speed_model import SpeedModel

HUBERS = (0.07, 0.1, 0.15)
MODEL_SDS = (0.05, 0.1, 0.15)
MODEL_EFFECT = "decode/model/id"

Settings = tuple[float, float]


def main() -> None:
    """Print the score with settings chosen inside, and how often each was chosen."""
    rows = [row for row in measurements.load() if row.test == "decode" and not row.on_cpu]
    model = fit_speed.priors()
    tried = {settings: _outcomes(rows, model, settings) for settings in product(HUBERS, MODEL_SDS)}
    some = next(iter(tried.values()))
    chosen: list[Outcome] = []
    picked: Counter[Settings] = Counter()
    for fold in sorted({item.fold for item in some}):
        best = min(tried, key=lambda settings: _loss(item for item in tried[settings] if item.fold != fold))
        picked[best] += 1
        chosen += [item for item in tried[best] if item.fold == fold]
    print(f"{'DECODE, GPU and unified':34}  cells   error  share   sources  error  share")
    for settings, found in tried.items():
        name = "huber {:.2f}, model sd {:.2f}".format(*settings)
        print(f"  {name:32}{columns(_scored(found))}   best in {picked[settings]} folds")
    print(f"  {'settings chosen on other folds':32}{columns(_scored(chosen))}")


def _outcomes(rows: Sequence[Measured], model: SpeedModel, settings: Settings) -> list[Outcome]:
    huber, sd = settings
    family = replace(model.families[MODEL_EFFECT], sd=sd)
    model = replace(model, families={**model.families, MODEL_EFFECT: family})
    return left_out(rows, model, lambda row: row.source, huber=huber)


def _scored(outcomes: Iterable[Outcome]) -> Score:
    found = score((item.row, item.error) for item in outcomes if is_gpu(item.row))
    assert found is not None
    return found


def _loss(outcomes: Iterable[Outcome]) -> float:
    """Both errors, less both shares within 25 % at a fifth of their weight."""
    found = _scored(outcomes)
    return found.cell_error + found.source_error - 0.2 * (found.cell_near + found.source_near)


if __name__ == "__main__":
    main()
