"""The graph of Qwen3.8-Flash-Next: residual streams mixed at a low rank, gated delta net, sparse attention, n-grams.

Source: llama.cpp 0c1e57098, src/models/qwen4exp.cpp.
"""

from __future__ import annotations

from fitcheck.estimate.graph.decoder import Decoder
from fitcheck.estimate.graph.feed_forward import feed_forward
from fitcheck.estimate.graph.hyper_connections import STREAMS, copied
from fitcheck.estimate.graph.model import CacheInputs, expect
from fitcheck.estimate.graph.ngrams import added_ngrams, gathered
from fitcheck.estimate.graph.qsa import BlockInputs, sparse_attention
from fitcheck.estimate.graph.tensors import Tensor
from fitcheck.types import Attention, Mixer, MixtureOfExperts

LOW_RANK = 320  # hyper_connection.low_rank of all published models


class Qwen4Exp(Decoder):
    """Four residual streams; a block reads their gated mean and is added to each with a weight of its own."""

    def build(self) -> None:
        """Embedding, n-grams, embedding copied into every stream; layers; a last read in place of the norm; head."""
        g = self.g
        x = g.embed()
        self.sparse = BlockInputs(g)
        spec = next((layer.ngrams for layer in g.layers if layer.ngrams), None)
        self.ngrams = gathered(g, spec) if spec else None
        streams = copied(g, x)
        for il in range(len(g.layers)):
            streams = self._layer(il, streams)
        g.logits(self._last_read(streams))

    def _layer(self, il: int, x: Tensor) -> Tensor:
        g, layer = self.g, self.g.layers[il]
        if layer.ngrams and self.ngrams is not None:
            x = added_ngrams(g, il, x, self.ngrams, layer.ngrams, self.states)
        y, normed = self._read(il, x, "hc_attn")
        g.expand(y)
        weights = self._weights(il, normed, "hc_attn")
        y = self._gathered(il, self._mix(il, y, layer.mixer))
        weights = self._gathered(il, weights)
        flat = self._gathered(il, g.reshape(x, g.d * STREAMS, x.ne[2]))
        x = self._write(y, g.reshape(flat, g.d, STREAMS, flat.ne[1]), weights)
        y, normed = self._read(il, x, "hc_ffn")
        weights = self._weights(il, normed, "hc_ffn")
        return self._write(feed_forward(g, il, y, expect(layer.ffn, MixtureOfExperts)), x, weights)

    def _mix(self, il: int, x: Tensor, mixer: Mixer) -> Tensor:
        if isinstance(mixer, Attention):
            whole = expect(self.caches.get(False), CacheInputs)
            return sparse_attention(self.g, il, x, mixer, whole, self.sparse)
        return super()._mix(il, x, mixer)

    def _gates(self, il: int, x: Tensor, name: str) -> tuple[Tensor, Tensor]:
        """The normed streams, and a gate for each of their elements: both [width * streams, tokens]."""
        g = self.g
        normed = g.vector("MUL", il, f"{name}_norm", g.rms(x), g.d, STREAMS)
        normed = g.reshape(normed, g.d * STREAMS, x.ne[2])
        low = g.unary(g.scale(g.matmul(il, f"{name}_down", LOW_RANK, normed)))
        return normed, g.matmul(il, f"{name}_up", g.d * STREAMS, low)

    def _read(self, il: int, x: Tensor, name: str) -> tuple[Tensor, Tensor]:
        """The gated mean of the streams, and the normed streams."""
        g = self.g
        normed, gates = self._gates(il, x, name)
        parts = (g.reshape(part, g.d, STREAMS, x.ne[2]) for part in (normed, gates))
        return g.op("HC_PRE", "f32", (g.d, x.ne[2]), *parts), normed

    def _last_read(self, x: Tensor) -> Tensor:
        """The same at the head, where no kernel does it at once."""
        g, tokens = self.g, x.ne[2]
        normed, gates = self._gates(g.head, x, "output_hc")
        gated = g.reshape(g.mul(normed, g.unary(gates)), g.d, STREAMS, tokens)
        streams = [g.view(gated, (g.d, tokens), (gated.nb()[2],)) for _ in range(STREAMS)]
        total = g.cont(streams[0])
        for stream in streams[1:]:
            total = g.add(total, stream)
        return g.scale(total)

    def _weights(self, il: int, normed: Tensor, name: str) -> Tensor:
        """With what weight a block's result is added to each stream, before it is squashed."""
        return self.g.matmul(il, f"{name}_inject", STREAMS, normed)

    def _write(self, y: Tensor, x: Tensor, weights: Tensor) -> Tensor:
        g = self.g
        weights = g.scale(g.unary(g.scale(weights)))
        return g.op("HC_POST", "f32", x.ne, y, x, weights)
