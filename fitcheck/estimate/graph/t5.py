"""T5: a decoder that attends to what the encoder gave, and the encoder alone. Attention has a bias by distance.

Compute buffers are reserved for the decoder, with as many encoded tokens as the model was trained for and logits for
every token: an encoder's results are all wanted.
Source: llama.cpp 0c1e57098, src/models/t5.cpp and llm_graph_context::build_pos_bias.
"""

from __future__ import annotations

from fitcheck.estimate.graph.attention import attend, batch_attention, cached_attention, projections
from fitcheck.estimate.graph.feed_forward import feed_forward
from fitcheck.estimate.graph.model import CacheInputs, ModelGraph, UnknownGraphError, expect
from fitcheck.estimate.graph.tensors import Tensor
from fitcheck.types import Attention, DenseFeedForward, ParallelMixers


class DistanceBias:
    """A bias per head and pair of tokens, looked up by the bucket that their distance falls into."""

    def __init__(self, g: ModelGraph, keys: int) -> None:
        self.g = g
        self.buckets = g.input("i32", keys, g.tokens)

    def of(self, il: int, spec: Attention) -> Tensor:
        """The bias of one layer; most models have a table in the first layer only."""
        g, keys, heads = self.g, self.buckets.ne[0], spec.n_heads
        owner = il if spec.extra_params else 0
        rows = g.weight_rows(owner, "attn_rel_b", heads, g.reshape(self.buckets, keys * g.tokens))
        return g.cont(g.permute(g.reshape(rows, heads, keys, g.tokens), 2, 0, 1, 3))


class T5Decoder:
    """Self-attention, attention to the encoder's result, feed-forward."""

    def __init__(self, g: ModelGraph) -> None:
        self.g = g
        encoded = _mixers(g, 0)[1].fixed_tokens
        if not encoded:
            raise UnknownGraphError("encoded tokens")
        self.encoded = g.input("f32", g.d, encoded)
        self.encoded_mask = g.input("f16" if g.flash else "f32", encoded, g.tokens)
        self.caches = expect(g.cache_inputs()[False], CacheInputs)
        self.bias = DistanceBias(g, g.cells)
        self.output_rows = g.input("i32", g.tokens)

    def build(self) -> None:
        """Embedding, every layer, head."""
        g = self.g
        x = g.embed()
        for il in range(len(g.layers)):
            x = self._layer(il, x)
        g.logits(g.norm(x, g.head, "output_norm"))

    def _layer(self, il: int, x: Tensor) -> Tensor:
        g = self.g
        spec, cross = _mixers(g, il)
        q, k, v = projections(g, il, g.norm(x, il, "attn_norm"), spec)
        y = cached_attention(g, il, q, k, v, spec, self.caches, self.bias.of(il, spec))
        x = g.add(g.matmul(il, "attn_o", g.d, y), x)
        y = self._cross_attention(il, g.norm(x, il, "cross_attn_norm"), cross)
        if il == len(g.layers) - 1:
            y, x = g.rows(y, self.output_rows), g.rows(x, self.output_rows)
        return _with_feed_forward(g, il, g.add(y, x))

    def _cross_attention(self, il: int, x: Tensor, spec: Attention) -> Tensor:
        g = self.g
        parts = (("q", spec.n_heads, x), ("k", spec.n_kv_heads, self.encoded), ("v", spec.n_kv_heads, self.encoded))
        q, k, v = (
            g.expand(
                g.reshape(
                    g.matmul(il, f"cross_attn_{letter}", spec.head_dim * heads, source),
                    *(spec.head_dim, heads, source.ne[1]),
                )
            )
            for letter, heads, source in parts
        )
        y = attend(g, il, q, k, v, self.encoded_mask)
        return g.matmul(il, "cross_attn_o", g.d, y)


class T5Encoder:
    """The encoder as an embedding model: its result for every token."""

    def __init__(self, g: ModelGraph) -> None:
        self.g = g
        self.inputs = g.batch_inputs()[False]
        self.bias = DistanceBias(g, g.tokens)
        self.output_rows = g.input("i32", g.outputs)

    def build(self) -> None:
        """Embedding, every layer, norm."""
        g = self.g
        x = g.embed()
        for il in range(len(g.layers)):
            x = self._layer(il, x)
        x = g.norm(x, g.head, "output_norm")
        x.output = True
        g.expand(x)

    def _layer(self, il: int, x: Tensor) -> Tensor:
        g = self.g
        spec = expect(g.layers[il].mixer, Attention)
        q, k, v = projections(g, il, g.norm(x, il, "attn_norm"), spec)
        y = batch_attention(g, il, q, k, v, self.inputs, self.bias.of(il, spec))
        y = g.matmul(il, "attn_o", g.d, y)
        if il == len(g.layers) - 1:
            y, x = g.rows(y, self.output_rows), g.rows(x, self.output_rows)
        return _with_feed_forward(g, il, g.add(y, x))


def _mixers(g: ModelGraph, il: int) -> tuple[Attention, Attention]:
    """Self-attention and attention to the encoder."""
    own, cross = expect(g.layers[il].mixer, ParallelMixers).parts[:2]
    return expect(own, Attention), expect(cross, Attention)


def _with_feed_forward(g: ModelGraph, il: int, x: Tensor) -> Tensor:
    ffn = expect(g.layers[il].ffn, DenseFeedForward)
    return g.add(feed_forward(g, il, g.norm(x, il, "ffn_norm"), ffn), x)
