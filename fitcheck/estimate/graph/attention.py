"""Attention: grouped-query in all its variants, and multi-head latent attention.

Source: llama.cpp 0c1e57098, llm_graph_context::build_qkv, build_attn and build_attn_mha; src/models/deepseek2.cpp.
"""

from __future__ import annotations

from fitcheck.estimate.graph.model import BatchInputs, CacheInputs, ModelGraph, attention_of, expect
from fitcheck.estimate.graph.tensors import HOST, Tensor
from fitcheck.types import Attention, LatentAttention

Inputs = dict[bool, CacheInputs] | dict[bool, BatchInputs]


def attention(g: ModelGraph, il: int, x: Tensor, spec: Attention, caches: Inputs) -> Tensor:
    """Projections, norms, rotation, the cache and the output projection of one layer."""
    traits = g.traits
    q, k, v = projections(g, il, x, spec)
    if not traits.norms_rotated:
        q, k = normed_q_and_k(g, il, q, k, spec)
    if traits.qkv == "flat":
        q = g.reshape(q, spec.head_dim, spec.n_heads, g.tokens)
        k = g.reshape(k, spec.head_dim, spec.n_kv_heads, g.tokens)
        v = g.reshape(v, spec.v_head_dim or spec.head_dim, spec.n_kv_heads, g.tokens)
    rotated = g.rotates(il)
    if rotated:
        q, k = rope(g, il, q), rope(g, il, k)
    if traits.norms_rotated:
        q, k = normed_q_and_k(g, il, q, k, spec)
    if g.attention_scale is not None and (not rotated or not traits.scales_unrotated_q):
        q = g.mul(q, g.attention_scale)
    gate = _gate(g, il, x, spec)
    inputs = caches[bool(g.windows[il])]
    if isinstance(inputs, CacheInputs):
        y = cached_attention(g, il, q, k, v, spec, inputs)
    else:
        y = batch_attention(g, il, q, k, v, inputs)
    if gate is not None:
        y = _gated(g, y, gate, spec)
    if traits.sub_norms:
        y = g.norm(y, il, "attn_sub_norm")
    return g.linear(il, "attn_output", g.d, y, "o" in spec.bias)


def projections(g: ModelGraph, il: int, x: Tensor, spec: Attention) -> tuple[Tensor, Tensor, Tensor]:
    """Q, K and V as [head, heads, tokens]; flat ones as [width, tokens]."""
    v_dim = spec.v_head_dim or spec.head_dim
    parts = ((spec.head_dim, spec.n_heads), (spec.head_dim, spec.n_kv_heads), (v_dim, spec.n_kv_heads))
    if g.traits.qkv == "fused":
        fused = g.linear(il, "attn_qkv", sum(head * count for head, count in parts), x, "q" in spec.bias)
        row = 4 * fused.ne[0]
        q, k, v = (g.view(fused, (head, count, g.tokens), (4 * head, row)) for head, count in parts)
        return q, k, v
    flat = g.traits.qkv == "flat"
    result = []
    for letter, (head, count) in zip("qkv", parts, strict=True):
        y = g.linear(il, f"attn_{letter}", head * count, x, letter in spec.bias)
        result.append(y if flat else g.reshape(y, head, count, g.tokens))
    return result[0], result[1], result[2]


def normed_q_and_k(g: ModelGraph, il: int, q: Tensor, k: Tensor, spec: Attention) -> tuple[Tensor, Tensor]:
    """Q and K after their norms, where the layer has them."""
    if not spec.qk_norm and not g.traits.always_norms_qk:
        return q, k
    kind = g.traits.qk_norm
    q, k = g.same(kind, q), g.same(kind, k)
    per_head = kind == "NORM"  # layer norms have a weight for each head
    q = g.vector("MUL", il, "attn_q_norm", q, *q.ne[: 1 + per_head])
    return q, g.vector("MUL", il, "attn_k_norm", k, *k.ne[: 1 + per_head])


def rope(g: ModelGraph, il: int, x: Tensor) -> Tensor:
    """Rotary positions. A table of frequency factors does not decide on a device, but one on the host is copied."""
    node = g.same("ROPE", x, g.positions)
    factors = g.rope_factors_on_host(il)
    if factors is not None:
        node.sources = (*node.sources, factors)
    return node


def _gate(g: ModelGraph, il: int, x: Tensor, spec: Attention) -> Tensor | None:
    if spec.gate == "full":
        return g.matmul(il, "attn_gate", spec.n_heads * (spec.v_head_dim or spec.head_dim), x)
    if spec.gate == "per_head":
        return g.matmul(il, "attn_gate", spec.n_heads, x)
    return None


def _gated(g: ModelGraph, y: Tensor, gate: Tensor, spec: Attention) -> Tensor:
    gate = g.unary(gate)
    if spec.gate == "full":
        return g.mul(y, gate)
    width = spec.v_head_dim or spec.head_dim
    heads = g.reshape(y, width, spec.n_heads, g.tokens)
    return g.reshape(g.mul(heads, g.reshape(gate, 1, spec.n_heads, g.tokens)), width * spec.n_heads, g.tokens)


def cached_attention(
    g: ModelGraph,
    il: int,
    q: Tensor,
    k: Tensor | None,
    v: Tensor | None,
    spec: Attention,
    inputs: CacheInputs,
    bias: Tensor | None = None,
) -> Tensor:
    """Write K and V to the cache and attend: [v width * heads, tokens]. ``k`` and ``v`` are None for a shared cache."""
    if inputs.k_rotation is not None:
        q = hadamard(g, q, inputs.k_rotation)
        k = hadamard(g, k, inputs.k_rotation) if k is not None else None
    if inputs.v_rotation is not None and v is not None:
        v = hadamard(g, v, inputs.v_rotation)
    for tensor in (q, k, v) if g.has_windows else (q, v, k):
        if tensor is not None:
            g.expand(tensor)
    k_cache, v_cache = g.cache(il, spec, inputs.cells)
    if k is not None and v is not None:
        g.expand(g.write("SET_ROWS", k_cache, merged_heads(g, k), inputs.k_rows, k_cache))
        g.expand(write_v(g, v, v_cache, inputs))
    v_dim = spec.v_head_dim or spec.head_dim
    keys = g.cache_view(k_cache, spec.head_dim, spec.n_kv_heads, inputs.cells)
    view = g.transposed_cache_view if g.transposes_v else g.cache_view
    values = view(v_cache, v_dim, spec.n_kv_heads, inputs.cells)
    y = attend(g, il, q, keys, values, inputs.mask, transposed=g.transposes_v, sinks=spec.sinks, bias=bias)
    return hadamard(g, y, inputs.v_rotation) if inputs.v_rotation is not None else y


def batch_attention(
    g: ModelGraph, il: int, q: Tensor, k: Tensor, v: Tensor, inputs: BatchInputs, bias: Tensor | None = None
) -> Tensor:
    """Attention over the batch itself: [v width * heads, tokens]."""
    for tensor in (q, k, v):
        g.expand(tensor)
    return attend(g, il, q, k, v, inputs.mask, bias=bias)


def hadamard(g: ModelGraph, x: Tensor, rotation: Tensor) -> Tensor:
    """Rotation before quantising a cache: spreads outliers over the head."""
    size, ne = rotation.ne[0], x.ne
    rows = x.elements // size
    flat = g.reshape(x, size, rows) if x.strides is None else g.cont(x, size, rows)
    return g.reshape(g.product(rotation, flat), *ne)


def merged_heads(g: ModelGraph, x: Tensor) -> Tensor:
    """All heads of a token as one row."""
    return g.view(x, (x.ne[0] * x.ne[1], x.ne[2]), (x.nb()[2],))


def write_v(g: ModelGraph, v: Tensor, cache: Tensor, inputs: CacheInputs) -> Tensor:
    """V into its cache; transposed where flash attention was never on."""
    if not g.transposes_v:
        return g.write("SET_ROWS", cache, merged_heads(g, v), inputs.v_rows, cache)
    width = v.ne[0] * v.ne[1]
    flat = g.reshape(v, width, v.ne[2]) if v.nb()[2] == 4 * width else g.cont(v, width, v.ne[2])
    if width < cache.ne[0]:
        flat = g.op("PAD", "f32", (cache.ne[0], v.ne[2]), flat)
    return g.write("SET_ROWS", cache, g.reshape(flat, 1, flat.elements), inputs.v_rows, cache)


def attend(
    g: ModelGraph,
    il: int,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Tensor,
    transposed: bool = False,
    decompress: int = 0,
    sinks: bool = False,
    bias: Tensor | None = None,
) -> Tensor:
    """Softmax attention. ``transposed``: V is stored so already. ``decompress``: width per head that latent attention
    turns its result into. ``sinks``: a learned score per head stands beside those of the tokens. ``bias``: is
    added to the scores, which flash attention cannot."""
    streams = k.ne[3]
    nb = q.nb()
    tokens = q.ne[2] // streams
    q = g.permute(g.view(q, (q.ne[0], q.ne[1], tokens, streams), (nb[1], nb[2], nb[2] * tokens)), 0, 2, 1, 3)
    k, v = g.permute(k, 0, 2, 1, 3), g.permute(v, 0, 2, 1, 3)
    learned = (_sinks_on_host(g, il, q.ne[2]),) if sinks and g.copies_weights and g.layer_devices[il] == HOST else ()
    if g.flash and bias is None:
        return g.expand(_flash(g, il, q, k, v, (mask, *learned), decompress))
    scores = g.product(k, q) if bias is None else g.add(g.product(k, q), bias)
    return g.expand(_softmax(g, il, scores, v, (mask, *learned), transposed, decompress))


def _sinks_on_host(g: ModelGraph, il: int, heads: int) -> Tensor:
    """Sinks of a host layer beside GPUs. They do not decide on a device, but are copied to the one that attends."""
    return g.host_weight((il, "attn_sinks", "FLASH_ATTN"), (heads, 1, 1, 1), "f32")


def _flash(
    g: ModelGraph, il: int, q: Tensor, k: Tensor, v: Tensor, seen: tuple[Tensor, ...], decompress: int
) -> Tensor:
    if k.type == "f32":  # no cache: the kernel wants f16
        k, v = g.op("CPY", "f16", k.ne, k), g.op("CPY", "f16", v.ne, v)
    y = g.op("FLASH_ATTN", "f32", (v.ne[0], q.ne[2], q.ne[1], q.ne[3]), q, k, v, *seen)
    if decompress:
        y = g.matmul_heads(il, "attn_v_b", decompress, q.ne[2], g.permute(y, 0, 2, 1, 3))
        y = g.cont(g.permute(y, 0, 2, 1, 3))
    return g.reshape(y, y.ne[0] * y.ne[1], y.ne[2] * y.ne[3])


def _softmax(
    g: ModelGraph, il: int, scores: Tensor, v: Tensor, seen: tuple[Tensor, ...], transposed: bool, decompress: int
) -> Tensor:
    heads = scores.ne[2]
    scores = g.same("SOFT_MAX", scores, *seen)
    if not transposed:
        v = g.cont(g.transpose(v))
    y = g.product(v, scores)
    if decompress:
        y = g.matmul_heads(il, "attn_v_b", decompress, heads, y)
    y = g.permute(y, 0, 2, 1, 3)
    return g.cont(y, y.ne[0] * y.ne[1], y.ne[2] * y.ne[3])


def doubled_q_attention(g: ModelGraph, il: int, x: Tensor, spec: Attention, caches: Inputs) -> Tensor:
    """Attention whose Q projection carries the output gate, head by head (Qwen3-Next, Qwen3.5)."""
    head, heads, kv_heads = spec.head_dim, spec.n_heads, spec.n_kv_heads
    both = g.matmul(il, "attn_q", 2 * head * heads, x)
    k = g.matmul(il, "attn_k", head * kv_heads, x)
    v = g.matmul(il, "attn_v", head * kv_heads, x)
    strides = (4 * 2 * head, 4 * 2 * head * heads)
    q = g.view(both, (head, heads, g.tokens), strides)
    gate = g.view(both, (head, heads, g.tokens), strides)
    k, v = g.reshape(k, head, kv_heads, g.tokens), g.reshape(v, head, kv_heads, g.tokens)
    q = rope(g, il, g.rms_norm(q, il, "attn_q_norm"))
    k = rope(g, il, g.rms_norm(k, il, "attn_k_norm"))
    gate = g.cont(gate, head * heads, g.tokens)
    y = cached_attention(g, il, q, k, v, spec, expect(caches[False], CacheInputs))
    return g.matmul(il, "attn_output", g.d, g.mul(y, g.unary(gate)))


# ---- multi-head latent attention


class LatentInputs:
    """Inputs of a cache of compressed vectors: one index per token, one mask."""

    def __init__(self, g: ModelGraph, cells: int) -> None:
        self.cells = cells
        self.rows = g.input("i64", g.tokens)
        self.mask = g.input("f16" if g.flash else "f32", cells, g.tokens // g.streams, 1, g.streams)


def latent_attention(g: ModelGraph, il: int, x: Tensor, spec: LatentAttention, inputs: LatentInputs) -> Tensor:
    """Attention over compressed vectors, K and V up-projections absorbed into Q and the result."""
    if spec.q_lora_rank:
        q = latent_q(g, il, g.rms_norm(g.matmul(il, "attn_q_a", spec.q_lora_rank, x), il, "attn_q_a_norm"), spec)
    else:
        q = latent_q(g, il, x, spec)
    q_full, vector, k_full = compressed_q_and_k(g, il, x, q, spec)
    for tensor in (q_full, vector, k_full):
        g.expand(tensor)
    keys, values = latent_cache(g, il, k_full, spec, inputs)
    y = attend(g, il, q_full, keys, values, inputs.mask, decompress=spec.v_head_dim)
    return gated_output(g, il, x, y, spec)


def expanded_latent_attention(g: ModelGraph, il: int, x: Tensor, spec: LatentAttention, inputs: CacheInputs) -> Tensor:
    """The same without absorbed matrices: keys and values of all heads are made of the vector, and cached."""
    rank, tokens, heads = spec.kv_lora_rank, g.tokens, spec.n_heads
    nope, rotary, value = spec.qk_nope_head_dim, spec.qk_rope_head_dim, spec.v_head_dim
    low = x
    if spec.q_lora_rank:
        low = g.rms_norm(g.matmul(il, "attn_q_a", spec.q_lora_rank, x), il, "attn_q_a_norm")
    q = rope(g, il, latent_q(g, il, low, spec))
    compressed = g.matmul(il, "attn_kv_a_mqa", rank + rotary, x)
    row = 4 * (rank + rotary)
    vector = g.rms_norm(g.view(compressed, (rank, tokens), (row,)), il, "attn_kv_a_norm")
    k_rotary = rope(g, il, g.view(compressed, (rotary, 1, tokens), (row, row)))
    both = g.matmul(il, "attn_kv_b", heads * (nope + value), vector)
    strides = (4 * (nope + value), 4 * (nope + value) * heads)
    v = g.cont(g.view(both, (value, heads, tokens), strides))
    k = g.concat(g.view(both, (nope, heads, tokens), strides), g.repeat(k_rotary, rotary, heads, tokens), 0)
    y = cached_attention(g, il, q, k, v, expect(attention_of(spec), Attention), inputs)
    return g.matmul(il, "attn_output", g.d, y)


def gated_output(g: ModelGraph, il: int, x: Tensor, y: Tensor, spec: LatentAttention) -> Tensor:
    """The output projection of latent attention, behind a gate per head or per element."""
    if g.traits.gates_latent:
        gate = g.unary(g.reshape(g.matmul(il, "attn_gate", spec.n_heads, x), 1, spec.n_heads, g.tokens))
        y = g.mul(g.reshape(y, spec.v_head_dim, spec.n_heads, g.tokens), gate)
        y = g.cont(y, spec.v_head_dim * spec.n_heads, g.tokens)
    elif spec.gate == "per_head":
        gate = g.unary(g.matmul(il, "attn_gate", spec.n_heads, x))
        heads = g.reshape(y, spec.v_head_dim, spec.n_heads, g.tokens)
        y = g.reshape(
            g.mul(heads, g.reshape(gate, 1, spec.n_heads, g.tokens)), spec.v_head_dim * spec.n_heads, g.tokens
        )
    elif spec.gate == "full":
        y = g.mul(y, g.unary(g.matmul(il, "attn_gate", spec.v_head_dim * spec.n_heads, x)))
    return g.matmul(il, "attn_output", g.d, y)


def latent_q(g: ModelGraph, il: int, x: Tensor, spec: LatentAttention) -> Tensor:
    """Q as [head, heads, tokens], from the normed low-rank projection where there is one."""
    head = spec.qk_nope_head_dim + spec.qk_rope_head_dim
    q = g.matmul(il, "attn_q_b" if spec.q_lora_rank else "attn_q", head * spec.n_heads, x)
    return g.reshape(q, head, spec.n_heads, g.tokens)


def compressed_q_and_k(
    g: ModelGraph, il: int, x: Tensor, q: Tensor, spec: LatentAttention
) -> tuple[Tensor, Tensor, Tensor]:
    """Q in the compressed space, the compressed vector, and K: the vector with its rotary part."""
    tokens, heads, rank = g.tokens, spec.n_heads, spec.kv_lora_rank
    nope, rotary = spec.qk_nope_head_dim, spec.qk_rope_head_dim
    compressed = g.matmul(il, "attn_kv_a_mqa", rank + rotary, x)
    row = 4 * (rank + rotary)
    vector = g.view(compressed, (rank, tokens), (row,))
    k_rotary = g.view(compressed, (rotary, 1, tokens), (row, row))
    nb = q.nb()
    q_nope = g.view(q, (nope, heads, tokens), (nb[1], nb[2]))
    q_rotary = g.view(q, (rotary, heads, tokens), (nb[1], nb[2]))
    if g.traits.norms_rotary_key:
        k_rotary = g.rms_norm(k_rotary, il, "attn_k_norm")
    if g.rotates(il):
        q_rotary, k_rotary = rope(g, il, q_rotary), rope(g, il, k_rotary)
    vector = g.rms_norm(vector, il, "attn_kv_a_norm")
    absorbed = g.matmul_heads(il, "attn_k_b", rank, heads, g.permute(q_nope, 0, 2, 1, 3))
    q_full = g.concat(g.permute(absorbed, 0, 2, 1, 3), q_rotary, 0)
    vector = g.reshape(vector, rank, 1, tokens)
    return q_full, vector, g.concat(vector, k_rotary, 0)


def latent_cache(
    g: ModelGraph, il: int, k: Tensor, spec: LatentAttention, inputs: LatentInputs
) -> tuple[Tensor, Tensor]:
    """Write K to the cache; keys are whole rows of it, values their compressed part."""
    rank, width = spec.kv_lora_rank, spec.kv_lora_rank + spec.qk_rope_head_dim
    cache = g.stored(g.kv_type_k, g.layer_devices[il], width, inputs.cells, g.streams)
    g.expand(g.write("SET_ROWS", cache, merged_heads(g, k), inputs.rows, cache))
    keys = g.cache_view(cache, width, 1, inputs.cells)
    return keys, g.view(keys, (rank, 1, inputs.cells, g.streams), keys.nb()[1:])
