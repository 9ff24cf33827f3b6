"""Compressed sparse attention (DeepSeek-V4): a window of single tokens, and behind it tokens compressed by blocks.

A compressor keeps the keys and scores of its unfinished block as a state, and writes each finished block into a cache
of its own as one key. Every fourth token: an indexer, which compresses too, chooses the blocks that a query sees.
Source: llama.cpp 0c1e57098, src/models/deepseek4.cpp, src/llama-kv-cache-dsv4.cpp and build_inp_dsv4.
"""

from __future__ import annotations

from fitcheck.estimate.graph.attention import attend, hadamard, merged_heads, rope
from fitcheck.estimate.graph.model import CONTEXT_PADDING, ModelGraph, expect, padded, rotation_of
from fitcheck.estimate.graph.sparse import most_relevant, only_chosen
from fitcheck.estimate.graph.tensors import Tensor
from fitcheck.estimate.tensors import OVERLAPPED_RATIO
from fitcheck.types import CompressedAttention, Indexer


class Compression:
    """Inputs of one compressor: where its states come from and go to, which blocks it reads, and the mask over them."""

    def __init__(self, g: ModelGraph, ratio: int, mask_type: str, rotation: Tensor | None) -> None:
        self.overlaps = ratio == OVERLAPPED_RATIO
        self.block = ratio * (2 if self.overlaps else 1)  # tokens that make one key
        self.ratio = ratio
        self.blocks = g.tokens // ratio + g.sequences
        self.cells = padded(max(1, -(-g.cells // ratio)), CONTEXT_PADDING)
        self.states = self.block * g.sequences
        kept = min(g.tokens, self.states)
        self.places = g.input("i32", g.tokens)
        self.kept_from, self.kept_to = g.input("i32", kept), g.input("i32", kept)
        self.read = g.input("i32", self.block * self.blocks)
        self.rows = g.input("i64", self.blocks)
        self.positions = g.input("i32", self.blocks)
        self.mask = g.input(mask_type, self.cells, g.tokens // g.streams, 1, g.streams)
        self.rotation = rotation


class CompressedInputs:
    """Inputs of all layers: of the window, and of a compressor per ratio; the indexer's is its own."""

    def __init__(self, g: ModelGraph, layers: list[CompressedAttention]) -> None:
        first = layers[0]
        window = min(g.cells, first.window + g.ubatch)
        self.cells = g.cells if g.swa_full else padded(window, CONTEXT_PADDING)
        self.rows = g.input("i64", g.tokens)
        mask_type = "f16" if g.flash else "f32"
        self.mask = g.input(mask_type, self.cells, g.tokens // g.streams, 1, g.streams)
        self.rotation = rotation_of(g, first.head_dim)
        ratios = {layer.compress_ratio for layer in layers if layer.compress_ratio}
        self.keys = {ratio: Compression(g, ratio, mask_type, rotation_of(g, first.head_dim)) for ratio in ratios}
        indexed = next((layer for layer in layers if layer.indexer), None)
        self.index: Compression | None = None
        if indexed is not None and indexed.indexer is not None:
            width = indexed.indexer.head_dim
            self.index = Compression(g, indexed.compress_ratio, "f16", g.input("f32", width, width))


def compressed_attention(
    g: ModelGraph, il: int, x: Tensor, spec: CompressedAttention, inputs: CompressedInputs
) -> Tensor:
    """Attention of one head of keys over window and blocks; its output projection is low-rank, in groups."""
    heads, head = spec.n_heads, spec.head_dim
    low = g.rms_norm(g.matmul(il, "attn_q_a", spec.q_lora_rank, x), il, "attn_q_a_norm")
    q = rope(g, il, g.rms(g.reshape(g.matmul(il, "attn_q_b", heads * head, low), head, heads, g.tokens)))
    k = g.rms_norm(g.matmul(il, "attn_kv", head, x), il, "attn_kv_norm")
    k = rope(g, il, g.reshape(k, head, 1, g.tokens))
    keys = inputs.keys.get(spec.compress_ratio)
    blocks = _compressed(g, il, x, "attn_compressor", head, keys) if keys is not None else None
    chosen = None
    if spec.indexer is not None:
        index = expect(inputs.index, Compression)
        cache = _compressed(g, il, x, "indexer_compressor", spec.indexer.head_dim, index)
        chosen = _chosen(g, il, x, low, spec.indexer, index, cache)
    if inputs.rotation is not None:
        q, k = hadamard(g, q, inputs.rotation), hadamard(g, k, inputs.rotation)
    g.expand(q)
    g.expand(k)
    seen = _cache(g, il, k, inputs.rows, inputs.cells)
    mask = inputs.mask
    if keys is not None and blocks is not None:
        seen = g.concat(seen, blocks, 2)
        of_blocks = keys.mask if chosen is None else only_chosen(g, keys.mask, chosen, keys.mask.type)
        mask = g.concat(mask, of_blocks, 0)
    y = attend(g, il, q, seen, seen, mask, sinks=True)
    if inputs.rotation is not None:
        y = hadamard(g, y, inputs.rotation)
    return _output(g, il, y, spec)


def _cache(g: ModelGraph, il: int, k: Tensor, rows: Tensor, cells: int) -> Tensor:
    """Write keys [width, 1, tokens] into a cache of their own, and look at all of it."""
    cache = g.stored(g.kv_type_k, g.layer_devices[il], k.ne[0], cells, g.streams)
    g.expand(g.write("SET_ROWS", cache, merged_heads(g, k), rows, cache))
    return g.cache_view(cache, k.ne[0], 1, cells)


def _compressed(g: ModelGraph, il: int, x: Tensor, name: str, head: int, inputs: Compression) -> Tensor:
    """Feed a compressor with the tokens of the batch; the cache of its keys."""
    width = head * (2 if inputs.overlaps else 1)
    keys = g.matmul(il, f"{name}_kv", width, x)
    scores = g.add(g.matmul(il, f"{name}_gate", width, x), g.weight_rows(il, f"{name}_ape", width, inputs.places))
    states = [g.stored("f32", g.layer_devices[il], width, inputs.states) for _ in range(2)]
    gather = _overlapping_blocks if inputs.overlaps else _blocks
    values, weights = (
        gather(g, g.concat(g.reshape(state, width, inputs.states), new, 1), head, inputs)
        for state, new in zip(states, (keys, scores), strict=True)
    )
    block = g.sum_rows(g.mul(values, g.same("SOFT_MAX", weights)))
    block = g.cont(g.permute(block, 1, 0, 2, 3))
    block = g.same("ROPE", g.rms_norm(block, il, f"{name}_norm"), inputs.positions)
    if inputs.rotation is not None:
        block = hadamard(g, block, inputs.rotation)
    cache = _cache(g, il, block, inputs.rows, inputs.cells)
    for state, new in zip(states, (keys, scores), strict=True):
        g.expand(g.write("SET_ROWS", state, g.rows(new, inputs.kept_from), inputs.kept_to, state))
    return cache


def _blocks(g: ModelGraph, source: Tensor, head: int, inputs: Compression) -> Tensor:
    """The tokens of each block as [block, head, blocks]."""
    rows = g.reshape(g.rows(source, inputs.read), head, inputs.ratio, inputs.blocks)
    return g.cont(g.permute(rows, 1, 0, 2, 3))


def _overlapping_blocks(g: ModelGraph, source: Tensor, head: int, inputs: Compression) -> Tensor:
    """The same where a block reaches into the one before: half of each row is for the one, half for the other.

    What is before the first block is one more row of zeros (of minus infinity for scores).
    """
    width, ratio, blocks = source.ne[0], inputs.ratio, inputs.blocks
    source = g.concat(source, g.reshape(g.scale(g.view(source, (width,))), width, 1), 1)
    rows = g.rows(source, inputs.read)
    half = (head, ratio * blocks)
    before, own = (g.reshape(g.cont(g.view(rows, half, (rows.nb()[1],))), head, ratio, blocks) for _ in range(2))
    return g.cont(g.permute(g.concat(before, own, 1), 1, 0, 2, 3))


def _chosen(g: ModelGraph, il: int, x: Tensor, low: Tensor, spec: Indexer, inputs: Compression, keys: Tensor) -> Tensor:
    """Numbers of the blocks that each query sees."""
    heads, head, streams, tokens = spec.n_heads, spec.head_dim, g.streams, g.tokens // g.streams
    q = g.reshape(g.matmul(il, "indexer.attn_q_b", heads * head, low), head, heads, g.tokens)
    q = hadamard(g, rope(g, il, q), expect(inputs.rotation, Tensor))
    weights = g.scale(g.matmul(il, "indexer.proj", heads, x))
    q = g.view(q, (head, heads, tokens, streams), (*q.nb()[1:3], q.nb()[2] * tokens))
    weights = g.view(weights, (heads, tokens, 1, streams), (weights.nb()[1], weights.nb()[1] * tokens))
    return most_relevant(g, q, keys, weights, inputs.mask, spec.top_k)


def _output(g: ModelGraph, il: int, y: Tensor, spec: CompressedAttention) -> Tensor:
    """Rotated back, then projected: each group of heads to a low rank, and all of them together."""
    groups, rank = spec.o_groups, spec.o_lora_rank
    y = g.same("ROPE_BACK", g.reshape(y, spec.head_dim, spec.n_heads, g.tokens), g.positions)
    y = g.permute(g.reshape(y, spec.n_heads * spec.head_dim // groups, groups, g.tokens), 0, 2, 1, 3)
    y = g.permute(g.matmul_heads(il, "attn_output_a", rank, groups, y), 0, 2, 1, 3)
    return g.matmul(il, "attn_output_b", g.d, g.cont(y, rank * groups, g.tokens))
