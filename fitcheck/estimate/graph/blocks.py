"""Block-sparse attention: an indexer picks blocks of positions for each group of heads (MiniMax-M3).

Source: llama.cpp 0c1e57098, src/models/minimax-m3.cpp, src/llama-kv-cache-msa.cpp.
"""

from __future__ import annotations

from fitcheck.estimate.graph.attention import (
    hadamard,
    merged_heads,
    normed_q_and_k,
    projections,
    rope,
    write_v,
)
from fitcheck.estimate.graph.model import CacheInputs, ModelGraph
from fitcheck.estimate.graph.tensors import Tensor
from fitcheck.types import Attention

# attention.indexer.*: key_length, block_size and top_k of all published models
INDEX_WIDTH, BLOCK, BLOCKS_SEEN = 128, 128, 16
POSITIONS = 256  # that the engine plans for: as many as an empty cache is taken to hold


class BlockInputs:
    """Inputs of the choice of blocks, and the mask in 32 bits, made once for all layers."""

    def __init__(self, g: ModelGraph, caches: CacheInputs) -> None:
        self.caches = caches
        self.blocks = POSITIONS // BLOCK
        self.rows = g.input("i64", g.tokens)
        self.bias = g.input("f32", self.blocks, g.tokens)
        self.visible = g.input("f32", POSITIONS, g.tokens)
        self.cells_of_positions = g.input("i32", POSITIONS, g.streams)
        self.blocks_of_cells = g.input("i32", caches.cells, g.streams)
        self.mask = g.op("CPY", "f32", caches.mask.ne, caches.mask)


def block_attention(g: ModelGraph, il: int, x: Tensor, spec: Attention, inputs: BlockInputs) -> Tensor:
    """Attention of one layer over the blocks that its indexer chose, stream by stream."""
    caches, streams = inputs.caches, g.streams
    q, k, v = projections(g, il, x, spec)
    q, k = normed_q_and_k(g, il, q, k, spec)
    q, k = rope(g, il, q), rope(g, il, k)
    index_q, index_keys = _index(g, il, x, spec, inputs)
    if caches.k_rotation is not None:
        q, k = hadamard(g, q, caches.k_rotation), hadamard(g, k, caches.k_rotation)
    if caches.v_rotation is not None:
        v = hadamard(g, v, caches.v_rotation)
    for tensor in (q, k, v):
        g.expand(tensor)
    k_cache, v_cache = g.cache(il, spec, caches.cells)
    g.expand(g.write("SET_ROWS", k_cache, merged_heads(g, k), caches.k_rows, k_cache))
    g.expand(write_v(g, v, v_cache, caches))
    keys = g.cache_view(k_cache, spec.head_dim, spec.n_kv_heads, caches.cells)
    values = g.cache_view(v_cache, spec.head_dim, spec.n_kv_heads, caches.cells)
    y: Tensor | None = None
    for _ in range(streams):
        mask = _mask(g, spec.n_kv_heads, index_q, index_keys, inputs)
        part = _attend(g, spec, q, keys, values, mask)
        y = part if y is None else g.concat(y, part, 1)
    assert y is not None
    if caches.v_rotation is not None:
        y = hadamard(g, y, caches.v_rotation)
    return g.matmul(il, "attn_output", g.d, y)


def _index(g: ModelGraph, il: int, x: Tensor, spec: Attention, inputs: BlockInputs) -> tuple[Tensor, Tensor]:
    """The indexer's Q, and its cache with K written to it."""
    heads = spec.n_kv_heads
    q = g.reshape(g.matmul(il, "indexer.q_proj", INDEX_WIDTH * heads, x), INDEX_WIDTH, heads, g.tokens)
    k = g.reshape(g.matmul(il, "indexer.k_proj", INDEX_WIDTH, x), INDEX_WIDTH, 1, g.tokens)
    q, k = rope(g, il, g.rms_norm(q, il, "indexer.q_norm")), rope(g, il, g.rms_norm(k, il, "indexer.k_norm"))
    cache = g.stored(g.kv_type_k, g.layer_devices[il], INDEX_WIDTH, inputs.caches.cells, g.streams)
    g.expand(g.write("SET_ROWS", cache, merged_heads(g, k), inputs.rows, cache))
    return q, cache


def _mask(g: ModelGraph, heads: int, index_q: Tensor, index_keys: Tensor, inputs: BlockInputs) -> Tensor:
    """The mask of one stream, per group of heads: everything hidden but the best blocks."""
    blocks, cells, tokens = inputs.blocks, inputs.caches.cells, g.tokens // g.streams
    q = g.view(index_q, (INDEX_WIDTH, heads, tokens), index_q.nb()[1:3])
    keys = g.view(index_keys, (INDEX_WIDTH, cells), (index_keys.nb()[1],))
    keys = g.rows(keys, g.view(inputs.cells_of_positions, (POSITIONS,)))
    scores = g.reshape(g.product(keys, g.reshape(q, INDEX_WIDTH, heads * tokens)), POSITIONS, heads, tokens)
    visible = g.view(inputs.visible, (POSITIONS, 1, tokens), (inputs.visible.nb()[1],) * 2)
    best = g.op("POOL", "f32", (blocks, heads, tokens), g.write("ADD", scores, scores, visible))
    bias = g.view(inputs.bias, (blocks, 1, tokens), (inputs.bias.nb()[1],) * 2)
    seen = min(BLOCKS_SEEN, blocks)
    chosen = g.op("TOP_K", "i32", (seen, heads, tokens), g.add(best, bias))
    hidden = g.op("CPY", "f16", (blocks, 1, tokens), g.scale(bias))
    hidden = g.repeat(hidden, blocks, heads, tokens)
    shown = g.scale(g.op("CPY", "f32", chosen.ne, chosen))
    rows, count = heads * tokens, chosen.ne[0]
    target = g.reshape(hidden, 1, blocks, rows)
    by_block = g.write("SET_ROWS", target, g.reshape(shown, 1, count, rows), g.reshape(chosen, count, rows), target)
    by_head = g.cont(g.permute(g.reshape(by_block, blocks, heads, tokens), 0, 2, 1, 3))
    by_block = g.cont(g.transpose(g.reshape(by_head, blocks, rows)))
    by_cell = g.rows(by_block, g.view(inputs.blocks_of_cells, (cells,)))
    by_cell = g.reshape(g.cont(g.transpose(by_cell)), cells, tokens, heads)
    full = g.view(inputs.mask, (cells, tokens, 1), (inputs.mask.nb()[1], inputs.mask.nb()[3]))
    mask = g.reshape(g.write("ADD", by_cell, by_cell, full), cells, tokens, 1, heads)
    return g.op("CPY", "f16", mask.ne, mask)


def _attend(g: ModelGraph, spec: Attention, q: Tensor, keys: Tensor, values: Tensor, mask: Tensor) -> Tensor:
    """One call for all groups of heads."""
    groups, tokens, head = spec.n_kv_heads, g.tokens // g.streams, spec.head_dim
    size = spec.n_heads // groups
    q = g.view(q, (head, spec.n_heads, tokens), q.nb()[1:3])
    q = g.permute(g.reshape(q, head, size, groups, tokens), 0, 2, 3, 1)
    k, v = (g.permute(g.view(t, (*t.ne[:3], 1), t.nb()[1:]), 0, 3, 1, 2) for t in (keys, values))
    y = g.op("FLASH_ATTN", "f32", (head, size, tokens, groups), q, k, v, mask)
    return g.reshape(g.cont(g.permute(y, 0, 1, 3, 2)), head * spec.n_heads, tokens)
