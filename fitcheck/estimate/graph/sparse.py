"""Sparse latent attention: an indexer picks the tokens that each query may see (DeepSeek-V3.2, GLM-5).

Source: llama.cpp 0c1e57098, src/models/deepseek32.cpp, glm-dsa.cpp and build_attn over llm_graph_input_attn_k_dsa.
"""

from __future__ import annotations

from fitcheck.estimate.graph.attention import (
    LatentInputs,
    attend,
    compressed_q_and_k,
    gated_output,
    latent_cache,
    latent_q,
    merged_heads,
    rope,
)
from fitcheck.estimate.graph.model import ModelGraph, expect
from fitcheck.estimate.graph.tensors import Tensor
from fitcheck.types import Indexer, LatentAttention


class IndexerInputs:
    """Inputs of the indexer's own cache of keys. Its mask is f16, as the fused kernel wants it."""

    def __init__(self, g: ModelGraph, indexer: Indexer) -> None:
        self.rows = g.input("i64", g.tokens)
        self.mask = g.input("f16", g.cells, g.tokens // g.streams, 1, g.streams)
        self.rotation = g.input("f32", indexer.head_dim, indexer.head_dim)
        self.chosen: Tensor | None = None  # of the last layer that had an indexer


def sparse_latent_attention(
    g: ModelGraph, il: int, x: Tensor, spec: LatentAttention, inputs: LatentInputs, indexing: IndexerInputs
) -> Tensor:
    """Latent attention over the tokens that the indexer chose; a layer without one takes over the choice."""
    low = g.rms_norm(g.matmul(il, "attn_q_a", spec.q_lora_rank or 0, x), il, "attn_q_a_norm")
    if spec.indexer:
        indexing.chosen = _chosen(g, il, x, low, spec.indexer, indexing)
    q = latent_q(g, il, low, spec)
    q_full, vector, k_full = compressed_q_and_k(g, il, x, q, spec)
    for tensor in (q_full, vector, k_full):
        g.expand(tensor)
    keys, values = latent_cache(g, il, k_full, spec, inputs)
    mask = only_chosen(g, inputs.mask, expect(indexing.chosen, Tensor), "f32")
    y = attend(g, il, q_full, keys, values, mask, decompress=spec.v_head_dim)
    return gated_output(g, il, x, y, spec)


def _chosen(g: ModelGraph, il: int, x: Tensor, low: Tensor, spec: Indexer, inputs: IndexerInputs) -> Tensor:
    """Numbers of the tokens that each query sees: [tokens seen, tokens]."""
    heads, head, streams = spec.n_heads, spec.head_dim, g.streams
    q = g.reshape(g.matmul(il, "indexer.attn_q_b", head * heads, low), head, heads, g.tokens)
    k = g.same("NORM", g.matmul(il, "indexer.attn_k", head, x))
    k = g.vector("ADD", il, "indexer.k_norm", g.vector("MUL", il, "indexer.k_norm", k))
    q, k = rope(g, il, q), rope(g, il, g.reshape(k, head, 1, g.tokens))
    if g.traits.rotates_index:
        q, k = g.product(inputs.rotation, q), g.product(inputs.rotation, k)
    cache = g.stored(g.kv_type_k, g.layer_devices[il], head, g.cells, streams)
    g.expand(g.write("SET_ROWS", cache, merged_heads(g, k), inputs.rows, cache))
    weights = g.matmul(il, "indexer.proj", heads, x)
    tokens = g.tokens // streams
    q = g.view(q, (head, heads, tokens, streams), (*q.nb()[1:3], q.nb()[2] * tokens))
    weights = g.view(weights, (heads, tokens, 1, streams), (weights.nb()[1], weights.nb()[1] * tokens))
    keys = g.cache_view(cache, head, 1, g.cells)
    return most_relevant(g, q, keys, g.scale(weights), inputs.mask, spec.top_k)


def most_relevant(g: ModelGraph, q: Tensor, keys: Tensor, weights: Tensor, mask: Tensor, count: int) -> Tensor:
    """Numbers of the ``count`` keys that the indexer's heads score highest for each query: [count, tokens]."""
    scores = g.op("LIGHTNING_INDEXER", "f32", mask.ne, q, keys, weights, mask)
    return g.cont(g.op("TOP_K", "i32", (min(mask.ne[0], count), *scores.ne[1:]), scores))


def only_chosen(g: ModelGraph, mask: Tensor, chosen: Tensor, zeros_type: str) -> Tensor:
    """The mask with everything hidden but the chosen keys."""
    cells, tokens, _, streams = mask.ne
    hidden = g.same("FILL", mask)
    nb = hidden.nb()
    rows = g.view(hidden, (1, cells, tokens, streams), (nb[0], nb[1], nb[2]))
    seen = g.view(chosen, (chosen.ne[0], tokens, streams, 1), (chosen.nb()[1], chosen.nb()[3]))
    zeros = g.same("FILL", g.scratch(zeros_type, 1, chosen.ne[0], tokens, streams))
    shown = g.write("SET_ROWS", rows, zeros, seen, rows)
    return g.add(g.view(shown, mask.ne, (nb[1], nb[2], nb[3])), mask)
