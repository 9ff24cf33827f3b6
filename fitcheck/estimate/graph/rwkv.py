"""RWKV: a state per head instead of a cache, each token mixed with the one before.

RWKV-6 and 7 mix channels the same way; QRWKV-6 and ARWKV-7, made from Qwen2, keep its feed-forward.
Source: llama.cpp 0c1e57098, src/models/rwkv6-base.cpp, rwkv7-base.cpp, rwkv6.cpp, rwkv7.cpp, rwkv6qwen2.cpp and
arwkv7.cpp.
"""

from __future__ import annotations

from fitcheck.estimate.graph.feed_forward import dense
from fitcheck.estimate.graph.model import ModelGraph, UnknownGraphError, expect
from fitcheck.estimate.graph.recurrent import StateInputs, load_state, state_of, with_view
from fitcheck.estimate.graph.tensors import Tensor
from fitcheck.types import CountedMixer, DenseFeedForward, TimeMix

MIXED = 5  # inputs that RWKV-6 mixes: of decay, K, V, receptance and gate


class Rwkv:
    """The whole graph of either version."""

    def __init__(self, g: ModelGraph) -> None:
        self.g = g
        self.states = StateInputs(g)
        self.output_rows = g.input("i32", g.outputs)
        self.first_value: Tensor | None = None
        if any(g.d % self._spec(il).head_dim for il in range(len(g.layers))):
            raise UnknownGraphError("head size")

    def build(self) -> None:
        """Embedding, every layer, head."""
        g = self.g
        x = g.embed()
        if g.traits.embedding_norm:
            x = g.norm(x, 0, "token_embd_norm")
        for il in range(len(g.layers)):
            x = self._layer(il, x)
        g.logits(g.norm(x, g.head, "output_norm"))

    def _spec(self, il: int) -> TimeMix:
        return expect(expect(self.g.layers[il].mixer, CountedMixer).time_mix, TimeMix)

    def _layer(self, il: int, x: Tensor) -> Tensor:
        g = self.g
        spec = self._spec(il)
        x = self.by_sequence(x)
        shifts, store = self._shifts(il, 2 if spec.channel_width else 1)
        normed = g.norm(x, il, "attn_norm")
        before = _shifted(g, shifts[0], normed)
        mix = time_mix_7 if spec.version == 7 else time_mix_6
        y = mix(self, il, normed, before, spec)
        if not spec.channel_width:
            g.expand(g.write("CPY", store, _last(g, normed)))
            return self._feed_forward(il, g.add(y, x))
        x = g.add(y, x)
        ffn_input = g.norm(x, il, "attn_norm_2")
        before = _shifted(g, shifts[1], ffn_input)
        g.expand(g.write("CPY", store, g.concat(_last(g, normed), _last(g, ffn_input), 1)))
        x, ffn_input, before = (self._rows(il, tensor) for tensor in (x, ffn_input, before))
        return g.add(channel_mix(g, il, ffn_input, before, spec), x)

    def _feed_forward(self, il: int, x: Tensor) -> Tensor:
        g = self.g
        ffn = expect(g.layers[il].ffn, DenseFeedForward)
        x = self._rows(il, x)
        return g.add(dense(g, il, g.norm(x, il, "ffn_norm"), ffn.intermediate_size), x)

    def by_sequence(self, x: Tensor) -> Tensor:
        """Tokens as [width, tokens of a sequence, sequences]."""
        return self.g.reshape(x, self.g.d, self.g.sequence_tokens, self.g.sequences)

    def _rows(self, il: int, x: Tensor) -> Tensor:
        """One row per token; in the last layer only those whose logits are wanted."""
        g = self.g
        x = g.reshape(x, g.d, g.tokens)
        return g.rows(x, self.output_rows) if il == len(g.layers) - 1 else x

    def _shifts(self, il: int, count: int) -> tuple[list[Tensor], Tensor]:
        """The last token of the batch before, ``count`` times, and where the new ones are written."""
        g = self.g
        size = count * g.d
        states = state_of(g, il, size)
        old = g.reshape(load_state(g, self.states, states, size), g.d, count, g.sequences)
        strides = old.nb()[1:3]
        views = [g.view(old, (g.d, 1, g.sequences), strides) for _ in range(count)]
        return views, g.view(states, (size * g.sequences,))


def _shifted(g: ModelGraph, first: Tensor, x: Tensor) -> Tensor:
    """Every token's predecessor."""
    return g.concat(first, g.view(x, (g.d, g.sequence_tokens - 1, g.sequences), x.nb()[1:3]), 1)


def _last(g: ModelGraph, x: Tensor) -> Tensor:
    return g.view(x, (g.d, 1, g.sequences), x.nb()[1:3])


def _low_rank(g: ModelGraph, il: int, name: str, rank: int, width: int, x: Tensor, activated: bool = False) -> Tensor:
    """Two matrices in a row, an activation between them."""
    low = g.matmul(il, f"{name}1", rank, x)
    return g.matmul(il, f"{name}2", width, g.unary(low) if activated else low)


def _run(rwkv: Rwkv, il: int, op: str, head: int, sources: tuple[Tensor, ...], weight: str = "") -> Tensor:
    """The kernel over all tokens; states are read before and written behind it."""
    g = rwkv.g
    size = g.d * head
    states = state_of(g, il, size)
    old = load_state(g, rwkv.states, states, size)
    y = g.op(op, "f32", (g.d, g.tokens + head * g.sequences), *sources, old)
    if weight:
        g.weighted(y, il, weight, (head, g.d // head, 1, 1), y.ne[1], "f32")
    g.expand(g.write("CPY", g.view(states, (size * g.sequences,)), g.view(y, (size * g.sequences,))))
    return g.view(y, (g.d * g.tokens,))


def _group_norm(g: ModelGraph, il: int, y: Tensor, head: int) -> Tensor:
    y = g.same("NORM", g.reshape(y, head, g.d // head, g.tokens))
    y = g.vector("MUL", il, "time_mix_ln", g.reshape(y, g.d, g.tokens))
    return g.vector("ADD", il, "time_mix_ln", y)


def time_mix_7(rwkv: Rwkv, il: int, x: Tensor, before: Tensor, spec: TimeMix) -> Tensor:
    """RWKV-7: a state that learns in context; V of later layers is mixed with that of the first."""
    g, d, head = rwkv.g, rwkv.g.d, spec.head_dim
    heads, tokens = d // head, g.tokens
    count = 6 if spec.gate_rank else 5
    wide = g.repeat(g.same("SUB", before, x), d, g.sequence_tokens, g.sequences, count)
    mixed = g.add(g.vector("MUL", il, "time_mix_lerp_fused", wide, d, 1, 1, count), x)
    xr, xw, xk, xv, xa, xg = (g.view(mixed, (d, tokens), (mixed.nb()[1],)) for _ in range(6))
    r = g.matmul(il, "time_mix_receptance", d, xr)
    w = g.vector("ADD", il, "time_mix_w0", _low_rank(g, il, "time_mix_w", spec.decay_rank, d, xw, activated=True))
    w = g.unary(g.scale(g.unary(w)))
    k = g.matmul(il, "time_mix_key", d, xk)
    v = _mixed_value(rwkv, il, g.matmul(il, "time_mix_value", d, xv), xv, spec)
    gate = _low_rank(g, il, "time_mix_g", spec.gate_rank, d, xg, activated=True) if spec.gate_rank else None
    a = _low_rank(g, il, "time_mix_a", spec.rate_rank, d, xa)
    a = g.unary(g.vector("ADD", il, "time_mix_a0", a))
    kk = g.same("L2_NORM", g.reshape(g.vector("MUL", il, "time_mix_k_k", k), head, heads, tokens))
    ka = g.vector("MUL", il, "time_mix_k_a", k)
    k = g.add(k, g.same("SUB", g.mul(a, ka), ka))
    r, w, k, v, a = (g.reshape(tensor, head, heads, tokens) for tensor in (r, w, k, v, a))
    y = _run(rwkv, il, "RWKV_WKV7", head, (r, w, k, v, g.unary(kk), g.mul(kk, a)))
    y = _group_norm(g, il, y, head) if spec.norm else g.reshape(y, d, tokens)
    bonus = with_view(g, g.same("MUL", g.mul(k, r)), il, "time_mix_r_k", head, heads)
    y = g.add(y, g.reshape(g.mul(v, g.sum_rows(bonus)), d, tokens))
    if gate is not None:
        y = g.mul(y, gate)
    return rwkv.by_sequence(g.matmul(il, "time_mix_output", d, y))


def _mixed_value(rwkv: Rwkv, il: int, v: Tensor, x: Tensor, spec: TimeMix) -> Tensor:
    g = rwkv.g
    if rwkv.first_value is None:
        rwkv.first_value = v
        return v
    share = _low_rank(g, il, "time_mix_v", spec.value_rank, g.d, x)
    share = g.unary(g.vector("ADD", il, "time_mix_v0", share))
    return g.add(v, g.mul(g.same("SUB", rwkv.first_value, v), share))


def time_mix_6(rwkv: Rwkv, il: int, x: Tensor, before: Tensor, spec: TimeMix) -> Tensor:
    """RWKV-6: a state that decays by what the token says; QRWKV-6: gated linear attention with it."""
    g, d, head = rwkv.g, rwkv.g.d, spec.head_dim
    heads, tokens = d // head, g.tokens
    xw, xk, xv, xr, xg = _mixed_inputs(g, il, x, before, spec)
    width = head * (spec.n_kv_heads or heads)
    r = g.linear(il, "time_mix_receptance", d, xr, "r" in spec.bias)
    k = g.linear(il, "time_mix_key", width, xk, "k" in spec.bias)
    v = g.linear(il, "time_mix_value", width, xv, "v" in spec.bias)
    gate = g.unary(g.matmul(il, "time_mix_gate", d, xg))
    if width != d:
        k, v = (_repeated_heads(g, tensor, head, heads, width // head) for tensor in (k, v))
    k, v, r = (g.reshape(tensor, head, heads, tokens) for tensor in (k, v, r))
    w = _low_rank(g, il, "time_mix_decay_w", spec.decay_rank, d, xw, activated=True)
    w = g.vector("ADD", il, "time_mix_decay", w)
    w = g.reshape(g.unary(g.unary(g.unary(w))), head, heads, tokens)
    if spec.bonus:
        y = _run(rwkv, il, "RWKV_WKV6", head, (k, v, r, w), "time_mix_first")
        y = _group_norm(g, il, y, head)
    else:
        k = g.same("SUB", k, g.mul(k, w))
        y = g.reshape(_run(rwkv, il, "GATED_LINEAR_ATTN", head, (k, v, r, w)), d, tokens)
    return rwkv.by_sequence(g.matmul(il, "time_mix_output", d, g.mul(y, gate)))


def _mixed_inputs(g: ModelGraph, il: int, x: Tensor, before: Tensor, spec: TimeMix) -> list[Tensor]:
    """Mixtures of each token with its predecessor, by shares that a low-rank projection finds."""
    d, tokens, rank = g.d, g.tokens, spec.mix_rank
    difference = g.reshape(g.same("SUB", before, x), d, tokens)
    x = g.reshape(x, d, tokens)
    low = g.add(g.vector("MUL", il, "time_mix_lerp_x", difference), x)
    low = g.reshape(g.unary(g.matmul(il, "time_mix_w1", MIXED * rank, low)), rank, 1, MIXED, tokens)
    low = g.cont(g.permute(low, 0, 1, 3, 2))
    shares = g.op("MUL_MAT", "f32", (d, tokens, 1, MIXED), low)
    shares = with_view(g, shares, il, "time_mix_w2", rank, d, 1, MIXED)
    if not spec.fused:
        parts = [g.view(shares, (d, tokens), (shares.nb()[1],)) for _ in range(MIXED)]
        return [
            g.add(g.mul(g.vector("ADD", il, f"time_mix_lerp_{letter}", part), difference), x)
            for letter, part in zip("wkvrg", parts, strict=True)
        ]
    difference, x = g.reshape(difference, d, 1, tokens), g.reshape(x, d, 1, tokens)
    fused = g.vector("ADD", il, "time_mix_lerp_fused", shares, d, 1, 1, MIXED)
    mixed = g.add(g.mul(fused, difference), x)
    return [g.view(mixed, (d, tokens), (mixed.nb()[1],)) for _ in range(MIXED)]


def _repeated_heads(g: ModelGraph, x: Tensor, head: int, heads: int, kv_heads: int) -> Tensor:
    return g.repeat(g.reshape(x, head, 1, kv_heads, g.tokens), head, heads // kv_heads, kv_heads, g.tokens)


def channel_mix(g: ModelGraph, il: int, x: Tensor, before: Tensor, spec: TimeMix) -> Tensor:
    """RWKV's feed-forward: relu squared, in version 6 gated by the receptance."""
    difference = g.same("SUB", before, x)
    xk = g.add(g.vector("MUL", il, "channel_mix_lerp_k", difference), x)
    if spec.version == 7:
        k = g.same("SQR", g.unary(g.matmul(il, "channel_mix_key", spec.channel_width, xk)))
        return g.matmul(il, "channel_mix_value", g.d, k)
    xr = g.add(g.vector("MUL", il, "channel_mix_lerp_r", difference), x)
    r = g.unary(g.matmul(il, "channel_mix_receptance", g.d, xr))
    k = g.same("SQR", g.unary(g.matmul(il, "channel_mix_key", spec.channel_width, xk)))
    return g.mul(r, g.matmul(il, "channel_mix_value", g.d, k))
