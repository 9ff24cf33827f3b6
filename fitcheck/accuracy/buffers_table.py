"""Plan the compute buffers of the catalog's models and write ``fitcheck/data/buffers.json``.

Run ``python -m fitcheck.accuracy.buffers_table`` after a change of the catalog or of ``fitcheck.estimate.graph``; with
names of models only those are planned again, and the other rows stay. For each model, placement and cache type the
planner is asked at as few contexts as it takes to find the straight pieces between which it bends: two points from each
end give two lines; where they meet is tried next. Half of the layers on the host bends all the time and stands for
other splits anyway: there contexts are doubled, with lines between them. Where a cell stands for several tokens, plans
grow by larger steps and bend often: there every step is planned, up to ``SAMPLED``. The result is the same for the same
input.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from math import ceil
from pathlib import Path
from typing import Any

import msgspec
from msgspec.structs import replace

from fitcheck import catalog, facts
from fitcheck.estimate.buffers import (
    BETWEEN_CARDS,
    CONTEXT_STEP,
    ON_HOST,
    PLANNED_CACHES,
    USUAL_TYPE,
    BufferQuestion,
    BufferTable,
    copied_bytes,
    layer_split,
)
from fitcheck.estimate.graph.architectures import ARCHITECTURES
from fitcheck.estimate.graph.whole import copied_weights, planned_bytes
from fitcheck.estimate.quantizations import Quantizations
from fitcheck.estimate.quantize import count_rope_factors, stored_shape
from fitcheck.types import Backend, CompressedAttention, MixtureOfExperts, Model, Shape

TARGET = Path(__file__).parent.parent / "data" / "buffers.json"
ENGINE = "llama.cpp 0c1e57098"
UNKNOWN_CONTEXT = 131_072
SMALLEST_TYPE = "iq1_s"  # what is left when copied weights hardly count
LACKING_CONTEXTS = (512, 2048, 8192, 32_768, 131_072)
BATCH = 512  # tokens
MARGIN = 1.125
SAMPLED = 131_072  # tokens up to which models with compressed caches are planned
Bytes = tuple[int, ...]


def context_step(shape: Shape) -> int:
    """Tokens by which plans grow: caches are padded to so many cells, and a cell may stand for several tokens."""
    mixers = [kind.mixer for kind in shape.kinds]
    ratios = [m.compress_ratio for m in mixers if isinstance(m, CompressedAttention) and m.compress_ratio]
    return CONTEXT_STEP * min(ratios, default=1)


def sampled_pieces(f: Callable[[int], Bytes], step: int, last: int) -> list[list[int]]:
    """``f`` at every context: those below ``step`` one by one, then by steps, runs of the same growth in one piece."""
    pieces = [_piece(context, f(context), None) for context in range(CONTEXT_STEP, step, CONTEXT_STEP)]
    growth: Bytes | None = None
    here = f(step)
    for context in range(step, last, step):
        there = f(context + step)
        if growth != (growth := tuple(y - x for x, y in zip(here, there, strict=True))):
            pieces.append(_piece(context, here, growth))
        here = there
    return pieces


def _piece(context: int, values: Bytes, growth: Bytes | None) -> list[int]:
    slopes = growth or (0,) * len(values)
    return [context, *(number for pair in zip(values, slopes, strict=True) for number in pair)]


def straight_pieces(f: Callable[[int], Bytes], first: int, last: int) -> list[list[int]]:
    """``f`` between the multiples ``first`` and ``last`` of the step, as [context, value, step, value, step, …]."""
    known: dict[int, Bytes] = {}

    def at(context: int) -> Bytes:
        if context not in known:
            known[context] = f(context)
        return known[context]

    return [
        [start, *(number for pair in zip(at(start), slope, strict=True) for number in pair)]
        for start, slope in _lines(at, first, last)
    ]


def doubled_pieces(f: Callable[[int], Bytes], first: int, last: int) -> list[list[int]]:
    """``f`` at ``first`` and its doublings up to ``last``, with straight lines between them (rounded up)."""
    contexts = [first]
    while contexts[-1] < last:
        contexts.append(min(contexts[-1] * 2, last))
    values = [f(context) for context in contexts]
    pieces = []
    for i, (start, low) in enumerate(zip(contexts, values, strict=True)):
        high, end = (values[i + 1], contexts[i + 1]) if i + 1 < len(values) else (low, start + CONTEXT_STEP)
        steps = (end - start) // CONTEXT_STEP
        growth = [-((x - y) // steps) for x, y in zip(low, high, strict=True)]
        pieces.append([start, *(number for pair in zip(low, growth, strict=True) for number in pair)])
    return pieces


def _lines(at: Callable[[int], Bytes], low: int, high: int) -> Iterator[tuple[int, Bytes]]:
    """(first context, growth per step) of each piece from ``low`` to ``high``."""
    if low == high:
        yield low, tuple(0 for _ in at(low))
        return
    left = tuple(y - x for x, y in zip(at(low), at(low + CONTEXT_STEP), strict=True))
    steps = (high - low) // CONTEXT_STEP
    if _growth(at(low), at(high), steps) == left and _on_line(at, low, high, left):
        yield low, left
        return
    if steps == 1:
        yield low, left
        return
    middle = _bend(at, low, high, left)
    yield from _merged(_lines(at, low, middle), _lines(at, middle + CONTEXT_STEP, high), at)


def _merged(
    first: Iterator[tuple[int, Bytes]], second: Iterator[tuple[int, Bytes]], at: Callable[[int], Bytes]
) -> Iterator[tuple[int, Bytes]]:
    """Both runs of pieces, a piece that continues its predecessor left out."""
    last: tuple[int, Bytes] | None = None
    for start, slope in (*first, *second):
        if last is not None:
            steps = (start - last[0]) // CONTEXT_STEP
            if slope == last[1] and at(start) == _along(at(last[0]), slope, steps):
                continue
        last = (start, slope)
        yield last


def _growth(a: Bytes, b: Bytes, steps: int) -> Bytes | None:
    """Growth per step from a to b, None if it is not whole."""
    pairs = [divmod(y - x, steps) for x, y in zip(a, b, strict=True)]
    return tuple(whole for whole, _ in pairs) if not any(rest for _, rest in pairs) else None


def _along(start: Bytes, slope: Bytes, steps: int) -> Bytes:
    return tuple(x + steps * growth for x, growth in zip(start, slope, strict=True))


def _on_line(at: Callable[[int], Bytes], low: int, high: int, slope: Bytes) -> bool:
    """Whether quarters and doublings lie on the line: where a mask gets as large as another tensor, holes of that size
    lift a plan above its line for a while."""
    steps = (high - low) // CONTEXT_STEP
    parts = {steps // 4, steps // 2, 3 * steps // 4} | {1 << power for power in range(steps.bit_length())}
    return all(at(low + part * CONTEXT_STEP) == _along(at(low), slope, part) for part in sorted(parts) if part < steps)


def _bend(at: Callable[[int], Bytes], low: int, high: int, left: Bytes) -> int:
    """The last context of the left piece, guessed from where the lines from both ends meet."""
    steps = (high - low) // CONTEXT_STEP
    right = tuple(y - x for x, y in zip(at(high - CONTEXT_STEP), at(high), strict=True))
    for index in range(len(at(low))):
        if left[index] != right[index]:
            gap = at(high)[index] - right[index] * steps - at(low)[index]
            guess = gap // (left[index] - right[index])
            if 0 <= guess < steps:
                return low + guess * CONTEXT_STEP
    return low + (steps // 2 - (steps % 2 == 0)) * CONTEXT_STEP if steps > 1 else low


def placements_of(shape: Shape, rope_factors: int) -> dict[str, dict[str, Any]]:
    """The placements that are planned ahead, as fields of the question."""
    n = shape.n_layers * max(1, shape.num_loops)
    half = (0,) * (n // 2) + (1,) * (n + 1 - n // 2)
    placements: dict[str, dict[str, Any]] = {"cpu": {}, "gpu": {"layer_devices": (1,) * (n + 1)}}
    placements["metal"] = {**placements["gpu"], "backend": Backend.METAL}
    placements["half"] = {"layer_devices": half, "rope_factors": rope_factors}
    if any(isinstance(kind.ffn, MixtureOfExperts) for kind in shape.kinds):
        placements["experts"] = {"layer_devices": (1,) * (n + 1), "cpu_expert_layers": n}
    return placements


def plans(model: Model, shape: Shape, rope_factors: int) -> dict[str, Any]:
    """All plans of one model, by "placement cache-type", and what its splits copy."""
    longest = model.longest_context_tokens or UNKNOWN_CONTEXT
    last = max(2, -(-longest // CONTEXT_STEP)) * CONTEXT_STEP
    step = context_step(shape)
    found: dict[str, Any] = {"contexts": (step, SAMPLED)} if step > CONTEXT_STEP else {}
    for name, placement in placements_of(shape, rope_factors).items():
        split = name in ("half", "experts")
        if split:
            found[f"{name} weights"] = copied_weights(_question(model, shape, 512, placement, "f16", USUAL_TYPE))
        for cache in PLANNED_CACHES:

            def bytes_at(
                context: int, placement: dict[str, Any] = placement, cache: str = cache, split: bool = split
            ) -> Bytes:
                usual = _question(model, shape, context, placement, cache, USUAL_TYPE)
                host, *gpu = _planned(usual)
                if not split:
                    return (host, *gpu)
                least = _planned(_question(model, shape, context, placement, cache, SMALLEST_TYPE))[1]
                return host, least, gpu[0] - copied_bytes(found[f"{name} weights"], usual.weight_type)[0]  # noqa: B023

            if step > CONTEXT_STEP:
                found[f"{name} {cache}"] = sampled_pieces(bytes_at, step, SAMPLED)
                continue
            pieces = straight_pieces(bytes_at, CONTEXT_STEP, CONTEXT_STEP)
            find = doubled_pieces if name == "half" else straight_pieces
            found[f"{name} {cache}"] = pieces + find(bytes_at, 2 * CONTEXT_STEP, last)
    return found


def lacking(model: Model, shape: Shape, row: dict[str, Any]) -> dict[str, tuple[int, int]]:
    """What the bound for splits lacks of the plans of some of them, where one of a few lacks anything.

    Architectures with several residual streams keep and copy more than a state per boundary.
    """
    found: dict[str, tuple[int, int]] = {}
    for name, placements in ((BETWEEN_CARDS, _over_cards(shape)), (ON_HOST, _over_host(shape))):
        contexts = [context for context in LACKING_CONTEXTS if context <= model.context_tokens] or [BATCH]
        usual = contexts[len(contexts) // 2 : len(contexts) // 2 + 1]
        if found or any(lack > 0 for _, lack in _lacks(model, shape, {**row, **found}, placements[::3], usual)):
            found[name] = _line_above(_lacks(model, shape, {**row, **found}, placements, contexts))
    return {name: line for name, line in found.items() if any(line)}


def _lacks(
    model: Model, shape: Shape, row: dict[str, Any], placements: list[dict[str, Any]], contexts: list[int]
) -> list[tuple[int, int]]:
    """(Context, bytes that the bound lacks on the device where it lacks most) of every plan for which there is one."""
    raw = {name: msgspec.Raw(msgspec.json.encode(value)) for name, value in row.items()}
    table = BufferTable({model.id: 0}, (raw,))
    found = []
    for placement in placements:
        for context in contexts:
            for cache in PLANNED_CACHES:
                question = replace(_question(model, shape, context, placement, cache, USUAL_TYPE), model=model.id)
                bound = table.bound(question)
                if bound is not None:
                    pairs = zip(_planned(question), bound.bytes, strict=True)
                    found.append((context, max(real - most for real, most in pairs)))
    return found


def _line_above(points: list[tuple[int, int]]) -> tuple[int, int]:
    """Bytes per token of a batch, and of these for each token of the context: a line above all points, and an eighth
    more for splits that are not among them."""
    first = min(points)[0]
    start = max(lack for context, lack in points if context == first)
    slope = max([0.0, *((lack - start) / (context - first) for context, lack in points if context > first)])
    base = max(0.0, *(lack - slope * context for context, lack in points))
    return ceil(base * MARGIN / BATCH), ceil(slope * MARGIN / BATCH)


def _over_cards(shape: Shape) -> list[dict[str, Any]]:
    n = shape.n_layers * max(1, shape.num_loops)
    return [{"layer_devices": layer_split(n, cards)} for cards in (2, 3, 4)]


def _over_host(shape: Shape) -> list[dict[str, Any]]:
    """Parts of the layers, and of the layers' experts, on the host; the rest on one card or two."""
    n = shape.n_layers * max(1, shape.num_loops)
    parts = sorted({max(1, n * eighths // 8) for eighths in (0, 2, 3, 4, 5, 6, 8)})
    layers = [{"layer_devices": (0,) * part + layer_split(n - part, cards)} for cards in (1, 2) for part in parts]
    if not any(isinstance(kind.ffn, MixtureOfExperts) for kind in shape.kinds):
        return layers
    on_cards = {cards: layer_split(n, cards) for cards in (1, 2)}
    experts = [{"layer_devices": on_cards[cards], "cpu_expert_layers": part} for cards in on_cards for part in parts]
    return [*experts, *layers]


def _question(
    model: Model, shape: Shape, context: int, placement: dict[str, Any], cache: str, weights: str
) -> BufferQuestion:
    return BufferQuestion(
        architecture=model.architecture or "",
        shape=shape,
        context_tokens=context,
        kv_type_k=cache,
        kv_type_v=cache,
        weight_type=lambda layer, name: weights,
        **placement,
    )


def _planned(question: BufferQuestion) -> Bytes:
    planned = planned_bytes(question)
    if planned is None:
        raise LookupError(question.architecture)
    return planned


def _row(model: Model, shape: Shape, rope_factors: int) -> dict[str, Any]:
    row = plans(model, shape, rope_factors)
    return dict(sorted({**row, **lacking(model, shape, row)}.items()))


def build(models: Iterable[Model], quantizations: Quantizations, kept: dict[str, Any]) -> dict[str, Any]:
    """The whole table; models of the same shape share a row. ``kept``: rows that stand as they are, by model."""
    rows: list[dict[str, Any]] = []
    numbers: dict[bytes, int] = {}
    index: dict[str, int] = {}
    for model in models:
        if model.shape is None or model.architecture not in ARCHITECTURES:
            continue
        shape = stored_shape(model, quantizations)
        longest = model.longest_context_tokens
        factors = count_rope_factors(model, shape, quantizations)
        key = msgspec.json.encode((model.architecture, longest, shape, factors))
        if key not in numbers:
            try:
                rows.append(kept.get(model.id) or _row(model, shape, factors))
            except LookupError:
                continue
            numbers[key] = len(rows) - 1
            if model.id not in kept:
                print(f"{len(rows):4d} {model.id}", file=sys.stderr)
        index[model.id] = numbers[key]
    return {"engine": ENGINE, "models": index, "rows": rows}


def _kept(names: set[str]) -> dict[str, Any]:
    """The rows of the table as it is, but for the models named; none where no model is."""
    if not names:
        return {}
    table = msgspec.json.decode(TARGET.read_bytes())
    return {model: table["rows"][row] for model, row in table["models"].items() if model not in names}


def main(names: list[str]) -> None:
    """Plan the models named, or all of them, and write the file."""
    kept = _kept(set(names))
    models = [model for model in catalog.load().models if not names or model.id in names or model.id in kept]
    table = build(models, facts.load().quantizations, kept)
    TARGET.write_bytes(msgspec.json.encode(table).replace(b"},{", b"},\n{") + b"\n")


if __name__ == "__main__":
    main(sys.argv[1:])
