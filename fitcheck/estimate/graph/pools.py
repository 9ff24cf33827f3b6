"""Sparse latent attention over pools: an indexer scores every four tokens as one (GLM-5.3-Flash).

The indexer's cache holds three rows per token: its key, its gate, and the pooled key of its pool. A query sees the best
pools and the tokens behind the last full one.
Source: llama.cpp 0c1e57098, src/models/glm5-next.cpp and src/llama-memory-hybrid-idx.cpp.
"""

from __future__ import annotations

from fitcheck.estimate.graph.attention import LatentInputs, attend, latent_cache, latent_q, merged_heads
from fitcheck.estimate.graph.model import ModelGraph, UnknownGraphError, expect, padded
from fitcheck.estimate.graph.tensors import Tensor, row_bytes
from fitcheck.types import Indexer, LatentAttention

POOL = 4  # attention.indexer.kpool of all published models
POOL_STEP = 64  # counts of pools are rounded up to it, one of them kept empty (kpool_pad)
GATHERED_BATCH = 16  # up to so many tokens the engine gathers what they see instead of masking the rest


class PoolInputs:
    """Which cells make up the pools, which pools are new and complete, and what is seen of both.

    The engine plans for full caches: every pool is new.
    """

    def __init__(self, g: ModelGraph, latent: LatentInputs, indexer: Indexer) -> None:
        if g.tokens <= GATHERED_BATCH:
            raise UnknownGraphError("small batch")
        self.latent = latent
        self.new = g.cells // POOL * g.sequences
        self.count = padded(self.new + 1, POOL_STEP)
        self.best = min(self.count, indexer.top_k // POOL)
        self.seen = POOL * self.best + POOL - 1
        self.rows = g.input("i64", g.tokens)
        self.cells = g.expand(g.input("i32", self.count))
        self.members = g.expand(g.input("i32", POOL, self.count))
        self.mask = g.expand(g.input("f16", self.count, g.tokens))
        self.tail = g.expand(g.input("i32", POOL - 1, g.tokens))
        self.live = g.expand(g.input("f32", self.seen, 1, 1, g.tokens))
        self.new_members = g.input("i32", POOL, self.new)
        self.new_rows = g.input("i64", self.new)
        self.chosen: Tensor | None = None  # the mask of the last layer that had an indexer


def pooled_latent_attention(g: ModelGraph, il: int, x: Tensor, spec: LatentAttention, inputs: PoolInputs) -> Tensor:
    """Latent attention without positions, over what the indexer chose; a layer without one takes over the mask."""
    rank, tokens = spec.kv_lora_rank, g.tokens
    low = g.rms_norm(g.matmul(il, "attn_q_a", spec.q_lora_rank or 0, x), il, "attn_q_a_norm")
    q = g.permute(latent_q(g, il, low, spec), 0, 2, 1, 3)
    q = g.permute(g.matmul_heads(il, "attn_k_b", rank, spec.n_heads, q), 0, 2, 1, 3)
    vector = g.rms_norm(g.matmul(il, "attn_kv_a_mqa", rank, x), il, "attn_kv_a_norm")
    vector = g.reshape(vector, rank, 1, tokens)
    if spec.indexer:
        inputs.chosen = _chosen(g, il, x, low, spec.indexer, inputs)
    g.expand(q)
    g.expand(vector)
    keys, values = latent_cache(g, il, vector, spec, inputs.latent)
    mask = g.reshape(expect(inputs.chosen, Tensor), *inputs.latent.mask.ne)
    y = attend(g, il, q, keys, values, mask, decompress=spec.v_head_dim)
    return g.matmul(il, "attn_output", g.d, y)


def _chosen(g: ModelGraph, il: int, x: Tensor, low: Tensor, spec: Indexer, inputs: PoolInputs) -> Tensor:
    """The mask with everything hidden but the best pools and the tail."""
    pooled = _pooled_keys(g, il, x, spec, inputs)
    heads, head = spec.n_heads, spec.head_dim
    q = g.reshape(g.matmul(il, "indexer.attn_q_b", head * heads, low), head, heads, g.tokens)
    weights = g.scale(g.matmul(il, "indexer.proj", heads, x))
    scores = g.op("LIGHTNING_INDEXER", "f32", (inputs.count, g.tokens), q, pooled, weights, inputs.mask)
    best = _best_first(g, scores, inputs.best)
    members = g.rows(inputs.members, g.reshape(best, inputs.best * g.tokens))
    cells = g.concat(g.reshape(members, POOL * inputs.best, g.tokens), inputs.tail, 0)
    return _mask(g, cells, inputs)


def _pooled_keys(g: ModelGraph, il: int, x: Tensor, spec: Indexer, inputs: PoolInputs) -> Tensor:
    """Keys and gates of the batch into the cache, keys of the pools that they complete as well; then all of those."""
    head, tokens = spec.head_dim, g.tokens
    key = g.same("NORM", g.matmul(il, "indexer.attn_k", head, x))
    key = g.vector("ADD", il, "indexer.k_norm", g.vector("MUL", il, "indexer.k_norm", key))
    gate = g.matmul(il, "indexer_compressor_gate", head, x)
    nothing = g.same("FILL", g.scratch("f32", head, tokens))
    row = g.reshape(g.concat(g.concat(key, gate, 0), nothing, 0), 3 * head, 1, tokens)
    cache = g.stored(g.kv_type_k, g.layer_devices[il], 3 * head, g.cells, g.streams)
    g.expand(g.write("SET_ROWS", cache, merged_heads(g, row), inputs.rows, cache))
    strides = (row_bytes(cache.type, 3 * head),)
    cells = g.cells * g.streams
    new = g.rows(g.view(cache, (2 * head, cells), strides), g.reshape(inputs.new_members, POOL * inputs.new))
    keys = g.view(cache, (head, cells), strides)
    g.expand(g.write("SET_ROWS", keys, _pooled(g, il, new, head, inputs.new), inputs.new_rows, keys))
    return g.reshape(g.rows(keys, inputs.cells), head, 1, inputs.count)


def _pooled(g: ModelGraph, il: int, rows: Tensor, head: int, pools: int) -> Tensor:
    """Keys of the members of each pool, weighed by the softmax of their gates: [head, pools]."""
    rows = g.reshape(rows, 2 * head, POOL, pools)
    keys, gates = (g.view(rows, (head, POOL, pools), rows.nb()[1:3]) for _ in range(2))
    places = g.op("ADD", "f32", gates.ne, gates)
    gates = g.weighted(places, il, "indexer_compressor_ape", (head, POOL, 1, 1), POOL * pools)
    gates = g.reshape(g.cont(g.permute(gates, 1, 0, 2, 3)), POOL, head * pools)
    shares = g.reshape(g.same("SOFT_MAX", gates), POOL, head, pools)
    keys = g.cont(g.permute(keys, 1, 0, 2, 3))
    return g.reshape(g.sum_rows(g.mul(shares, keys)), head, pools)


def _best_first(g: ModelGraph, scores: Tensor, count: int) -> Tensor:
    """Numbers of the best pools of each token in the order of their scores, which the kernel does not keep."""
    pools, tokens = scores.ne[:2]
    best = g.op("TOP_K", "i32", (count, tokens), scores)
    numbers = g.reshape(g.op("CPY", "f32", best.ne, best), 1, count, tokens)
    found = g.reshape(g.rows(g.reshape(scores, 1, pools, tokens), best), count, tokens)
    numbers = g.rows(numbers, g.op("ARGSORT", "i32", found.ne, found))
    return g.op("CPY", "i32", (count, tokens), g.cont(g.reshape(numbers, count, tokens)))


def _mask(g: ModelGraph, cells: Tensor, inputs: PoolInputs) -> Tensor:
    """Zeros for ``cells`` over a mask that hides all; what is not live goes to rows of its own behind the cells."""
    given, seen, tokens = inputs.latent.mask, inputs.seen, g.tokens
    first = g.op("CPY", "f32", (1,), g.view(cells, (1,)))
    hidden = g.same("FILL", first if given.type == "f32" else g.op("CPY", given.type, (1,), first))
    rows = g.reshape(g.repeat(hidden, 1, g.cells + seen, tokens), 1, g.cells + seen, tokens)
    zeros = g.reshape(g.repeat(g.same("FILL", first), 1, seen, tokens), 1, seen, tokens)
    live = g.unary(g.reshape(inputs.live, seen, tokens))
    own = g.op("ARANGE", "f32", (seen,))
    targets = g.same("SUB", g.op("CPY", "f32", cells.ne, cells), own)
    targets = g.op("CPY", "i32", cells.ne, g.add(g.mul(targets, live), own))
    shown = g.write("SET_ROWS", rows, zeros, g.reshape(targets, seen, tokens, 1), rows)
    shown = g.view(shown, (g.cells, tokens), (shown.nb()[2],))
    return g.add(shown, g.reshape(given, g.cells, tokens))
