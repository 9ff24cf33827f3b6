"""How exact the memory arithmetic is: ``python -m fitcheck.accuracy.memory`` prints the table, fails where a bar is
missed.

Truth: 6,152 allocations of llama.cpp itself (41 models x quantisations x contexts x cache types x placements) and 452
files of ``llama-quantize --dry-run``, in ``tests/data`` of the repository; their GPUs are stand-ins with CUDA's layout.
961 plans of CUDA itself on an H100 come after them. Models are taken from the catalog where it
has them, else from the GGUF hyper-parameters that the row was made with (``--shapes gguf``: always).
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from fitcheck import catalog, facts
from fitcheck.accuracy import memory_cuda
from fitcheck.accuracy.memory_score import Bar, Score, read
from fitcheck.catalog.gguf_shape import shape_from_gguf
from fitcheck.estimate import tensors
from fitcheck.estimate.buffers import BufferQuestion, compute_buffers, output_buffer_bytes
from fitcheck.estimate.cache import CacheSettings, cache_forms, widest_value
from fitcheck.estimate.memory import LayerWeights, Load, caches_of, need_of
from fitcheck.estimate.placement import Split, cpu_split, split_by
from fitcheck.estimate.quantizations import Quantizations
from fitcheck.estimate.quantize import PREDICTION, count_rope_factors, store, stored_shape, type_of, weights
from fitcheck.estimate.stored import Stored
from fitcheck.types import Backend, Model

PLACEMENTS = {"cpu": 0, "full": 1, "cpu_moe": 1, "x2": 2}  # how many GPUs
KINDS = {"cpu": "CPU", "full": "all on GPU", "cpu_moe": "experts on CPU", "x2": "two cards"}


BARS = {
    "weights": Bar(0.97, 0.005),
    "KV + recurrent": Bar(0.99, 1.0),
    "compute + output": Bar(0.97, 0.10, 0.01),
    "total": Bar(0.95, 0.02, 0.002),
}


class Row(NamedTuple):
    """One allocation of the engine. Lists of bytes are the host, then each GPU."""

    model: str
    quant: str
    n_ctx: int
    kv_type: str
    flash_attention: str
    flash_resolved: str
    n_ubatch: int
    n_outputs_max: int
    n_seq_max: int
    kv_unified: bool
    swa_full: bool
    placement: str
    weights: Sequence[int]
    context: Sequence[int]
    compute: Sequence[int]
    output: int
    kv: int
    recurrent: int


def models_of(table: Sequence[Mapping[str, Any]], from_catalog: bool) -> dict[str, Model]:
    """The models of the rows by their name there."""
    known = {model.id: model for model in catalog.load().models} if from_catalog else {}
    return {row["model"]: known.get(row["catalog"]) or _described(row) for row in table}


def _described(row: Mapping[str, Any]) -> Model:
    """A model from GGUF hyper-parameters. They don't say whether embeddings are tied: the published count does."""
    architecture = row["architecture"]
    metadata = {f"{architecture}.{key}": value for key, value in row["hyperparameters"].items()}
    shape = shape_from_gguf(architecture, metadata, row["n_vocab"])
    if shape is None:
        raise SystemExit(f"no shape for {row['model']}")
    total, active = tensors.parameters(shape)
    tied = msgspec.structs.replace(shape, tie_word_embeddings=True)
    if abs(tensors.parameters(tied)[0] - row["params"]) < abs(total - row["params"]):
        shape, (total, active) = tied, tensors.parameters(tied)
    context = row["hyperparameters"]["context_length"]
    name = row["model"]
    towers = {PREDICTION: 0} if row["hyperparameters"].get("nextn_predict_layers") else {}
    return Model(
        name, name, shape, total, active, architecture=architecture, context_tokens=context, tower_params=towers
    )


class Predictor:
    """Predicts rows; keeps what rows have in common."""

    def __init__(self, table: Quantizations) -> None:
        self._table = table
        self._compute: dict[BufferQuestion, tuple[int, ...]] = {}
        self._stored: dict[tuple[str, str], Stored] = {}

    def load(self, model: Model, row: Row) -> Load:
        """What the row's model needs to keep."""
        shape = stored_shape(model, self._table)
        settings = CacheSettings(
            context_tokens=row.n_ctx,
            sequences=row.n_seq_max,
            unified=row.kv_unified,
            swa_full=row.swa_full,
            ubatch_tokens=row.n_ubatch,
            type_k=row.kv_type,
            type_v=row.kv_type,
            padded_v=widest_value(shape) if row.flash_attention == "off" else None,
        )
        forms = cache_forms(shape, self._table.layout(model.architecture))
        key = (model.id, row.quant)
        if key not in self._stored:
            self._stored[key] = store(model, row.quant, self._table)
        return Load(LayerWeights(self._stored[key]), caches_of(shape, forms, settings, self._table))

    def weights_and_context(self, load: Load, row: Row) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Bytes per device: weights, and caches with recurrent states."""
        split = _split(load, row)
        need = need_of(load, split.ends, split.output, split.cpu_expert_layers)
        return need.weights, tuple(map(sum, zip(need.kv, need.state, strict=True)))

    def compute(self, model: Model, load: Load, row: Row) -> tuple[int, ...]:
        """Bytes of the compute buffer per device."""
        shape = stored_shape(model, self._table)
        gpus = PLACEMENTS[row.placement]
        types = type_of(model, row.quant, self._table) if row.placement == "cpu_moe" else None
        question = BufferQuestion(
            architecture=model.architecture or "",
            shape=shape,
            context_tokens=row.n_ctx,
            ubatch_tokens=row.n_ubatch,
            sequences=row.n_seq_max,
            outputs=row.n_outputs_max,
            kv_type_k=row.kv_type,
            kv_type_v=row.kv_type,
            flash_attention=row.flash_resolved == "on",
            flash_turned_off=(row.flash_attention, row.flash_resolved) == ("auto", "off"),
            swa_full=row.swa_full,
            kv_unified=row.kv_unified,
            layer_devices=_split(load, row).layer_devices if gpus else (),
            cpu_expert_layers=_split(load, row).cpu_expert_layers,
            weight_type=types,
            backend=Backend.CUDA if gpus else Backend.CPU,
            fuses=False,  # the rows come from a stand-in for a GPU, which only keeps CUDA's layout
            embedding="embedding" in model.modalities,
            rope_factors=count_rope_factors(model, shape, self._table),
        )
        if types is not None:
            return compute_buffers(question).bytes
        if question not in self._compute:
            self._compute[question] = compute_buffers(question).bytes
        return self._compute[question]


def _split(load: Load, row: Row) -> Split:
    gpus = PLACEMENTS[row.placement]
    if not gpus:
        return cpu_split(load.n_layers)
    return split_by(load, (1,) * gpus, None, load.n_layers if row.placement == "cpu_moe" else 0)


def score_weights(models: Mapping[str, Model], table: Quantizations) -> tuple[Score, set[str]]:
    """Files against ``llama-quantize``; the models that are off."""
    score, off = Score(), set()
    for row in read("llama_cpp_weights.json.gz")["rows"]:
        for quant, true in row["tensor_bytes"].items():
            if not score.add([weights(models[row["model"]], quant, table).total], [true]):
                off.add(row["model"])
    return score, off


Scores = dict[str, Score]


def score_rows(
    models: Mapping[str, Model], rows: Iterator[Row], table: Quantizations
) -> tuple[Scores, dict[str, Scores], Any]:
    """Allocations against the engine's own: by quantity, the same by placement, and the models that are off."""
    predictor = Predictor(table)
    scores = _quantities()
    by_placement = {name: _quantities() for name in PLACEMENTS}
    off: dict[str, dict[str, int]] = {name: {} for name in scores}
    for row in rows:
        model = models[row.model]
        load = predictor.load(model, row)
        on_device, context = predictor.weights_and_context(load, row)
        compute = predictor.compute(model, load, row)
        output = output_buffer_bytes(stored_shape(model, table), row.n_seq_max, "embedding" in model.modalities)
        n = len(on_device)
        true_compute = [*row.compute, *[0] * (n - len(row.compute))]
        true_context = [*row.context, *[0] * (n - len(row.context))]
        total = sum(on_device) + sum(context) + sum(compute) + output
        true_total = sum(row.weights) + sum(row.context) + sum(row.compute) + row.output
        pairs = {
            "weights in memory": (on_device, row.weights),
            "KV + recurrent": (context, true_context),
            "compute + output": ([*compute, output], [*true_compute, row.output]),
            "total": ([total], [true_total]),
        }
        for name, (predicted, true) in pairs.items():
            by_placement[row.placement][name].add(predicted, true)
            if not scores[name].add(predicted, true):
                off[name][row.model] = off[name].get(row.model, 0) + 1
    return scores, by_placement, off


def _quantities() -> Scores:
    return {name: Score() for name in ("weights in memory", "KV + recurrent", "compute + output", "total")}


def rows_of(truth: Mapping[str, Any]) -> Iterator[Row]:
    """The rows of a file of truths, with their models named."""
    names = [model["model"] for model in truth["models"]]
    for row in truth["rows"]:
        yield Row(names[row[0]], *row[1:])


def report(scores: Mapping[str, Score]) -> bool:
    """Print the table; whether every bar is cleared."""
    print(f"{'quantity':18}{'rows':>6}{'exact':>9}{'median':>9}{'95 %':>9}{'largest':>9}  bar")
    good = True
    for name, score in scores.items():
        bar = BARS.get(name)
        passed = bar is None or score.meets(bar)
        good &= passed
        numbers = (score.exact, score.percentile(0.5), score.percentile(0.95), max(score.errors))
        text = "".join(f"{100 * number:8.3f}%" for number in numbers)
        print(f"{name:18}{len(score.errors):6}{text}  {'' if bar is None else 'met' if passed else 'MISSED'}")
    return good


def report_placements(by_placement: Mapping[str, Scores]) -> None:
    """Print the share of exact rows of each placement."""
    names = list(next(iter(by_placement.values())))
    print("\nexact, by placement" + " " * 3 + "".join(f"{name:>19}" for name in names))
    for placement, scores in by_placement.items():
        rows = len(scores[names[0]].errors)
        print(f"{KINDS[placement]:16}{rows:6}" + "".join(f"{100 * scores[name].exact:18.3f}%" for name in names))
    print()


def report_cuda(models: Mapping[str, Model], tables: facts.Facts) -> bool:
    """Print how the compute buffers compare with those of CUDA on a real card; whether enough are exact."""
    scores, off = memory_cuda.score(models, tables)
    print("compute buffers on an H100 (CUDA)    rows    exact     95 %  largest")
    for placement, score in scores.items():
        numbers = (score.exact, score.percentile(0.95), max(score.errors))
        print(f"{placement:34}{len(score.errors):7}" + "".join(f"{100 * number:8.3f}%" for number in numbers))
    print("off: " + ", ".join(f"{model} {count}" for model, count in off.items()) + "\n")
    errors = [error for score in scores.values() for error in score.errors]
    return sum(error == 0 for error in errors) >= BARS["compute + output"].exact * len(errors)


def main(arguments: Sequence[str]) -> int:
    """Print the table and what is off; 1 where a bar is missed."""
    tables = facts.load()
    table = tables.quantizations
    truth = read("llama_cpp_memory.json.gz")
    models = models_of(truth["models"], from_catalog="gguf" not in arguments)
    file_score, file_off = score_weights(models, table)
    scores, by_placement, off = score_rows(models, rows_of(truth), table)
    good = report({"weights": file_score, **scores})
    report_placements(by_placement)
    good &= report_cuda({model.id: model for model in catalog.load().models}, tables)
    for name, found in {"weights": dict.fromkeys(file_off, 0), **off}.items():
        if found:
            print(f"{name} off: " + ", ".join(f"{model} {count or ''}".strip() for model, count in found.items()))
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
