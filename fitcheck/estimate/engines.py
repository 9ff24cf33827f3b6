"""How engines other than llama.cpp use memory, where their form differs.

vLLM takes a share of each card, keeps weights, activations and CUDA graphs in it, and turns the rest into pages of KV
cache; it splits layers over cards in equal shares. MLX and transformers keep weights and a growing cache, and a peak of
activations while they read the prompt. None of this is exact: answers say so.
"""

from __future__ import annotations

from collections.abc import Callable

from fitcheck.estimate.placement import Candidate, Compute, Gpu, Split
from fitcheck.estimate.runtimes import Runtime
from fitcheck.types import Attention, DenseFeedForward, LatentAttention, MixtureOfExperts, Shape

BYTES = 2  # of an activation


def layer_width(shape: Shape) -> int:
    """Numbers per token that the widest layer keeps at once: its input, its attention heads, its feed-forward."""
    widest = 0
    for layer in shape.kinds:
        width = 3 * shape.hidden_size
        mixer, ffn = layer.mixer, layer.ffn
        if isinstance(mixer, Attention):
            width += (2 * mixer.n_heads + 2 * mixer.n_kv_heads) * mixer.head_dim
        elif isinstance(mixer, LatentAttention):
            width += 2 * mixer.n_heads * (mixer.qk_nope_head_dim + mixer.qk_rope_head_dim)
        if isinstance(ffn, DenseFeedForward):
            width += 2 * ffn.intermediate_size
        elif isinstance(ffn, MixtureOfExperts):
            width += ffn.experts_per_token * (2 * ffn.moe_intermediate_size + shape.hidden_size)
        widest = max(widest, width)
    return widest


def activations(shape: Shape, row: Runtime, sequences: int) -> Callable[[Split], Compute]:
    """The peak of activations on each device that has layers, in bytes: one batch of tokens and its logits."""
    batch = row.batch_tokens * layer_width(shape) * BYTES
    logits = sequences * shape.vocab_size * 4

    def found(split: Split) -> Compute:
        gpus = len(split.ends) - 1
        each = batch // gpus if gpus and row.tensor_parallel else batch
        host = batch + logits if split.ends[0] else 0
        return Compute((host, *[each + logits + row.graph_bytes] * gpus), False)

    return found


def share_of(gpu: Gpu, utilization: float) -> Gpu:
    """The part of a card that vLLM takes: a share of all of it, at most what is free."""
    return gpu._replace(have_bytes=min(gpu.have_bytes, int(gpu.card.pool.total_bytes * utilization)))


def pages_note(found: Candidate, context_tokens: int, sequences: int) -> str:
    """How many tokens and sequences the memory that is left can hold as pages of KV cache."""
    per_token = min(use.kv for use in found.uses) / (context_tokens * sequences)
    room = min(use.left + use.kv for use in found.uses)
    if per_token <= 0 or room <= 0:
        return ""
    tokens = int(room / per_token)
    return f"paged KV cache holds {tokens:,} tokens: {tokens // context_tokens} sequences of {context_tokens:,} at once"
