"""How engines other than llama.cpp use memory, where their form differs.

vLLM takes a share of each card, keeps weights, activations and CUDA graphs in it, and turns the rest into pages of KV
cache; ``parallel`` shares a model out over its cards. MLX and transformers keep weights and a growing cache, and a peak
of activations while they read the prompt. None of this is exact: answers say so.
"""

from __future__ import annotations

from collections.abc import Callable

from msgspec.structs import replace

from fitcheck.estimate.buffers import ComputeBuffers
from fitcheck.estimate.placement import Candidate, Gpu, Split
from fitcheck.estimate.runtimes import Runtime
from fitcheck.estimate.stored import NOTHING, Stored
from fitcheck.types import (
    Attention,
    DenseFeedForward,
    FeedForward,
    LatentAttention,
    Mixer,
    MixtureOfExperts,
    Request,
    Shape,
)

BYTES = 2  # of an activation


def layer_width(shape: Shape) -> int:
    """Numbers per token that the widest layer keeps at once, in its attention or in its feed-forward.

    The residual, its norm, and what each step reads and writes: as PyTorch's peak on an H100 (transformers 5.17, dense
    models of 1, 8 and 32 B and a mixture of 30 B) within 7 %.
    """
    return max(max(_mixer_width(layer.mixer), _feed_forward_width(layer.ffn, shape)) for layer in shape.kinds) + (
        4 * shape.hidden_size
    )


def _mixer_width(mixer: Mixer) -> int:
    if isinstance(mixer, Attention):
        return (3 * mixer.n_heads + 4 * mixer.n_kv_heads) * mixer.head_dim
    if isinstance(mixer, LatentAttention):
        return 4 * mixer.n_heads * (mixer.qk_nope_head_dim + mixer.qk_rope_head_dim)
    return 0


def _feed_forward_width(ffn: FeedForward, shape: Shape) -> int:
    """Gate, up and their product; for experts also the rows that go in, come out and are weighed."""
    if isinstance(ffn, DenseFeedForward):
        return 3 * ffn.intermediate_size
    if isinstance(ffn, MixtureOfExperts):
        return ffn.experts_per_token * 3 * (ffn.moe_intermediate_size + shape.hidden_size)
    return 0


def activations(shape: Shape, row: Runtime, request: Request, context_tokens: int) -> Callable[[Split], ComputeBuffers]:
    """The peak of activations on each device that has layers, in bytes: one batch of tokens and its logits. An engine
    that does not cut prompts into batches works on all of a full context at once.
    """
    batch = min(row.batch_tokens or context_tokens, context_tokens) * layer_width(shape) * BYTES
    logits = request.parallel * shape.vocab_size * 4

    def found(split: Split) -> ComputeBuffers:
        each = batch // split.group + row.graph_bytes
        stages = len(split.ends) - 1
        host = batch + logits if split.ends[0] else 0
        gpus = [each + (logits if stage == split.output else 0) for stage in range(1, stages + 1)]
        return ComputeBuffers((host, *[size for size in gpus for _ in range(split.group)]), False)

    return found


def beside_the_layers(stored: Stored) -> Stored:
    """Engines on PyTorch and MLX keep the embedding with the first layer, or once with the output matrix that it is."""
    moved = NOTHING if stored.tied else stored.embedding
    first = stored.first_layer.plus(moved).plus(stored.tables)
    return replace(stored, embedding=NOTHING, tables=NOTHING, first_layer=first, output_first=True)


def share_of(gpu: Gpu, utilization: float) -> Gpu:
    """The part of a card that vLLM takes: a share of all of it, at most what is free."""
    return gpu._replace(have_bytes=min(gpu.have_bytes, int(gpu.card.pool.total_bytes * utilization)))


def pages_note(found: Candidate, context_tokens: int, sequences: int) -> str:
    """How many tokens and sequences the memory that is left can hold as pages of KV cache."""
    asked = context_tokens * sequences
    held = [(use.left + use.parts.kv) * asked // use.parts.kv for use in found.uses if use.parts.kv]
    tokens = min(held, default=0)
    if tokens <= 0:
        return ""
    at_once = f"{tokens // context_tokens} times {context_tokens:,}"
    return f"paged KV cache holds {tokens:,} tokens, {at_once} at once"
