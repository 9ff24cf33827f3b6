"""Decoders that differ from the usual one in a single step.

Source: llama.cpp 0c1e57098, src/models/arctic.cpp, chameleon.cpp, cogvlm.cpp, talkie.cpp.
"""

from __future__ import annotations

from fitcheck.estimate.graph.decoder import Decoder
from fitcheck.estimate.graph.feed_forward import dense, experts, feed_forward
from fitcheck.estimate.graph.model import ModelGraph, expect
from fitcheck.estimate.graph.tensors import Tensor
from fitcheck.types import DenseFeedForward, Layer, MixtureOfExperts

IMAGE_TOKENS = 8192  # of Chameleon's vocabulary, 4 to 8195


class Arctic(Decoder):
    """A dense layer, beside it experts that read the layer's input with a norm of their own."""

    def _layer(self, il: int, x: Tensor) -> Tensor:
        g = self.g
        layer = g.layers[il]
        spec = expect(layer.ffn, MixtureOfExperts)
        attended = self._mix(il, g.norm(x, il, "attn_norm"), layer.mixer)
        attended, x = self._gathered(il, attended), self._gathered(il, x)
        y = g.add(attended, x)
        y = g.add(dense(g, il, g.norm(y, il, "ffn_norm"), spec.dense_parallel or g.d), y)
        return g.add(experts(g, il, g.norm(x, il, "ffn_norm_exps"), spec), y)


class Chameleon(Decoder):
    """Logits of image tokens are overwritten, which takes a second copy of all logits."""

    def _layer(self, il: int, x: Tensor) -> Tensor:
        layer = self.g.layers[il]
        return self._with_norms_behind(il, x, layer) if layer.norms_behind else super()._layer(il, x)

    def _with_norms_behind(self, il: int, x: Tensor, layer: Layer) -> Tensor:
        """The feed-forward reads what attention gave, not its sum with the layer's input."""
        g = self.g
        attended = self._mix(il, x, layer.mixer)
        attended, x = self._gathered(il, attended), self._gathered(il, x)
        attended = g.norm(attended, il, "attn_norm")
        y = feed_forward(g, il, attended, expect(layer.ffn, DenseFeedForward))
        return g.add(g.norm(y, il, "ffn_norm"), g.add(attended, x))

    def _head(self, x: Tensor) -> None:
        g = self.g
        x = g.norm(x, g.head, "output_norm")
        x.output = True
        logits = g.matmul(g.head, "output", g.vocab, x)
        hidden = g.same("CLAMP", g.scratch("f32", IMAGE_TOKENS))
        shown = g.op("SET", "f32", logits.ne, logits, hidden)
        shown.output = True
        g.expand(shown)


class CogVlm(Decoder):
    """Text passes its own half of the weights; logits are made for every token of the batch."""

    def _gathered(self, il: int, x: Tensor) -> Tensor:
        return x


class Talkie(Decoder):
    """Norms without weights; each layer adds the embedding, scaled."""

    def __init__(self, g: ModelGraph) -> None:
        super().__init__(g)
        self.embedding: Tensor | None = None

    def _layer(self, il: int, x: Tensor) -> Tensor:
        g = self.g
        if self.embedding is None:
            self.embedding = x
        x = super()._layer(il, x)
        skip = self._gathered(il, self.embedding)
        return g.add(x, g.vector("MUL", il, "layer_output_scale", skip, 1))
