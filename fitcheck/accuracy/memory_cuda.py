"""Against CUDA itself: bytes that llama.cpp plans on a real card, by placement (``tests/data/cuda_memory.json.gz``)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from fitcheck.accuracy.memory_score import Score, read
from fitcheck.estimate.fit import Estimator
from fitcheck.estimate.placement import Use, candidate, split_by
from fitcheck.facts import Facts
from fitcheck.probe.pretend import pretend
from fitcheck.types import FlashAttention, Machine, Model, Request

CARD = "H100 SXM + Xeon Platinum 8480+"
ALL = 999  # -ngl


class Row(NamedTuple):
    """One plan. ``host`` and ``gpu``: bytes of weights, of caches and states, of the compute buffer."""

    model: str
    quant: str
    context: int
    kv_type: str
    flash_attention: str
    ubatch: int
    outputs: int
    sequences: int
    gpu_layers: int
    cpu_expert_layers: int
    host: Sequence[int] = ()
    gpu: Sequence[int] = ()

    @property
    def placement(self) -> str:
        """Which kind of placement this is, in words."""
        if self.cpu_expert_layers:
            return "experts on CPU"
        return "all on GPU" if self.gpu_layers == ALL else "layers on CPU"


def rows() -> Iterator[Row]:
    """All plans of the file."""
    for row in read("cuda_memory.json.gz")["rows"]:
        yield Row(*row)


def predicted(row: Row, model: Model, machine: Machine, estimator: Estimator) -> tuple[Use, ...]:
    """What this program says of a row: the use of the host, and of the GPU."""
    request = Request(
        context_tokens=row.context // row.sequences,
        parallel=row.sequences,
        quant=row.quant,
        runtime="llama.cpp",
        kv_type_k=row.kv_type,
        kv_type_v=row.kv_type,
        flash_attention=FlashAttention(row.flash_attention),
        ubatch_tokens=row.ubatch,
        logits_tokens=row.outputs,
    )
    ground = estimator.ground(model, row.quant, machine, request, "llama.cpp")
    layers = None if row.gpu_layers == ALL else row.gpu_layers
    split = split_by(ground.load, (1,), layers, row.cpu_expert_layers)
    assert ground.plan is not None
    return candidate(ground, split, ground.plan(split)).uses


def parts_of(use: Use) -> tuple[int, int, int]:
    """The bytes of a device as in ``Row``."""
    parts = use.parts
    return parts.weights, parts.kv + parts.state, parts.compute


def score(models: Mapping[str, Model], facts: Facts) -> tuple[dict[str, Score], dict[str, int]]:
    """Errors of the compute buffers by placement, and how many plans of which models are off in anything."""
    machine, estimator = pretend(CARD), Estimator(facts)
    scores: dict[str, Score] = {}
    off: dict[str, int] = {}
    for row in rows():
        found = predicted(row, models[row.model], machine, estimator)
        scores.setdefault(row.placement, Score()).add([use.parts.compute for use in found], (row.host[2], row.gpu[2]))
        if any(parts_of(use) != tuple(true) for use, true in zip(found, (row.host, row.gpu), strict=True)):
            off[row.model] = off.get(row.model, 0) + 1
    return scores, off
