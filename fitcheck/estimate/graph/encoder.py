"""Embedding models: no cache, attention over the batch itself, a pooled state at the end.

Source: llama.cpp 0c1e57098, src/models/bert.cpp, gemma-embedding.cpp and llm_graph_context::build_pooling.
"""

from __future__ import annotations

from fitcheck.estimate.graph.attention import batch_attention, normed_q_and_k, projections, rope
from fitcheck.estimate.graph.feed_forward import feed_forward
from fitcheck.estimate.graph.model import ModelGraph, expect
from fitcheck.estimate.graph.tensors import HOST, Tensor
from fitcheck.types import Attention, DenseFeedForward, MixtureOfExperts


class Encoder:
    """BERT and its kin (norms behind attention and feed-forward), and encoders made from decoders (norms before)."""

    def __init__(self, g: ModelGraph) -> None:
        self.g = g
        self.inputs = g.batch_inputs()
        self.output_rows = g.input("i32", g.outputs)

    def build(self) -> None:
        """Embeddings of tokens, types and positions, layers, pooling."""
        g = self.g
        x = g.embed() if g.traits.pre_norm else self._with_types_and_positions(g.embed())
        if g.traits.embedding_norm or not g.traits.pre_norm:
            x = g.norm(x, 0, "token_embd_norm")
        for il in range(len(g.layers)):
            x = self._layer(il, x)
        if g.traits.pre_norm:
            x = g.norm(x, g.head, "output_norm")
        x.output = True
        g.expand(x)
        pooled = self._pooled(x)
        pooled.output = True
        g.expand(pooled)

    def _with_types_and_positions(self, x: Tensor) -> Tensor:
        g = self.g
        x = g.add(x, g.view(g.stored("f32", HOST, g.d, 2), (g.d,)))
        return g.add(g.host_rows(g.positions, g.d), x) if g.shape.learned_positions else x

    def _layer(self, il: int, x: Tensor) -> Tensor:
        g, traits = self.g, self.g.traits
        first_norm = traits.pre_norm and g.layers[il].norms > 1
        attended = self._attention(il, g.norm(x, il, "attn_norm") if first_norm else x)
        if il == len(g.layers) - 1:
            attended, x = g.rows(attended, self.output_rows), g.rows(x, self.output_rows)
        if traits.post_norm:
            attended = g.norm(attended, il, "post_attention_norm")
        x = g.add(attended, x)
        if not traits.pre_norm:
            x = g.norm(x, il, "attn_output_norm")
        ffn = g.layers[il].ffn
        if not isinstance(ffn, MixtureOfExperts):
            ffn = expect(ffn, DenseFeedForward)
        y = feed_forward(g, il, g.norm(x, il, "ffn_norm") if traits.pre_norm else x, ffn)
        if traits.post_norm:
            y = g.norm(y, il, "post_ffw_norm")
        x = g.add(y, x)
        return x if traits.pre_norm else g.norm(x, il, "layer_output_norm")

    def _attention(self, il: int, x: Tensor) -> Tensor:
        g = self.g
        spec = expect(g.layers[il].mixer, Attention)
        q, k, v = projections(g, il, x, spec)
        q, k = normed_q_and_k(g, il, q, k, spec)
        if g.rotates(il):
            q, k = rope(g, il, q), rope(g, il, k)
        y = batch_attention(g, il, q, k, v, self.inputs[bool(g.windows[il])])
        return g.linear(il, "attn_output", g.d, y, "o" in spec.bias)

    def _pooled(self, x: Tensor) -> Tensor:
        """One state per sequence: that of its first token, or the mean."""
        g = self.g
        if (g.shape.pooling or g.traits.pooling) == "mean":
            return g.product(g.cont(g.transpose(x)), g.input("f32", g.tokens, g.sequences))
        return g.rows(x, g.input("i32", g.sequences))
