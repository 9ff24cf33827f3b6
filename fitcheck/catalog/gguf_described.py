"""Layers of an architecture without a tensor list: its row tells what a layer is made of."""

from __future__ import annotations

from typing import Any

from fitcheck.catalog import gguf_mixers as mixers
from fitcheck.catalog.gguf_architectures import Architecture
from fitcheck.catalog.gguf_sizes import POOLING, Sizes
from fitcheck.types import (
    Attention,
    DenseFeedForward,
    FeedForward,
    Layer,
    Mamba2,
    Mixer,
    MixtureOfExperts,
    NoFeedForward,
    NoMixer,
    ParallelMixers,
)


class DescribedLayer:
    """One layer, by the row of its architecture."""

    def __init__(self, row: Architecture, sizes: Sizes, index: int, window: int | None, shared: bool) -> None:
        self._row = row
        self._sizes = sizes
        self._index = index
        self._window = window
        self._shared = shared

    def layer(self) -> Layer:
        """What the row makes of it."""
        mixer, ffn, norms = self._mixer(), self._feed_forward(), self._row.norms
        if isinstance(ffn, NoFeedForward) or isinstance(mixer, NoMixer):
            norms = min(norms, 1)
        return Layer(mixer=mixer, ffn=ffn, norms=norms, ngrams=mixers.ngrams(self._sizes, self._index))

    def _mixer(self) -> Mixer:
        row, sizes, index = self._row, self._sizes, self._index
        if row.recurrent is None and sizes.array("attention.compress_ratios") is not None:
            return mixers.compressed(sizes, index)
        recurrent = self._recurrent()
        if recurrent is not None and row.recurrent_layers != "beside_attention":
            return recurrent
        if sizes.has("attention.kv_lora_rank"):
            listed = sizes.array("attention.indexer.types")
            indexed = listed is None or (index < len(listed) and bool(listed[index]))
            return mixers.latent(sizes, index, indexed, row.gate, self._window)
        k_eq_v = bool(sizes.get("k_eq_v_layers", layer=index))  # not in GGUF files, where tensors tell
        sinks = row.sinks == "all" or (row.sinks == "windowed" and self._window is not None)
        traits = mixers.Traits(
            bias=row.bias,
            qk_norm=row.qk_norm,
            gate=row.gate,
            sinks=sinks,
            k_eq_v=k_eq_v,
            extra_params=mixers.indexer_params(sizes) if isinstance(self._feed_forward(), MixtureOfExperts) else 0,
        )
        attention = mixers.attention(sizes, index, self._window, self._shared, traits)
        if isinstance(recurrent, Mamba2) and isinstance(attention, Attention):
            return ParallelMixers((attention, recurrent))
        return attention

    def _recurrent(self) -> Mixer | None:
        row, sizes, index = self._row, self._sizes, self._index
        if row.recurrent is None or not self._is_recurrent():
            return None
        if row.recurrent == "mamba1":
            return mixers.mamba1(sizes, inner_norms=row.recurrent_layers != "all")
        if row.recurrent == "mamba2":
            return mixers.mamba2(sizes, norm=row.recurrent_layers != "beside_attention")
        if row.recurrent == "gdn":
            return mixers.delta_net(sizes)
        if row.recurrent == "kda":
            return mixers.kimi_delta(sizes, index, full_rank_gate=row.gate == "full")
        return mixers.short_convolution(sizes) if row.recurrent == "shortconv" else mixers.lightning(sizes, index)

    def _is_recurrent(self) -> bool:
        rule, sizes, index = self._row.recurrent_layers, self._sizes, self._index
        listed = sizes.array("attention.recurrent_layers")
        if listed is not None:
            return index < len(listed) and bool(listed[index])
        if rule == "interval":
            return (index + 1) % max(1, sizes.get("full_attention_interval", 4)) != 0
        if rule == "no_kv_heads":
            without_ffn = sizes.array("feed_forward_length") is None or sizes.get("feed_forward_length", 0, index) == 0
            return sizes.get("attention.head_count_kv", 1, layer=index) == 0 and without_ffn
        return True

    def _feed_forward(self) -> FeedForward:
        row, sizes, index = self._row, self._sizes, self._index
        width = sizes.get("feed_forward_length", layer=index)
        n_experts = sizes.get("expert_count")
        if n_experts and self._has_experts(width):
            return self._experts(n_experts, width)
        return DenseFeedForward(width, gated=row.gated, bias=row.bias_ffn) if width else NoFeedForward()

    def _has_experts(self, width: int) -> bool:
        sizes, index = self._sizes, self._index
        listed = sizes.array("expert_layers")  # not in GGUF files, where tensors tell
        if listed is not None:
            return index < len(listed) and bool(listed[index])
        step = sizes.get("interleave_moe_layer_step") or sizes.get("moe_every_n_layers") or 1
        if sizes.array("feed_forward_length") is not None and not width:
            return False
        return index >= sizes.get("leading_dense_block_count") and (index + 1) % step == 0

    def _experts(self, n_experts: int, width: int) -> FeedForward:
        row, sizes, index = self._row, self._sizes, self._index
        expert = sizes.get("expert_feed_forward_length", width, layer=index)
        beside = row.dense_beside_experts and sizes.has("expert_feed_forward_length")
        n_shared = max(sizes.get("expert_shared_count"), int(row.shared_width_of_expert))
        shared = sizes.get("expert_shared_feed_forward_length", n_shared * expert, layer=index)
        hashed = index < sizes.get("hash_layer_count")
        latent = sizes.get("expert_latent_length") or sizes.get("moe_latent_size") or None
        return MixtureOfExperts(
            n_experts=n_experts,
            experts_per_token=sizes.get("expert_used_count", layer=index),
            moe_intermediate_size=expert,
            gated=row.gated,
            bias=row.bias_experts,
            router_bias=row.router_bias and not hashed,
            n_shared=max(1, n_shared) if shared else 0,
            shared_intermediate_size=shared or None,
            shared_gate=row.shared_gate and shared > 0,
            dense_parallel=width if beside else None,
            expert_hidden=latent,
            latent=latent,
            latent_norm=sizes.get("expert_latent_length"),
            hash_routed=hashed,
            **mixers.routing(sizes),
        )


def outside_described(row: Architecture, sizes: Sizes, hidden: int, n_vocab: int) -> dict[str, Any]:
    """Everything of a shape but its layers. Whether the output matrix is tied, only a tensor list could say."""
    width = sizes.get("embedding_length_per_layer_input")
    ngrams = sizes.array("ple.head_vocab_sizes")
    return {
        "hidden_size": hidden,
        "vocab_size": n_vocab,
        "norm_factor": row.norm_factor,
        "final_norms": row.final_norms,
        "no_lm_head": row.embedding,
        "learned_positions": sizes.get("context_length") if row.learned_positions else 0,
        "per_layer_embedding_params": 0 if ngrams else width * sizes.get("block_count") * n_vocab,
        "lookup_params": width * sum(rows for rows in ngrams or () if isinstance(rows, int)),
        "num_loops": sizes.loops,
        "extra_params": row.norm_factor * hidden if row.normed_embedding else 0,
        "pooling": POOLING.get(sizes.get("pooling_type")),
    }
