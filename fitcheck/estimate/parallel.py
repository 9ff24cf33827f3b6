"""Cards that vLLM shares a model out over: every layer in equal shares over a group of them (tensor parallel), the
layers in stages, each on such a group (pipeline parallel).

Source: docs.vllm.ai, "Parallelism and Scaling"; vllm/config/parallel.py, vllm/distributed/utils.py (get_pp_indices) and
vllm/model_executor/layers/linear.py of 0.31.
"""

from __future__ import annotations

from collections.abc import Iterator

from fitcheck.estimate.memory import Series
from fitcheck.estimate.placement import Candidate, Ground, Parts, Split, Use, verdict_of
from fitcheck.types import (
    Attention,
    DenseFeedForward,
    LatentAttention,
    Layer,
    Mixer,
    MixtureOfExperts,
    ParallelMixers,
    PlacementKind,
    Shape,
    Verdict,
)


def parallel_candidate(ground: Ground, shape: Shape) -> Candidate:
    """The fewest cards that hold the model in one group, whose cards work at the same time; else the fewest in stages,
    each of as wide a group as can be. Where none holds it, all cards.
    """
    found = None
    for group, stages in _layouts(len(ground.gpus), shape):
        found = _laid_out(ground, shape, group, stages)
        if found.verdict is not Verdict.NO:
            break
    assert found is not None  # one card can always be asked
    return found


def _layouts(cards: int, shape: Shape) -> Iterator[tuple[int, int]]:
    """Cards per group, and stages, in the order in which they are tried."""
    groups = [size for size in range(1, cards + 1) if can_share(shape, size)]
    yield from ((size, 1) for size in groups)
    for count in range(2, cards + 1):
        group = max(size for size in groups if count % size == 0)
        if 1 < count // group <= shape.n_layers:
            yield group, count // group


def can_share(shape: Shape, cards: int) -> bool:
    """Whether each layer can be cut into equal shares: heads, and the width of each feed-forward."""
    return all(_can_share(part, cards) for layer in shape.kinds for part in _mixers(layer)) and all(
        width % cards == 0 for layer in shape.kinds for width in _widths(layer)
    )


def _can_share(mixer: Mixer, cards: int) -> bool:
    if isinstance(mixer, Attention):
        kv = mixer.n_kv_heads
        return mixer.n_heads % cards == 0 and (kv % cards == 0 or cards % kv == 0)
    if isinstance(mixer, LatentAttention):
        return mixer.n_heads % cards == 0
    return cards & (cards - 1) == 0  # heads of states are many, and powers of two


def _mixers(layer: Layer) -> tuple[Mixer, ...]:
    return layer.mixer.parts if isinstance(layer.mixer, ParallelMixers) else (layer.mixer,)


def _widths(layer: Layer) -> tuple[int, ...]:
    ffn = layer.ffn
    if isinstance(ffn, DenseFeedForward):
        return (ffn.intermediate_size,)
    return (ffn.moe_intermediate_size,) if isinstance(ffn, MixtureOfExperts) else ()


def stages_of(n_layers: int, stages: int) -> tuple[int, ...]:
    """Where the layers of each stage end: equal parts; what remains goes to those before the last, which has the
    output.
    """
    sizes = [n_layers // stages] * stages
    for extra in range(n_layers % stages):
        sizes[-2 - extra] += 1
    return tuple([sum(sizes[: number + 1]) for number in range(stages)])


def _laid_out(ground: Ground, shape: Shape, group: int, stages: int) -> Candidate:
    load, weights, caches = ground.load, ground.load.weights, ground.load.caches
    ends = (0, *stages_of(load.n_layers, stages))
    split = Split(PlacementKind.GPU, load.n_layers + 1, 0, ends, stages, group)
    compute = ground.compute(split)
    shares = _kept(shape, group)
    kept = Series([int(size * share) for size, share in zip(caches.gpu.values, shares, strict=True)], shape.layers)
    uses = []
    for number, gpu in enumerate(ground.gpus[: group * stages]):
        stage = number // group + 1
        first, last = ends[stage - 1], ends[stage]
        size = weights.gpu.over(first, last) + (weights.stored.first_layer.gpu if not first else 0)
        if stage == stages:
            size += weights.output.gpu
        elif stage == 1 and weights.stored.tied:
            size += weights.stored.head.gpu  # the embedding, of which the last stage has a copy of its own
        parts = Parts(
            weights=-(-size // group),
            kv=kept.over(first, last),
            state=-(-caches.state.over(first, last) // group),
            compute=compute.bytes[number + 1],
            output=0,
            overhead=gpu.overhead_bytes,
            projector=ground.encoders.on_gpu.weights if stage == 1 else 0,
            projector_buffer=0,
        )
        uses.append(Use(gpu.name, gpu.have_bytes, parts, weights.expert_layers.over(first, last)))
    found = tuple(uses)
    return Candidate(split, found, verdict_of(found, ground.margin), exact=False)


def _kept(shape: Shape, cards: int) -> list[float]:
    """The share of a layer's cache that each card keeps, by kind: whole heads, hence one where there are fewer than
    cards; all of a latent, which has no heads.
    """
    return [max(_kept_of(part, cards) for part in _mixers(layer)) for layer in shape.kinds]


def _kept_of(mixer: Mixer, cards: int) -> float:
    if isinstance(mixer, LatentAttention):
        return 1.0
    heads = max(1, mixer.n_kv_heads) if isinstance(mixer, Attention) else cards
    return max(1.0 / cards, 1.0 / heads)
