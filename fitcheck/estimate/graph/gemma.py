"""Gemma 3n and Gemma 4: per-layer inputs, several residual streams, caches shared between layers.

Source: llama.cpp 0c1e57098, src/models/gemma3n.cpp and gemma4.cpp.
"""

from __future__ import annotations

from fitcheck.estimate.graph.attention import cached_attention, rope
from fitcheck.estimate.graph.feed_forward import dense, experts
from fitcheck.estimate.graph.model import ModelGraph, expect
from fitcheck.estimate.graph.tensors import Tensor
from fitcheck.types import Attention, DenseFeedForward, MixtureOfExperts

STREAMS = 4  # gemma3n: altup.num_inputs
LOW_RANK = 64  # gemma3n: laurel
SPARSE_LAYERS = 10  # gemma3n: layers whose activations are cut by their statistics


def _per_layer_width(g: ModelGraph) -> int:
    """Numbers per layer and token that the per-layer table holds; it may have a few rows less than the vocabulary."""
    return round(g.shape.per_layer_embedding_params / (g.vocab * len(g.layers)))


def _per_layer_inputs(g: ModelGraph, x: Tensor, width: int) -> Tensor:
    """A second embedding with a part for each layer, mixed with a projection of the first: kept for all layers."""
    layers, tokens = len(g.layers), g.tokens
    table = g.host_rows(g.input("i32", tokens), width * layers)
    table = g.expand(g.scale(g.reshape(table, width, layers, tokens)))
    projected = g.scale(g.matmul(0, "per_layer_model_proj", width * layers, x))
    projected = g.rms_norm(g.reshape(projected, width, layers, tokens), 0, "per_layer_proj_norm")
    both = g.scale(g.add(projected, table))
    return g.cont(g.permute(both, 0, 2, 1, 3))


def _slice(g: ModelGraph, x: Tensor) -> Tensor:
    """One matrix of a stack."""
    return g.view(x, x.ne[:2], (x.nb()[1],))


def _q_and_kv(g: ModelGraph, il: int, x: Tensor, spec: Attention) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Q, and K and V unless an earlier layer's cache is read; V gets a norm without a weight."""
    head, heads, kv_heads = spec.head_dim, spec.n_heads, spec.n_kv_heads
    q = g.reshape(g.matmul(il, "attn_q", head * heads, x), head, heads, g.tokens)
    q = rope(g, il, g.rms_norm(q, il, "attn_q_norm"))
    if spec.kv_shared:
        return q, None, None
    flat = g.matmul(il, "attn_k", head * kv_heads, x)
    k = g.reshape(flat, head, kv_heads, g.tokens)
    v = flat if spec.k_eq_v else g.matmul(il, "attn_v", head * kv_heads, x)
    v = g.rms(g.reshape(v, head, kv_heads, g.tokens))
    return q, rope(g, il, g.rms_norm(k, il, "attn_k_norm")), v


class Gemma4:
    """Gemma 4: sandwich norms, dense feed-forward beside experts, per-layer input at the end of each layer."""

    def __init__(self, g: ModelGraph) -> None:
        self.g = g
        self.caches = g.cache_inputs()
        self.output_rows = g.input("i32", g.outputs)

    def build(self) -> None:
        """Embedding, layers, head."""
        g = self.g
        x = g.scale(g.embed())
        width = _per_layer_width(g)
        per_layer = _per_layer_inputs(g, x, width) if width else None
        for il in range(len(g.layers)):
            x = self._layer(il, x, per_layer, width)
        x = g.norm(x, g.head, "output_norm")
        x.output = True
        g.logits(g.rows(x, self.output_rows))

    def _layer(self, il: int, x: Tensor, per_layer: Tensor | None, width: int) -> Tensor:
        g = self.g
        spec = expect(g.layers[il].mixer, Attention)
        q, k, v = _q_and_kv(g, il, g.norm(x, il, "attn_norm"), spec)
        y = cached_attention(g, il, q, k, v, spec, self.caches[bool(g.windows[il])])
        y = g.norm(g.matmul(il, "attn_output", g.d, y), il, "post_attention_norm")
        attended = g.add(y, x)
        y = g.add(g.norm(self._feed_forward(il, attended), il, "post_ffw_norm"), attended)
        if per_layer is not None:
            gate = g.mul(g.unary(g.matmul(il, "inp_gate", width, y)), _slice(g, per_layer))
            y = g.add(y, g.rms_norm(g.matmul(il, "proj", g.d, gate), il, "post_norm"))
        return g.vector("MUL", il, "layer_output_scale", y, 1)

    def _feed_forward(self, il: int, x: Tensor) -> Tensor:
        g = self.g
        spec = g.layers[il].ffn
        if isinstance(spec, DenseFeedForward):
            return dense(g, il, g.norm(x, il, "ffn_norm"), spec.intermediate_size)
        spec = expect(spec, MixtureOfExperts)
        beside = dense(g, il, g.norm(x, il, "ffn_norm"), spec.dense_parallel or 0)
        beside = g.norm(beside, il, "post_ffw_norm_1")
        normed = g.norm(x, il, "pre_ffw_norm_2")
        routed = g.vector("MUL", il, "ffn_gate_inp_s", g.scale(g.rms(x)))
        logits = g.matmul(il, "ffn_gate_inp", spec.n_experts, routed, "f32")
        chosen = g.norm(experts(g, il, normed, spec, logits), il, "post_ffw_norm_2")
        return g.add(beside, chosen)


class Gemma3n:
    """Gemma 3n: four residual streams, of which one is computed and three predicted."""

    def __init__(self, g: ModelGraph) -> None:
        self.g = g
        self.caches = g.cache_inputs()
        self.output_rows = g.input("i32", g.outputs)
        self.head = 0 if g.gpus < 2 else g.head  # the stream projections lie with the output matrix

    def build(self) -> None:
        """Embedding, streams, layers, head."""
        g = self.g
        width = _per_layer_width(g)
        x = g.scale(g.embed())
        per_layer = _per_layer_inputs(g, x, width)
        streams = self._spread(x)
        for il in range(len(g.layers)):
            streams = self._layer(il, streams, per_layer, width)
        x = g.rows(self._merged(streams), self.output_rows)
        g.logits(g.norm(x, g.head, "output_norm"))

    def _magnitude(self, x: Tensor) -> Tensor:
        g = self.g
        return g.same("SQRT", g.sum_rows(g.same("SQR", x)))

    def _stream_matmul(self, name: str, x: Tensor) -> Tensor:
        return self.g.matmul_heads(self.head, name, self.g.d, STREAMS - 1, x)

    def _spread(self, x: Tensor) -> Tensor:
        """The embedding, and three projections of it of the same magnitude."""
        g = self.g
        target = self._magnitude(x)
        others = self._stream_matmul("altup_proj", g.repeat(x, g.d, g.tokens, STREAMS - 1, 1))
        found = self._magnitude(others)
        return g.concat(x, g.same("DIV", g.mul(others, target), found), 2)

    def _merged(self, streams: Tensor) -> Tensor:
        """Mean of the first stream and the projections of the others back to it."""
        g = self.g
        target = self._magnitude(_slice(g, streams))
        rest = g.view(streams, (g.d, g.tokens, STREAMS - 1), streams.nb()[1:3])
        others = self._stream_matmul("altup_unembd_proj", rest)
        found = self._magnitude(others)
        others = g.same("DIV", g.mul(others, target), found)
        x = _slice(g, streams)
        for _ in range(STREAMS - 1):
            x = g.add(x, _slice(g, others))
        return g.scale(x)

    def _router(self, il: int, x: Tensor) -> Tensor:
        g = self.g
        normed = g.scale(g.norm(x, il, "altup_router_norm"))
        return g.unary(g.matmul(il, "altup_router", STREAMS, normed))

    def _predicted(self, il: int, streams: Tensor) -> Tensor:
        """Every stream after this layer, guessed from all of them."""
        g, n = self.g, STREAMS
        modalities = self._router(il, _slice(g, streams))
        coefficients = g.matmul(il, "altup_predict_coef", n * n, modalities, "f32")
        coefficients = g.reshape(coefficients, n, n, g.tokens)
        columns = g.cont(g.permute(streams, 1, 2, 0, 3))
        predicted = g.cont(g.permute(g.product(columns, coefficients), 0, 2, 1, 3))
        return g.add(predicted, streams)

    def _corrected(self, il: int, predictions: Tensor, computed: Tensor) -> Tensor:
        """All streams moved by the error of the one that was computed."""
        g, n = self.g, STREAMS
        modalities = self._router(il, computed)
        innovation = g.same("SUB", computed, _slice(g, predictions))
        coefficients = g.scale(g.matmul(il, "altup_correct_coef", n, modalities, "f32"))
        coefficients = g.cont(g.transpose(coefficients), 1, g.tokens, n)
        innovation = g.repeat(innovation, g.d, g.tokens, n, 1)
        return g.add(g.mul(innovation, coefficients), predictions)

    def _layer(self, il: int, streams: Tensor, per_layer: Tensor, width: int) -> Tensor:
        g = self.g
        spec = expect(g.layers[il].mixer, Attention)
        predictions = self._predicted(il, streams)
        active = _slice(g, predictions)
        normed = g.norm(active, il, "attn_norm")
        low = g.matmul(il, "laurel_l", LOW_RANK, normed)
        low = g.add(g.norm(g.matmul(il, "laurel_r", g.d, low), il, "laurel_post_norm"), normed)
        q, k, v = _q_and_kv(g, il, normed, spec)
        y = cached_attention(g, il, q, k, v, spec, self.caches[bool(g.windows[il])])
        y = g.norm(g.matmul(il, "attn_output", g.d, y), il, "post_attention_norm")
        attended = g.scale(g.add(g.add(y, active), low))
        y = g.norm(self._feed_forward(il, g.norm(attended, il, "ffn_norm")), il, "post_ffw_norm")
        corrected = self._corrected(il, predictions, g.add(y, attended))
        first = g.vector("MUL", il, "altup_correct_scale", _slice(g, corrected))
        first = g.mul(g.unary(g.matmul(il, "inp_gate", width, first)), _slice(g, per_layer))
        first = g.norm(g.matmul(il, "proj", g.d, first), il, "post_norm")
        rest = g.view(corrected, (g.d, g.tokens, STREAMS - 1), corrected.nb()[1:3])
        return g.concat(_slice(g, corrected), g.add(rest, first), 2)

    def _feed_forward(self, il: int, x: Tensor) -> Tensor:
        g = self.g
        spec = expect(g.layers[il].ffn, DenseFeedForward)
        up = g.matmul(il, "ffn_up", spec.intermediate_size, x)
        gate = g.matmul(il, "ffn_gate", spec.intermediate_size, x)
        if il < SPARSE_LAYERS:
            gate = self._sparse(gate)
        return g.matmul(il, "ffn_down", g.d, g.mul(up, g.unary(gate)))

    def _sparse(self, x: Tensor) -> Tensor:
        """Cut everything below mean plus a multiple of the standard deviation."""
        g = self.g
        mean = g.sum_rows(x, "MEAN")
        deviation = g.same("SQRT", g.scale(g.sum_rows(g.same("SQR", g.same("SUB", x, mean)))))
        cutoff = g.add(mean, g.scale(deviation))
        return g.unary(g.same("SUB", x, cutoff))
