"""Layers of a file with a tensor list: the tensors tell what a layer is made of."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from msgspec.structs import replace

from fitcheck.catalog import gguf_mixers as mixers
from fitcheck.catalog.gguf_architectures import Architecture
from fitcheck.catalog.gguf_sizes import POOLING, Sizes
from fitcheck.types import (
    Attention,
    CountedMixer,
    DenseFeedForward,
    FeedForward,
    Layer,
    Mixer,
    MixtureOfExperts,
    NoFeedForward,
    NoMixer,
    ParallelMixers,
    TimeMix,
)

_NORMS = frozenset(
    (
        *("attn_norm", "attn_norm_2", "ffn_norm", "post_attention_norm", "post_ffw_norm", "attn_output_norm"),
        *("layer_output_norm", "post_ffw_norm_1", "pre_ffw_norm_2", "post_ffw_norm_2"),
    )
)
_BESIDE_ATTENTION = ("indexer.", "attn_rel_b.")  # MiniMax-M3, T5
_COUNTED_OUTSIDE = ("token_embd.weight", "output.", "position_embd.", "output_norm.", "per_layer_token_embd.")
NO_PARAMETERS = ("rope_", "layer_output_scale")  # numbers of a file that no model counts as parameters

Dims = dict[str, tuple[int, ...]]  # tensor name without "blk.N." -> dimensions, fastest first


def count_elements(dims: Iterable[tuple[int, ...]]) -> int:
    """All elements of tensors of these dimensions."""
    total = 0
    for each in dims:
        product = 1
        for dim in each:
            product *= dim
        total += product
    return total


class ListedLayer:
    """One layer, by its tensors."""

    def __init__(self, dims: Dims, sizes: Sizes, index: int, window: int | None, shared: bool) -> None:
        self._dims = dims
        self._sizes = sizes
        self._index = index
        self._window = window
        self._shared = shared

    def layer(self) -> Layer:
        """What the tensors make of it; parameters beyond the form are not counted yet."""
        dims = self._dims
        hidden = self._sizes.get("embedding_length")
        norms = sum(1 for name, size in dims.items() if size == (hidden,) and name.removesuffix(".weight") in _NORMS)
        ngrams = mixers.ngrams(self._sizes, self._index)
        behind = bool(self._sizes.get("swin_norm"))
        return Layer(self._mixer(), self._feed_forward(), norms, ngrams=ngrams, norms_behind=behind)

    def _has(self, name: str) -> bool:
        return f"{name}.weight" in self._dims

    def _width(self, name: str, axis: int) -> int:
        """A dimension of a weight, 0 if there is none."""
        dims = self._dims.get(f"{name}.weight", ())
        return dims[axis] if axis < len(dims) else 0

    def _mixer(self) -> Mixer:
        sizes, index = self._sizes, self._index
        if self._has("attn_kv") and sizes.array("attention.compress_ratios") is not None:
            return mixers.compressed(sizes, index)
        if self._has("attn_kv_a_mqa"):
            return mixers.latent(sizes, index, self._has("indexer.attn_k"), self._latent_gate(), self._window)
        if self._has("shortconv.conv"):
            return mixers.short_convolution(sizes)
        if self._has("ssm_conv1d_q"):
            return mixers.kimi_delta(sizes, index, self._has("ssm_g"), self._has("ssm_f"))
        if self._has("ssm_conv1d"):
            return self._state_space()
        if self._has("cross_attn_q"):
            return self._attention_to_encoder()
        if self._has("attn_output"):
            return self._attention()
        return self._counted()

    def _attention_to_encoder(self) -> Mixer:
        """A decoder's layer of T5: attention to its own tokens and to the encoder's."""
        own = self._attention()
        if not isinstance(own, Attention):
            return own
        encoded = self._sizes.get("context_length")
        cross = replace(own, kv_fixed=True, fixed_tokens=encoded, extra_params=0)
        return ParallelMixers((own, cross))

    def _state_space(self) -> Mixer:
        sizes = self._sizes
        if self._has("ssm_ba") or self._has("ssm_alpha") or self._has("ssm_beta"):
            return mixers.delta_net(sizes)
        if self._has("ssm_x") and len(self._dims.get("ssm_a", ())) > 1:
            return mixers.mamba1(sizes, self._has("ssm_dt_norm"))
        mamba = mixers.mamba2(sizes, self._has("ssm_norm"))
        attention = self._attention() if self._has("attn_q") else None
        return ParallelMixers((attention, mamba)) if isinstance(attention, Attention) else mamba

    def _attention(self) -> Mixer:
        sizes, index = self._sizes, self._index
        fused = self._has("attn_qkv")
        gate = self._gate()
        if gate == "lightning":
            return mixers.lightning(sizes, index)
        traits = mixers.Traits(
            bias=self._biases(fused),
            qk_norm=self._qk_norm(),
            gate=gate,
            sinks="attn_sinks.weight" in self._dims,
            k_eq_v=self._has("attn_k") and not self._has("attn_v") and not fused,
            extra_params=count_elements(d for name, d in self._dims.items() if name.startswith(_BESIDE_ATTENTION)),
        )
        return mixers.attention(sizes, index, self._window, self._shared, traits)

    def _biases(self, fused: bool) -> str:
        if fused:
            projections = "qkv" if "attn_qkv.bias" in self._dims else ""
        else:
            projections = "".join(letter for letter in "qkv" if f"attn_{letter}.bias" in self._dims)
        return projections + ("o" if "attn_output.bias" in self._dims else "")

    def _qk_norm(self) -> str | None:
        dims = self._dims.get("attn_q_norm.weight")
        if dims is None or dims[0] == 1:  # Talkie: a gain per head
            return None
        key, _ = mixers.head_dims(self._sizes, self._index, self._window is not None)
        return "per_head" if dims == (key,) else "full"

    def _latent_gate(self) -> str | None:
        width = self._width("attn_gate", 1)
        heads = self._sizes.get("attention.head_count", layer=self._index)
        return None if not width else "per_head" if width == heads else "full"

    def _gate(self) -> str | None:
        heads = self._sizes.get("attention.head_count", layer=self._index)
        key, _ = mixers.head_dims(self._sizes, self._index, self._window is not None)
        if self._width("attn_q", 1) == 2 * heads * key > 0:
            return "q_double"
        width = self._width("attn_gate", 1)
        if width and self._has("attn_qkv"):
            return "lightning"
        return None if not width else "per_head" if width == heads else "full"

    def _counted(self) -> Mixer:
        """A mixer without a form: its parameters, and the most that its cache can take."""
        sizes, index = self._sizes, self._index
        own = [size for name, size in self._dims.items() if not name.startswith(("ffn_", "exp_probs"))]
        if not own:
            return NoMixer()
        kv_heads = sizes.get("attention.head_count_kv", sizes.get("attention.head_count", layer=index), layer=index)
        head = sizes.get("wkv.head_size")
        if head:
            state = 4 * sizes.get("embedding_length") * (sizes.get("token_shift_count", 2) + head)
            params = count_elements(d for name, d in self._dims.items() if name.startswith(("time_mix", "channel_mix")))
            return CountedMixer(params, state_bytes=state, time_mix=self._time_mix(head))
        if all(len(size) == 1 for size in own):
            return NoMixer()
        return CountedMixer(
            params=count_elements(own), kv_bytes_per_token=2.0 * kv_heads * sum(mixers.head_dims(sizes, index, False))
        )

    def _time_mix(self, head: int) -> TimeMix:
        """RWKV: which version it is, and its ranks."""
        version = 7 if self._has("time_mix_k_k") else 6
        kv_width = self._width("time_mix_key", 1)
        return TimeMix(
            version=version,
            head_dim=head,
            decay_rank=self._width("time_mix_w1" if version == 7 else "time_mix_decay_w1", 1),
            mix_rank=self._width("time_mix_w2", 0) if version == 6 else 0,
            rate_rank=self._width("time_mix_a1", 1),
            value_rank=self._width("time_mix_v1", 1),
            gate_rank=self._width("time_mix_g1", 1),
            n_kv_heads=kv_width // head if kv_width < self._width("time_mix_output", 1) else 0,
            bias="".join(
                letter
                for letter, name in (("r", "receptance"), ("k", "key"), ("v", "value"))
                if f"time_mix_{name}.bias" in self._dims
            ),
            norm=self._has("time_mix_ln"),
            bonus=self._has("time_mix_first"),
            fused=self._has("time_mix_lerp_fused"),
            channel_width=self._width("channel_mix_key", 1),
        )

    def _feed_forward(self) -> FeedForward:
        if self._has("ffn_gate_inp") or self._has("ffn_down_exps"):
            return self._experts()
        width = self._width("ffn_down", 0)
        if not width:
            return NoFeedForward()
        return DenseFeedForward(width, gated=self._gated("ffn"), bias="ffn_down.bias" in self._dims)

    def _gated(self, prefix: str, suffix: str = "") -> bool:
        """Gate and up are two tensors, or one of twice the width."""
        if self._has(f"{prefix}_gate{suffix}") or self._has(f"{prefix}_gate_up{suffix}"):
            return True
        return self._width(f"{prefix}_up{suffix}", 1) == 2 * self._width(f"{prefix}_down{suffix}", 0)

    def _experts(self) -> FeedForward:
        sizes, index = self._sizes, self._index
        width = self._width("ffn_down_exps", 0) or self._width("ffn_down.0", 0)
        shared = self._width("ffn_down_shexp", 0)
        latent = self._width("ffn_latent_down", 1) or self._width("ffn_routed_down", 1)
        return MixtureOfExperts(
            n_experts=self._width("ffn_down_exps", 2) or sizes.get("expert_count"),
            experts_per_token=sizes.get("expert_used_count", layer=index),
            moe_intermediate_size=width,
            gated=self._gated("ffn", "_exps") or self._has("ffn_gate.0"),
            bias="ffn_down_exps.bias" in self._dims,
            chunk_experts=self._width("ffn_down_chexps", 2),
            chunk_intermediate_size=self._width("ffn_down_chexps", 0),
            router_bias=any(name.startswith(("exp_probs_b", "ffn_gate_inp.bias")) for name in self._dims),
            n_shared=max(1, sizes.get("expert_shared_count")) if shared else 0,
            shared_intermediate_size=shared or None,
            shared_gate=self._has("ffn_gate_inp_shexp"),
            dense_parallel=self._width("ffn_down", 0) or None,
            expert_hidden=latent or None,
            latent=latent or None,
            latent_norm=self._width("ffn_routed_norm", 0),
            hash_routed=self._has("ffn_gate_tid2eid"),
            **mixers.routing(sizes),
        )


def outside_listed(
    outside: Dims, blocks: list[Dims], row: Architecture, sizes: Sizes, hidden: int, n_vocab: int
) -> dict[str, Any]:
    """Everything of a shape but its layers."""
    embedding = outside.get("token_embd.weight", ())
    table = count_elements([outside.get("per_layer_token_embd.weight", (0,))])
    ngrams = sizes.array("ple.layers")
    positions = outside.get("position_embd.weight", ())
    pooled = row.embedding or sizes.has("pooling_type")
    final = "output_norm" if "output_norm.weight" in outside else "token_embd_norm"  # encoders, LFM2
    counted = (*_COUNTED_OUTSIDE, final)
    rest = [size for name, size in outside.items() if not name.startswith((*counted, *NO_PARAMETERS))]
    biased = any("attn_norm.bias" in block or "attn_output_norm.bias" in block for block in blocks)
    return {
        "hidden_size": hidden,
        "vocab_size": embedding[1] if len(embedding) == 2 else n_vocab,
        "tie_word_embeddings": "output.weight" not in outside and not pooled,
        "norm_factor": 2 if biased or f"{final}.bias" in outside else 1,
        "final_norms": int(f"{final}.weight" in outside),
        "no_lm_head": "output.weight" not in outside and pooled,
        "lm_head_bias": "output.bias" in outside,
        "learned_positions": positions[1] if len(positions) == 2 else 0,
        "per_layer_embedding_params": 0 if ngrams else table,
        "lookup_params": table if ngrams else 0,
        "extra_params": count_elements(rest),
        "num_loops": sizes.loops,
        "pooling": POOLING.get(sizes.get("pooling_type")),
    }
