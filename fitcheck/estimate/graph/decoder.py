"""The graph of a causal language model: embedding, layers, output matrix.

One order of steps serves nearly all architectures; what differs is in ``architectures.Traits``.
Source: llama.cpp 0c1e57098, src/models/*.cpp.
"""

from __future__ import annotations

from fitcheck.estimate.graph.attention import (
    Inputs,
    LatentInputs,
    attention,
    doubled_q_attention,
    expanded_latent_attention,
    latent_attention,
)
from fitcheck.estimate.graph.blocks import BlockInputs, block_attention
from fitcheck.estimate.graph.feed_forward import feed_forward
from fitcheck.estimate.graph.model import CacheInputs, ModelGraph, UnknownGraphError, attention_of, expect
from fitcheck.estimate.graph.recurrent import (
    DecayInputs,
    StateInputs,
    gated_delta_net,
    kimi_delta,
    lightning_attention,
    mamba1,
    mamba2,
    short_convolution,
)
from fitcheck.estimate.graph.sparse import IndexerInputs, sparse_latent_attention
from fitcheck.estimate.graph.tensors import Tensor
from fitcheck.types import (
    Attention,
    DenseFeedForward,
    GatedDeltaNet,
    KimiDelta,
    LatentAttention,
    LightningAttention,
    Mamba1,
    Mamba2,
    Mixer,
    MixtureOfExperts,
    NoMixer,
    ParallelMixers,
    ShortConvolution,
)


class Decoder:
    """Builds the graph of one causal language model."""

    def __init__(self, g: ModelGraph) -> None:
        self.g = g
        mixers = [layer.mixer for layer in g.layers]
        self.states = StateInputs(g)
        self.caches: Inputs = {}
        if any(attention_of(mixer) for mixer in mixers):
            self.caches = g.cache_inputs() if g.traits.cached else g.batch_inputs()
        absorbed = any(isinstance(mixer, LatentAttention) and mixer.absorbed for mixer in mixers)
        self.latent = LatentInputs(g, g.cells) if absorbed else None
        self.latent_window = LatentInputs(g, g.window_cells()) if absorbed and g.has_windows else None
        indexer = next(
            (mixer.indexer for mixer in mixers if isinstance(mixer, LatentAttention) and mixer.indexer), None
        )
        self.indexing = IndexerInputs(g, indexer) if indexer else None
        whole = self.caches.get(False)
        sparse = g.traits.sparse_blocks and g.flash and g.streams == g.sequences
        self.blocks = BlockInputs(g, whole) if sparse and isinstance(whole, CacheInputs) else None
        linear = next((mixer for mixer in mixers if isinstance(mixer, LightningAttention)), None)
        self.decays = DecayInputs(g, linear.n_heads) if linear else None
        self.output_rows = g.input("i32", g.outputs)

    def build(self) -> None:
        """Embedding, every layer, head."""
        g, traits = self.g, self.g.traits
        x = g.embed()
        if traits.embedding_norm:
            x = g.rms(x) if traits.embedding_norm == "plain" else g.norm(x, 0, "token_embd_norm")
        if g.shape.learned_positions:
            x = g.add(x, g.host_rows(g.positions, g.d))
        for il in range(len(g.layers)):
            x = self._layer(il, x)
            if il < traits.deep_inputs:
                x = g.add(x, g.deep_part())
        self._head(x)

    def _layer(self, il: int, x: Tensor) -> Tensor:
        g, traits = self.g, self.g.traits
        layer = g.layers[il]
        if isinstance(layer.mixer, ParallelMixers):
            x = self._gathered(il, self._parallel_mixers(il, x, layer.mixer))
            return self._feed_forward(il, x, x)
        if isinstance(layer.mixer, NoMixer):
            return self._without_mixer(il, x)
        routing = self._routing(il, x)
        normed = g.norm(x, il, "attn_norm") if traits.pre_norm else x
        if traits.anchored:
            g.expand(normed)
        own_norm = traits.parallel and layer.norms > 1 and not traits.parallel_norm
        y = self._mix(il, g.norm(x, il, "attn_norm_2") if own_norm else normed, layer.mixer)
        if traits.parallel:
            return self._parallel(il, x, normed, y)
        if traits.post_norm and traits.post_norm_first:
            y = g.norm(y, il, "post_attention_norm")
        y, x = self._gathered(il, y), self._gathered(il, normed if traits.normed_residual else x)
        if traits.post_norm and not traits.post_norm_first:
            y = g.norm(y, il, "post_attention_norm")
        if routing is not None:
            routing = self._gathered(il, routing)
        x = g.add(x, y) if "a" in traits.residual_first else g.add(y, x)
        return self._feed_forward(il, x, x, routing)

    def _routing(self, il: int, x: Tensor) -> Tensor | None:
        """Router logits, where experts are chosen by the layer's input (SmallThinker)."""
        ffn = self.g.layers[il].ffn
        if not self.g.traits.routes_input or not isinstance(ffn, MixtureOfExperts):
            return None
        return self.g.matmul(il, "ffn_gate_inp", ffn.n_experts, x, "f32")

    def _feed_forward(self, il: int, x: Tensor, residual: Tensor, routing: Tensor | None = None) -> Tensor:
        g, traits = self.g, self.g.traits
        ffn = g.layers[il].ffn
        if not isinstance(ffn, (DenseFeedForward, MixtureOfExperts)):
            return x
        normed = g.norm(x, il, "ffn_norm") if traits.pre_norm else x
        if traits.normed_residual:
            residual = normed
        y = feed_forward(g, il, normed, ffn, routing)
        if traits.post_norm:
            y = g.norm(y, il, "post_ffw_norm")
        return g.add(residual, y) if "f" in traits.residual_first else g.add(y, residual)

    def _without_mixer(self, il: int, x: Tensor) -> Tensor:
        """A layer that is a feed-forward alone (Nemotron-H, pruned Llamas)."""
        x = self._gathered(il, x)
        return self._feed_forward(il, x, x)

    def _parallel(self, il: int, x: Tensor, normed: Tensor, attended: Tensor) -> Tensor:
        """Feed-forward beside attention; the order of the sum is the architecture's."""
        g, traits = self.g, self.g.traits
        ffn = g.layers[il].ffn
        if not isinstance(ffn, (DenseFeedForward, MixtureOfExperts)):
            raise UnknownGraphError("parallel layer without feed-forward")
        attended, x, normed = (self._gathered(il, tensor) for tensor in (attended, x, normed))
        if traits.parallel_norm:
            normed = g.norm(x, il, "ffn_norm")
        parts = {"a": attended, "x": x, "f": feed_forward(g, il, normed, ffn)}
        first, second, third = (parts[letter] for letter in traits.parallel)
        return g.add(g.add(first, second), third)

    def _parallel_mixers(self, il: int, x: Tensor, mixers: ParallelMixers) -> Tensor:
        """Attention and Mamba side by side, each with its own norm of the same input (Falcon-H1)."""
        g = self.g
        first, second = (self._mix(il, g.norm(x, il, "attn_norm"), part) for part in mixers.parts)
        return g.add(g.add(first, second), x)

    def _mix(self, il: int, x: Tensor, mixer: Mixer) -> Tensor:
        g = self.g
        if isinstance(mixer, Attention) and self.blocks is not None and mixer.extra_params:
            return block_attention(g, il, x, mixer, self.blocks)
        if isinstance(mixer, Attention):
            attend = doubled_q_attention if mixer.gate == "q_double" else attention
            return attend(g, il, x, mixer, self.caches)
        if isinstance(mixer, LatentAttention) and not mixer.absorbed:
            return expanded_latent_attention(g, il, x, mixer, expect(self.caches.get(False), CacheInputs))
        if isinstance(mixer, LatentAttention):
            latent = expect(self.latent_window if g.windows[il] else self.latent, LatentInputs)
            if self.indexing is not None and not g.windows[il]:
                return sparse_latent_attention(g, il, x, mixer, latent, self.indexing)
            return latent_attention(g, il, x, mixer, latent)
        if isinstance(mixer, Mamba2):
            return mamba2(g, il, x, mixer, self.states)
        if isinstance(mixer, Mamba1):
            return mamba1(g, il, x, mixer, self.states)
        if isinstance(mixer, GatedDeltaNet):
            return gated_delta_net(g, il, x, mixer, self.states)
        if isinstance(mixer, KimiDelta):
            return kimi_delta(g, il, x, mixer, self.states)
        if isinstance(mixer, LightningAttention):
            return lightning_attention(g, il, x, mixer, self.states, expect(self.decays, DecayInputs))
        if isinstance(mixer, ShortConvolution):
            return short_convolution(g, il, x, mixer, self.states)
        raise UnknownGraphError(type(mixer).__name__)

    def _gathered(self, il: int, x: Tensor) -> Tensor:
        """In the last layer only the rows whose logits are wanted go on."""
        g = self.g
        if il < len(g.layers) - 1 or g.traits.late:
            return x
        return g.rows(x, self.output_rows)

    def _head(self, x: Tensor) -> None:
        g, traits, late = self.g, self.g.traits, self.g.traits.late
        if late == "raw":
            x.output = True
            x = g.rows(x, self.output_rows)
        x = g.norm(x, g.head, "output_norm")
        if late == "normed":
            x.output = True
            x = g.rows(x, self.output_rows)
        if traits.scales_state:
            x.output = True
            x = g.scale(x)
        g.logits(x)
