"""Decoders whose residual is more than one stream: hyper-connections (Hunyuan V4) and checkpoints (Kimi K3).

Source: llama.cpp 0c1e57098, src/models/hy-v4.cpp and kimi-k3.cpp.
"""

from __future__ import annotations

from fitcheck.estimate.graph.decoder import Decoder
from fitcheck.estimate.graph.feed_forward import feed_forward
from fitcheck.estimate.graph.model import UnknownGraphError
from fitcheck.estimate.graph.tensors import Tensor
from fitcheck.types import DenseFeedForward, FeedForward, MixtureOfExperts

STREAMS = 4  # hyper_connection.count of all published models
CHECKPOINT_LAYERS = 12  # kimi-k3: attn_res.block_size


def _known(ffn: FeedForward) -> DenseFeedForward | MixtureOfExperts:
    if not isinstance(ffn, (DenseFeedForward, MixtureOfExperts)):
        raise UnknownGraphError("layer without feed-forward")
    return ffn


class HunyuanV4(Decoder):
    """Four residual streams: each block reads a weighted sum of them and is added to all, weighted again."""

    def build(self) -> None:
        """Embedding, copied into every stream; layers; the streams merged; head."""
        g = self.g
        streams = g.repeat(g.reshape(g.embed(), g.d, 1, g.tokens), g.d, STREAMS, g.tokens)
        for il in range(len(g.layers)):
            streams = self._layer(il, streams)
        flat = g.rows(g.reshape(streams, g.d * STREAMS, g.tokens), self.output_rows)
        outputs = flat.ne[1]
        flat = g.reshape(flat, g.d, STREAMS, outputs)
        mixes = g.matmul(g.head, "hc_head_fn", STREAMS, g.rms(g.reshape(flat, g.d * STREAMS, outputs)))
        weights = g.vector("MUL", g.head, "hc_head_scale", mixes, 1)
        weights = g.scale(g.unary(g.vector("ADD", g.head, "hc_head_base", weights)))
        g.logits(g.norm(self._sum(flat, weights), g.head, "output_norm"))

    def _layer(self, il: int, x: Tensor) -> Tensor:
        g = self.g
        read, weights = self._read(il, x, "hc_attn")
        x = self._write(x, self._mix(il, g.norm(read, il, "attn_norm"), g.layers[il].mixer), weights)
        read, weights = self._read(il, x, "hc_ffn")
        return self._write(x, feed_forward(g, il, g.norm(read, il, "ffn_norm"), _known(g.layers[il].ffn)), weights)

    def _read(self, il: int, x: Tensor, name: str) -> tuple[Tensor, Tensor]:
        """The sum of the streams that a block reads, and the weights with which its result is added to each."""
        g = self.g
        mixes = g.matmul(il, f"{name}_fn", 2 * STREAMS, g.rms(g.reshape(x, g.d * STREAMS, g.tokens)))
        row = (mixes.nb()[1],)
        # scales and bases are views of weights, which tie nothing to a device
        before, after = (
            g.unary(g.same("ADD", g.same("MUL", g.view(mixes, (STREAMS, g.tokens), row)))) for _ in range(2)
        )
        return self._sum(x, g.scale(before)), g.scale(g.scale(after))

    def _sum(self, x: Tensor, weights: Tensor) -> Tensor:
        g = self.g
        tokens = x.ne[2]
        full = g.op("CPY", "f32", x.ne, x)
        total: Tensor | None = None
        for _ in range(STREAMS):
            stream = g.view(full, (g.d, tokens), (full.nb()[2],))
            part = g.mul(stream, g.view(weights, (1, tokens), (weights.nb()[1],)))
            total = g.add(total, part) if total is not None else part
        assert total is not None
        return g.op("CPY", "f32", total.ne, total)

    def _write(self, x: Tensor, y: Tensor, weights: Tensor) -> Tensor:
        g = self.g
        y, weights, old = (g.op("CPY", "f32", tensor.ne, tensor) for tensor in (y, weights, x))
        streams: Tensor | None = None
        for _ in range(STREAMS):
            stream = g.view(old, (g.d, g.tokens), (old.nb()[2],))
            part = g.add(stream, g.mul(y, g.view(weights, (1, g.tokens), (weights.nb()[1],))))
            part = g.reshape(part, g.d, 1, g.tokens)
            streams = g.concat(streams, part, 1) if streams is not None else part
        assert streams is not None
        return g.op("CPY", "f32", streams.ne, streams)


class KimiK3(Decoder):
    """The residual restarts every few layers; what it was is kept, and each block reads a mix of all of that."""

    checkpoints: Tensor | None = None

    def build(self) -> None:
        """Embedding, layers, a last mix, head."""
        g = self.g
        x = g.embed()
        for il in range(len(g.layers)):
            x = self._layer(il, x)
        x = g.rows(self._mixed(g.head, x, "output_res_score"), self.output_rows)
        g.logits(g.norm(x, g.head, "output_norm"))

    def _layer(self, il: int, x: Tensor) -> Tensor:
        g = self.g
        y = self._mixed(il, x, "attn_res_score")
        restarts = il % CHECKPOINT_LAYERS == 0
        if restarts:
            kept = g.reshape(x, g.d, 1, g.tokens)
            self.checkpoints = kept if self.checkpoints is None else g.concat(self.checkpoints, kept, 1)
        y = self._mix(il, g.expand(g.norm(y, il, "attn_norm")), g.layers[il].mixer)
        x = y if restarts else g.add(x, y)
        y = g.norm(self._mixed(il, x, "ffn_res_score"), il, "ffn_norm")
        return g.add(x, feed_forward(g, il, y, _known(g.layers[il].ffn)))

    def _mixed(self, il: int, x: Tensor, name: str) -> Tensor:
        """Softmax attention over the checkpoints and the residual."""
        g, kept = self.g, self.checkpoints
        if kept is None:
            return x
        count = kept.ne[1]
        old = g.reshape(g.sum_rows(g.vector("MUL", il, name, g.rms(kept))), count, g.tokens)
        new = g.sum_rows(g.vector("MUL", il, name, g.rms(x)))
        shares = g.same("SOFT_MAX", g.concat(old, new, 0))
        row = (shares.nb()[1],)
        of_old = g.cont(g.view(shares, (count, g.tokens), row))
        of_new = g.cont(g.view(shares, (1, g.tokens), row))
        return g.add(g.op("HC_PRE", "f32", (g.d, g.tokens), kept, of_old), g.mul(x, of_new))
