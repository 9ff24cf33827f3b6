"""Qwen sparse attention: an indexer scores the mean key of every four tokens; a query sees the best of them.

Source: llama.cpp 0c1e57098, build_qsa_top_k and build_attn_qsa of src/models/qwen4exp.cpp.
"""

from __future__ import annotations

from copy import copy

from fitcheck.estimate.graph.attention import doubled_q_attention, merged_heads, rope
from fitcheck.estimate.graph.model import CacheInputs, ModelGraph
from fitcheck.estimate.graph.sparse import only_chosen
from fitcheck.estimate.graph.tensors import Tensor
from fitcheck.types import Attention

# attention.compress_ratios and attention.indexer.*: head_count, key_length and top_k of all published models
BLOCK, INDEX_HEADS, INDEX_WIDTH, TOKENS_SEEN = 4, 4, 128, 2048


class BlockInputs:
    """Inputs of the choice of blocks: the indexer's cache, which cells make up a block, where it stands, what is seen
    of it."""

    def __init__(self, g: ModelGraph) -> None:
        self.blocks = -(-g.cells // BLOCK)
        self.rows = g.input("i64", g.tokens)
        self.blocks_of_cells = g.input("i32", g.cells, g.streams)
        self.cells_of_blocks = g.input("i32", BLOCK * self.blocks, g.streams)
        self.positions = g.input("i32", g.traits.positions * self.blocks * g.streams)
        self.bias = g.input("f32", self.blocks, g.tokens // g.streams, g.streams)


def sparse_attention(
    g: ModelGraph, il: int, x: Tensor, spec: Attention, caches: CacheInputs, inputs: BlockInputs
) -> Tensor:
    """Attention of one layer over the tokens that its indexer chose."""
    chosen = _chosen(g, il, x, caches.mask, inputs)
    seen = copy(caches)
    seen.mask = only_chosen(g, caches.mask, chosen, "f32")
    return doubled_q_attention(g, il, x, spec, {False: seen})


def _chosen(g: ModelGraph, il: int, x: Tensor, mask: Tensor, inputs: BlockInputs) -> Tensor:
    """Numbers of the cells that each query sees: those of the best blocks, and of the one that is not full yet."""
    cells, tokens, _, streams = mask.ne
    keys = _keys(g, il, x, inputs)
    q = g.reshape(g.matmul(il, "indexer.q_proj", INDEX_HEADS * INDEX_WIDTH, x), INDEX_WIDTH, INDEX_HEADS, g.tokens)
    q = rope(g, il, g.rms_norm(q, il, "indexer.q_norm"))
    scores = g.product(keys, g.reshape(q, INDEX_WIDTH, INDEX_HEADS * tokens, streams))
    scores = g.add(_sum_of_heads(g, scores, tokens), inputs.bias)
    by_token = g.rows(g.cont(g.permute(scores, 1, 0, 2, 3)), inputs.blocks_of_cells)
    by_cell = g.cont(g.permute(by_token, 1, 0, 2, 3))
    hidden = mask if mask.type == "f32" else g.op("CPY", "f32", mask.ne, mask)
    by_cell = g.add(by_cell, g.reshape(hidden, cells, tokens, streams))
    seen = min(cells, TOKENS_SEEN + BLOCK - 1)
    best = g.cont(g.op("TOP_K", "i32", (seen, tokens, streams), by_cell))
    return g.reshape(best, seen, tokens, 1, streams)


def _keys(g: ModelGraph, il: int, x: Tensor, inputs: BlockInputs) -> Tensor:
    """Keys into the indexer's cache; of all cached ones the mean of each block, normed and rotated."""
    blocks, streams, cells = inputs.blocks, g.streams, g.cells
    key = g.reshape(g.matmul(il, "indexer.k_proj", INDEX_WIDTH, x), INDEX_WIDTH, 1, g.tokens)
    cache = g.stored(g.kv_type_k, g.layer_devices[il], INDEX_WIDTH, cells, streams)
    g.expand(g.write("SET_ROWS", cache, merged_heads(g, key), inputs.rows, cache))
    every = g.cache_view(cache, INDEX_WIDTH, 1, cells)
    every = g.view(every, (INDEX_WIDTH, cells, streams), every.nb()[2:])
    members = g.reshape(g.rows(every, inputs.cells_of_blocks), INDEX_WIDTH, BLOCK, blocks, streams)
    total: Tensor | None = None
    for _ in range(BLOCK):
        part = g.cont(g.view(members, (INDEX_WIDTH, blocks, streams), members.nb()[2:]))
        total = part if total is None else g.add(total, part)
    assert total is not None
    means = g.reshape(g.scale(total), INDEX_WIDTH, blocks * streams)
    means = g.reshape(g.rms_norm(means, il, "indexer.k_norm"), INDEX_WIDTH, 1, blocks * streams)
    return g.reshape(g.same("ROPE", means, inputs.positions), INDEX_WIDTH, blocks, streams)


def _sum_of_heads(g: ModelGraph, scores: Tensor, tokens: int) -> Tensor:
    """What is positive of the heads' scores, added up: [blocks, tokens, streams]."""
    blocks, _, streams, _ = scores.ne
    scores = g.unary(g.reshape(scores, blocks, INDEX_HEADS, tokens, streams))
    heads = [g.view(scores, (blocks, tokens, streams), scores.nb()[2:]) for _ in range(INDEX_HEADS)]
    total = g.cont(heads[0])
    for head in heads[1:]:
        total = g.add(total, head)
    return total
