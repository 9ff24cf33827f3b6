"""The graph of GLM-5.3-Flash: hyper-connections, Kimi delta attention, latent attention over pools.

Source: llama.cpp 0c1e57098, src/models/glm5-next.cpp.
"""

from __future__ import annotations

from fitcheck.estimate.graph import hyper_connections as hyper
from fitcheck.estimate.graph.attention import LatentInputs
from fitcheck.estimate.graph.decoder import Decoder
from fitcheck.estimate.graph.feed_forward import feed_forward
from fitcheck.estimate.graph.model import UnknownGraphError, expect
from fitcheck.estimate.graph.pools import PoolInputs, pooled_latent_attention
from fitcheck.estimate.graph.tensors import Tensor
from fitcheck.types import DenseFeedForward, Indexer, LatentAttention, Mixer, MixtureOfExperts


class GlmNext(Decoder):
    """Four residual streams; every fourth layer attends, the others keep a state."""

    pools: PoolInputs

    def build(self) -> None:
        """Embedding, copied into every stream; layers; the mean of the streams; head."""
        g = self.g
        x = g.embed()
        indexers = [each.mixer.indexer for each in g.layers if isinstance(each.mixer, LatentAttention)]
        self.pools = PoolInputs(g, expect(self.latent, LatentInputs), expect(next(iter(indexers), None), Indexer))
        streams = hyper.copied(g, x)
        for il in range(len(g.layers)):
            streams = self._layer(il, streams)
        flat = g.rows(g.reshape(streams, g.d * hyper.STREAMS, g.tokens), self.output_rows)
        x = hyper.mean(g, g.reshape(flat, g.d, hyper.STREAMS, flat.ne[1]))
        g.logits(g.norm(x, g.head, "output_norm"))

    def _layer(self, il: int, x: Tensor) -> Tensor:
        g, layer = self.g, self.g.layers[il]
        if not isinstance(layer.ffn, (DenseFeedForward, MixtureOfExperts)):
            raise UnknownGraphError("layer without feed-forward")
        y, shares = hyper.read(g, il, x, "hc_attn")
        x = hyper.write(g, self._mix(il, g.expand(g.norm(y, il, "attn_norm")), layer.mixer), x, shares)
        y, shares = hyper.read(g, il, x, "hc_ffn")
        return hyper.write(g, feed_forward(g, il, g.norm(y, il, "ffn_norm"), layer.ffn), x, shares)

    def _mix(self, il: int, x: Tensor, mixer: Mixer) -> Tensor:
        if isinstance(mixer, LatentAttention):
            return pooled_latent_attention(self.g, il, x, mixer, self.pools)
        return super()._mix(il, x, mixer)
