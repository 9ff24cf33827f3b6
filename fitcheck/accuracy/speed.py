"""``python -m fitcheck.accuracy.speed``: how far the speeds are off, with whole sources left out. Exit 1 on a miss.

Two scores, always both: by cell (source x hardware x model x quantisation x backend) and by source, every source
weighing the same, which is what a new user meets. The form and the terms are the estimator's own; only the parameters
come from a fit without the source (or without the hardware). ``--ablation`` prints what each ingredient buys instead.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from math import exp, log
from statistics import mean, median
from typing import NamedTuple

from msgspec.structs import replace

from fitcheck import facts
from fitcheck.accuracy import fit_speed, measurements, peers
from fitcheck.accuracy.fit_speed import kind
from fitcheck.accuracy.measurements import Measured
from fitcheck.accuracy.validation import Outcome, left_out
from fitcheck.estimate.speed import predict, spread_of
from fitcheck.estimate.speed_model import SpeedModel, Term

NEAR = 0.25  # "within 25 %"
Chosen = Callable[[Measured], bool]


class Score(NamedTuple):
    """Median error and share within 25 %, by cell and by source."""

    cells: int
    cell_error: float
    cell_near: float
    sources: int
    source_error: float
    source_near: float


class Goal(NamedTuple):
    """A group of measurements and the most (errors) or least (shares) that it must reach; None: not asked."""

    name: str
    chosen: Chosen
    cell_error: float | None = None
    cell_near: float | None = None
    source_error: float | None = None
    source_near: float | None = None


def is_gpu(row: Measured) -> bool:
    """Whether a card or unified memory computed it, with an engine of today."""
    return kind(row) not in ("cpu", "llamafile")


def _of(*kinds: str) -> Chosen:
    return lambda row: kind(row) in kinds


DECODE = (
    Goal("GPU and unified", is_gpu, 0.09, 0.82, 0.13, 0.67),
    Goal("llama-bench grade", lambda row: is_gpu(row) and row.grade == "A", 0.095, 0.83),
    Goal("mixture of experts", lambda row: is_gpu(row) and row.is_moe, 0.14),
    *(Goal(name, _of(name)) for name in ("cuda", "rocm", "vulkan", "metal", "mlx", "vllm", "exllama", "mlc")),
    Goal("llamafile on GPU", _of("llamafile")),
    Goal("cpu, RAM speed stated", lambda row: row.on_cpu and row.stated, 0.25),
    Goal("cpu, RAM speed assumed", lambda row: row.on_cpu and not row.stated, 0.31),
)
UNSEEN = (Goal("hardware left out", is_gpu, 0.12, 0.80),)
PREFILL = (
    Goal("cuda and metal", _of("cuda", "metal"), 0.19, 0.68),
    *(Goal(name, _of(name)) for name in ("cuda", "metal")),
    Goal("vulkan (rough)", _of("vulkan")),
    Goal("rocm (rough)", _of("rocm")),
    Goal("cpu", _of("cpu")),
)
COVERAGE = (0.76, 0.84)
WIDEST = 2.4
ENOUGH_SOURCES = 5


def main(arguments: Sequence[str]) -> int:
    """Print every table; 0 when every goal is reached, else 1."""
    rows = measurements.load()
    model = fit_speed.priors()
    if "--ablation" in arguments:
        _print_ablation(rows, model)
        return 0
    outcomes = {test: _left_out(rows, model, test, lambda row: row.source) for test in ("decode", "prefill")}
    unseen = _left_out([row for row in rows if not row.on_cpu], model, "decode", lambda row: row.hardware)
    misses = []
    print("share: cells (sources) within 25 %. Sources left out whole unless said otherwise.\n")
    for title, found, goals in (
        ("DECODE", outcomes["decode"], DECODE),
        ("DECODE, hardware left out", unseen, UNSEEN),
        ("PREFILL", outcomes["prefill"], PREFILL),
    ):
        misses += _print_scores(title, found, goals)
    for test, found in outcomes.items():
        misses += _print_intervals(test, found, model)
    _print_several_cards(measurements.on_several_cards())
    _print_peers(outcomes["decode"])
    for miss in misses:
        print(f"MISSED {miss}")
    return 1 if misses else 0


def _print_several_cards(rows: Sequence[Measured]) -> None:
    """Several cards, as the model in use predicts them: nothing was fitted to such rows."""
    model = facts.load().speed_model
    print(f"{'SEVERAL CARDS, decode, not fitted':34}  cells   error  share   sources  error  share   runs  inside")
    for name, engine in (
        ("llama.cpp, layers in turn", "llama.cpp"),
        (f"vLLM of {measurements.PRESENT}, shared", "vllm"),
    ):
        own = [row for row in rows if row.engine == engine]
        speeds = [predict(row.running(model), row.machine).decode_per_s for row in own]
        found = score((row, log(speed.likely / row.tokens_per_s)) for row, speed in zip(own, speeds, strict=True))
        held = sum(speed.low <= row.tokens_per_s <= speed.high for row, speed in zip(own, speeds, strict=True))
        assert found is not None
        print(f"  {name:32}{columns(found)} {len(own):6} {held / len(own):6.0%}")
    print()


def _left_out(
    rows: Sequence[Measured], model: SpeedModel, test: str, group: Callable[[Measured], str]
) -> list[Outcome]:
    return [
        outcome
        for part in fit_speed.parts(rows)
        if part and part[0].test == test
        for outcome in left_out(part, model, group)
    ]


def score(errors: Iterable[tuple[Measured, float]]) -> Score | None:
    """Scores of (measurement, ln(predicted / measured)); a cell's error is the median of its rows'."""
    cells: dict[tuple[str, ...], list[float]] = defaultdict(list)
    for row, error in errors:
        cells[row.cell].append(abs(exp(error) - 1.0))
    if not cells:
        return None
    by_cell = {cell: median(found) for cell, found in cells.items()}
    sources: dict[str, list[float]] = defaultdict(list)
    for cell, error in by_cell.items():
        sources[cell[0]].append(error)
    return Score(
        len(by_cell),
        median(by_cell.values()),
        _near(by_cell.values()),
        len(sources),
        median(median(found) for found in sources.values()),
        mean(_near(found) for found in sources.values()),
    )


def _cells(outcomes: Iterable[Outcome]) -> list[list[Outcome]]:
    found: dict[tuple[str, ...], list[Outcome]] = defaultdict(list)
    for item in outcomes:
        found[item.row.cell].append(item)
    return list(found.values())


def _near(errors: Iterable[float]) -> float:
    return mean(error <= NEAR for error in errors)


def _print_scores(title: str, outcomes: Sequence[Outcome], goals: Sequence[Goal]) -> list[str]:
    print(f"{title:34}  cells   error  share   sources  error  share   required")
    misses = []
    for goal in goals:
        found = score((item.row, item.error) for item in outcomes if goal.chosen(item.row))
        if found is None:
            continue
        wanted = (goal.cell_error, goal.cell_near, goal.source_error, goal.source_near)
        met = [
            target is None or (value <= target if i % 2 == 0 else value >= target)
            for i, (target, value) in enumerate(
                zip(wanted, (found.cell_error, found.cell_near, found.source_error, found.source_near), strict=True)
            )
        ]
        asked = ", ".join(f"{'<=' if i % 2 == 0 else '>='} {v:.1%}" for i, v in enumerate(wanted) if v is not None)
        verdict = "" if not asked else "  ok" if all(met) else "  MISSED"
        print(f"  {goal.name:32}{columns(found)}   {asked}{verdict}")
        if not all(met):
            misses.append(f"{title.lower()}, {goal.name}: {columns(found).strip()}, required {asked}")
    print()
    return misses


def columns(found: Score) -> str:
    """A score as a line of a table."""
    return (
        f"{found.cells:6} {found.cell_error:7.1%} {found.cell_near:6.0%}"
        f" {found.sources:8} {found.source_error:7.1%} {found.source_near:6.0%}"
    )


def _print_intervals(test: str, outcomes: Sequence[Outcome], model: SpeedModel) -> list[str]:
    """Coverage of the 80 % interval, made each time without the fold that it is asked about."""
    print(f"80 % INTERVAL, {test:19}  cells  holds   sources  holds  median width (high / low)")
    inside: dict[str, list[tuple[str, bool, float]]] = defaultdict(list)
    for fold in sorted({item.fold for item in outcomes}):
        others = fit_speed.spreads([item for item in outcomes if item.fold != fold])
        for cell in _cells([item for item in outcomes if item.fold == fold and kind(item.row) != "llamafile"]):
            row = cell[0].row
            spread = spread_of(
                test, row.running(replace(model, parameters=cell[0].parameters, spreads=others)), row.machine
            )
            error = median(item.error for item in cell)
            found = (row.source, spread.low <= error <= spread.high, spread.high - spread.low)
            inside[kind(row)].append(found)
            if not row.on_cpu:
                inside["all but cpu"].append(found)
    misses = []
    for name in sorted(inside):
        sources: dict[str, list[bool]] = defaultdict(list)
        for source, is_inside, _ in inside[name]:
            sources[source].append(is_inside)
        holds = mean(is_inside for _, is_inside, _ in inside[name])
        by_source = mean(mean(found) for found in sources.values())
        width = exp(median(width for _, _, width in inside[name]))
        asked = test == "decode" and len(sources) >= ENOUGH_SOURCES
        met = COVERAGE[0] <= round(by_source, 2) <= COVERAGE[1] and width <= WIDEST
        verdict = "" if not asked else "  ok" if met else "  MISSED"
        line = f"  {name:32}{len(inside[name]):6} {holds:6.0%} {len(sources):9} {by_source:6.0%} {width:9.2f}{verdict}"
        print(line)
        if asked and not met:
            misses.append(f"80 % interval of {test}, {name}: holds {by_source:.0%} by source, width {width:.2f}")
    print()
    return misses


def _print_peers(outcomes: Sequence[Outcome]) -> None:
    print(f"{'PEERS, decode, GPU and unified':34}  cells   error  share   sources  error  share")
    gpu = [item for item in outcomes if is_gpu(item.row)]
    said: dict[str, Callable[[Outcome], float]] = {
        "fitcheck": lambda item: item.error,
        "llmfit: bandwidth / size x 0.55": lambda item: log(peers.llmfit(item.row) / item.row.tokens_per_s),
        "whichllm": lambda item: log(peers.whichllm(item.row) / item.row.tokens_per_s),
    }
    for name, error in said.items():
        found = score((item.row, error(item)) for item in gpu)
        assert found is not None
        print(f"  {name:32}{columns(found)}")
    print()


INGREDIENTS: dict[str, tuple[str, ...]] = {
    "cache bytes": ("decode/cache/",),
    "fixed costs (operations, per token)": ("decode/operation_us/", "decode/token_ms/"),
    "engine": ("decode/read/engine/", "decode/operation_us/engine/", "prefill/compute/engine/"),
    "age of the build": ("decode/read/build/", "decode/operation_us/build/", "prefill/compute/build/"),
    "kind of memory": ("decode/read/memory/",),
    "hardware effect (same card)": ("decode/device/hardware/", "prefill/device/hardware/"),
    "model effect (same model)": ("decode/model/", "prefill/model/"),
    "both (no leaning on neighbours)": (
        "decode/device/hardware/",
        "prefill/device/hardware/",
        "decode/model/",
        "prefill/model/",
    ),
    "compute capability": ("prefill/compute/target/",),
    "size of the card": ("prefill/compute/peak",),
    "rows per expert": ("prefill/compute/rows",),
    "experts": ("prefill/expert/",),
    "attention": ("prefill/attention/",),
    "weights per micro-batch": ("prefill/read/",),
    "unpacking to FP16 (old builds)": ("prefill/dequantise/",),
    "operations": ("prefill/operation_us/",),
}
ON_CPU: dict[str, tuple[str, ...]] = {
    "speed of a core, by instructions": ("decode/core/",),
    "reads of one core": ("decode/core_read_ns/",),
    "arithmetic": ("decode/compute_ns/",),
    "classes of quantisation": ("decode/compute_ns/quant/",),
    "waiting for all cores": ("decode/operation_us/cores",),
    "engine": ("decode/operation_us/runtime/",),
    "fixed costs (operations, per token)": ("decode/operation_us/", "decode/token_ms/"),
    "cache bytes": ("decode/cache/",),
    "chip effect (same processor)": ("decode/device/chip/",),
}
TERMS_GO_TOO = (
    "cache bytes",
    "fixed costs (operations, per token)",
    "attention",
    "weights per micro-batch",
    "unpacking to FP16 (old builds)",
    "operations",
    "reads of one core",
    "arithmetic",
)


def _print_ablation(rows: Sequence[Measured], model: SpeedModel) -> None:
    """Each ingredient taken out and the rest fitted anew."""
    gpu = [row for row in rows if not row.on_cpu]
    print(f"{'WITHOUT':38}  decode: cells, sources        prefill, cuda and metal")
    groups = {"decode": is_gpu, "prefill": _of("cuda", "metal")}
    for name, prefixes in {"(nothing)": (), **INGREDIENTS}.items():
        both = [_column(name, prefixes, gpu, model, test, chosen) for test, chosen in groups.items()]
        print(f"  {name:36}  {'   '.join(both)}", flush=True)
    print(f"\n{'WITHOUT, on processors':38}  RAM speed stated              assumed")
    cpu = [row for row in rows if row.on_cpu]
    for name, prefixes in {"(nothing)": (), **ON_CPU}.items():
        both = [
            _column(name, prefixes, cpu, model, "decode", chosen)
            for chosen in (lambda row: row.stated, lambda row: not row.stated)
        ]
        print(f"  {name:36}  {'   '.join(both)}", flush=True)
    print()


def _column(
    name: str, prefixes: tuple[str, ...], rows: Sequence[Measured], model: SpeedModel, test: str, chosen: Chosen
) -> str:
    if prefixes and not any(prefix.startswith(test) for prefix in prefixes):
        return " " * 26
    terms = _without(prefixes, name in TERMS_GO_TOO, model)
    part = [row for row in rows if row.test == test]
    outcomes = left_out(part, model, lambda row: row.source, terms)
    found = score((item.row, item.error) for item in outcomes if chosen(item.row))
    assert found is not None
    return f"{found.cell_error:6.1%} {found.cell_near:4.0%}, {found.source_error:6.1%} {found.source_near:4.0%}  "


def _without(prefixes: tuple[str, ...], drop: bool, model: SpeedModel) -> Callable[[Measured], list[Term]]:
    """Terms without the parameters of an ingredient; with ``drop`` without the terms that carry them."""

    def terms(row: Measured) -> list[Term]:
        kept = []
        for term in row.terms(model):
            touched = any(key.startswith(prefixes) for key in term.keys) if prefixes else False
            if touched and drop:
                continue
            keys = tuple(key for key in term.keys if not (prefixes and key.startswith(prefixes)))
            powers = tuple(power for power in term.powers if not (prefixes and power[0].startswith(prefixes)))
            kept.append(Term(term.what, term.base_s, keys, powers))
        return kept

    return terms


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
