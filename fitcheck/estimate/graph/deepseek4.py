"""DeepSeek-V4: compressed sparse attention and experts, between hyper-connections.

Source: llama.cpp 0c1e57098, src/models/deepseek4.cpp.
"""

from __future__ import annotations

from fitcheck.estimate.graph.compressed import CompressedInputs, compressed_attention
from fitcheck.estimate.graph.feed_forward import feed_forward
from fitcheck.estimate.graph.hyper_connections import STREAMS, copied, fused_write, read
from fitcheck.estimate.graph.model import ModelGraph, expect
from fitcheck.estimate.graph.tensors import Tensor
from fitcheck.types import CompressedAttention, MixtureOfExperts


class DeepSeekV4:
    """Attention and experts in turn; each reads the residual streams and writes to them."""

    def __init__(self, g: ModelGraph) -> None:
        self.g = g
        g.streams = g.sequences  # the engine never unifies these caches
        self.mixers = [expect(layer.mixer, CompressedAttention) for layer in g.layers]
        self.inputs = CompressedInputs(g, self.mixers)
        self.output_rows = g.input("i32", g.outputs)

    def build(self) -> None:
        """Embedding, copied into every stream; layers; the streams merged; head."""
        g = self.g
        streams = copied(g, g.embed())
        g.expand(self.inputs.mask)
        for il in range(len(g.layers)):
            streams = self._layer(il, streams)
        rows = g.rows(g.reshape(streams, g.d * STREAMS, g.tokens), self.output_rows)
        g.logits(g.norm(self._merged(g.reshape(rows, g.d, STREAMS, rows.ne[1])), g.head, "output_norm"))

    def _layer(self, il: int, x: Tensor) -> Tensor:
        g = self.g
        y, shares = read(g, il, x, "hc_attn")
        y = compressed_attention(g, il, g.norm(y, il, "attn_norm"), self.mixers[il], self.inputs)
        x = fused_write(g, y, x, shares)
        y, shares = read(g, il, x, "hc_ffn")
        for tensor in (x, *shares):
            g.expand(tensor)
        y = feed_forward(g, il, g.norm(y, il, "ffn_norm"), expect(g.layers[il].ffn, MixtureOfExperts))
        return fused_write(g, y, x, shares)

    def _merged(self, x: Tensor) -> Tensor:
        """The weighted sum of the streams: [width, outputs]."""
        g, outputs = self.g, x.ne[2]
        weights = g.matmul(g.head, "output_hc_fn", STREAMS, g.rms(g.reshape(x, g.d * STREAMS, outputs)))
        weights = g.vector("MUL", g.head, "output_hc_scale", weights, 1)
        weights = g.scale(g.unary(g.vector("ADD", g.head, "output_hc_base", weights)))
        parts = [
            g.mul(g.view(x, (g.d, outputs), (x.nb()[2],)), g.view(weights, (1, outputs), (weights.nb()[1],)))
            for _ in range(STREAMS)
        ]
        total = parts[0]
        for part in parts[1:]:
            total = g.add(total, part)
        return total
