"""Mixers with a state instead of a cache: Mamba, Mamba-2, gated delta net, Kimi delta attention, short convolution,
lightning attention.

Source: llama.cpp 0c1e57098, src/models/mamba-base.cpp, delta-net-base.cpp, qwen3next.cpp, qwen35.cpp, lfm2.cpp,
kimi-linear.cpp, minimax-01.cpp and llm_graph_context::build_rs.
"""

from __future__ import annotations

from collections.abc import Callable

from fitcheck.estimate.graph.model import ModelGraph, UnknownGraphError
from fitcheck.estimate.graph.tensors import HOST, Tensor, dims
from fitcheck.types import GatedDeltaNet, KimiDelta, LightningAttention, Mamba1, Mamba2, ShortConvolution


class StateInputs:
    """Which state belongs to which sequence; the second view, states to be copied along, is empty in a full batch."""

    def __init__(self, g: ModelGraph) -> None:
        ids = g.input("i32", g.sequences)
        self.current = g.view(ids, (g.sequences,))
        self.others = g.view(ids, (0,))


def load_state(
    g: ModelGraph,
    inputs: StateInputs,
    states: Tensor,
    size: int,
    read: Callable[[Tensor, Tensor], Tensor] | None = None,
) -> Tensor:
    """Clear a state, read the current ones, copy the others: build_rs."""
    rows = g.reshape(states, size, states.ne[1])
    cleared = g.view(rows, (size,))
    g.expand(g.write("SCALE", cleared, cleared))
    current = g.expand((read or g.rows)(rows, inputs.current))
    others = g.rows(rows, inputs.others)
    g.expand(g.write("CPY", g.view(states, (size, 0), (states.nb()[1],)), others))
    return current


def state_of(g: ModelGraph, il: int, size: int) -> Tensor:
    """The states of layer ``il``, ``size`` numbers for each sequence."""
    return g.stored("f32", g.layer_devices[il], size, g.sequences)


def convolution_input(g: ModelGraph, il: int, inputs: StateInputs, new: Tensor, kernel: int, channels: int) -> Tensor:
    """The last columns of the previous batch in front of the transposed new ones; the state is renewed."""
    n, size = g.sequences, (kernel - 1) * channels
    states = state_of(g, il, size)
    old = g.reshape(load_state(g, inputs, states, size), kernel - 1, channels, n)
    both = g.concat(old, new, 0)
    last = g.view(both, (kernel - 1, channels, n), both.nb()[1:3])
    last = g.cont(last) if g.traits.copies_tails else last
    g.expand(g.write("CPY", g.view(states, (size, n), (states.nb()[1],)), last))
    return both


def convolve(g: ModelGraph, il: int, both: Tensor, kernel: int, channels: int, name: str = "ssm_conv1d") -> Tensor:
    """A short convolution per channel: [channels, tokens, sequences]."""
    node = g.op("SSM_CONV", "f32", (channels, g.sequence_tokens, g.sequences), both)
    node.host_only = channels % 128 != 0
    return g.weighted(node, il, name, (kernel, channels, 1, 1), g.tokens, "f32")


def mamba2(g: ModelGraph, il: int, x: Tensor, spec: Mamba2, inputs: StateInputs) -> Tensor:
    """Mamba-2: projection, short convolution, scan, gate, group norm, output."""
    d_inner, heads, groups, d_state = spec.d_inner, spec.n_heads, spec.n_groups, spec.d_state
    if not groups:
        raise UnknownGraphError("groups")
    head, channels = d_inner // heads, d_inner + 2 * groups * d_state
    n, tokens = g.sequences, g.sequence_tokens
    projected = g.matmul(il, "ssm_in", 2 * d_inner + 2 * groups * d_state + heads, x)
    projected = g.reshape(projected, projected.ne[0], tokens, n)
    row, batch = projected.nb()[1:3]
    z = g.view(projected, (head, heads, tokens, n), (4 * head, row, batch))
    xbc = g.view(projected, (channels, tokens, n), (row, batch))
    dt = g.view(projected, (heads, tokens, n), (row, batch))
    both = convolution_input(g, il, inputs, g.transpose(xbc), spec.conv_kernel, channels)
    xbc = convolve(g, il, both, spec.conv_kernel, channels)
    xbc = g.unary(g.vector("ADD", il, "ssm_conv1d", xbc))
    row, batch = xbc.nb()[1:3]
    values = g.view(xbc, (head, heads, tokens, n), (4 * head, row, batch))
    b = g.view(xbc, (d_state, groups, tokens, n), (4 * d_state, row, batch))
    c = g.view(xbc, (d_state, groups, tokens, n), (4 * d_state, row, batch))
    dt = g.vector("ADD", il, "ssm_dt", g.cont(dt))
    states = state_of(g, il, d_state * d_inner)

    def scan(rows: Tensor, ids: Tensor) -> Tensor:
        state = g.reshape(rows, d_state, head, heads, g.sequences)
        node = g.op("SSM_SCAN", "f32", (values.elements + d_state * d_inner * n,), state, values, dt, b, c, ids)
        node.host_only = d_state not in (96, 128, 256) or head % 16 != 0
        return g.weighted(node, il, "ssm_a", (1, heads, 1, 1), node.ne[1], "f32")

    y = scanned(g, inputs, states, d_state * d_inner, scan)
    y = g.view(y, (head, heads, tokens, n), (4 * head, 4 * d_inner, 4 * d_inner * tokens))
    y = g.add(y, g.vector("MUL", il, "ssm_d", values, 1, heads))
    y = g.glu(g.cont(z), y)
    if spec.norm:
        y = g.rms(g.reshape(y, d_inner // groups, groups, tokens, n))
        y = g.vector("MUL", il, "ssm_norm", y, d_inner // groups, groups)
    return g.matmul(il, "ssm_out", g.d, g.reshape(y, d_inner, tokens * n))


def scanned(
    g: ModelGraph, inputs: StateInputs, states: Tensor, size: int, scan: Callable[[Tensor, Tensor], Tensor]
) -> Tensor:
    """Results and new states in one tensor; the states are written back."""
    n = g.sequences
    y = load_state(g, inputs, states, size, scan)
    g.expand(g.write("CPY", g.view(states, (size, n), (states.nb()[1],)), g.view(y, (size, n), (4 * size,))))
    return y


def mamba1(g: ModelGraph, il: int, x: Tensor, spec: Mamba1, inputs: StateInputs) -> Tensor:
    """Mamba: projection, short convolution, time step from a low rank, scan, gate, output."""
    d_inner, d_state, rank = spec.d_inner, spec.d_state, spec.dt_rank
    n, tokens = g.sequences, g.sequence_tokens
    xz = g.matmul(il, "ssm_in", 2 * d_inner, g.reshape(x, g.d, tokens, n))
    row, batch = xz.nb()[1:3]
    x = g.view(xz, (d_inner, tokens, n), (row, batch))
    z = g.view(xz, (d_inner, tokens, n), (row, batch))
    both = convolution_input(g, il, inputs, g.transpose(x), spec.conv_kernel, d_inner)
    x = convolve(g, il, both, spec.conv_kernel, d_inner)
    x = g.unary(g.vector("ADD", il, "ssm_conv1d", x))
    low = g.matmul(il, "ssm_x", rank + 2 * d_state, x)
    row, batch = low.nb()[1:3]
    dt = g.view(low, (rank, tokens, n), (row, batch))
    b = g.view(low, (d_state, 1, tokens, n), (4 * d_state, row, batch))
    c = g.view(low, (d_state, 1, tokens, n), (4 * d_state, row, batch))
    if spec.inner_norms:
        dt = g.rms_norm(dt, il, "ssm_dt_norm")
        b = g.rms_norm(b, il, "ssm_b_norm")
        c = g.rms_norm(c, il, "ssm_c_norm")
    else:
        dt = g.cont(dt)
    dt = g.vector("ADD", il, "ssm_dt", g.matmul(il, "ssm_dt", d_inner, dt))
    values = g.reshape(x, 1, d_inner, tokens, n)
    states = state_of(g, il, d_state * d_inner)

    def scan(rows: Tensor, ids: Tensor) -> Tensor:
        state = g.reshape(rows, d_state, 1, d_inner, g.sequences)
        node = g.op("SSM_SCAN", "f32", (values.elements + d_state * d_inner * n,), state, values, dt, b, c, ids)
        node.host_only = d_state != 16 or d_inner % 128 != 0
        return g.weighted(node, il, "ssm_a", (d_state, d_inner, 1, 1), node.ne[1], "f32")

    y = scanned(g, inputs, states, d_state * d_inner, scan)
    y = g.view(y, (d_inner, tokens, n), (4 * d_inner, 4 * d_inner * tokens))
    y = g.add(y, g.vector("MUL", il, "ssm_d", x))
    y = g.matmul(il, "ssm_out", g.d, g.glu(g.cont(z), y))
    return g.reshape(y, g.d, tokens * n)


def gated_delta_net(g: ModelGraph, il: int, x: Tensor, spec: GatedDeltaNet, inputs: StateInputs) -> Tensor:
    """Gated delta net (Qwen3-Next, Qwen3.5): convolution over Q, K and V, the delta kernel, a gated norm."""
    k_heads, v_heads, k_dim, v_dim = spec.n_k_heads, spec.n_v_heads, spec.k_head_dim, spec.v_head_dim
    d_inner = v_heads * v_dim
    channels = d_inner + 2 * k_heads * k_dim
    n, tokens = g.sequences, g.sequence_tokens
    mixed = g.reshape(g.matmul(il, "attn_qkv", channels, x), channels, tokens, n)
    z = g.matmul(il, "attn_gate", d_inner, x)
    beta, decay = _delta_gates(g, il, x, spec)
    both = convolution_input(g, il, inputs, g.transpose(mixed), spec.conv_kernel, channels)
    size = v_dim * v_dim * v_heads
    states = state_of(g, il, size)
    state = g.reshape(load_state(g, inputs, states, size), v_dim, v_dim, v_heads, n)
    conv = g.unary(convolve(g, il, both, spec.conv_kernel, channels))
    row = 4 * channels
    k_shape, k_strides = (k_dim, k_heads, tokens, n), (4 * k_dim, row, row * tokens)
    q = g.scale(g.rms(g.view(conv, k_shape, k_strides)))
    k = g.scale(g.rms(g.view(conv, k_shape, k_strides)))
    v = g.view(conv, (v_dim, v_heads, tokens, n), (4 * v_dim, row, row * tokens))
    if g.traits.repeats_delta_heads and k_heads != v_heads:
        q, k = (_repeated_heads(g, t, v_heads // k_heads) for t in (q, k))
    y = g.op("GATED_DELTA_NET", "f32", (v_dim * v_heads, tokens * n + v_dim * n), q, k, v, decay, beta, state)
    out = g.view(y, (v_dim, v_heads, tokens, n), (4 * v_dim, 4 * d_inner, 4 * d_inner * tokens))
    renewed = g.view(y, (v_dim, v_dim, v_heads, n), (4 * v_dim, 4 * v_dim * v_dim, 4 * size))
    g.expand(g.write("CPY", g.view(states, (size, n), (states.nb()[1],)), renewed))
    out = g.mul(g.rms_norm(out, il, "ssm_norm"), g.unary(g.reshape(z, v_dim, v_heads, tokens, n)))
    y = g.matmul(il, "ssm_out", g.d, g.reshape(out, d_inner, tokens, n))
    return g.reshape(y, g.d, tokens * n)


def _delta_gates(g: ModelGraph, il: int, x: Tensor, spec: GatedDeltaNet) -> tuple[Tensor, Tensor]:
    """Beta and decay per V head, [1, heads, tokens, sequences]."""
    heads, n, tokens = spec.n_v_heads, g.sequences, g.sequence_tokens
    if g.traits.repeats_delta_heads:  # one projection, K head by K head
        ratio = heads // spec.n_k_heads
        both = g.reshape(g.matmul(il, "ssm_ba", 2 * heads, x), 2 * ratio, spec.n_k_heads, tokens, n)
        shape = (ratio, spec.n_k_heads, tokens, n)
        beta = g.reshape(g.unary(g.cont(g.view(both, shape, both.nb()[1:]))), 1, heads, tokens, n)
        alpha = g.cont(g.view(both, shape, both.nb()[1:]), heads, tokens, n)
    else:
        beta = g.unary(g.reshape(g.matmul(il, "ssm_beta", heads, x), 1, heads, tokens, n))
        alpha = g.reshape(g.matmul(il, "ssm_alpha", heads, x), heads, tokens, n)
    alpha = g.unary(g.vector("ADD", il, "ssm_dt", alpha))
    return beta, g.reshape(g.vector("MUL", il, "ssm_a", alpha), 1, heads, tokens, n)


def _repeated_heads(g: ModelGraph, x: Tensor, ratio: int) -> Tensor:
    dim, heads, tokens, n = x.ne
    wide = g.repeat(g.reshape(x, dim, 1, heads, tokens * n), dim, ratio, heads, tokens * n)
    return g.reshape(wide, dim, heads * ratio, tokens, n)


def short_convolution(g: ModelGraph, il: int, x: Tensor, spec: ShortConvolution, inputs: StateInputs) -> Tensor:
    """LFM2: a gated convolution over a few tokens."""
    n, tokens, width = g.sequences, g.sequence_tokens, spec.channels
    three = g.matmul(il, "shortconv.in_proj", 3 * width, g.reshape(x, g.d, tokens, n))
    b, c, values = (g.view(three, (width, tokens, n), three.nb()[1:3]) for _ in range(3))
    both = convolution_input(g, il, inputs, g.transpose(g.mul(b, values)), spec.conv_kernel, width)
    y = g.mul(c, convolve(g, il, both, spec.conv_kernel, width, "shortconv.conv"))
    return g.reshape(g.matmul(il, "shortconv.out_proj", g.d, y), g.d, tokens * n)


def kimi_delta(g: ModelGraph, il: int, x: Tensor, spec: KimiDelta, inputs: StateInputs) -> Tensor:
    """Kimi delta attention: convolutions over Q, K and V apart, a decay per channel, a gated norm."""
    heads, head, kernel = spec.n_heads, spec.head_dim, spec.conv_kernel
    d_inner, n, tokens = heads * head, g.sequences, g.sequence_tokens
    size = 3 * (kernel - 1) * d_inner
    states = state_of(g, il, size)
    old = load_state(g, inputs, states, size)
    q, k, v = (_kimi_convolution(g, il, x, spec, letter, old, states) for letter in "qkv")
    decay = _kimi_decay(g, il, x, spec)
    beta = g.unary(g.reshape(g.matmul(il, "ssm_beta", heads, x), 1, heads, tokens, n))
    state_size = head * head * heads
    memory = state_of(g, il, state_size)
    state = g.reshape(load_state(g, inputs, memory, state_size), head, head, heads, n)
    q, k = g.scale(g.rms(q)), g.scale(g.rms(k))
    y = g.op("GATED_DELTA_NET", "f32", (d_inner, tokens * n + head * n), q, k, v, decay, beta, state)
    out = g.cont(g.view(y, (head, heads, tokens, n), (4 * head, 4 * d_inner, 4 * d_inner * tokens)))
    renewed = g.view(y, (head, head, heads, n), (4 * head, 4 * head * head, 4 * state_size))
    g.expand(g.write("CPY", g.view(memory, (state_size, n), (memory.nb()[1],)), renewed))
    full = g.traits.full_rank_delta or spec.full_rank_gate
    gate = g.matmul(il, "ssm_g_a", d_inner if full else head, x)
    if not full:
        gate = g.matmul(il, "ssm_g_b", d_inner, gate)
    gate = g.unary(g.reshape(gate, head, heads, tokens * n))
    out = g.rms_norm(g.reshape(out, head, heads, tokens * n), il, "ssm_norm")
    return g.matmul(il, "attn_output", g.d, g.cont(g.mul(out, gate), d_inner, tokens * n))


def _kimi_convolution(
    g: ModelGraph, il: int, x: Tensor, spec: KimiDelta, letter: str, old: Tensor, states: Tensor
) -> Tensor:
    """One of the three convolutions; each has its third of the state. The kernel, a view, ties it to no device."""
    heads, head, kernel = spec.n_heads, spec.head_dim, spec.conv_kernel
    d_inner, n, tokens = heads * head, g.sequences, g.sequence_tokens
    strides = (4 * (kernel - 1), states.nb()[1])
    before = g.view(old, (kernel - 1, d_inner, n), strides)
    new = g.reshape(g.matmul(il, f"attn_{letter}", d_inner, x), d_inner, tokens, n)
    both = g.concat(before, g.transpose(new), 0)
    last = g.view(both, (kernel - 1, d_inner, n), both.nb()[1:3])
    g.expand(g.write("CPY", g.view(states, (kernel - 1, d_inner, n), strides), last))
    y = g.op("SSM_CONV", "f32", (d_inner, tokens, n), both)
    y.host_only = d_inner % 128 != 0
    return g.reshape(g.unary(g.reshape(y, d_inner, tokens * n)), head, heads, tokens, n)


def _kimi_decay(g: ModelGraph, il: int, x: Tensor, spec: KimiDelta) -> Tensor:
    heads, head = spec.n_heads, spec.head_dim
    full = g.traits.full_rank_delta or spec.full_rank_decay
    bounded = g.traits.bounded_decay
    decay = g.matmul(il, "ssm_f_a", heads * head if full else head, x)
    if not full:
        decay = g.matmul(il, "ssm_f_b", heads * head, decay)
    decay = g.vector("ADD", il, "ssm_dt", decay)
    if not bounded:
        decay = g.unary(decay)
    decay = g.op("MUL", "f32", (head, heads, g.tokens), g.reshape(decay, head, heads, g.tokens))
    if bounded:
        decay = g.scale(g.unary(decay))
    return g.reshape(decay, head, heads, g.sequence_tokens, g.sequences)


class DecayInputs:
    """Decays of lightning attention within a batch, per head: of Q, of K, and between every two tokens."""

    def __init__(self, g: ModelGraph, heads: int) -> None:
        tokens, n = g.sequence_tokens, g.sequences
        self.slopes = g.input("f32", heads)
        self.q = g.input("f32", 1, heads, tokens, n)
        self.k = g.input("f32", 1, heads, tokens, n)
        self.pairs = g.input("f32", tokens, tokens, heads, n)


def lightning_attention(
    g: ModelGraph, il: int, x: Tensor, spec: LightningAttention, inputs: StateInputs, decays: DecayInputs
) -> Tensor:
    """Linear attention with a fixed decay per head (MiniMax-01)."""
    heads, head, n, tokens = spec.n_heads, spec.head_dim, g.sequences, g.sequence_tokens
    load_state(g, inputs, state_of(g, il, 0), 0)
    x = g.reshape(x, g.d, tokens, 1, n)
    mixed = g.reshape(g.unary(g.matmul(il, "attn_qkv", 3 * head * heads, x)), 3 * head, heads, tokens, n)
    q, k, v = (g.view(mixed, (head, heads, tokens, n), mixed.nb()[1:]) for _ in range(3))
    size = head * head * heads
    states = state_of(g, il, size)
    old = g.reshape(load_state(g, inputs, states, size), head, head, heads, n)
    q_decay, k_decay, pair_decay = (g.unary(g.scale(decay)) for decay in (decays.q, decays.k, decays.pairs))
    from_state = g.product(old, g.permute(g.mul(q, q_decay), 0, 2, 1, 3))
    scores = g.mul(g.product(g.permute(k, 0, 2, 1, 3), g.permute(q, 0, 2, 1, 3)), pair_decay)
    values = g.cont(g.permute(v, 1, 2, 0, 3))
    y = g.expand(g.add(from_state, g.product(values, scores)))
    block_decay = g.reshape(g.unary(g.scale(g.scale(decays.slopes))), 1, 1, heads)
    kept = g.mul(old, block_decay)
    keys = g.cont(g.permute(g.mul(k, k_decay), 1, 2, 0, 3))
    renewed = g.add(kept, g.product(keys, values))
    g.expand(g.write("CPY", g.view(states, (size * n,)), renewed))
    y = g.cont(g.permute(y, 0, 2, 1, 3))
    y = g.rms_norm(g.reshape(y, head * heads, tokens, 1, n), il, "attn_norm_2")
    gate = g.unary(g.matmul(il, "attn_gate", head * heads, x))
    return g.reshape(g.matmul(il, "attn_output", g.d, g.mul(gate, y)), g.d, tokens * n)


def with_view(g: ModelGraph, node: Tensor, il: int, name: str, *ne: int) -> Tensor:
    """``node`` over a view of a weight: that ties it to no device, and is copied where the weight lies on another."""
    device, matrix = g.layer_devices[il], node.op == "MUL_MAT"
    if not g.gpus:
        return node
    kind = g.weight_type(il, name) if matrix else "f32"
    weight = g.host_weight((il, name, node.op), dims(ne), kind) if device == HOST else g.stored(kind, device, *ne)
    view = g.reshape(weight, *ne)
    node.sources = (view, *node.sources) if matrix else (*node.sources, view)
    return node
